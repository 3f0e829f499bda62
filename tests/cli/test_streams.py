"""Standard streams that are closed, unread or full, and a module that writes to the command's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyType, open_store
from tests.support.cli import ROOT

if TYPE_CHECKING:
    from tests.support.shim import Shim
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]


@pytest.fixture
def store(token: TestToken) -> str:
    with open_store(token.uri) as opened:
        opened.generate("prod", KeyType.ED25519)
    return token.uri


def shell(line: str, store: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which ``hsm-keys`` is the program."""
    return subprocess.run(
        ["bash", "-c", f'hsm-keys() {{ "{sys.executable}" -m hsm_keys "$@"; }}\n{line}'],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HSM_KEYS_STORE": store},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [("list", 141), ("list --output json", 141), ("--help", 141), ("show --help", 141), ("show nope", 5), ("show", 2)],
)
def test_output_that_nobody_reads_ends_the_command_quietly(store: str, command: str, code: int) -> None:
    unread = shell(f"exec 3>&1; {{ hsm-keys {command} 2>&1; echo $? >&3; }} | true", store)
    assert unread.stdout.strip() == str(code)
    done = shell(f"{{ hsm-keys {command}; echo $? >&2; }} | true", store)
    assert "Original exception" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(store: str, closed: str) -> None:
    done = shell(f"hsm-keys list {closed}", store)
    assert done.returncode == 0, done.stderr
    assert ("prod" in done.stdout) is (">&-" not in closed.split())
    assert shell(f"hsm-keys show nope {closed}", store).returncode == 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_output_that_finds_no_room_is_an_error(store: str) -> None:
    done = shell("hsm-keys list >/dev/full", store)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize(
    ("command", "code"),
    [(f"sign GET /portfolio/balance --name prod --api-key-id {uuid.UUID(int=7)}", 0), ("show nope", 5)],
)
def test_words_that_find_no_room_end_no_command(store: str, command: str, code: int) -> None:
    done = shell(f"hsm-keys {command} 2>/dev/full", store)
    assert (done.returncode, "KALSHI-ACCESS-SIGNATURE" in done.stdout) == (code, code == 0)


SIGN = f"sign GET /portfolio/balance --name prod --timestamp-ms 1700000000000 --api-key-id {uuid.UUID(int=7)} --output"


@pytest.mark.parametrize("command", ["list", "public-key prod", f"{SIGN} env", f"{SIGN} curl"])
def test_what_a_module_writes_to_standard_output_is_not_the_commands(
    shim: Shim, token: TestToken, store: str, command: str
) -> None:
    """Ed25519 signatures are the same each time, so every command's output is."""
    plain = shell(f"hsm-keys {command}", shim.uri(token))
    assert (plain.returncode, bool(plain.stdout)) == (0, True), plain.stderr
    shim.rules("say canary")
    done = shell(f"hsm-keys {command}", shim.uri(token))
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr
    assert {"C_Initialize canary", "C_Finalize canary"} <= set(done.stderr.splitlines())


def test_lines_for_the_shell_and_for_curl_are_all_that_these_read(shim: Shim, token: TestToken, store: str) -> None:
    shim.rules("say canary; exit 3")
    names = "KALSHI_ACCESS_KEY KALSHI_ACCESS_SIGNATURE KALSHI_ACCESS_TIMESTAMP"
    done = shell(f'eval "$(hsm-keys {SIGN} env)" && for name in {names}; do echo ${{!name}}; done', shim.uri(token))
    assert done.stdout.split()[::2] == [str(uuid.UUID(int=7)), "1700000000000"], done.stderr
    curl = shell(
        f"curl --silent --config <(hsm-keys {SIGN} curl) --write-out '%{{http_code}}' http://127.0.0.1:9/",
        shim.uri(token),
    )
    assert curl.stdout.endswith("000"), curl.stderr  # nobody listens; the configuration was read


def test_a_program_of_ones_own_keeps_its_standard_output_by_a_signer_of_its_own(
    shim: Shim, token: TestToken, store: str
) -> None:
    """The library leaves descriptor 1 as it is: in the process, a module that prints does so where the program does."""
    shim.rules("say canary")
    script = (
        "import sys; from hsm_keys import open_store\n"
        "with open_store(sys.argv[1], isolated=sys.argv[2] == 'isolated') as store:\n"
        "    print(len(store.key('prod').sign(b'm')))"
    )
    said = {
        how: subprocess.run(
            [sys.executable, "-c", script, shim.uri(token), how],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for how in ("here", "isolated")
    }
    assert said["isolated"] == "64\n"
    assert "canary" in said["here"]


def test_json_is_alone_on_standard_output_and_on_stderr(shim: Shim, token: TestToken, store: str) -> None:
    shim.rules("say canary", "warn canary")
    done = shell("hsm-keys list --output json", shim.uri(token))
    assert "canary" not in done.stderr
    assert [key["name"] for key in json.loads(done.stdout)["keys"]] == ["prod"]
    signed = shell(f"hsm-keys {SIGN} json", shim.uri(token))
    assert json.loads(signed.stdout)["KALSHI-ACCESS-TIMESTAMP"] == "1700000000000"
    made = shell("hsm-keys enroll --offline --name second --key-type ed25519 --output json", shim.uri(token))
    assert json.loads(made.stdout)["name"] == "second", made.stderr
    failed = shell("hsm-keys show nope --output json", shim.uri(token))
    assert (failed.returncode, failed.stdout) == (5, "")
    assert json.loads(failed.stderr)["error"]["code"] == "key_not_found"
    assert "canary" in shell("hsm-keys list", shim.uri(token)).stderr  # whom JSON doesn't bind, it tells
