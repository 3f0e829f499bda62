"""What needs no SDK: other objects are refused, and the docs keep what they promise."""

from __future__ import annotations

import re

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.integrations.versions import KNOWN, sdk_of
from tests.support.sdks import DOCS, OPENING, RECIPES, wanted


def test_another_client_is_refused_with_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"builtins\.object is no client of.*pip install kalshi-python-sync"):
        sdk_of(object())


def test_a_recipe_has_three_lines_at_most() -> None:
    assert len(RECIPES) == 9
    for name, code in RECIPES.items():
        lines = [line for line in code.splitlines() if line.strip()]
        assert name == OPENING or len(lines) <= 3, name


def test_every_python_block_is_a_recipe_that_is_run() -> None:
    assert DOCS.count("```python") == len(RECIPES)


def test_the_pinned_versions_are_in_the_table_and_in_the_docs() -> None:
    oldest_and_newest = {".".join(map(str, end)) for sdk in KNOWN for end in (sdk.oldest, sdk.newest)}
    for name, version in wanted().items():
        assert re.search(rf"{name}\S* \|.*{re.escape(version)}", DOCS)
        if name.startswith("kalshi-python"):
            assert version in oldest_and_newest
