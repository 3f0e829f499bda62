"""``explain`` knows every error code that the product can show, and none that it can't."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hsm_keys
from hsm_keys.cli.explanations import KALSHI, OURS, PROXY, find
from hsm_keys.errors import HsmKeysError
from tests.support.canaries import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(hsm_keys.__file__).parent
EVERY = {**KALSHI, **PROXY, **OURS}

OF_CLI = {"usage": 2, "system": 1, "unexpected": 1, "interrupted": 130}
"""What the command line says itself, without an exception of ours: the test below reads them in its source."""

REFUSING = {"refusal", "Refused", "Stop", "_denied", "_deny", "_unreached", "CapDenial", "CapError"}
"""What makes the proxy's refusals: the code is the first text among the arguments."""

SANDBOX_REFUSING = {"nested", "flat", "OrderRefused", "WireError"}

OF_SANDBOX_ALONE = {"malformed"}
"""The sandbox's own word for its records of a body that Kalshi answers without a code."""


def _calls(folder: Path) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                yield name, node


def _texts(nodes: list[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _exit_codes() -> dict[str, set[int]]:
    for module in pkgutil.walk_packages(hsm_keys.__path__, "hsm_keys."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[str, set[int]] = {code: {exit_code} for code, exit_code in OF_CLI.items()}
    classes: list[type[HsmKeysError]] = [HsmKeysError]
    for kind in classes:
        if kind.__module__.startswith("hsm_keys."):
            found.setdefault(kind.code, set()).add(kind.exit_code)
        classes += kind.__subclasses__()
    return found


def _refusals_by_rule() -> Iterator[str]:
    """Give the codes that a function returns beside its words, where its result is ``tuple[str, str] | None``."""
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef) or function.returns is None:
                continue
            if ast.unparse(function.returns) != "tuple[str, str] | None":
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                    first = node.value.elts[0]
                    if isinstance(first, ast.JoinedStr):
                        first = first.values[0]
                    yield from _texts([first])


def _rules_by_rate() -> list[str]:
    """Give the rules that stand beside a time to wait."""
    tree = ast.parse((ROOT / "proxy/judge.py").read_text(encoding="utf-8"))
    pairs = [
        node.value.elts
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "(rule, wait)"
        and isinstance(node.value, ast.Tuple)
    ]
    return [text for rule, _ in pairs for text in _texts([rule])]


def _proxy_codes() -> set[str]:
    from hsm_keys.proxy.routes import _NAMED

    made = {texts[0] for name, call in _calls(ROOT / "proxy") if name in REFUSING and (texts := _texts(call.args))}
    rules = {*_refusals_by_rule(), *_rules_by_rate(), *(named[0] for named in _NAMED.values())}
    assert len(made) > 10
    assert {"deny ", "max_count", "tokens per second", "api_keys"} <= rules
    return {code.partition(" ")[0] for code in made | rules}


def _sandbox_codes() -> set[str]:
    found = set()
    for name, call in _calls(ROOT / "sandbox"):
        if name in SANDBOX_REFUSING:
            found |= {*_texts(call.args)[:1], *_texts([word.value for word in call.keywords if word.arg == "details"])}
    assert len(found) > 10
    return found - OF_SANDBOX_ALONE


def test_every_error_of_ours_is_explained_with_its_exit_code_and_none_is_stale() -> None:
    assert {code: {explained.exit_code} for code, explained in OURS.items()} == _exit_codes()


def test_the_command_line_has_no_other_code_of_its_own() -> None:
    told = {text for name, call in _calls(ROOT / "cli") if name == "_tell" for text in _texts(call.args)[:1]}
    assert told == set(OF_CLI)


def test_every_refusal_of_the_proxy_is_explained_and_none_is_stale() -> None:
    assert _proxy_codes() - set(OURS) == set(PROXY)


def test_every_code_of_kalshis_that_the_sandbox_sends_is_explained_and_none_is_stale() -> None:
    assert _sandbox_codes() == set(KALSHI)


@pytest.mark.parametrize("code", EVERY)
def test_an_explanation_has_cause_remedy_and_an_example_of_a_line(code: str) -> None:
    explained = EVERY[code]
    assert explained.cause.endswith(".")
    assert explained.remedy.endswith(".")
    assert explained.example
    assert "\n" not in explained.example
    ran = run("explain", code)
    assert ran.code == 0
    for text in (code, explained.cause, explained.remedy, explained.example):
        assert text in ran.text


def test_without_a_code_all_are_listed() -> None:
    lines = run("explain").text.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == [*OURS, *PROXY, *KALSHI]
    listed = json.loads(run("explain", "--output", "json").text)["codes"]
    assert [one["code"] for one in listed] == [*OURS, *PROXY, *KALSHI]
    assert set(listed[0]) == {"code", "from", "exit_code", "cause", "remedy", "example"}


def test_a_code_is_found_in_any_case_and_with_what_a_rule_adds() -> None:
    assert (find("KALSHI_TIER") or [""])[0] == "kalshi_tier"
    assert (find("incorrect_api_key_signature") or [""])[0] == "INCORRECT_API_KEY_SIGNATURE"
    assert run("explain", "deny", "GET", "/portfolio/settlements").text.startswith("deny\n")
    assert json.loads(run("explain", "tokens per second", "--output", "json").text)["code"] == "tokens"
    assert json.loads(run("explain", "pin_locked", "--output", "json").text)["exit_code"] == 4


def test_an_unknown_code_is_a_usage_error_that_names_those_near_it() -> None:
    ran = run("explain", "kalshi_teir", "--output", "json")
    assert ran.code == 2
    assert "kalshi_tier" in json.loads(ran.text)["error"]["hint"]
    assert "lists all codes" in run("explain", "xyzzy").text


def test_an_error_in_words_has_a_code_that_can_be_explained() -> None:
    for arguments in (("explain", "nope"), ("list", "--module", "/nope.so"), ("nonsense",), ("show",)):
        ran = run(*arguments)
        (line,) = [line for line in ran.text.splitlines() if line.startswith("error: ")]
        code = line.rpartition("[")[2].removesuffix("]")
        assert run("explain", code).text.startswith(code)
