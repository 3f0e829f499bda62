"""Enrolling on a real token against a strict server: every end, and every place to be interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyState, KeyType
from hsm_keys.errors import (
    CustodyError,
    KalshiError,
    KeyBusyError,
    KeyExistsError,
    KeyProblemError,
    OutcomeUnknownError,
    StoreError,
    UsageError,
)
from hsm_keys.kalshi.errors import ConflictError, ForbiddenError, RateLimitError, TierError, UnauthorizedError
from hsm_keys.lifecycle.enroll import Enrollment, adopt, enroll_offline
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.key_names import ENDING
from tests.lifecycle.person import Person
from tests.support.oddkeys import make_extractable

if TYPE_CHECKING:
    from hsm_keys import KalshiClient, KeyStore, RequestSigner

pytestmark = pytest.mark.softhsm


class Enrolling(Person):
    """Somebody with the bootstrap key, who enrolls."""

    def adopt(self, name: str, api_key_id: str) -> Enrollment:
        return adopt(
            self.store, name, api_key_id, environment=self.environment, connect=self.connect, report=self.said.append
        )

    def posts(self) -> int:
        return sum(seen.method == "POST" for seen in self.sandbox.requests)


@pytest.fixture
def person(store: KeyStore, sandbox: SandboxServer) -> Enrolling:
    return Enrolling(sandbox, store)


@pytest.mark.parametrize("key_type", [None, KeyType.ED25519])
def test_from_nothing_to_registered_and_proved(person: Enrolling, key_type: KeyType | None) -> None:
    done = person.enroll(key_type=key_type)
    key = person.store.key("prod")
    assert key.state is KeyState.REGISTERED
    assert key.key_type is (key_type or KeyType.RSA_2048)
    assert person.registered("prod") == [done.api_key_id] == [key.api_key_id]
    registered = person.sandbox.state.keys[str(key.api_key_id)]
    assert registered.public_pem == key.public_pem()
    assert registered.scopes == ("read", "write")
    last = person.sandbox.requests[-1]
    assert (last.method, last.path, last.api_key_id) == ("GET", "/trade-api/v2/portfolio/balance", key.api_key_id)
    assert (last.verified, last.status) == (True, 200)
    assert done.custody.verdict == "in custody"
    assert len(person.said) == 6
    assert "move money" in person.said[0]


def test_scopes_and_subaccount_reach_kalshi(person: Enrolling) -> None:
    person.enroll("trade", scopes=["read", "write::trade"])
    person.enroll("sub", subaccount=7)
    assert sum("move money" in line for line in person.said) == 1
    by_name = {key.name: key for key in person.sandbox.state.keys.values()}
    assert by_name["trade"].scopes == ("read", "write::trade")
    assert by_name["sub"].subaccount == 7


def test_a_key_that_may_read_nothing_is_proved_all_the_same(person: Enrolling) -> None:
    done = person.enroll(scopes=["write::trade"])
    assert done.api_key_id == person.store.key("prod").api_key_id
    last_two = person.sandbox.requests[-2:]
    assert [(seen.verified, seen.status) for seen in last_two] == [(True, 403), (False, 401)]


@pytest.mark.parametrize(
    "options",
    [
        {"scopes": ["write"]},
        {"scopes": ["reed"]},
        {"scopes": []},
        {"subaccount": 64},
        {"subaccount": -1},
        {"name": "a b"},
    ],
)
def test_bad_input_is_refused_before_anything_is_made_or_sent(person: Enrolling, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        person.enroll(**{"name": "prod", **options})
    assert person.store.keys() == []
    assert person.sandbox.requests == ()


def test_an_enrolled_name_is_refused_and_nothing_changes(person: Enrolling) -> None:
    person.enroll()
    posts = person.posts()
    with pytest.raises(KeyExistsError, match="enrolled already"):
        person.enroll()
    assert person.posts() == posts
    assert len(person.registered("prod")) == 1


def test_an_extractable_key_is_refused_and_never_registered(person: Enrolling) -> None:
    make_extractable(person.store, "prod")
    with pytest.raises(CustodyError, match="extractable"):
        person.enroll(key_type=None)
    assert person.posts() == 0
    assert person.store.key("prod").state is KeyState.MINTED


def test_a_bootstrap_key_that_kalshi_refuses_is_found_before_a_key_is_made(person: Enrolling) -> None:
    person.sandbox.state.delete_key(person.sandbox.bootstrap_key_id)
    with pytest.raises(UnauthorizedError) as caught:
        person.enroll()
    assert "doesn't know this API key id" in caught.value.hint
    assert person.store.keys() == []


def test_a_minted_key_of_another_type_is_not_taken_for_what_was_asked(person: Enrolling) -> None:
    person.store.generate("prod", KeyType.RSA_2048)
    with pytest.raises(KeyProblemError, match="rsa-2048"):
        person.enroll(key_type=KeyType.ED25519)
    assert person.posts() == 0


def test_below_premier_the_key_is_kept_and_the_way_out_is_told(store: KeyStore) -> None:
    with SandboxServer(tier="basic") as basic:
        person = Enrolling(basic, store)
        with pytest.raises(TierError) as caught:
            person.enroll()
        assert caught.value.exit_code == 6
        assert "--offline" in caught.value.hint
        assert "stays in the store" in caught.value.message
        key = store.key("prod")
        assert key.state is KeyState.MINTED

        offline = enroll_offline(store, "prod", None, person.said.append, environment=person.environment)
        assert offline.key.public_pem() == key.public_pem()
        by_hand = basic.add_key("pasted", key.public_pem()).api_key_id
        adopted = person.adopt("prod", by_hand)
    assert adopted.api_key_id == store.key("prod").api_key_id == by_hand


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("POST /api_keys:status=400:1", KalshiError),
        ("POST /api_keys:status=401:1", UnauthorizedError),
        ("POST /api_keys:status=409:1", ConflictError),
        ("POST /api_keys:status=429:1", RateLimitError),
        ("POST /api_keys:drop-before:1", OutcomeUnknownError),
        ("POST /api_keys:status=500:1", OutcomeUnknownError),
    ],
)
def test_what_kalshi_did_not_do_is_done_by_the_next_run_with_the_same_key(
    person: Enrolling, fault: str, error: type[Exception]
) -> None:
    person.sandbox.faults.add(parse_fault(fault))
    with pytest.raises(error) as caught:
        person.enroll()
    assert "stays in the store" in str(caught.value)
    assert person.posts() == 1
    pem = person.store.key("prod").public_pem()
    done = person.enroll()
    assert done.key.public_pem() == pem
    assert person.registered("prod") == [done.api_key_id]
    assert len(person.store.keys()) == 1


@pytest.mark.parametrize("fault", ["POST /api_keys:drop-after:1", "POST /api_keys:truncate:1"])
def test_an_answer_that_was_lost_is_found_again_and_never_asked_for_twice(person: Enrolling, fault: str) -> None:
    person.sandbox.add_key("prod", PEM_OF_SOMEBODY_ELSE)  # a namesake to tell apart
    person.sandbox.faults.add(parse_fault(fault))
    done = person.enroll()
    assert person.posts() == 1
    assert person.store.key("prod").api_key_id == done.api_key_id
    assert person.sandbox.state.keys[str(done.api_key_id)].public_pem == done.key.public_pem()


def test_an_answer_lost_together_with_the_network_is_found_by_the_next_run(person: Enrolling) -> None:
    person.sandbox.faults.add(parse_fault("POST /api_keys:drop-after:1"))
    person.sandbox.faults.add(parse_fault("GET /portfolio/balance:drop-before:3"))
    with pytest.raises(OutcomeUnknownError) as caught:
        person.enroll()
    assert "looks for the key before it posts" in caught.value.hint
    assert person.store.key("prod").state is KeyState.MINTED
    done = person.enroll()
    assert person.posts() == 1
    assert person.registered("prod") == [done.api_key_id]
    assert any("found the key registered" in line for line in person.said)


@pytest.mark.parametrize("step", ["bind", "prove"])
def test_a_run_that_dies_after_registering_is_finished_by_the_next(
    person: Enrolling, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        name = "bind" if step == "bind" else "prove_registration"
        patch.setattr(f"hsm_keys.lifecycle.registering.{name}", die)
        with pytest.raises(Killed):
            person.enroll()
    if step == "bind":
        person.enroll()
    else:
        with pytest.raises(KeyExistsError):
            person.enroll()
    assert person.posts() == 1
    assert person.registered("prod") == [person.store.key("prod").api_key_id]


def test_a_store_that_cannot_hold_the_id_ends_well_and_says_how_to_go_on(
    person: Enrolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("CKA_ID can't be changed", hint="give --api-key-id to every command")

    monkeypatch.setattr(person.store, "bind", refuse)
    done = person.enroll()
    assert done.api_key_id is not None
    assert any(line.startswith("WARNING") and "--api-key-id" in line for line in person.said)


def test_a_registration_of_an_earlier_run_with_other_rights_is_refused(person: Enrolling) -> None:
    key = person.store.generate("prod", KeyType.ED25519)
    registered = person.sandbox.add_key("prod", key.public_pem())  # with read and write
    for options in ({"scopes": ["read"]}, {"scopes": ["read", "write"], "subaccount": 3}):
        with pytest.raises(KeyProblemError, match="other rights than this command asks for") as caught:
            person.enroll("prod", **options)
        assert registered.api_key_id in caught.value.message
        assert person.store.key("prod").api_key_id is None
    assert person.enroll("prod").api_key_id == registered.api_key_id
    assert any("the scopes read, write on all subaccounts" in line for line in person.said)


def test_a_namesake_at_kalshi_is_mentioned(person: Enrolling) -> None:
    other = person.sandbox.add_key("prod", PEM_OF_SOMEBODY_ELSE).api_key_id
    person.enroll()
    assert any(other in line for line in person.said)


def test_adopt_binds_only_what_it_can_prove(person: Enrolling) -> None:
    key = person.store.generate("prod", KeyType.ED25519)
    stranger = person.sandbox.add_key("other", PEM_OF_SOMEBODY_ELSE).api_key_id
    with pytest.raises(KalshiError, match="refuses the signature"):
        person.adopt("prod", stranger)
    assert person.store.key("prod").state is KeyState.MINTED
    mine = person.sandbox.add_key("prod", key.public_pem()).api_key_id
    assert person.adopt("prod", mine).api_key_id == mine
    assert person.adopt("prod", mine.upper()).api_key_id == mine  # again, and as typed
    second = person.sandbox.add_key("again", key.public_pem()).api_key_id
    with pytest.raises(KeyExistsError, match="still accepts it"):
        person.adopt("prod", second)
    person.sandbox.state.delete_key(mine)
    assert person.adopt("prod", second).api_key_id == second
    assert person.store.key("prod").api_key_id == second


def test_adopt_looks_in_the_end_whether_the_key_still_has_its_name(person: Enrolling) -> None:
    key = person.store.generate("prod", KeyType.ED25519)
    mine = person.sandbox.add_key("prod", key.public_pem()).api_key_id

    def connect(signer: RequestSigner) -> KalshiClient:
        if person.store.holds("prod"):
            RenamesKeys.of(person.store).rename(person.store.key("prod"), "prod" + ENDING)
        return person.connect(signer)

    with pytest.raises(KeyBusyError, match="meanwhile"):
        adopt(person.store, "prod", mine, environment=person.environment, connect=connect, report=person.said.append)


def test_a_403_that_says_nothing_about_the_key_proves_nothing(person: Enrolling) -> None:
    key = person.store.generate("prod", KeyType.ED25519)
    stranger = person.sandbox.add_key("other", PEM_OF_SOMEBODY_ELSE).api_key_id
    person.sandbox.faults.add(parse_fault("GET /portfolio/balance:status=403"))
    with pytest.raises((ForbiddenError, KalshiError)):
        person.adopt(key.name, stranger)
    assert person.store.key("prod").state is KeyState.MINTED


PEM_OF_SOMEBODY_ELSE = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
