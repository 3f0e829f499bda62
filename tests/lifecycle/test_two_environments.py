"""Two sandboxes stand for two environments: whatever one says of the other's keys ends, rebinds and replaces none."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from hsm_keys import KalshiClient, KeyType, RequestSigner, open_store
from hsm_keys.errors import HsmKeysError, KeyExistsError, KeyProblemError, WrongEnvironmentError
from hsm_keys.inspecting.findings import Bind, Finding
from hsm_keys.inspecting.inventory import take_inventory
from hsm_keys.inspecting.reconcile import judge
from hsm_keys.inspecting.snapshot import observe
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle.enroll import adopt, enroll, enroll_offline
from hsm_keys.lifecycle.generate import Generator
from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
from hsm_keys.lifecycle.managing import find_manager
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.lifecycle.repairing import fix
from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
from hsm_keys.lifecycle.revoke import Revoker
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.lifecycle.to_file import generate_to_file
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.stores.key_names import RETIRED, SUCCESSOR
from tests.support.kalshi_stub import standing_in
from tests.support.ministack import REGION, account
from tests.support.ports import free_port
from tests.support.two_kalshis import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys import KeyStore, StoredKey

__all__ = ["account"]  # pytest finds the fixture here

STORES = [pytest.param("token", marks=pytest.mark.softhsm), pytest.param("kms", marks=pytest.mark.kms)]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[KeyStore]:
    if request.param == "kms":
        request.getfixturevalue("account")
        uri = f"awskms:///?region={REGION}"
    else:
        uri = request.getfixturevalue("token").uri
    with open_store(uri) as opened:
        yield opened


@pytest.fixture
def sides(store: KeyStore) -> Iterator[tuple[Side, Side]]:
    """The environments A and B, and one store for both."""
    with SandboxServer(key_type="ed25519", port=free_port()) as one, SandboxServer(key_type="ed25519") as other:
        yield Side(one, store), Side(other, store)


def contents(store: KeyStore) -> list[tuple[str, str | None, str | None]]:
    return [(key.name, key.api_key_id, key.environment) for key in store.keys()]


def revoker(side: Side, client: KalshiClient) -> Revoker:
    return Revoker(side.store, Account(client, side.connect), side.said.append)


def planner(side: Side, client: KalshiClient) -> RevocationPlanner:
    return RevocationPlanner(side.store, Account(client, side.connect), side.said.append)


def rotator(side: Side, client: KalshiClient) -> Rotator:
    return Rotator(side.store, Account(client, side.connect), side.said.append)


def revoke(side: Side, word: str, *, destroy: bool, never_registered: bool = False) -> None:
    with side.management() as client:
        plan = planner(side, client).plan(word, destroy=destroy, force=True, never_registered=never_registered)
        revoker(side, client).carry_out(plan)


def rotate(side: Side, way: str) -> None:
    with side.management() as client:
        if way == "advance":
            rotator(side, client).advance("live")
        elif way == "finish":
            rotator(side, client).finish("live", keep_old=False)
        else:
            rotator(side, client).abort("live")


def repair(side: Side, key: StoredKey, api_key_id: str) -> None:
    with side.management() as client:
        seen = observe([side.store], Account(client, side.connect), side.said.append).keys
        wanted = Bind(next(each for each in seen if each.name == key.name), api_key_id)
        finding = Finding("wrong-id", key.name, api_key_id, side.store.describe(), "", wanted)
        fix([finding], [side.store], Account(client, side.connect), side.said.append)


def adopted(side: Side, key: StoredKey, api_key_id: str) -> None:
    adopt(side.store, key.name, api_key_id, environment=side.environment, connect=side.connect, report=side.said.append)


# Each is given environment B, the key of A and an API key id under which B knows the same pair.
WORKFLOWS: dict[str, Callable[[Side, StoredKey, str], None]] = {
    "revoke": lambda b, _key, _twin: revoke(b, "live", destroy=False),
    "revoke and destroy": lambda b, _key, _twin: revoke(b, "live", destroy=True),
    "revoke by id": lambda b, key, _twin: revoke(b, str(key.api_key_id).upper(), destroy=True),
    "rotate": lambda b, _key, _twin: rotate(b, "advance"),
    "rotate finish": lambda b, _key, _twin: rotate(b, "finish"),
    "rotate abort": lambda b, _key, _twin: rotate(b, "abort"),
    "adopt": adopted,
    "reconcile fix": repair,
    "sign": lambda b, key, _twin: b.connect(key.signer()).close(),
    "authenticate": lambda b, key, _twin: _authenticated(b, key),
}


def _authenticated(side: Side, key: StoredKey) -> None:
    key.signer().auth(base_url=side.sandbox.base_url)


@pytest.mark.parametrize("mark", ["", SUCCESSOR, RETIRED], ids=["at rest", "a successor is made", "handed over"])
@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_no_workflow_touches_a_key_of_another_environment(sides: tuple[Side, Side], workflow: str, mark: str) -> None:
    a, b = sides
    key = a.add("live")
    if mark:
        a.add(f"live{mark}")
    twin = b.sandbox.add_key("live", key.public_pem()).api_key_id
    before, lived = contents(a.store), a.living()
    with pytest.raises(WrongEnvironmentError) as caught:
        WORKFLOWS[workflow](b, key, twin)
    assert a.environment in caught.value.message
    assert b.environment in caught.value.message
    assert (caught.value.exit_code, caught.value.code) == (5, "wrong_environment")
    assert contents(a.store) == before
    assert a.living() == lived
    assert (b.living(), b.writes()) == ({twin}, [])
    assert not [line for line in b.said if "proved" in line]


def test_enroll_says_in_which_environment_the_name_is_enrolled(sides: tuple[Side, Side]) -> None:
    a, b = sides
    key = a.add("live")
    with b.management() as client, pytest.raises(KeyExistsError, match=a.environment):
        enroll(
            b.store,
            "live",
            key_type=None,
            scopes=["read"],
            subaccount=None,
            account=Account(client, b.connect),
            report=b.said.append,
        )
    assert b.writes() == []
    assert a.store.key("live").api_key_id == key.api_key_id


def _generate(side: Side, name: str = "bot") -> None:
    with side.management() as client:
        maker = KalshiGenerator(
            ApiKeyRequest(name, ["read"]), KeyType.RSA_2048, Account(client, side.connect), side.said.append
        )
        Generator(side.store, maker).run()


@pytest.mark.parametrize("fault", ["drop-before", "drop-after"])
def test_a_generate_that_was_interrupted_elsewhere_deletes_no_namesake(sides: tuple[Side, Side], fault: str) -> None:
    a, b = sides
    namesake = b.sandbox.add_key("bot", a.store.generate("other", KeyType.ED25519).public_pem()).api_key_id
    a.sandbox.faults.add(parse_fault(f"POST /api_keys/generate:{fault}:2"))
    with pytest.raises(HsmKeysError):
        _generate(a)
    before = contents(a.store)
    with pytest.raises(WrongEnvironmentError) as caught:
        _generate(b)
    assert a.environment in caught.value.message
    assert (b.living(), b.writes()) == ({namesake}, [])
    assert contents(a.store) == before
    a.sandbox.faults.clear()
    _generate(a)
    assert len(a.living()) == 1
    assert a.store.key("bot").environment == a.environment


def test_a_file_that_was_interrupted_elsewhere_deletes_no_namesake(sides: tuple[Side, Side], tmp_path: Path) -> None:
    a, b = sides
    namesake = b.sandbox.add_key("bot", a.store.generate("other", KeyType.ED25519).public_pem()).api_key_id
    path = str(tmp_path / "bot.pem")

    def to_file(side: Side) -> None:
        with side.management() as client:
            maker = KalshiGenerator(
                ApiKeyRequest("bot", ["read"]), KeyType.ED25519, Account(client, side.connect), side.said.append
            )
            generate_to_file(path, maker)

    a.sandbox.faults.add(parse_fault("POST /api_keys/generate:drop-after:2"))
    with pytest.raises(HsmKeysError):
        to_file(a)
    with pytest.raises(WrongEnvironmentError):
        to_file(b)
    assert (b.living(), b.writes()) == ({namesake}, [])
    a.sandbox.faults.clear()
    to_file(a)
    assert len(a.living()) == 1


def findings(side: Side) -> list[Finding]:
    with side.management() as client:
        found = judge(observe([side.store], Account(client, side.connect), side.said.append))
    return [finding for finding in found if finding.name != "bootstrap"]


@pytest.mark.parametrize("mark", ["", SUCCESSOR, RETIRED, "+ending"])
def test_reconcile_judges_nothing_of_another_environments_keys(sides: tuple[Side, Side], mark: str) -> None:
    a, b = sides
    a.add("live")
    if mark:
        a.add(f"live{mark}")
    a.store.generate("live+importing", KeyType.ED25519)
    assert findings(b) == []
    assert any(a.environment in line and "live" in line for line in b.said)


def test_a_successor_that_is_not_registered_yet_belongs_where_its_name_does(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.add("live")
    a.store.generate(f"live{SUCCESSOR}", KeyType.ED25519)
    assert findings(b) == []
    assert [finding.code for finding in findings(a)] == ["rotation-begun"]


def test_nothing_proposes_to_destroy_what_may_live_elsewhere(sides: tuple[Side, Side]) -> None:
    a, b = sides
    orphan = a.store.generate(f"lost{SUCCESSOR}", KeyType.ED25519)
    a.sandbox.add_key("lost", orphan.public_pem())  # registered, and not bound when the run was killed
    gone = b.add("gone")
    b.sandbox.state.delete_key(str(gone.api_key_id))
    proposed = {finding.name: finding.command or "" for finding in findings(b)}
    assert "--destroy" not in proposed[orphan.name]
    assert shlex.split(proposed["gone"])[:4] == ["hsm-keys", "revoke", "gone", "--destroy"]  # it proves the end first


def test_a_pair_that_two_environments_know_is_found_and_not_rebound(sides: tuple[Side, Side]) -> None:
    a, b = sides
    key = a.add("live")
    twin = b.sandbox.add_key("twin", key.public_pem()).api_key_id
    (found,) = findings(b)
    assert (found.code, found.api_key_id, found.repair) == ("two-environments", twin, None)
    assert a.environment in found.message
    assert "--destroy" not in str(found.command)
    revoke(b, twin, destroy=False)
    assert (b.living(), a.living()) == (set(), {key.api_key_id})


def test_a_list_calls_no_key_of_another_environment_gone(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.add("live")
    dead = b.add("dead")
    b.sandbox.state.delete_key(str(dead.api_key_id))
    with b.management() as client:
        entries = take_inventory([b.store], client.api_keys.list().api_keys, b.environment).entries
    shown = {entry.name: (entry.state, entry.environment) for entry in entries}
    assert shown["live"] == ("registered", a.environment)
    assert shown["dead"] == ("gone", b.environment)
    assert shown["bootstrap"] == ("elsewhere", b.environment)


def test_a_key_of_another_environment_signs_no_management_call(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.add("a-manager")
    assert find_manager(b.store.keys(), b.connect, b.environment, changes=True) is None
    b.add("b-manager")
    chosen = find_manager(b.store.keys(), b.connect, b.environment, changes=True)
    assert chosen is not None
    assert chosen.key.name == "b-manager"


# A gateway in the place of the key's own Kalshi, that answers everything so.
GATEWAYS = {
    "401": (401, b"<html><title>Sign in</title></html>"),
    "403": (403, b"<html><title>Request blocked</title></html>"),
    "404": (404, b"<html><title>Not found</title></html>"),
    "200": (200, b"<html><title>Welcome</title></html>"),
    "JSON 401": (401, {"message": "Unauthorized"}),
    "JSON 404": (404, {"detail": "Not Found"}),
    "JSON 200": (200, {}),
    "nothing": (204, b""),
}


@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("alone", [False, True], ids=["bootstrap", "by itself"])
def test_a_gateway_in_kalshis_place_ends_nothing(sides: tuple[Side, Side], gateway: str, *, alone: bool) -> None:
    a, _ = sides
    key = a.add("live")
    a.add(f"live{RETIRED}")
    a.add("other")
    before, lived = contents(a.store), a.living()
    boss = key.signer() if alone else None
    with standing_in(a.sandbox, GATEWAYS[gateway]):
        for work in (
            lambda client: revoker(a, client).carry_out(planner(a, client).plan("other", destroy=True, force=True)),
            lambda client: rotator(a, client).finish("live", keep_old=False),
            lambda client: rotator(a, client).abort("live"),
        ):
            with a.connect(boss) if boss else _bootstrap(a) as client, pytest.raises(HsmKeysError) as caught:
                work(client)
            assert caught.value.exit_code == 7
    assert contents(a.store) == before
    assert a.living() == lived
    assert not [line for line in a.said if "proved it" in line]


def _bootstrap(side: Side) -> KalshiClient:
    return KalshiClient.from_private_key(
        side.sandbox.bootstrap_key_id, side.sandbox.bootstrap_pem, base_url=side.sandbox.base_url
    )


def test_a_sandbox_that_was_started_anew_ends_nothing_by_itself(sides: tuple[Side, Side]) -> None:
    """It has the same environment, and knows none of its keys."""
    a, _ = sides
    key = a.add("live")
    a.add(f"live{RETIRED}")
    before = contents(a.store)
    a.sandbox.state._keys = {
        key_id: kept for key_id, kept in a.sandbox.state.keys.items() if key_id == a.sandbox.bootstrap_key_id
    }
    rotate(a, "advance")  # the name was handed over: there is nothing to do but to end the old key
    for way in ("finish", "abort"):
        with pytest.raises(HsmKeysError):
            rotate(a, way)
    with a.connect(RequestSigner(key)) as client, pytest.raises(HsmKeysError) as caught:
        planner(a, client).plan(f"live{RETIRED}", destroy=True, force=True)
    assert caught.value.exit_code in {6, 7}
    assert contents(a.store) == before
    with pytest.raises(KeyProblemError):
        _generate(a, "live")
    assert contents(a.store) == before


def offer(side: Side, *, named: bool = True) -> StoredKey:
    """Print the public half of a new key, to be pasted on Kalshi's account page."""
    kind, say = KeyType.ED25519, side.said.append
    return enroll_offline(side.store, "pasted", kind, say, environment=side.environment, named=named).key


def enrolled(side: Side, name: str) -> StoredKey:
    with side.management() as client:
        return enroll(
            side.store,
            name,
            key_type=None,
            scopes=None,
            subaccount=None,
            account=Account(client, side.connect),
            report=side.said.append,
        ).key


def test_a_pair_that_was_offered_by_hand_is_not_destroyed_from_another_environment(sides: tuple[Side, Side]) -> None:
    a, b = sides
    key = offer(a)
    a.sandbox.add_key("pasted", key.public_pem())
    for refused in (
        lambda: revoke(b, "pasted", destroy=True),
        lambda: revoke(b, "pasted", destroy=True, never_registered=True),
        lambda: enrolled(b, "pasted"),
        lambda: offer(b),
    ):
        with pytest.raises(WrongEnvironmentError) as caught:
            refused()
        assert a.environment in caught.value.message
        assert b.environment in caught.value.message
    assert b.writes() == []
    assert offer(a).public_key() == key.public_key()
    (pasted,) = a.living()
    revoke(a, "pasted", destroy=True)
    assert (a.store.keys(), a.living()) == ([], set())
    assert pasted not in a.sandbox.state.keys


@pytest.mark.parametrize("named", [False, None])
def test_a_pair_that_may_be_registered_anywhere_is_destroyed_only_on_confirmation(
    sides: tuple[Side, Side], *, named: bool | None
) -> None:
    """Without a named environment, or with a PEM that ``public-key`` printed, nobody knows where it was pasted."""
    a, b = sides
    key = offer(a, named=named) if named is not None else a.store.generate("pasted", KeyType.ED25519)
    api_key_id = a.sandbox.add_key("pasted", key.public_pem()).api_key_id
    with pytest.raises(KeyProblemError, match="by hand") as caught:
        revoke(b, "pasted", destroy=True)
    assert "adopt pasted" in caught.value.hint
    assert "--never-registered" in caught.value.hint
    assert contents(a.store) == [("pasted", None, None)]
    if named is False:
        with pytest.raises(KeyProblemError, match="by hand") as caught:
            enrolled(b, "pasted")
        assert "adopt pasted" in caught.value.hint
        assert b.living() == set()
        offer(b)  # says nothing of where the PEM went before
        assert contents(a.store) == [("pasted", None, None)]
        with b.management() as client:
            (finding,) = (
                each
                for each in judge(observe([b.store], Account(client, b.connect), b.said.append))
                if each.name == "pasted"
            )
        assert shlex.split(finding.command or "")[1:4] == ["adopt", "pasted", "--api-key-id"]
    assert enrolled(a, "pasted").api_key_id == api_key_id  # Kalshi's word is better than a mark
    assert contents(a.store) == [("pasted", api_key_id, a.environment)]


def test_a_pair_that_was_never_registered_can_be_thrown_away(sides: tuple[Side, Side]) -> None:
    a, b = sides
    offer(a, named=False)
    revoke(b, "pasted", destroy=True, never_registered=True)
    assert a.store.keys() == []
