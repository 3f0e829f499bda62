"""What the shell proposes: names of keys and scopes, with no PIN and nothing sent, and never for long."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.kalshi.api_keys import SCOPES
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.pkcs11.public_names import names_without_login
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support.canaries import commands
from tests.support.cli import ROOT, run_json
from tests.support.oddkeys import make_twin

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

COMMANDS = dict(commands())


def proposed(line: str, **environment: str) -> list[str]:
    """Return what is proposed for the last word of a command line."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "hsm_keys"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_HSM_KEYS_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return [one.removeprefix("plain,") for one in done.stdout.splitlines() if one]


def test_every_name_of_a_key_and_every_scope_is_completed() -> None:
    for words, command in COMMANDS.items():
        for param in command.params:
            names_a_key = param.name in {"name_argument", "name_option", "auth"}
            if names_a_key or param.name in {"scopes", "profile"} or (words == ("explain",) and param.name == "code"):
                assert param._custom_shell_complete is not None, (words, param.name)


@pytest.mark.program
def test_scopes() -> None:
    assert proposed("hsm-keys enroll --scope ") == list(SCOPES)
    assert proposed("hsm-keys generate ci --scope write::t") == ["write::trade", "write::transfer"]


@pytest.mark.program
def test_bash_itself_completes_what_has_colons() -> None:
    """Bash breaks words at colons unless it is told otherwise; a terminal shows what becomes of them."""
    program = f"{sys.executable} -m hsm_keys"
    prepare = f"""
bind 'set bell-style none'
hsm-keys() {{ {program} "$@"; }}
eval "$(_HSM_KEYS_COMPLETE=bash_source {program})"
PS1='ready> '
"""
    typed = {
        "generate ci --scope write::trad\t": "generate ci --scope write::trade ",
        "enroll --scope=read::por\t": "enroll --scope=read::portfolio_balance ",
        "enroll --scope rea\t": "enroll --scope read",
    }
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.environ.update(PYTHONPATH=str(ROOT), TERM="dumb", COLUMNS="200")
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])  # noqa: S606
    shown = b""

    def until(text: str) -> None:
        nonlocal shown
        while text.encode() not in shown:
            shown += os.read(terminal, 4096)

    os.write(terminal, prepare.encode())
    until("ready> ")
    for keys, line in typed.items():
        shown = b""
        os.write(terminal, f"hsm-keys {keys}".encode())
        until(f"hsm-keys {line}")
        os.write(terminal, b"#\x15:\n")  # a key behind it has come, too: the line is given up
        until(f"hsm-keys {line}#")
        until("ready> ")
    os.write(terminal, b"exit\n")
    os.close(terminal)
    os.waitpid(child, 0)


@pytest.mark.softhsm
@pytest.mark.program
def test_names_need_no_pin(pin: str, token: TestToken, sandbox: SandboxServer, tmp_path: Path) -> None:
    for name in ("prod", "prod-b", "other"):
        run_json("enroll", "--name", name)
    with open_store(token.uri) as store:
        make_twin(store, "foreign", b"foreign")
    pipe = tmp_path / "pin"
    os.mkfifo(pipe)  # who reads it waits for ever
    nowhere = {"HSM_KEYS_PIN_FILE": str(pipe), "KALSHI_API_BASE_URL": "http://127.0.0.1:9/trade-api/v2"}
    assert proposed("hsm-keys show ", **nowhere) == ["other", "prod", "prod-b"]
    assert proposed("hsm-keys sign GET /x --name p", **nowhere) == ["prod", "prod-b"]
    assert proposed("hsm-keys list --auth o", **nowhere) in ([], ["other"])
    assert proposed(f"hsm-keys --token kalshi --module {token.module} show o", **nowhere) == ["other"]


@pytest.mark.program
@pytest.mark.parametrize(
    "uri", ["pkcs11:token=none?module-path=/none.so", "awskms:///?region=us-east-1", "vault:///transit", "nonsense"]
)
def test_where_names_cannot_be_had_none_are_proposed(uri: str) -> None:
    nowhere = {"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:9", "VAULT_ADDR": "http://127.0.0.1:9"}
    assert proposed("hsm-keys show ", HSM_KEYS_STORE=uri, **nowhere) == []


@pytest.mark.program
def test_a_module_that_hangs_is_left(tmp_path: Path) -> None:
    source, module = tmp_path / "hangs.c", tmp_path / "hangs.so"
    source.write_text("#include <unistd.h>\nint C_GetFunctionList(void *list) { for (;;) pause(); }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", module, source], check=True)
    assert proposed("hsm-keys show ", HSM_KEYS_STORE=f"pkcs11:token=kalshi?module-path={module}") == []


@pytest.mark.softhsm
def test_names_that_a_workflow_uses_are_left_out(token: TestToken) -> None:
    with open_store(token.uri) as store:
        for name in ("prod", "prod+next"):
            store.generate(name, KeyType.ED25519)
    assert names_without_login(Pkcs11Uri.parse(token.uri_without_pin)) == ["prod"]


def test_codes_and_profiles_are_completed(tmp_path: Path) -> None:
    assert proposed("hsm-keys explain kalshi_ti") == ["kalshi_tier"]
    assert proposed("hsm-keys list --profile p", XDG_CONFIG_HOME=str(tmp_path)) == []
    file = tmp_path / "hsm-keys" / "config.toml"
    file.parent.mkdir()
    file.write_text('[profiles.prod]\nenv = "prod"\n[profiles.paper]\nenv = "demo"\n[profiles.demo]\nenv = "demo"\n')
    assert sorted(proposed("hsm-keys list --profile p", XDG_CONFIG_HOME=str(tmp_path))) == ["paper", "prod"]
    file.write_text("nonsense")
    assert proposed("hsm-keys list --profile p", XDG_CONFIG_HOME=str(tmp_path)) == []
