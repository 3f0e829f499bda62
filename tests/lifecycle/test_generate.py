"""Generating on a real token against a strict server: every end, and every place to be interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys import KeyState, KeyType
from hsm_keys.errors import (
    CustodyError,
    KalshiError,
    KeyAmbiguousError,
    KeyBusyError,
    KeyExistsError,
    KeyProblemError,
    NetworkError,
    OutcomeUnknownError,
    SigningError,
    StoreError,
    UsageError,
)
from hsm_keys.kalshi.account import Account
from hsm_keys.kalshi.errors import ForbiddenError, RateLimitError
from hsm_keys.lifecycle.generate import Generator
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.pkcs11 import importing
from hsm_keys.stores.pkcs11.halves import public_template
from tests.lifecycle.person import Person
from tests.support.oddkeys import OUR_MARK, session_of
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys import KeyStore
    from hsm_keys.lifecycle.enroll import Enrollment

pytestmark = pytest.mark.softhsm

GENERATE = "POST /api_keys/generate"


class Generating(Person):
    """Somebody with the bootstrap key, who lets Kalshi make keys."""

    def generate(self, name: str = "ci", **options: Any) -> Enrollment:
        chosen = {"key_type": KeyType.ED25519, "scopes": None, "subaccount": None, **options}
        with self.management() as management:
            wanted = ApiKeyRequest(name, chosen["scopes"], chosen["subaccount"])
            maker = KalshiGenerator(wanted, chosen["key_type"], Account(management, self.connect), self.said.append)
            return Generator(self.store, maker).run()

    def posts(self) -> int:
        return sum(seen.path.endswith("/generate") for seen in self.sandbox.requests)

    def fault(self, *specs: str) -> None:
        for spec in specs:
            self.sandbox.faults.add(parse_fault(spec))

    def objects(self) -> list[tuple[str, str]]:
        """Class and label of everything in the token."""
        return sorted((obj[Attribute.CLASS].name, obj[Attribute.LABEL]) for obj in session_of(self.store).get_objects())

    def settled(self, done: Enrollment) -> None:
        """One live API key of the name, its one private half in the store, and nothing else on either side."""
        assert self.registered(done.key.name) == [done.api_key_id]
        assert self.objects() == [("PRIVATE_KEY", done.key.name), ("PUBLIC_KEY", done.key.name)]
        kept = self.store.key(done.key.name)
        assert kept.api_key_id == done.api_key_id
        assert kept.public_pem() == self.sandbox.state.keys[str(done.api_key_id)].public_pem
        kept.signer().headers("GET", "/portfolio/balance")


@pytest.fixture
def person(store: KeyStore, sandbox: SandboxServer) -> Generating:
    return Generating(sandbox, store)


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_from_nothing_to_imported_bound_and_proved(person: Generating, key_type: KeyType, tmp_path: Path) -> None:
    done = person.generate(key_type=key_type, scopes=["read", "write::trade"], subaccount=7)
    person.settled(done)
    key = person.store.key("ci")
    assert (key.state, key.key_type) == (KeyState.REGISTERED, key_type)
    made = person.sandbox.state.keys[str(key.api_key_id)]
    assert (made.scopes, made.subaccount) == (("read", "write::trade"), 7)
    assert openssl_verifies(tmp_path, made.public_pem, b"by other hands", key.sign(b"by other hands"))
    last = person.sandbox.requests[-1]
    assert (last.path, last.api_key_id, last.verified) == ("/trade-api/v2/portfolio/balance", key.api_key_id, True)
    assert person.posts() == 1


def test_beside_a_key_that_a_killed_revoke_left_nothing_is_made(person: Generating) -> None:
    done = person.generate()
    RenamesKeys.of(person.store).rename(done.key, "ci+ending")
    with pytest.raises(KeyExistsError, match="interrupted") as caught:
        person.generate()
    assert "revoke ci --destroy" in caught.value.hint
    assert person.posts() == 1


def test_beside_a_rotation_nothing_is_made_and_the_hint_ends_it(person: Generating) -> None:
    person.store.generate("ci+next", KeyType.ED25519)
    with pytest.raises(KeyExistsError, match="rotation of 'ci' is under way") as caught:
        person.generate()
    assert "revoke ci+next --destroy" in caught.value.hint
    person.enroll("ci")
    with pytest.raises(KeyExistsError, match="rotation of 'ci' is under way") as caught:
        person.generate()
    assert "rotate ci" in caught.value.hint
    assert person.posts() == 0


def test_custody_is_told_as_it_is(person: Generating) -> None:
    said = person.generate().custody.as_dict()
    assert said["verdict"] == "imported, made by Kalshi"
    assert said["made_by"] == "Kalshi"
    assert (said["local"], said["always_sensitive"], said["never_extractable"]) == (False, False, False)
    assert (said["sensitive"], said["extractable"], said["private_half_readable"]) == (True, False, False)
    assert said["signature_verified"] is True
    assert any(problem.startswith("made_by=Kalshi") for problem in said["problems"])
    assert "imported, made by Kalshi" in person.said[-1]


def test_below_premier_it_works_too(store: KeyStore) -> None:
    with SandboxServer(tier="basic") as basic:
        person = Generating(basic, store)
        person.settled(person.generate())


@pytest.mark.parametrize(
    "options",
    [
        {"scopes": ["write"]},
        {"scopes": ["reed"]},
        {"subaccount": 64},
        {"name": "a b"},
        {"name": "a+importing"},
        {"key_type": KeyType.RSA_3072},
    ],
)
def test_bad_input_is_refused_before_anything_is_made_or_sent(person: Generating, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        person.generate(**options)
    assert person.objects() == []
    assert person.sandbox.requests == ()


@pytest.mark.parametrize("registered", [True, False])
def test_a_name_that_the_store_has_is_refused(person: Generating, *, registered: bool) -> None:
    key = person.store.generate("ci", KeyType.ED25519)
    if registered:
        person.store.bind(
            key, person.sandbox.add_key("ci", key.public_pem()).api_key_id, environment_name(person.sandbox.base_url)
        )
    before = person.objects()
    with pytest.raises(KeyExistsError, match="nothing was changed") as caught:
        person.generate()
    assert caught.value.exit_code == 5
    assert person.objects() == before
    assert person.posts() == 0


def test_a_key_that_is_done_is_not_generated_again(person: Generating) -> None:
    done = person.generate()
    with pytest.raises(KeyExistsError):
        person.generate()
    person.settled(done)


def test_a_namesake_that_somebody_may_use_is_left_alone(person: Generating) -> None:
    other = person.sandbox.add_key("ci", PEM_OF_SOMEBODY_ELSE).api_key_id
    with pytest.raises(KeyExistsError, match=other) as caught:
        person.generate()
    assert "from a PEM" in caught.value.hint
    assert person.registered("ci") == [other]
    assert person.objects() == []
    assert person.posts() == 0


def test_two_runs_at_once_are_not_let_in(person: Generating) -> None:
    with exclusive(person.store, "ci"), pytest.raises(KeyBusyError):
        person.generate()
    assert person.sandbox.requests == ()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (f"{GENERATE}:status=400:1", KalshiError),
        (f"{GENERATE}:status=403:1", ForbiddenError),
        (f"{GENERATE}:status=429:1", RateLimitError),
    ],
)
def test_what_kalshi_refuses_leaves_nothing_behind(person: Generating, fault: str, error: type[Exception]) -> None:
    person.fault(fault)
    with pytest.raises(error):
        person.generate()
    assert person.objects() == []
    assert person.registered("ci") == []
    person.settled(person.generate())


def test_a_list_that_is_refused_leaves_nothing_behind(person: Generating) -> None:
    person.fault("GET /api_keys:status=403")
    with pytest.raises(ForbiddenError):
        person.generate()
    assert person.objects() == []


@pytest.mark.parametrize("kind", ["drop-after", "truncate"])
def test_an_answer_that_was_lost_costs_one_api_key_which_is_deleted(person: Generating, kind: str) -> None:
    person.fault(f"{GENERATE}:{kind}:1")
    person.settled(person.generate())
    assert person.posts() == 2


@pytest.mark.parametrize("kind", ["drop-before", "status=500"])
def test_what_may_still_be_made_is_not_asked_for_again(person: Generating, kind: str) -> None:
    person.fault(f"{GENERATE}:{kind}:1")
    with pytest.raises(OutcomeUnknownError) as caught:
        person.generate()
    assert "in a minute" in caught.value.hint
    assert person.posts() == 1
    assert [label for _, label in person.objects()] == ["ci+importing", "ci+importing"]
    person.settled(person.generate())


def test_two_answers_that_were_lost_end_the_run_and_the_next_one_cleans_up(person: Generating) -> None:
    person.fault(f"{GENERATE}:drop-after:2")
    with pytest.raises(OutcomeUnknownError):
        person.generate()
    assert person.posts() == 2
    assert len(person.registered("ci")) == 1
    person.settled(person.generate())


def test_what_kalshi_makes_late_is_deleted_by_the_next_run(person: Generating) -> None:
    person.fault(f"{GENERATE}:drop-before:1")
    with pytest.raises(OutcomeUnknownError):
        person.generate()
    late = person.sandbox.add_key("ci", PEM_OF_SOMEBODY_ELSE).api_key_id
    person.settled(person.generate())
    assert late not in person.sandbox.state.keys


def test_several_lost_ones_are_listed_and_none_is_deleted(person: Generating) -> None:
    person.fault(f"{GENERATE}:drop-before:1")
    with pytest.raises(OutcomeUnknownError):
        person.generate()
    ids = {person.sandbox.add_key("ci", PEM_OF_SOMEBODY_ELSE).api_key_id for _ in range(2)}
    with pytest.raises(KeyAmbiguousError) as caught:
        person.generate()
    assert all(api_key_id in caught.value.message for api_key_id in ids)
    assert set(person.registered("ci")) == ids
    assert person.posts() == 1


def test_a_deletion_whose_answer_was_lost_is_settled_by_looking(person: Generating) -> None:
    person.fault(f"{GENERATE}:drop-after:1", "DELETE /api_keys/{api_key}:drop-after:1")
    person.settled(person.generate())


@pytest.mark.parametrize(
    "fault", ["DELETE /api_keys/{api_key}:drop-before:1", "DELETE /api_keys/{api_key}:status=403:1"]
)
def test_a_lost_key_that_cannot_be_deleted_now_is_deleted_by_the_next_run(person: Generating, fault: str) -> None:
    person.fault(f"{GENERATE}:drop-after:1", fault)
    with pytest.raises((KalshiError, OutcomeUnknownError)):
        person.generate()
    assert len(person.registered("ci")) == 1
    assert ("PRIVATE_KEY", "ci+importing") in person.objects()
    person.settled(person.generate())


def refuse(*_: object, **__: object) -> None:
    raise ckr.TemplateInconsistent


def test_a_token_that_takes_no_imports_is_found_out_before_kalshi_is_asked(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_private_half", refuse)
    monkeypatch.setattr(importing, "_UNWRAPPING", frozenset({"nothing"}))
    with pytest.raises(StoreError, match="takes no keys of this type that were made elsewhere") as caught:
        person.generate()
    assert "enroll" in caught.value.hint
    assert person.posts() == 0
    assert person.objects() == []


def test_a_token_that_keeps_nothing_in_is_found_out_before_kalshi_is_asked(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaky = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True, Attribute.PRIVATE: True}
    monkeypatch.setattr(importing, "_PROTECTED", leaky)
    with pytest.raises(CustodyError, match="extractable=True"):
        person.generate()
    assert person.posts() == 0
    assert person.objects() == []


def test_a_key_that_does_not_go_in_is_deleted_at_kalshi_again(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importing._import_pair

    def full(session: Any, label: str, *rest: Any) -> Any:
        if label == "ci":
            raise ckr.DeviceMemory
        return real(session, label, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_import_pair", full)
        with pytest.raises(StoreError, match="was deleted again") as caught:
            person.generate()
    assert "full" in caught.value.hint
    assert person.registered("ci") == []
    assert person.objects() == []
    person.settled(person.generate())


def test_a_key_that_can_not_be_imported_while_kalshi_is_down_is_left_to_the_next_run(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importing._import_pair

    def full(session: Any, label: str, *rest: Any) -> Any:
        if label == "ci":
            raise ckr.DeviceMemory
        return real(session, label, *rest)

    person.fault("DELETE /api_keys/{api_key}:drop-before:1")
    with monkeypatch.context() as patch:
        patch.setattr(importing, "_import_pair", full)
        with pytest.raises(StoreError, match="run the same command again") as caught:
            person.generate()
    assert person.registered("ci")[0] in caught.value.message
    person.settled(person.generate())


def test_a_key_that_signs_with_another_private_half_is_destroyed_and_deleted(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importing._import_pair

    def exchanged(session: Any, label: str, cka_id: bytes, private_key: Any) -> Any:
        pair = importing._throwaway(KeyType.ED25519) if label == "ci" else private_key
        return real(session, label, cka_id, pair)

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_import_pair", exchanged)
        with pytest.raises(SigningError, match="was deleted again"):
            person.generate()
    assert person.registered("ci") == []
    assert person.objects() == []


def test_a_key_of_another_type_than_was_asked_for_is_deleted_again(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.lifecycle.made_by_kalshi._KALSHIS_WORDS", {KeyType.ED25519: "rsa"})
    with pytest.raises(KalshiError, match="gave no ed25519 private key"):
        person.generate()
    assert person.registered("ci") == []
    assert person.objects() == []


def test_a_proof_that_is_not_answered_is_made_by_the_next_run(person: Generating) -> None:
    person.fault("GET /portfolio/balance:drop-before:3")
    with pytest.raises(NetworkError):
        person.generate()
    done = person.generate()
    person.settled(done)
    assert done.custody.verdict == "imported, made by Kalshi"
    assert person.posts() == 1
    assert any("picked up" in line for line in person.said)


def test_an_imported_key_of_another_type_is_not_taken_for_what_was_asked(person: Generating) -> None:
    person.fault("GET /portfolio/balance:drop-before:3")
    with pytest.raises(NetworkError):
        person.generate(key_type=KeyType.RSA_2048)
    with pytest.raises(KeyProblemError, match="rsa-2048") as caught:
        person.generate()
    assert "--key-type rsa-2048" in caught.value.hint
    person.settled(person.generate(key_type=KeyType.RSA_2048))


def test_a_key_of_an_earlier_run_with_other_rights_is_refused(person: Generating) -> None:
    person.fault("GET /portfolio/balance:drop-before:3")
    with pytest.raises(NetworkError):
        person.generate()
    with pytest.raises(KeyProblemError, match="other rights than this command asks for"):
        person.generate(scopes=["read"])
    person.settled(person.generate())


def test_a_mark_of_another_type_is_replaced(person: Generating) -> None:
    person.fault(f"{GENERATE}:drop-before:1")
    with pytest.raises(OutcomeUnknownError):
        person.generate(key_type=KeyType.RSA_2048)
    done = person.generate()
    person.settled(done)
    assert done.key.key_type is KeyType.ED25519


def test_a_key_that_was_enrolled_over_an_interrupted_run_is_not_called_imported(
    person: Generating, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.fault(f"{GENERATE}:drop-after:2")
    with pytest.raises(OutcomeUnknownError):
        person.generate()
    with pytest.raises(KeyExistsError, match="hasn't ended"):
        person.enroll("ci")
    # One that looked right before the mark was left:
    monkeypatch.setattr("hsm_keys.lifecycle.enroll.check_no_import_begun", lambda *_: None)
    done = person.enroll("ci")
    assert len(person.registered("ci")) == 2
    with pytest.raises(KeyExistsError, match="made in the store"):
        person.generate()
    person.settled(done)


def test_half_a_pair_that_a_crash_left_is_in_nobodys_way(person: Generating) -> None:
    for label in ("ci", "ci+importing"):
        public = public_template(importing._throwaway(KeyType.ED25519).public_key())
        session_of(person.store).create_object(
            {**public, Attribute.TOKEN: True, Attribute.LABEL: label, Attribute.ID: OUR_MARK}
        )
    assert public[Attribute.CLASS] is ObjectClass.PUBLIC_KEY
    person.settled(person.generate())


PEM_OF_SOMEBODY_ELSE = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
