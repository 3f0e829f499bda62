"""A machine that runs out of file descriptors or room: signing fails clearly or not at all, and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

_PRELUDE = """
import json, os, resource, signal, sys, time
from hsm_keys import HsmKeysError, open_store
from hsm_keys.signing.algorithms import verifies

def attempt(do):
    try:
        do()
        return "ok"
    except HsmKeysError as error:
        return error.code

told = {}
store = open_store(sys.argv[1])
key = store.key("prod")

def sign():
    assert verifies(key.public_key(), b"m", key.sign(b"m"))

sign()
"""


def run(token: TestToken, script: str) -> dict[str, Any]:
    """Run a program of its own, whose limits it may change; return what it tells."""
    done = subprocess.run(
        [sys.executable, "-c", f"{_PRELUDE}{script}\nprint(json.dumps(told))\n", token.uri],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture
def with_key(token: TestToken) -> TestToken:
    with open_store(token.uri) as store:
        store.generate("prod", KeyType.ED25519)
    return token


def test_no_file_descriptor_is_left(with_key: TestToken) -> None:
    told = run(
        with_key,
        """
held = []
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
told["meanwhile"] = [attempt(sign) for _ in range(20)]
told["listing"] = attempt(store.keys)
for descriptor in held:
    os.close(descriptor)
while attempt(sign) != "ok":
    time.sleep(0.01)
told["keys"] = [one.name for one in store.keys()]
""",
    )
    assert set(told["meanwhile"]) <= {"ok", "store", "store_unavailable", "store_not_found", "key_not_found"}
    assert told["keys"] == ["prod"]


def test_no_room_is_left(with_key: TestToken) -> None:
    told = run(
        with_key,
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
told["signing"] = {attempt(sign) for _ in range(20)}
told["signing"] = sorted(told["signing"])
told["making"] = attempt(lambda: store.generate("new"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
told["after"] = attempt(sign)
told["keys"] = [one.name for one in store.keys()]
""",
    )
    assert told["signing"] == ["ok"]  # it writes nothing
    assert told["making"] in {"store", "store_unavailable"}
    assert told["after"] == "ok"
    assert told["keys"] == ["prod"]


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("killer", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_program_that_signs_and_leaves_the_token_whole(
    with_key: TestToken, killer: signal.Signals, *, isolated: bool
) -> None:
    script = (
        "import sys; from hsm_keys import open_store\n"
        f"store = open_store(sys.argv[1], isolated={isolated})\n"
        "key = store.key('prod'); print('signs', flush=True)\n"
        "while True: key.sign(b'm')"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", script, with_key.uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "signs\n"
    program.send_signal(killer)
    _, error = program.communicate(timeout=10)
    assert program.returncode == -killer
    assert error == ""
    with open_store(with_key.uri) as store:
        assert store.key("prod").sign(b"m")
