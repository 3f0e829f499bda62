"""What people type before they read the help: a name with or without ``--name``, and words that are no commands."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
from typing import TYPE_CHECKING

import click
import pytest

from hsm_keys import __version__
from hsm_keys.cli.custody import _colour_of
from hsm_keys.cli.keys import _STATE_COLOURS
from hsm_keys.cli.output import print_table, print_verdict
from tests.support.canaries import commands, run
from tests.support.cli import ROOT, run_cli, run_json

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer

COMMANDS = dict(commands())
OPTION_ALONE = {("proxy",), ("run",)}
"""A group, whose words are commands, and a command whose words are a program's."""


def test_wherever_a_command_takes_a_name_it_takes_it_in_both_ways() -> None:
    for words, command in COMMANDS.items():
        names = {param.name for param in command.params if isinstance(param, click.Argument)}
        options = {param.name for param in command.params if "--name" in param.opts}
        assert "name" not in names, words
        if options and words not in OPTION_ALONE:
            assert ("name_argument" in names, options) == (True, {"name_option"}), words


@pytest.mark.softhsm
def test_the_two_ways_are_one(pin: str, sandbox: SandboxServer) -> None:
    prod = run_json("enroll", "prod")
    assert prod["name"] == "prod"
    for words in (["show", "prod"], ["show", "--name", "prod"], ["show", "prod", "--name", "prod"]):
        assert run_json(*words)["uri"] == prod["uri"]
    for words in (["sign", "GET", "/portfolio/balance", "prod"], ["request", "GET", "/portfolio/balance", "prod"]):
        assert run_json(*words)
    assert run_json("revoke", "--name", "prod", "--yes", "--force")["api_key_id"] == prod["api_key_id"]


def test_two_names_or_none_are_usage_errors() -> None:
    two = run("show", "prod", "--name", "other")
    assert two.code == 2
    assert "NAME and --name say two names" in two.text
    none = run("sign", "GET", "/portfolio/balance")
    assert none.code == 2
    assert "give NAME or --name" in none.text
    assert "hsm-keys sign --help" in none.text


def test_what_is_missing_is_told_in_one_line() -> None:
    for command in ("kms", "vault"):
        missing = run(command, "policy")
        assert missing.code == 2
        choices = "sign, enroll, generate, rotate, revoke"
        assert missing.text.splitlines()[0] == f"error: Missing option '--for': give one of {choices}. [usage]"


_TAKE_AN_EMPTY_TEXT = {"--token", "--json", "--body"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_an_option_with_an_empty_text_is_not_as_if_it_were_not_given(words: tuple[str, ...]) -> None:
    texts = [param for param in COMMANDS[words].params if isinstance(param, click.Option) and not param.is_flag]
    for option in {param.opts[-1] for param in texts} - _TAKE_AN_EMPTY_TEXT:
        for given in ([option, ""], [f"{option}="]):
            result = run(*words, *given)
            assert result.code == 2, result.text
            assert any(word in result.text for word in ("empty text", "Missing", "is not a whole number")), result.text


@pytest.mark.parametrize("words", [["init", "--yes"], ["show"], ["public-key"], ["bench"], ["revoke", "--yes"]])
def test_a_name_that_is_an_empty_text_names_no_key(words: list[str]) -> None:
    result = run(*words, "")
    assert result.code == 2
    assert "is an empty text" in result.text


@pytest.mark.softhsm
def test_a_program_of_run_may_have_empty_arguments(pin: str, sandbox: SandboxServer) -> None:
    run_json("enroll", "prod")
    said = run_cli("run", "--name", "prod", "--", "sh", "-c", 'printf "[%s][%s]" "$1" "$2"', "x", "", "--store=")
    assert said.stdout == "[][--store=]"


def test_the_proxy_takes_its_key_as_the_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", "pkcs11:token=none")
    assert "[store_not_found]" in run("proxy", "prod").text
    slip = run("proxy", "freze")
    assert (slip.code, "did you mean 'freeze'" in slip.text) == (2, True)


def test_help_and_version_are_answered() -> None:
    assert run("help").text == run("--help").text
    assert run("help", "enroll").text == run("enroll", "--help").text
    assert run("help", "proxy", "freeze").text == run("proxy", "freeze", "--help").text
    assert run("help", "enrol").code == 2
    assert run("version").text == run("--version").text == f"hsm-keys {__version__}\n"
    assert json.loads(run("version", "--output", "json").text) == {"version": __version__}


@pytest.mark.parametrize("words", [(), ("bot.pem",), ("--name", "prod", "bot.pem"), ("--pem", "x", "--output", "json")])
def test_import_says_that_keys_are_not_imported_and_what_to_do(words: tuple[str, ...]) -> None:
    ran = run("import", *words)
    assert ran.code == 2
    assert "can't be imported" in ran.text
    assert "hsm-keys migrate prod" in ran.text


def test_a_table_cuts_no_id(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    ids = [f"3f8a4f1e-0c53-4b5e-9d43-{number:012}" for number in range(3)]
    print_table(["NAME", "API KEY ID", "WHERE"], [["n" * 200, one, "w" * 300] for one in ids])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(one in line for one, line in zip(ids, lines[1:], strict=True))


def _on_a_terminal(**environment: str) -> bytes:
    """Return what an error shows on a terminal."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(ROOT)
        clean = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
        words = [sys.executable, "-m", "hsm_keys", "explain", "nope"]
        os.execve(sys.executable, words, clean | environment)  # noqa: S606 - no shell is the point
    shown = b""
    try:
        while piece := os.read(terminal, 1024):
            shown += piece
    except OSError:  # the terminal ends with its program
        pass
    os.close(terminal)
    os.waitpid(child, 0)
    return shown


@pytest.mark.program
@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(environment: dict[str, str], *, coloured: bool) -> None:
    shown = _on_a_terminal(**environment)
    assert b"there is no error code" in shown
    assert (b"\x1b[" in shown) is coloured


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variable", "value", "coloured"),
    [("TERM", "xterm", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)],
)
def test_a_verdict_has_a_colour_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, *, coloured: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    for stdout, shown in ((_Terminal(), coloured), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", stdout)
        print_verdict("problem ", " pin: \x1b[2J", colour="red")
        line = "\x1b[31m\x1b[1mproblem \x1b[0m" if shown else "problem "
        assert stdout.getvalue() == line + " pin: \\x1b[2J\n", "what isn't ours can't steer the terminal"
        stdout.truncate(0)
        stdout.seek(0)
        print_table(("STATE", "X"), [("gone", "\x1b[2J")], verdicts=(0, {"gone": "red"}.get))
        gone = "\x1b[31m\x1b[1mgone\x1b[0m" if shown else "gone"
        assert stdout.getvalue() == f"STATE  X\n{gone}   \\x1b[2J\n"


def test_states_and_verdicts_of_tables_have_colours() -> None:
    assert _STATE_COLOURS.keys() == {"registered", "minted", "elsewhere", "gone", "unusable"}
    assert [_colour_of(verdict) for verdict in ("in custody", "imported (accepted)", "imported")] == [
        "green",
        "yellow",
        "red",
    ]
