"""Generating, killed before and after everything that lasts: the next run comes to the same end."""

from __future__ import annotations

import signal
import stat
from typing import TYPE_CHECKING

import pytest

from hsm_keys.signing.pem import load_private_key
from tests.support import ministack
from tests.support.cli import run_json
from tests.support.killing import Killer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.timeout(400)

KALSHI = ["api_keys.generate(", "end_api_key(", "made = ", "made.pem"]
LIFECYCLE = ["hsm_keys.lifecycle.generate", "hsm_keys.lifecycle.made_by_kalshi"]


@pytest.fixture
def in_token(token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    effects = [*KALSHI, "create_object(", "destroy(", "_imports.", "return self._conclude("]
    with Killer([*LIFECYCLE, "hsm_keys.stores.pkcs11.importing"], effects) as started:
        yield started


def ids(sandbox: SandboxServer, name: str) -> list[str]:
    return [key.api_key_id for key in sandbox.state.keys.values() if key.name == name]


def kill_and_run_again(killer: Killer, sandbox: SandboxServer, command: list[str], at: int, *, over: bool) -> str:
    """Kill a run there, run it again, and return the id of the one API key of the name."""
    killed, _ = killer.run(command, at)
    assert killed == -signal.SIGKILL
    done, _ = killer.run(command)
    # A run that had nothing left to do but to say so leaves a finished key, and that isn't generated again.
    assert done == 0 or (over and done == 5), f"killed at {at}: {done}"
    (api_key_id,) = ids(sandbox, command[1])
    return api_key_id


@pytest.mark.softhsm
def test_in_a_token(in_token: Killer, sandbox: SandboxServer) -> None:
    options = ["--key-type", "ed25519"]
    ended, places = in_token.run(["generate", "whole", *options])
    assert ended == 0
    assert places > 20
    expected = {"whole": ids(sandbox, "whole")[0], "bootstrap": sandbox.bootstrap_key_id}
    for at in range(1, places + 1):
        expected[f"k{at}"] = kill_and_run_again(
            in_token, sandbox, ["generate", f"k{at}", *options], at, over=at == places
        )
    listed = run_json("list")["keys"]
    assert {entry["name"]: entry["api_key_id"] for entry in listed} == expected
    assert len(listed) == len(expected)  # no mark, no twin, and nothing at Kalshi whose private half is lost
    assert {entry["state"] for entry in listed if entry["name"] != "bootstrap"} == {"registered"}


@pytest.mark.kms
def test_in_kms(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ministack.credentials(monkeypatch, ministack.endpoint())
    store = f"awskms:///?region={ministack.REGION}"
    monkeypatch.setenv("HSM_KEYS_STORE", store)
    options = ["--key-type", "ed25519"]
    calls = ["_waiting(place", "client.create_key", "give_alias", "_parameters(", "client.import_key", "bind("]
    effects = ["api_keys.generate(", "end_api_key(", *calls]
    with Killer([*LIFECYCLE, "hsm_keys.stores.awskms.importing"], effects) as killer:
        ended, places = killer.run(["generate", "whole", *options])
        assert ended == 0
        assert places > 8
        expected = {"whole": ids(sandbox, "whole")[0], "bootstrap": sandbox.bootstrap_key_id}
        for at in range(1, places + 1):
            expected[f"k{at}"] = kill_and_run_again(
                killer, sandbox, ["generate", f"k{at}", *options], at, over=at == places
            )
    listed = run_json("list")["keys"]
    assert {entry["name"]: entry["api_key_id"] for entry in listed} == expected
    from hsm_keys.stores.awskms import open_uri

    with open_uri(store) as opened:
        kept = opened.caller().manage(ministack.REGION).list_keys()["Keys"]
    assert len(kept) == len(expected) - 1  # none is left without a name


def test_to_a_file(sandbox: SandboxServer, tmp_path: Path) -> None:
    options = ["--key-type", "ed25519", "--to-file"]
    effects = [*KALSHI, "os.", "unlink(", "_made(", "_sync_folder(", "_held("]
    with Killer(["hsm_keys.lifecycle.to_file", "hsm_keys.lifecycle.made_by_kalshi"], effects) as killer:
        ended, places = killer.run(["generate", "whole", *options, str(tmp_path / "whole.pem")])
        assert ended == 0
        assert places > 15
        names = {"whole"}
        for at in range(1, places + 1):
            names.add(name := f"k{at}")
            path = tmp_path / f"{name}.pem"
            command = ["generate", name, *options, str(path)]
            killed, _ = killer.run(command, at)
            assert killed == -signal.SIGKILL
            finished = path.exists() and not path.with_name(path.name + ".generating").exists()
            done, _ = killer.run(command)
            assert done == (2 if finished else 0), f"killed at {at}: {done}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.pem" for name in names)
    for name in names:
        path = tmp_path / f"{name}.pem"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (api_key_id,) = ids(sandbox, name)
        assert load_private_key(path.read_bytes()).public_key() == sandbox.state.keys[api_key_id].public_key
