"""Two sandboxes stand for two environments: what a person sees who points commands at the wrong one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.sandbox import SandboxServer
from tests.support.cli import failed_json, run_cli, run_json
from tests.support.ministack import REGION, account
from tests.support.two_kalshis import Side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys import KeyStore

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.program

STORES = [pytest.param("token", marks=pytest.mark.softhsm), pytest.param("kms", marks=pytest.mark.kms)]
WITHOUT_BOOTSTRAP = {"KALSHI_KEY_ID": "", "KALSHI_PRIVATE_KEY": ""}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyStore]:
    """The store that the commands find, opened in the test's own process."""
    if request.param == "kms":
        request.getfixturevalue("account")
        uri = f"awskms:///?region={REGION}"
    else:
        token = request.getfixturevalue("token")
        monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
        uri = token.uri_without_pin
    monkeypatch.setenv("HSM_KEYS_STORE", uri)
    with open_store(uri) as opened:
        yield opened


@pytest.fixture
def sides(store: KeyStore) -> Iterator[tuple[Side, Side]]:
    with SandboxServer(key_type="ed25519") as one, SandboxServer(key_type="ed25519") as other:
        yield Side(one, store), Side(other, store)


REFUSED = [
    ["revoke", "live", "--destroy", "--yes"],
    ["revoke", "live", "--yes", "--force"],
    ["rotate", "live"],
    ["rotate", "live", "--grace", "0s"],
    ["rotate", "live", "--finish"],
    ["rotate", "live", "--abort"],
    ["adopt", "live", "--api-key-id", "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"],
    ["sign", "GET", "/trade-api/v2/portfolio/balance", "--name", "live"],
    ["request", "GET", "/portfolio/balance", "--name", "live"],
    ["fix-logon", "--name", "live", "--target", "KalshiNR", "--seq", "1"],
    ["proxy", "--name", "live"],
    ["list", "--auth", "live"],
    ["enroll", "--name", "another", "--auth", "live"],
]


def test_every_command_on_a_key_of_another_environment_names_both_and_does_nothing(sides: tuple[Side, Side]) -> None:
    a, b = sides
    live = run_json("enroll", "--name", "live", "--key-type", "ed25519", **a.variables)
    assert a.store.key("live").environment == a.environment
    for command in REFUSED:
        error = failed_json(5, *command, **b.variables)
        assert error["code"] == "wrong_environment", command
        assert a.environment in error["message"], command
        assert b.environment in error["message"], command
        assert "--base-url" in error["hint"], command
    assert b.sandbox.requests == ()
    assert a.living() == {live["api_key_id"]}
    (shown,) = (key for key in run_json("list", **a.variables)["keys"] if key["name"] == "live")
    assert (shown["state"], shown["environment"]) == ("registered", a.environment)
    assert run_json("request", "GET", "/portfolio/balance", "--name", "live", **a.variables)["balance"]


def test_what_looks_in_the_wrong_environment_calls_nothing_dead(sides: tuple[Side, Side]) -> None:
    a, b = sides
    live = run_json("enroll", "--name", "live", "--key-type", "ed25519", **a.variables)
    (shown,) = (key for key in run_json("list", **b.variables)["keys"] if key["name"] == "live")
    assert (shown["state"], shown["environment"], shown["api_key_id"]) == (
        "registered",
        a.environment,
        live["api_key_id"],
    )
    assert a.environment in run_cli("list", **b.variables).stdout
    looked = run_cli("reconcile", "--accept", b.sandbox.bootstrap_key_id, **b.variables)
    assert (looked.returncode, "--destroy" in looked.stdout + looked.stderr) == (0, False)
    assert f"live ({a.environment})" in looked.stderr
    reported = json.loads(run_cli("custody", "--output", "json", **b.variables).stdout)
    (entry,) = (entry for entry in reported["keys"] if entry["name"] == "live")
    assert (entry["verdict"], entry["environment"], entry["proved_live"]) == ("in custody", a.environment, None)
    for variables in (b.variables, b.variables | WITHOUT_BOOTSTRAP):
        found = {check["name"]: check for check in run_json("doctor", **variables)["checks"]}
        assert f"live (environment {a.environment})" in found["store"]["message"]
    assert found["credentials"]["verdict"] == "skipped"
    assert b.environment in found["credentials"]["message"]


def test_without_a_key_of_this_environment_nothing_is_made(sides: tuple[Side, Side]) -> None:
    a, b = sides
    run_json("enroll", "--name", "live", "--key-type", "ed25519", **a.variables)
    for command in (["enroll", "second"], ["revoke", "live", "--yes"], ["reconcile"]):
        error = failed_json(5, *command, **b.variables | WITHOUT_BOOTSTRAP)
        assert (error["code"], "--offline" in error["hint"]) == ("key_not_registered", False)
        assert a.environment in error["message"]
        assert b.environment in error["message"]
    assert [key.name for key in a.store.keys()] == ["live"]
    assert run_json("list", **b.variables | WITHOUT_BOOTSTRAP)["keys"][0]["state"] == "registered"


def test_an_id_that_is_unknown_here_is_not_called_revoked(sides: tuple[Side, Side]) -> None:
    """Its private half is in no store, so that nothing says which environment it belongs to."""
    a, b = sides
    leaked = a.sandbox.add_key("leaked", a.store.generate("other", KeyType.ED25519).public_pem()).api_key_id
    error = failed_json(7, "revoke", leaked, "--yes", **b.variables)
    assert (error["code"], "another environment" in error["message"]) == ("end_not_proved", True)
    assert leaked in a.living()


@pytest.fixture
def side(store: KeyStore, sandbox: SandboxServer) -> Side:
    return Side(sandbox, store)


def _alone(side: Side, **more: str) -> dict[str, str]:
    return side.variables | WITHOUT_BOOTSTRAP | more


def test_the_key_that_can_manage_keys_signs_whatever_the_others_are_called(side: Side) -> None:
    run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    run_json("enroll", "--name", "a-reader", "--key-type", "ed25519", "--scope", "read")
    run_json("enroll", "--name", "b-trader", "--key-type", "ed25519", "--scope", "write::trade")
    run_json("enroll", "--name", "c-sub", "--key-type", "ed25519", "--subaccount", "3")
    done = run_cli("enroll", "--name", "second", "--key-type", "ed25519", **_alone(side))
    assert done.returncode == 0, done.stderr
    assert "signed with the key 'prod'" in done.stderr
    assert run_json("rotate", "a-reader", "--grace", "0s", **_alone(side))["rotation"]["stage"] == "done"
    assert run_json("revoke", "b-trader", "--yes", **_alone(side))["revoked"]


def test_where_no_key_can_manage_keys_nothing_is_made(side: Side) -> None:
    run_json("enroll", "--name", "a-reader", "--key-type", "ed25519", "--scope", "read")
    side.sandbox.state.delete_key(side.sandbox.bootstrap_key_id)
    before = [(key.name, key.api_key_id) for key in side.store.keys()]
    for command in (
        ["enroll", "--name", "second"],
        ["generate", "second"],
        ["rotate", "a-reader"],
        ["revoke", "a-reader", "--destroy", "--yes"],
    ):
        error = failed_json(5, *command, **_alone(side))
        assert "nothing was done" in error["message"], command
        assert "--auth" in error["hint"], command
    assert [(key.name, key.api_key_id) for key in side.store.keys()] == before
    assert [line for line in side.writes() if "POST" in line] == ["POST /trade-api/v2/api_keys"]  # the reader's own


def test_a_key_that_was_named_and_cannot_manage_keys_makes_nothing(side: Side) -> None:
    run_json("enroll", "--name", "a-reader", "--key-type", "ed25519", "--scope", "read")
    run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    before = side.writes()
    for command in (["enroll", "--name", "second"], ["generate", "second"], ["generate", "x", "--to-file", "x.pem"]):
        error = failed_json(5, *command, "--auth", "a-reader")
        assert "can't manage API keys" in error["message"], command
        assert "--auth" in error["hint"], command
        assert "prod" in error["hint"], command
    assert side.writes() == before
    assert sorted(key.name for key in side.store.keys()) == ["a-reader", "prod"]


@pytest.mark.parametrize("command", ["enroll --name", "generate"])
def test_a_key_without_scopes_is_said_to_move_money(side: Side, command: str) -> None:
    more = ("--key-type", "ed25519") if command.startswith("enroll") else ()
    said = run_cli(*command.split(), "wide", *more).stderr
    (line,) = (line for line in said.splitlines() if "move money" in line)
    assert "--scope read --scope write::trade" in line
    assert "move money" not in run_cli(*command.split(), "narrow", *more, "--scope", "read").stderr


def found_by(*arguments: str) -> tuple[int, Any]:
    done = run_cli(*arguments, "--output", "json")
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("command", ["custody", "reconcile"])
def test_what_is_elsewhere_on_purpose_can_be_accepted(side: Side, command: str) -> None:
    run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    boss = side.sandbox.bootstrap_key_id
    leaked = side.sandbox.add_key("leaked", side.store.generate("other", KeyType.ED25519).public_pem()).api_key_id
    side.store.destroy(side.store.key("other"))
    assert found_by(command)[0] == 5
    assert found_by(command, "--accept", boss)[0] == 5  # the other one is a problem all the same
    code, told = found_by(command, "--accept", boss.upper(), "--accept", leaked)
    assert code == 0
    accepted = [each if isinstance(each, str) else each["api_key_id"] for each in told["accepted"]]
    assert sorted(accepted) == sorted([boss, leaked])
    shown = run_cli(command, "--accept", boss, "--accept", leaked, "--accept", "mistyped")
    assert shown.returncode == 0
    assert shown.stdout.count("accepted") >= 2
    assert "--accept mistyped" in shown.stderr


def test_only_what_is_elsewhere_is_accepted(side: Side) -> None:
    prod = run_json("enroll", "--name", "prod", "--key-type", "ed25519")
    side.sandbox.state.delete_key(prod["api_key_id"])
    boss = side.sandbox.bootstrap_key_id
    assert found_by("custody", "--accept", boss, "--accept", prod["api_key_id"])[0] == 5
    assert found_by("reconcile", "--accept", boss, "--accept", prod["api_key_id"])[0] == 5


def test_custody_says_that_an_imported_key_is_gone(side: Side) -> None:
    bot = run_json("generate", "bot", "--scope", "read")
    side.sandbox.state.delete_key(bot["api_key_id"])
    _, told = found_by("custody")
    (entry,) = (entry for entry in told["keys"] if entry["name"] == "bot")
    assert entry["verdict"].startswith("gone: Kalshi doesn't list its API key")
    assert "imported" in entry["verdict"]  # it could be copied before
