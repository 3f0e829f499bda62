"""What two published clients can send, read out of their installed code without running it.

kalshi-python-sync is generated: each operation is a call with ``method`` and ``resource_path``. kalshi-sdk is written
by hand: its resources call helpers such as ``self._get``, whose names say the method and whose first argument is the
path. What can't be read raises, so that nothing is left out unseen.
"""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SENDS = re.compile(r"_(get|list|list_all|post|put|patch|delete)(_\w+)?")
_METHODS = {"list": "GET", "list_all": "GET"}
_OTHER_HELPERS = {"_require_auth", "_load_json"}

Operations = set[tuple[str, str]]


def operations_of_kalshi_python_sync() -> Operations:
    """Return methods and path templates; parameters are ``{}``."""
    found = set()
    for tree in trees("kalshi_python_sync", "api"):
        for call in _calls(tree):
            said = {keyword.arg: keyword.value for keyword in call.keywords}
            if "resource_path" in said:
                found.add((_text(said["method"], {}), bare(_text(said["resource_path"], {}))))
    return found


def operations_of_kalshi_sdk() -> Operations:
    """Return methods and path templates, those of perpetual futures too; parameters are ``{}``.

    ``kalshi.perps.klear`` speaks to the clearing house, with a login of its own.
    """
    found = set()
    for tree in (*trees("kalshi", "resources"), *trees("kalshi", "perps", "resources")):
        constants = _constants(tree)
        for call in _calls(tree):
            helper = _helper(call)
            if helper is None or helper in _OTHER_HELPERS:
                continue
            match = _SENDS.fullmatch(helper)
            if match is None:
                raise AssertionError(f"kalshi-sdk has a helper that isn't known here: {helper}")
            method = _METHODS.get(match[1], match[1].upper())
            found.add((method, bare(_text(call.args[0], constants))))
    return found


def bare(template: str) -> str:
    """Return a path template without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", template)


def trees(package: str, *folders: str) -> Iterator[ast.Module]:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    for path in sorted(Path(spec.origin).parent.joinpath(*folders).rglob("*.py")):
        if path.name != "_base.py":
            yield ast.parse(path.read_text(encoding="utf-8"))


def _calls(tree: ast.Module) -> Iterable[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _helper(call: ast.Call) -> str | None:
    """Return the name of the private helper of ``self`` that is called; None if it is another call."""
    name = call.func
    if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id == "self":
        return name.attr if name.attr.startswith("_") else None
    return None


def _constants(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr, constants: dict[str, str]) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name) if name in constants:
            return constants[name]
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
    raise AssertionError(f"no path can be read out of {ast.unparse(node)}")
