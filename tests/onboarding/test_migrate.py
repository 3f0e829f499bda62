"""``migrate``: a new key with the PEM's rights, and the PEM's API key ended by its own proof."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.kalshi.api_keys import ApiKeysResource
from hsm_keys.sandbox import parse_fault
from hsm_keys.sandbox.server import SandboxServer
from tests.sandbox.client import Caller
from tests.support.canaries import run
from tests.support.cli import ROOT, failed_json, run_cli, run_json
from tests.support.terminal import converse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

FINISH = ("migrate", "bot", "--finish", "--yes")


@pytest.fixture(autouse=True)
def _token_at_hand(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


def _listed(sandbox: SandboxServer, name: str = "bot") -> dict[str, Any]:
    """Return what Kalshi lists, by id, asked with a key of the store."""
    answer = run_json("request", "GET", "/api_keys", name)
    return {each["api_key_id"]: each for each in answer["api_keys"]}


def test_a_bot_moves_from_its_pem_to_the_token(sandbox: SandboxServer, tmp_path: Path) -> None:
    made = run_json("migrate", "bot", "--yes")
    assert made["key_type"] == "ed25519", "as the PEM's"
    assert set(_listed(sandbox)) == {made["api_key_id"], sandbox.bootstrap_key_id}, "nothing ends before --finish"
    program = "\n".join([*made["python"], "print(client.request('GET', '/portfolio/balance').status_code)"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "200\n", done.stderr
    copy = tmp_path / "old.pem"
    copy.write_text("kept")
    ended = run_json(
        *FINISH, "--copy", str(copy), "--copy", str(tmp_path / "gone.pem"), "--copy", f"{tmp_path}/{'x' * 300}"
    )
    assert ended["ended"] == sandbox.bootstrap_key_id
    assert set(_listed(sandbox)) == {made["api_key_id"]}
    assert ended["copies"][0].startswith("the variable KALSHI_PRIVATE_KEY")
    assert ended["copies"][1:3] == [f"{copy} (still there)", f"{tmp_path}/gone.pem (not there)"]
    assert ended["copies"][3].endswith("(it can't be looked at)"), "no file has a name as long"
    assert copy.read_text() == "kept", "nothing is deleted but the API key"


def test_what_is_said_and_the_pem_is_not(sandbox: SandboxServer, tmp_path: Path) -> None:
    pem = tmp_path / "bot.pem"
    pem.write_text(sandbox.bootstrap_pem)
    pem.chmod(0o600)
    env = {"KALSHI_PRIVATE_KEY": "", "KALSHI_PRIVATE_KEY_PATH": str(pem)}
    begun = run_cli("migrate", "bot", "--yes", **env)
    assert "custody begins with a new key" in begun.stderr
    assert "hsm-keys migrate bot --finish" in begun.stderr
    assert "open_store(" in begun.stdout
    ended = run_cli(*FINISH, **env)
    assert f"{pem}, which KALSHI_PRIVATE_KEY_PATH names" in ended.stderr
    lines = [line for line in sandbox.bootstrap_pem.splitlines() if "-----" not in line]
    assert not [line for line in lines if line in begun.stderr + begun.stdout + ended.stderr + ended.stdout]


def test_the_new_key_may_do_what_the_pems_may_unless_told_otherwise(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_json("migrate", "bot", "--yes")
    narrow = run_json("migrate", "narrow", "--yes", "--scope", "read")
    listed = _listed(sandbox)
    assert listed[made["api_key_id"]]["scopes"] == listed[sandbox.bootstrap_key_id]["scopes"]
    assert listed[narrow["api_key_id"]]["scopes"] == ["read"]


def test_both_halves_can_be_run_again(sandbox: SandboxServer) -> None:
    made = run_json("migrate", "bot", "--yes")
    assert run_json("migrate", "bot", "--yes")["api_key_id"] == made["api_key_id"]
    run_json(*FINISH)
    again = failed_json(7, *FINISH)
    assert again["code"] == "end_not_proved"
    assert "has ended already" in again["message"]
    assert set(_listed(sandbox)) == {made["api_key_id"]}


def test_without_a_new_key_the_pems_is_not_ended(sandbox: SandboxServer) -> None:
    assert failed_json(5, *FINISH)["code"] == "key_not_found"
    run_cli("enroll", "bot", "--offline", "--key-type", "ed25519")
    error = failed_json(5, *FINISH)
    assert error["code"] == "key_not_registered"
    assert "migrate bot" in error["hint"]


def test_an_api_key_that_is_not_the_pems_is_left_alone(sandbox: SandboxServer) -> None:
    run_json("migrate", "bot", "--yes")
    other = run_json("enroll", "other", "--key-type", "ed25519")["api_key_id"]
    error = failed_json(5, *FINISH, KALSHI_KEY_ID=other)
    assert "isn't this PEM's" in error["message"]
    assert other in _listed(sandbox)


def test_the_stores_own_key_is_not_ended_in_the_pems_place(sandbox: SandboxServer) -> None:
    made = run_json("migrate", "bot", "--yes")
    run_cli(*FINISH, KALSHI_KEY_ID=made["api_key_id"])
    assert made["api_key_id"] in _listed(sandbox)


def test_the_pem_stays_while_no_other_key_can_manage_keys(sandbox: SandboxServer) -> None:
    run_json("migrate", "bot", "--yes", "--scope", "read")
    error = failed_json(5, *FINISH)
    assert "the last one that can manage" in error["message"]
    assert Caller.bootstrap(sandbox).call("GET", "/trade-api/v2/api_keys").status == 200


def test_in_another_environment_nothing_ends(sandbox: SandboxServer) -> None:
    run_json("migrate", "bot", "--yes")
    with SandboxServer(tier="premier", key_type="ed25519") as other:
        error = failed_json(5, *FINISH, KALSHI_API_BASE_URL=other.base_url)
    assert error["code"] == "wrong_environment"
    assert sandbox.bootstrap_key_id in _listed(sandbox)


def test_a_pem_of_another_environment_is_not_called_dead(sandbox: SandboxServer) -> None:
    run_json("migrate", "bot", "--yes")
    with SandboxServer(tier="premier", key_type="ed25519") as other:
        foreign = {"KALSHI_KEY_ID": other.bootstrap_key_id, "KALSHI_PRIVATE_KEY": other.bootstrap_pem}
        said = run_cli(*FINISH, **foreign)
        assert failed_json(7, *FINISH, **foreign)["code"] == "end_not_proved"
        assert Caller.bootstrap(other).call("GET", "/trade-api/v2/api_keys").status == 200
    assert "or belongs to another environment and still works there" in said.stderr
    assert "proved it" not in said.stderr
    assert "refuses the PEM now" not in said.stderr
    assert (said.returncode, said.stdout) == (7, "")
    assert sandbox.bootstrap_key_id in _listed(sandbox)


def test_a_person_is_asked_before_the_pems_key_ends(sandbox: SandboxServer) -> None:
    run_json("migrate", "bot", "--yes")
    code, shown = converse([(b"Go on?", b"n")], "migrate", "bot", "--finish")
    assert (code, sandbox.bootstrap_key_id in _listed(sandbox)) == (2, True), shown
    code, shown = converse([(b"Go on?", b"y")], "migrate", "bot", "--finish")
    assert code == 0, shown
    assert run_cli("migrate", "bot").returncode == 2, "no terminal, and no --yes"


def test_without_a_pem_there_is_nothing_to_migrate(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KALSHI_KEY_ID")
    monkeypatch.delenv("KALSHI_PRIVATE_KEY")
    error = failed_json(2, "migrate", "bot", "--yes")
    assert "hsm-keys init" in error["hint"]


@pytest.mark.parametrize("fault", ["drop-before", "drop-after"])
def test_a_lost_answer_to_the_deletion_is_settled_by_looking(sandbox: SandboxServer, fault: str) -> None:
    made = run_json("migrate", "bot", "--yes")
    sandbox.faults.add(parse_fault(f"DELETE /api_keys/{{api_key}}:{fault}:1"))
    if run(*FINISH).code:
        run_json(*FINISH)
    assert set(_listed(sandbox)) == {made["api_key_id"]}


@pytest.mark.parametrize("after", [False, True], ids=["before the deletion", "after the deletion"])
def test_killed_about_the_deletion_the_next_run_comes_to_the_end(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    made = run_json("migrate", "bot", "--yes")
    delete = ApiKeysResource.delete

    def killed(self: ApiKeysResource, api_key_id: str) -> None:
        if after:
            delete(self, api_key_id)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ApiKeysResource, "delete", killed)
        assert run(*FINISH).code == 130
    assert (sandbox.bootstrap_key_id in _listed(sandbox)) is not after
    if after:  # what Kalshi doesn't know may live in another environment
        assert "if an earlier run has ended it, all is done" in failed_json(7, *FINISH)["hint"]
    else:
        run_json(*FINISH)
    assert set(_listed(sandbox)) == {made["api_key_id"]}
