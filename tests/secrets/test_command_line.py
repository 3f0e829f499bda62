"""A secret in the place of any other value of the command line is printed nowhere."""

from __future__ import annotations

from typing import Any

import click
import pytest

from hsm_keys.cli.options import _remember
from tests.support.canaries import CANARIES, commands, pieces, run

pytestmark = pytest.mark.softhsm

NAMES = {
    "name",
    "name_argument",
    "name_option",
    "auth",
    "token",
    "profile",
    "word",
    "client",
    "region",
    "api_key_id",
    "html_path",
}
"""What may be shown if it could be a name, an id or a new file: people have to see what they named."""

VALUES = {
    "name": "prod",
    "name_option": "prod",
    "method": "GET",
    "path": "/portfolio/balance",
    "api_key_id": "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d",
    "target": "KalshiNR",
    "seq": "1",
}
"""What stands in the place of required values; for a Choice it is the first, for any other a word."""

COMMANDS = dict(commands())
WITH_SHARED_OPTIONS = {("list",), ("doctor",), ("kms", "policy"), ("proxy",), ("audit", "verify")}
"""The shared options are the same for all commands: a few stand for them."""


def _cases() -> list[Any]:
    return [
        pytest.param(words, param, id=f"{' '.join(words)} {param.name}")
        for words, command in COMMANDS.items()
        for param in command.params
        if not (isinstance(param, click.Option) and param.is_flag)
        and (param.callback is not _remember or words in WITH_SHARED_OPTIONS)
    ]


@pytest.fixture(autouse=True)
def _nothing_that_takes_long(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["words"][0] in {"bench", "demo"}:
        monkeypatch.setenv("HSM_KEYS_STORE", "pkcs11:token=none")
    for served in ("hsm_keys.proxy.run.run", "hsm_keys.sandbox.run_forever"):
        monkeypatch.setattr(served, lambda *_, **__: None)


def _filled(command: click.Command, param: click.Parameter, value: str, *, named: str) -> list[str]:
    """Return the command's words with a value, all that is required, and the option that is called ``named``."""
    words: list[str] = []
    for other in command.params:
        if other is param or other.required or other.name == named:
            given = value if other is param else _benign(other)
            words += [other.opts[0], given] if isinstance(other, click.Option) else [given]
    return words


def _benign(param: click.Parameter) -> str:
    if isinstance(param.type, click.Choice):
        return str(param.type.choices[0])
    return VALUES.get(param.name or "", "word")


@pytest.mark.parametrize(("words", "param"), _cases())
def test_no_command_repeats_a_secret_in_the_place_of_a_value(words: tuple[str, ...], param: click.Parameter) -> None:
    named = "name_option" if param.name not in {"name_argument", "name_option"} else ""
    has_name = any(other.name == named for other in COMMANDS[words].params)
    for what, canary in CANARIES.items():
        if param.name in NAMES and what.startswith("a PIN"):
            continue
        _check(what, *words, *_filled(COMMANDS[words], param, canary, named=named))
        if has_name:  # which some values exclude
            _check(what, *words, *_filled(COMMANDS[words], param, canary, named=""))
    filled = _filled(COMMANDS[words], param, CANARIES["a private key"], named=named)
    _check("a private key", *words, *filled, "--output", "json")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_repeats_a_secret_that_stands_where_nothing_belongs(words: tuple[str, ...]) -> None:
    for what in ("a private key", "a private key on one line", "the base64 of a private key", "a URI with a PIN"):
        _check(what, *words, CANARIES[what])
        _check(what, *words, "a", "b", "c", "d", CANARIES[what])
        _check(what, CANARIES[what], *words)
    for what in ("a PIN", "a PIN of digits"):
        _check(what, CANARIES[what], *words)
        _check(what, *words, f"--{CANARIES[what]}")
        _check(what, *words, f"-{CANARIES[what]}")


def _check(what: str, *arguments: str) -> None:
    ran = run(*arguments)
    assert not [piece for piece in pieces(CANARIES[what]) if piece in ran.text], f"{what}: {ran.text}"
    assert "nobody foresaw" not in ran.text, f"{what}: {ran.text}"
