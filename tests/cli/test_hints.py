"""Commands that messages and hints name exist, and have the options that go with them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tests.support.canaries import commands

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[2] / "hsm_keys"
_CALL = re.compile(r"\bhsm-keys((?: --[a-z-]+)*(?: [a-z][a-z-]*)+)([^`;,()]*)")
_OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]+")
COMMANDS = dict(commands())


def _texts() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "hsm-keys" not in source:  # each worker reads all of it before its first test
            continue
        tree = ast.parse(source)
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield f"{path.name}:{node.lineno}", "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                yield f"{path.name}:{node.lineno}", node.value


def _calls() -> list[tuple[str, tuple[str, ...], set[str]]]:
    found = []
    for place, text in _texts():
        for match in _CALL.finditer(text):
            words = [word for word in match[1].split() if not word.startswith("--")]
            known = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in COMMANDS), None)
            if known is not None:
                found.append((place, known, set(_OPTION.findall(f"{match[1]} {match[2]}"))))
    return found


CALLS = _calls()


def test_there_are_hints_to_look_at() -> None:
    assert len([options for _, _, options in CALLS if options]) > 20


@pytest.mark.parametrize(("place", "words", "options"), CALLS, ids=[f"{place} {words[0]}" for place, words, _ in CALLS])
def test_a_command_that_a_text_names_has_the_options(place: str, words: tuple[str, ...], options: set[str]) -> None:
    has = {opt for param in COMMANDS[words].params if isinstance(param, click.Option) for opt in param.opts}
    assert options <= has | {"--help"}, place
