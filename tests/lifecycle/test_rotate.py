"""Rotating on a real token against a strict server: every end, and every place to be interrupted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pkcs11.constants import Attribute

from hsm_keys import KalshiClient, KeyType, open_store
from hsm_keys.errors import (
    KeyBusyError,
    KeyExistsError,
    KeyNotFoundError,
    KeyNotRegisteredError,
    KeyProblemError,
    UsageError,
)
from hsm_keys.kalshi.account import Account
from hsm_keys.kalshi.api_keys import ApiKeysResource
from hsm_keys.kalshi.errors import TierError
from hsm_keys.lifecycle.enroll import adopt
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.rotate import Rotation, Rotator
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.signing.algorithms import public_key_pem
from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys
from hsm_keys.stores.pkcs11 import importing
from hsm_keys.stores.pkcs11.key_pairs import write_id
from hsm_keys.stores.pkcs11.marks import minted_id
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from tests.lifecycle.person import Person
from tests.support.oddkeys import session_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys import KeyStore, StoredKey
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm


class Rotating(Person):
    """Somebody with the bootstrap key, who rotates."""

    def enrolled(self, name: str = "prod", **options: Any) -> StoredKey:
        return self.enroll(name, **options).key

    def rotator(self, management: KalshiClient) -> Rotator:
        return Rotator(self.store, Account(management, self.connect), self.said.append)

    def advance(self, name: str = "prod") -> Rotation:
        with self.management() as management:
            return self.rotator(management).advance(name)

    def finish(self, name: str = "prod", *, keep_old: bool = False) -> Rotation:
        with self.management() as management:
            return self.rotator(management).finish(name, keep_old=keep_old)

    def abort(self, name: str = "prod") -> Rotation:
        with self.management() as management:
            return self.rotator(management).abort(name)

    def live(self) -> set[str]:
        return set(self.sandbox.state.keys) - {self.sandbox.bootstrap_key_id}

    def in_store(self) -> dict[str, str | None]:
        return {key.name: key.api_key_id for key in self.store.keys()}

    def change(self, key: StoredKey, **changes: Any) -> None:
        """Have Kalshi list the key otherwise."""
        state = self.sandbox.state
        state._keys[str(key.api_key_id)] = replace(state._keys[str(key.api_key_id)], **changes)

    def works(self, key: StoredKey) -> bool:
        signer = key.signer(api_key_id=str(key.api_key_id))  # this key, whatever its name is by now
        with self.connect(signer) as client:
            return client.request("GET", "/portfolio/balance").status_code == 200


@pytest.fixture
def person(store: KeyStore, sandbox: SandboxServer) -> Rotating:
    return Rotating(sandbox, store)


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_a_new_key_takes_the_name_and_the_old_one_dies(person: Rotating, key_type: KeyType) -> None:
    old = person.enrolled(key_type=key_type, scopes=["read", "write::trade"], subaccount=None)
    grace = person.advance()
    assert grace.stage == "grace"
    assert grace.retired is not None
    assert grace.retired.api_key_id == old.api_key_id != grace.key.api_key_id
    assert (grace.key.name, grace.key.key_type) == ("prod", key_type)
    assert grace.key.public_pem() != old.public_pem()
    assert person.works(old)
    assert person.works(grace.key)
    registered = person.sandbox.state.keys[str(grace.key.api_key_id)]
    assert (registered.name, registered.scopes) == ("prod", ("read", "write::trade"))
    assert registered.public_pem == grace.key.public_pem()

    done = person.finish()
    assert done.stage == "done"
    assert person.live() == {done.key.api_key_id}
    assert person.in_store() == {"prod": done.key.api_key_id}
    last = person.sandbox.requests[-1]
    assert (last.api_key_id, last.status) == (old.api_key_id, 401)  # proved dead, signed by the old private half


def test_the_subaccount_is_kept(person: Rotating) -> None:
    person.enrolled(subaccount=7)
    done = person.advance()
    assert person.sandbox.state.keys[str(done.key.api_key_id)].subaccount == 7


def test_a_scope_that_is_newer_than_this_version_is_kept(person: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.sandbox.api_keys.SCOPES", ("read", "write", "read::new_thing"))
    old = person.enrolled(scopes=["read"])
    person.change(old, scopes=("read::new_thing",))
    done = person.advance()
    assert person.sandbox.state.keys[str(done.key.api_key_id)].scopes == ("read::new_thing",)


@pytest.mark.parametrize("listed", [("write",), ("write", "read")])
def test_write_comes_with_read_however_kalshi_lists_it(person: Rotating, listed: tuple[str, ...]) -> None:
    old = person.enrolled()
    person.change(old, scopes=listed)
    done = person.advance()
    assert set(person.sandbox.state.keys[str(done.key.api_key_id)].scopes) == {"read", "write"}


def test_scopes_that_kalshi_does_not_list_for_either_are_the_same(store: KeyStore) -> None:
    with SandboxServer(tier="premier", key_type="ed25519", null_lists=True) as server:
        person = Rotating(server, store)
        person.enrolled(subaccount=0)
        done = person.advance()
        assert person.sandbox.state.keys[str(done.key.api_key_id)].subaccount == 0


def test_a_successor_that_could_do_more_never_gets_the_name(person: Rotating) -> None:
    old = person.enrolled(scopes=["read"])
    person.change(old, scopes=())  # nothing is listed: left out, Kalshi grants everything
    for _ in range(2):
        with pytest.raises(KeyProblemError, match=r"scopes read, write .* \(none listed\)"):
            person.advance()
    assert person.in_store()["prod"] == old.api_key_id
    person.change(old, scopes=("read",))
    person.abort()
    assert person.live() == {old.api_key_id}
    assert set(person.in_store()) == {"prod"}


def test_the_old_private_half_can_be_kept_and_the_next_rotation_is_a_new_one(person: Rotating) -> None:
    old = person.enrolled()
    person.advance()
    person.finish(keep_old=True)
    kept = f"prod+kept-{str(old.api_key_id)[:8]}"
    assert set(person.in_store()) == {"prod", kept}
    assert len(person.live()) == 1
    person.advance()
    person.finish()
    assert set(person.in_store()) == {"prod", kept}


@pytest.mark.parametrize("advanced", [False, True])
def test_the_way_back(person: Rotating, advanced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    old = person.enrolled()
    if advanced:
        person.advance()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(type(person.store), "hand_over", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                person.advance()
    assert len(person.live()) == 2
    done = person.abort()
    assert (done.stage, done.key.api_key_id) == ("aborted", old.api_key_id)
    assert person.live() == {old.api_key_id}
    assert person.in_store() == {"prod": old.api_key_id}
    assert person.works(person.store.key("prod"))


def test_there_is_no_way_back_to_a_dead_key(person: Rotating) -> None:
    old = person.enrolled()
    new = person.advance().key
    person.sandbox.state.delete_key(str(old.api_key_id))
    with pytest.raises(Exception, match="refuses the signature"):
        person.abort()
    assert person.in_store()["prod"] == new.api_key_id
    assert person.works(new)


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


_PLACES = [
    "hsm_keys.lifecycle.rotate.prove_custody",
    "hsm_keys.lifecycle.registering.Registrar._post",
    "hsm_keys.lifecycle.registering.Registrar._yield_to_others",
    "hsm_keys.lifecycle.registering.bind",
    "hsm_keys.lifecycle.registering.prove_registration",
    "hsm_keys.stores.pkcs11.store.Pkcs11Store.hand_over",
    "hsm_keys.stores.pkcs11.store.rename_pair",
]


@pytest.mark.parametrize("ending", ["advance", "abort"])
@pytest.mark.parametrize("place", _PLACES)
def test_interrupted_anywhere_it_goes_on_or_back_without_a_second_key(
    person: Rotating, monkeypatch: pytest.MonkeyPatch, place: str, ending: str
) -> None:
    old = person.enrolled()
    posts = sum(seen.method == "POST" for seen in person.sandbox.requests)
    with monkeypatch.context() as patch:
        patch.setattr(place, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            person.advance()
    assert person.works(person.store.key("prod"))
    if ending == "abort":
        person.abort()
        assert person.live() == {old.api_key_id}
        assert person.in_store() == {"prod": old.api_key_id}
        return
    person.advance()
    done = person.finish()
    assert person.live() == {done.key.api_key_id}
    assert person.in_store() == {"prod": done.key.api_key_id}
    assert sum(seen.method == "POST" for seen in person.sandbox.requests) == posts + 1


def test_where_both_ends_have_begun_a_finish_waits_until_no_deletion_of_the_successor_can_come(
    person: Rotating,
) -> None:
    """Two machines finished and aborted at the same moment, and the abort may still be under way."""
    person.enrolled()
    grace = person.advance()
    assert grace.retired is not None
    RenamesKeys.of(person.store).rename(grace.retired, "prod+finishing")
    RenamesKeys.of(person.store).rename(grace.key, "prod+aborting")
    person.said.clear()
    done = person.finish()
    assert any(
        "`rotate --abort` of 'prod' was begun, and Kalshi may still carry it out" in line for line in person.said
    )
    assert person.live() == {done.key.api_key_id} == {grace.key.api_key_id}
    assert person.in_store() == {"prod": done.key.api_key_id}


def test_a_successor_that_a_finish_has_given_the_name_meanwhile_is_not_deleted(
    person: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = person.enrolled()
    new = person.advance().key
    prepare = ApiKeysResource.prepare_delete

    def given_the_name(api_keys: ApiKeysResource, api_key_id: str) -> Callable[[], None]:
        send = prepare(api_keys, api_key_id)
        renames = RenamesKeys.of(person.store)
        renames.rename(person.store.key("prod"), "prod+finishing")
        renames.rename(person.store.key("prod+aborting"), "prod")
        return send

    monkeypatch.setattr(ApiKeysResource, "prepare_delete", given_the_name)
    with pytest.raises(KeyBusyError):
        person.abort()
    assert person.live() == {old.api_key_id, new.api_key_id}
    assert person.in_store() == {"prod": new.api_key_id, "prod+finishing": old.api_key_id}


@pytest.mark.parametrize("fault", ["drop-before", "drop-after"])
@pytest.mark.parametrize("endpoint", ["POST /api_keys", "DELETE /api_keys/{api_key}"])
def test_lost_answers_end_well(person: Rotating, endpoint: str, fault: str) -> None:
    person.enrolled()
    person.sandbox.faults.add(parse_fault(f"{endpoint}:{fault}:1"))

    def twice(call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever the first run says, the second must end it
            call()

    twice(person.advance)
    twice(person.finish)
    assert len(person.live()) == 1
    assert person.in_store() == {"prod": next(iter(person.live()))}


def test_a_name_that_kalshi_refuses_twice_gets_a_number(person: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    person.enrolled()
    person.sandbox.faults.add(parse_fault("POST /api_keys:status=400:1"))
    done = person.advance()
    assert person.sandbox.state.keys[str(done.key.api_key_id)].name == "prod-2"
    assert any("refuses the name" in line for line in person.said)


def test_where_kalshi_registers_by_hand_only_the_rotation_goes_on_after_adopt(person: Rotating) -> None:
    person.enrolled()
    person.sandbox.state.tier = "basic"
    with pytest.raises(TierError, match="stays in the store") as caught:
        person.advance()
    assert "hsm-keys adopt prod+next" in caught.value.hint
    key = person.store.key("prod+next")
    registered = person.sandbox.add_key("prod", key.public_pem())  # the account page
    adopt(
        person.store,
        "prod+next",
        registered.api_key_id,
        environment=environment_name(person.sandbox.base_url),
        connect=person.connect,
        report=person.said.append,
    )
    assert person.advance().key.api_key_id == registered.api_key_id


def test_a_key_can_rotate_itself(person: Rotating) -> None:
    person.enrolled()
    with person.connect(person.store.key("prod").signer()) as itself:
        rotator = person.rotator(itself)
        rotator.advance("prod")
        done = rotator.finish("prod", keep_old=False)
    assert person.live() == {done.key.api_key_id}


@pytest.mark.parametrize("used_before", [True, False])
def test_a_signer_that_slept_through_it_signs_with_the_new_key(
    person: Rotating, token: TestToken, used_before: bool
) -> None:
    person.enrolled()
    with open_store(token.uri) as elsewhere:
        signer = elsewhere.key("prod").signer()
        if used_before:
            signer.headers("GET", "/trade-api/v2/portfolio/balance")
        person.advance()
        done = person.finish()  # by now the private half that it knows is destroyed
        with person.connect(signer) as client:
            assert client.request("GET", "/portfolio/balance").status_code == 200
        assert signer.api_key_id == done.key.api_key_id


def test_what_cannot_be_rotated_says_why(person: Rotating) -> None:
    with pytest.raises(UsageError):
        person.advance("prod+next")
    with pytest.raises(KeyNotFoundError):
        person.advance()
    person.store.generate("minted", KeyType.ED25519)
    with pytest.raises(KeyNotRegisteredError):
        person.advance("minted")
    old = person.enrolled()
    with pytest.raises(KeyProblemError, match="no rotation"):
        person.finish()
    with pytest.raises(KeyProblemError, match="no rotation"):
        person.abort()
    person.sandbox.state.delete_key(str(old.api_key_id))
    with pytest.raises(KeyProblemError, match="doesn't list"):
        person.advance()
    assert set(person.in_store()) == {"minted", "prod"}


def test_rotating_a_key_whose_api_key_id_was_overwritten_says_to_enroll(person: Rotating) -> None:
    """As another machine may do that had begun to make the key; to revoke its only API key would be no way on."""
    old = person.enrolled()
    assert isinstance(person.store, Pkcs11Store)
    with person.store.managing("write over the API key id") as objects:
        write_id(objects, objects.private_keys("prod")[0], minted_id(old.public_key(), old.environment))
    with pytest.raises(KeyNotRegisteredError, match="isn't bound") as caught:
        person.advance()
    assert "hsm-keys enroll --name prod" in caught.value.hint
    assert person.enroll("prod").api_key_id == old.api_key_id
    assert person.advance().stage == "grace"


def test_two_runs_at_once_one_wins(person: Rotating) -> None:
    person.enrolled()
    with exclusive(person.store, "prod"):
        for call in (person.advance, person.finish, person.abort, person.enroll):
            with pytest.raises(KeyBusyError, match="another hsm-keys"):
                call()
    with exclusive(person.store, "other"):
        assert person.advance().stage == "grace"


def _with_an_interrupted_abort(person: Rotating) -> tuple[StoredKey, StoredKey, StoredKey]:
    """Return the keys of a rotation, current and retired, and the successor that an earlier one's abort was to end."""
    person.enrolled()
    condemned = RenamesKeys.of(person.store).rename(person.advance().key, "prod+aborting")
    old = RenamesKeys.of(person.store).rename(person.store.key("prod+retired"), "prod")
    # Another machine's rotation, which had looked before.
    new = person.store.generate_like(old, "prod+next")
    with person.management() as management:
        api_key_id = management.api_keys.create(name="prod", public_key=new.public_pem()).api_key.api_key
    new = person.store.bind(new, api_key_id, environment_name(person.sandbox.base_url))
    taken, left = RenamesKeys.of(person.store).hand_over("prod", taker=new, leaver=old, mark="+retired")
    return taken, left, condemned


def test_what_an_interrupted_abort_left_ends_with_the_next_rotation(person: Rotating) -> None:
    current, retired, _ = _with_an_interrupted_abort(person)
    assert person.advance().stage == "grace"
    assert person.in_store() == {"prod": current.api_key_id, "prod+retired": retired.api_key_id}
    assert person.live() == {current.api_key_id, retired.api_key_id}


def test_it_is_left_alone_where_it_alone_works(person: Rotating) -> None:
    current, retired, condemned = _with_an_interrupted_abort(person)
    with person.management() as management:
        for key in (current, retired):
            management.api_keys.delete(str(key.api_key_id))
    before = person.in_store()
    for command in (person.advance, person.finish, person.abort):
        with pytest.raises(KeyProblemError, match="Kalshi takes no other key of 'prod'; nothing was done"):
            command()
    assert person.in_store() == before
    assert person.live() == {condemned.api_key_id}


def _made_while_handed_over(person: Rotating) -> StoredKey:
    """Return a key of a name that was made while a rotation handed the name over."""
    person.enrolled()
    RenamesKeys.of(person.store).rename(person.advance().key, "prod+next")
    return person.store.generate("prod", KeyType.ED25519, environment_name(person.sandbox.base_url))


def test_a_key_that_was_made_while_the_name_was_handed_over_ends(person: Rotating) -> None:
    stray = _made_while_handed_over(person)
    with pytest.raises(KeyExistsError, match="handed the name over; nothing was registered"):
        person.enroll("prod")
    before = person.in_store()
    assert person.advance().key.public_key() != stray.public_key()
    assert person.in_store() == {"prod": before["prod+next"], "prod+retired": before["prod+retired"]}


def test_a_key_that_was_imported_while_the_name_was_handed_over_ends_with_its_api_key(
    person: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `generate` was killed before it gave way: nobody was told of the API key."""
    person.enrolled()
    RenamesKeys.of(person.store).rename(person.advance().key, "prod+next")
    before, lived = person.in_store(), person.live()
    pair = Ed25519PrivateKey.generate()
    with person.management() as management:
        made = management.api_keys.create(name="prod", public_key=public_key_pem(pair.public_key())).api_key.api_key
    imports = ImportsKeys.of(person.store).imports()
    imports.prepare("prod", KeyType.ED25519, environment_name(person.sandbox.base_url))
    with monkeypatch.context() as patch:
        patch.setattr(importing, "write_label", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            imports.put("prod", pair, made, environment_name(person.sandbox.base_url))
    for obj in list(session_of(person.store).get_objects({Attribute.LABEL: "prod+importing"})):
        obj.destroy()
    assert person.store.key("prod").api_key_id == before["prod+next"]
    assert person.advance().key.api_key_id == before["prod+next"]
    assert person.in_store() == {"prod": before["prod+next"], "prod+retired": before["prod+retired"]}
    assert person.live() == lived


def test_it_is_left_alone_where_kalshi_knows_it(person: Rotating) -> None:
    stray = _made_while_handed_over(person)
    with person.management() as management:
        api_key_id = management.api_keys.create(name="prod", public_key=stray.public_pem()).api_key.api_key
    before = person.in_store()
    with pytest.raises(KeyProblemError, match=f"Kalshi knows it as API key {api_key_id}; nothing was done") as refused:
        person.advance()
    assert f"hsm-keys revoke {api_key_id}" in refused.value.hint
    assert person.in_store() == before


def test_it_is_left_alone_where_another_machine_registers_it_meanwhile(
    person: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    _made_while_handed_over(person)
    renames = RenamesKeys.of(person.store)
    rename = renames.rename

    def registered_first(key: StoredKey, name: str) -> StoredKey:
        renamed = rename(key, name)
        environment = environment_name(person.sandbox.base_url)
        return person.store.bind(renamed, str(uuid4()), environment) if name.endswith("+ending") else renamed

    monkeypatch.setattr(renames, "rename", registered_first)
    with pytest.raises(KeyBusyError):
        person.advance()
    assert set(person.in_store()) == {"prod", "prod+next", "prod+retired"}


@pytest.mark.parametrize("works", [True, False])
def test_the_only_key_has_the_name_though_a_finish_marked_it_late(person: Rotating, *, works: bool) -> None:
    """Another machine's abort gave the name back to it before; nothing says any more that it has an end."""
    old = person.enrolled()
    RenamesKeys.of(person.store).rename(old, "prod+finishing")
    assert person.store.key("prod").api_key_id == old.api_key_id
    if works:
        assert person.advance().stage == "grace"
        assert set(person.in_store()) == {"prod", "prod+retired"}
    else:
        person.sandbox.state.delete_key(str(old.api_key_id))
        with pytest.raises(KeyProblemError, match="Kalshi doesn't take it any more"):
            person.advance()
        assert set(person.in_store()) == {"prod+finishing"}


def test_a_pair_that_another_machine_registered_meanwhile_is_left_to_it(
    person: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hsm_keys.lifecycle.registering import Registrar

    post = Registrar._post

    def raced(self: Registrar, key: StoredKey, *arguments: Any) -> str:
        person.sandbox.add_key("prod", key.public_pem())
        return post(self, key, *arguments)

    monkeypatch.setattr(Registrar, "_post", raced)
    with pytest.raises(KeyBusyError, match="at the same moment"):
        person.enrolled()
    assert len(person.live()) == 1  # the other one's
    monkeypatch.undo()
    monkeypatch.setenv("KALSHI_API_BASE_URL", person.sandbox.base_url)
    assert person.enrolled().api_key_id == next(iter(person.live()))


def test_a_pair_that_another_machine_destroyed_meanwhile_leaves_no_api_key(
    person: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hsm_keys.lifecycle.registering import Registrar

    post = Registrar._post

    def raced(self: Registrar, key: StoredKey, *arguments: Any) -> str:
        api_key_id = post(self, key, *arguments)
        (marked,) = [kept for kept in person.store.keys() if kept.name == key.name]
        person.store.destroy(marked)
        return api_key_id

    monkeypatch.setattr(Registrar, "_post", raced)
    with pytest.raises(KeyBusyError, match="destroyed the pair"):
        person.enrolled()
    assert person.live() == set()
    assert person.in_store() == {}
