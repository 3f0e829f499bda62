"""docs/architecture.md names the parts that there are, in the order in which they import, and files that exist."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "hsm_keys"
PAGE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ABOVE_ALL_AND_BELOW_ALL: Final = {"__init__", "__main__", "_version"}


def rows() -> list[set[str]]:
    """Return the parts that each row of the table names."""
    lines = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    return [{name.removesuffix(".py").rstrip("/") for name in re.findall(r"`(\S+?)`", line)} for line in lines]


def test_the_table_has_every_part_once() -> None:
    parts = [path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert sorted(chain.from_iterable(rows())) == sorted(set(parts) - ABOVE_ALL_AND_BELOW_ALL)


def test_rows_are_the_layers_that_are_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    checked = [set(re.findall(r"\w+", layer)) - ABOVE_ALL_AND_BELOW_ALL for layer in layers]
    assert rows() == [layer for layer in checked if layer]


def test_what_it_points_to_is_there() -> None:
    named = re.findall(r"`(?:hsm_keys/)?([a-z_0-9/]+(?:/|\.py))`", PAGE)
    assert len(named) > 20
    back_ends = [name for name in named if (PACKAGE / "stores" / name).is_dir()]
    assert set(back_ends) == {"pkcs11/", "awskms/", "vault/", "isolated/"}
    assert [name for name in named if name not in back_ends and not (PACKAGE / name).exists()] == []
