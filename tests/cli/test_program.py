"""The program as a whole: help, start-up, errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module

import click
import pytest

import hsm_keys
from hsm_keys.cli import _COMMANDS, main, program
from hsm_keys.cli import output as output_module
from tests.support.cli import failed_json, run_cli

HEAVY = ("boto3", "httpx2", "pydantic", "pkcs11", "cryptography", "aiohttp", "stamina")


def commands() -> list[tuple[str, click.Command]]:
    context = click.Context(program)
    found = [(name, program.get_command(context, name)) for name in program.list_commands(context)]
    return [(name, command) for name, command in found if command is not None]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["enroll", "--help"], ["request", "--help"], ["--version"], ["sandbox", "-h"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from hsm_keys.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as exit: assert exit.code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"
    assert done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, hsm_keys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_everything_in_all_can_be_imported_and_nothing_else_is_offered() -> None:
    for name in hsm_keys.__all__:
        assert getattr(hsm_keys, name) is not None
    assert dir(hsm_keys) == sorted(hsm_keys.__all__)
    assert set(hsm_keys._HOMES) == set(hsm_keys.__all__) - {"__version__"}
    for name, home in hsm_keys._HOMES.items():
        assert getattr(import_module(home), name) is getattr(hsm_keys, name)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"hsm-keys {hsm_keys.__version__}\n"


def test_the_table_of_short_helps_names_every_command_as_it_is() -> None:
    assert [name for name, _ in commands()] == list(_COMMANDS)
    for name, command in commands():
        assert command.name == name


@pytest.mark.parametrize("name", ["", *_COMMANDS])
def test_every_help_has_an_example(name: str) -> None:
    done = run_cli(*name.split(), "--help")
    assert done.returncode == 0
    assert re.search(rf"^Examples?:\n  (?:\w+=\S+ )*hsm-keys {name}", done.stdout, re.MULTILINE)


def test_the_shared_options_stand_before_and_after_every_command() -> None:
    shared = {"stores", "slot", "token", "module", "pin_file", "kms", "region", "profile", "env", "base_url", "output"}
    for name, command in commands():
        missing = shared - {param.name for param in command.params}
        assert not missing or name in {"audit", "sandbox", "kms", "vault"}, (name, missing)
    assert shared <= {param.name for param in program.params}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["enrol"], "enroll"),
        (["enroll"], "--name"),
        (["enroll", "--name", "x", "--key-type", "dsa"], "dsa"),
        (["sign", "GET"], "PATH"),
        (["--slot", "one", "list"], "one"),
        (["list", "--slot", "0", "--token", "kalshi"], "--slot and --token"),
        (["list", "--token", "\udcff"], "LC_ALL"),
        (["sign", "GET", "/a b", "--name", "x"], "/a b"),
        (["sign", "GET", "relative", "--name", "x"], "is not a path"),
        (["sign", "G T", "/x", "--name", "x"], "G T"),
        (["sign", "GET", "/x\r\ny", "--name", "x"], "not a path"),
        (["sign", "GET", "/x/../y", "--name", "x"], "'..'"),
        (["sign", "GET", "/x?a=b c", "--name", "x"], "%20"),
        (["show", "x", "--api-key-id", "a b"], "API key id"),
        (["list", "--store", "kalshi"], "URI"),
        (["list", "--store", "pkcs11:tokn=x"], "tokn"),
        (["list", "--base-url", "https://kalshi.example", "--env", "demo"], "--env and --base-url"),
        (["list", "--base-url", "http://kalshi.example/trade-api/v2"], "https"),
    ],
)
def test_a_bad_command_line_exits_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    error = failed_json(2, *arguments)
    assert error["code"] == "usage"
    assert said in error["message"] + error["hint"]


def test_a_pin_on_the_command_line_is_refused_and_not_repeated() -> None:
    done = run_cli("list", "--store", "pkcs11:token=x?pin-value=canary-1234", "--output", "json")
    assert done.returncode == 2
    assert "canary" not in done.stdout + done.stderr
    assert "--pin-file" in json.loads(done.stderr)["error"]["hint"]


def test_what_nobody_foresaw_is_one_line_without_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode(**_: object) -> None:
        raise RuntimeError("canary-secret")

    monkeypatch.setattr(program, "main", explode)
    with pytest.raises(SystemExit) as caught:
        main(["list"])
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "canary-secret" not in shown.err + shown.out
    assert "RuntimeError at test_program.py:" in shown.err


@pytest.mark.parametrize("how", [KeyboardInterrupt, click.Abort])
def test_an_interrupted_command_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: type[BaseException]
) -> None:
    def interrupt(**_: object) -> None:
        raise how

    monkeypatch.setattr(program, "main", interrupt)
    for arguments, said in ((["list"], "interrupted; run"), (["list", "--output", "json"], '"code": "interrupted"')):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 130
        shown = capsys.readouterr()
        assert shown.out == ""
        assert said in shown.err
    assert set(json.loads(shown.err)["error"]) == {"code", "message", "hint"}


@pytest.mark.parametrize("name", [[], ["kms"], ["audit"]])
def test_without_a_command_the_help_is_shown_and_is_no_error_message(name: list[str]) -> None:
    done = run_cli(*name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: hsm-keys")
    done = run_cli("--output", "json", *name)
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["message"] == "Missing command."


def test_a_reader_that_has_gone_is_no_error_of_ours() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m hsm_keys --help | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "expected"),
    [(["--output", "json", "list"], True), (["list", "--output=json"], True), (["list", "--output", "table"], False)],
)
def test_json_errors_are_known_before_the_command_line_is_parsed(argv: list[str], *, expected: bool) -> None:
    assert output_module.wants_json(argv) is expected
