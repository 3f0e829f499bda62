"""Revoking on a real token against a strict server: every end, every place to be interrupted, and no key too many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyState, KeyType, RequestSigner, open_store
from hsm_keys.errors import (
    EndNotProvedError,
    KalshiError,
    KeyAmbiguousError,
    KeyBusyError,
    KeyNotFoundError,
    KeyNotRegisteredError,
    KeyProblemError,
    NetworkError,
    OutcomeUnknownError,
    UsageError,
)
from hsm_keys.inspecting.proof_of_possession import Standing, is_arriving
from hsm_keys.kalshi.account import Account
from hsm_keys.kalshi.errors import ForbiddenError, UnauthorizedError
from hsm_keys.kalshi.models import ApiKey
from hsm_keys.lifecycle.ending import end_api_key
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
from hsm_keys.lifecycle.revoke import Revoked, Revoker
from hsm_keys.lifecycle.rights import manages_keys, may_manage
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.sandbox import parse_fault
from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.abilities import ImportsKeys
from tests.lifecycle.person import Person
from tests.support.ministack import account
from tests.support.oddkeys import make_twin

if TYPE_CHECKING:
    from hsm_keys import KeyStore, StoredKey
    from hsm_keys.sandbox import SandboxServer

__all__ = ["account"]  # pytest finds the fixture here

DELETE = "DELETE /api_keys/{api_key}"


class Killed(BaseException):
    """The process ends here."""


def die(*_: object, **__: object) -> None:
    raise Killed


class Revoking(Person):
    """Somebody with the bootstrap key, or with a key of the store, who revokes."""

    def add(self, name: str, **restrictions: object) -> StoredKey:
        """Enroll a key, without the steps that don't matter here."""
        key = self.store.generate(name, KeyType.ED25519)
        registered = self.sandbox.add_key(name, key.public_pem(), **restrictions)  # type: ignore[arg-type]
        return self.store.bind(key, registered.api_key_id, self.environment)

    def revoke(
        self,
        word: str,
        *,
        destroy: bool = False,
        force: bool = False,
        never_registered: bool = False,
        signer: RequestSigner | None = None,
    ) -> Revoked:
        with self.connect(signer or self.bootstrap) as management:
            parts = self.store, Account(management, self.connect), self.said.append
            planner = RevocationPlanner(*parts)
            plan = planner.plan(word, destroy=destroy, force=force, never_registered=never_registered)
            return Revoker(*parts).carry_out(plan)

    def deletes(self) -> list[int | None]:
        return [seen.status for seen in self.sandbox.requests if seen.method == "DELETE"]

    def names(self) -> list[str]:
        return [key.name for key in self.store.keys()]


@pytest.fixture
def person(store: KeyStore, sandbox: SandboxServer) -> Revoking:
    return Revoking(sandbox, store)


pytestmark = pytest.mark.softhsm


@pytest.mark.parametrize("destroy", [False, True])
@pytest.mark.parametrize("by", ["name", "id"])
def test_an_api_key_is_deleted_proved_dead_and_destroyed_on_request(
    person: Revoking, by: str, *, destroy: bool
) -> None:
    key = person.add("prod")
    other = person.add("other")
    done = person.revoke("prod" if by == "name" else str(key.api_key_id).upper(), destroy=destroy)
    assert done.as_dict() == {
        "name": "prod",
        "api_key_id": key.api_key_id,
        "revoked": True,
        "private_half": "destroyed" if destroy else "kept",
    }
    assert set(person.sandbox.state.keys) == {person.sandbox.bootstrap_key_id, other.api_key_id}
    assert person.names() == (["other"] if destroy else ["other", "prod"])
    last = person.sandbox.requests[-1]
    assert (last.method, last.api_key_id, last.status) == ("GET", key.api_key_id, 401)
    assert any("proved it" in line for line in person.said)


def test_the_proof_comes_before_the_destruction(person: Revoking, monkeypatch: pytest.MonkeyPatch) -> None:
    key = person.add("prod")
    monkeypatch.setattr("hsm_keys.lifecycle.ending.standing_of", lambda *_: Standing.TAKEN)  # for ever
    monkeypatch.setattr("hsm_keys.lifecycle.ending._ATTEMPTS", 1)
    with pytest.raises(KalshiError, match="still takes its signature"):
        person.revoke("prod", destroy=True)
    assert person.store.key("prod").public_key() == key.public_key()


def test_a_key_whose_private_half_is_elsewhere_ends_on_kalshis_word_once(person: Revoking) -> None:
    bot = person.sandbox.add_key("a bot", PEM_OF_SOMEBODY_ELSE)
    done = person.revoke("a bot")
    assert (done.name, done.api_key_id, done.revoked, done.private_half) == ("a bot", bot.api_key_id, True, "elsewhere")
    assert bot.api_key_id not in person.sandbox.state.keys
    with pytest.raises(EndNotProvedError, match="another environment"):  # nobody can tell by now where it lived
        person.revoke(bot.api_key_id)
    assert person.deletes() == [204, 404]


def test_what_is_not_in_the_store_cannot_be_destroyed_and_nothing_is_done(person: Revoking) -> None:
    bot = person.sandbox.add_key("bot", PEM_OF_SOMEBODY_ELSE)
    with pytest.raises(UsageError, match="nothing was done"):
        person.revoke("bot", destroy=True)
    assert bot.api_key_id in person.sandbox.state.keys


def test_a_store_name_wins_and_the_choice_is_explained(person: Revoking) -> None:
    key = person.add("prod")
    namesake = person.sandbox.add_key("prod", PEM_OF_SOMEBODY_ELSE)
    with person.management() as management:
        planner = RevocationPlanner(person.store, Account(management, person.connect), person.said.append)
        plan = planner.plan("prod", destroy=False, force=False)
    assert plan.target.api_key_id == key.api_key_id
    assert namesake.api_key_id in plan.target.explanation
    assert person.deletes() == []


def test_what_is_ambiguous_lists_the_ids_and_changes_nothing(person: Revoking) -> None:
    twins = [person.sandbox.add_key("bot", PEM_OF_SOMEBODY_ELSE).api_key_id for _ in range(2)]
    with pytest.raises(KeyAmbiguousError) as caught:
        person.revoke("bot")
    assert all(twin in caught.value.message for twin in twins)
    prod = person.add("prod")
    make_twin(person.store, "prod")
    with pytest.raises(KeyAmbiguousError, match=str(prod.api_key_id)):
        person.revoke("prod", destroy=True)
    assert person.deletes() == []
    assert person.revoke(str(prod.api_key_id), destroy=True).private_half == "destroyed"
    assert person.names() == ["prod"]  # the twin


def test_a_name_that_is_the_id_of_another_key_is_ambiguous(person: Revoking) -> None:
    victim = person.add("victim")
    person.add(str(victim.api_key_id))
    with pytest.raises(KeyAmbiguousError, match="several keys in the store"):
        person.revoke(str(victim.api_key_id))
    assert person.deletes() == []


def test_a_name_that_a_rotation_is_handing_over_is_not_guessed(person: Revoking) -> None:
    old, new = person.add("prod+retired"), person.add("prod+next")
    person.sandbox.add_key("prod", PEM_OF_SOMEBODY_ELSE)
    with pytest.raises(KeyProblemError, match="rotation was interrupted") as caught:
        person.revoke("prod")
    assert str(old.api_key_id) in caught.value.message
    assert str(new.api_key_id) in caught.value.message
    assert "rotate prod" in caught.value.hint
    person.revoke("prod+retired", destroy=True)
    assert person.names() == ["prod+next"]


@pytest.mark.parametrize("mark", ["+next", "+retired"])
def test_what_a_rotation_left_without_its_name_is_not_rotated_on(person: Revoking, mark: str) -> None:
    left = person.add(f"prod{mark}")
    with pytest.raises(KeyProblemError, match="interrupted") as raised:
        person.revoke("prod")
    assert str(left.api_key_id) in raised.value.message
    assert raised.value.hint == "give one of these names or ids"


@pytest.mark.parametrize("mark", ["+next", "+retired"])
def test_a_name_that_is_being_rotated_stands_for_two_keys(person: Revoking, mark: str) -> None:
    one, other = person.add("prod"), person.add("prod" + mark)
    with pytest.raises(KeyAmbiguousError, match="rotation of 'prod' is under way") as caught:
        person.revoke("prod")
    assert str(one.api_key_id) in caught.value.message
    assert str(other.api_key_id) in caught.value.message
    assert person.deletes() == []
    person.revoke(str(one.api_key_id), destroy=True)
    assert person.names() == ["prod" + mark]


def test_an_unknown_name_says_what_there_is(person: Revoking) -> None:
    person.add("prod")
    with pytest.raises(KeyNotFoundError) as caught:
        person.revoke("prud")
    assert "'prod'" in caught.value.hint
    assert "'bootstrap'" in caught.value.hint


def test_the_last_key_that_can_manage_keys_stays_unless_forced(person: Revoking) -> None:
    bootstrap = person.sandbox.bootstrap_key_id
    person.add("reader", scopes=["read"])
    person.add("sub", subaccount=3)
    with pytest.raises(KeyProblemError, match="last one that can manage"):
        person.revoke("bootstrap")
    assert person.deletes() == []
    person.revoke("sub")
    person.revoke("reader")
    person.revoke("bootstrap", force=True)
    assert bootstrap not in person.sandbox.state.keys


def test_a_key_may_revoke_itself(person: Revoking) -> None:
    key = person.add("prod")
    done = person.revoke("prod", destroy=True, signer=key.signer())
    assert (done.revoked, done.private_half) == (True, "destroyed")
    assert key.api_key_id not in person.sandbox.state.keys


@pytest.mark.parametrize("fault", ["drop-after", "truncate"])
@pytest.mark.parametrize("own", ["store", "bootstrap", "another"])
def test_a_lost_answer_is_settled_by_looking(person: Revoking, fault: str, own: str) -> None:
    key = person.add("prod")
    person.sandbox.faults.add(parse_fault(f"{DELETE}:{fault}:1"))
    signer = key.signer() if own == "store" else person.bootstrap
    word = "bootstrap" if own == "bootstrap" else "prod"
    done = person.revoke(word, signer=signer)
    assert done.revoked
    assert done.api_key_id not in person.sandbox.state.keys
    assert len(person.deletes()) == 1


def test_what_kalshi_did_not_delete_stays_and_is_said_to_be_unknown(person: Revoking) -> None:
    key = person.add("prod")
    person.sandbox.faults.add(parse_fault(f"{DELETE}:drop-before:1"))
    with pytest.raises(OutcomeUnknownError):
        person.revoke("prod", destroy=True)
    assert person.names() == ["prod"]
    assert person.revoke("prod", destroy=True).private_half == "destroyed"
    assert key.api_key_id not in person.sandbox.state.keys


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_refusal_destroys_nothing(person: Revoking, status: int) -> None:
    person.add("prod")
    person.sandbox.faults.add(parse_fault(f"{DELETE}:status={status}:1"))
    with pytest.raises(KalshiError):
        person.revoke("prod", destroy=True)
    assert person.names() == ["prod"]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("step", ["end_api_key", "delete", "destroy"])
def test_killed_anywhere_the_next_run_goes_on(
    person: Revoking, monkeypatch: pytest.MonkeyPatch, step: str, *, own: bool
) -> None:
    key = person.add("prod")
    signer = key.signer() if own else person.bootstrap
    with monkeypatch.context() as patch:
        if step == "destroy":
            patch.setattr(person.store, "destroy", die)
        else:
            patch.setattr(
                f"hsm_keys.lifecycle.{'revoke.end_api_key' if step == 'end_api_key' else 'ending.standing_of'}", die
            )
        with pytest.raises(Killed):
            person.revoke("prod", destroy=True, signer=signer)
    assert person.names() == ["prod+ending" if own else "prod"]
    assert person.revoke("prod", destroy=True, signer=signer).private_half == "destroyed"
    assert key.api_key_id not in person.sandbox.state.keys
    assert person.names() == []


def test_a_dead_key_that_signs_for_another_one_ends_nothing(person: Revoking) -> None:
    dead, alive = person.add("dead"), person.add("alive")
    person.sandbox.state.delete_key(str(dead.api_key_id))
    with pytest.raises(UnauthorizedError):
        person.revoke("alive", destroy=True, signer=dead.signer())
    assert str(alive.api_key_id) in person.sandbox.state.keys
    assert person.names() == ["alive", "dead"]


def test_a_dead_key_cannot_say_that_another_one_is_dead(person: Revoking) -> None:
    dead, alive = person.add("dead"), person.add("alive")
    person.sandbox.state.delete_key(str(dead.api_key_id))
    with person.connect(dead.signer()) as management, pytest.raises(UnauthorizedError):
        end_api_key(Account(management, person.connect), str(alive.api_key_id), None, person.said.append)


def test_two_runs_do_not_work_on_one_key_or_its_rotation(person: Revoking) -> None:
    person.add("prod+retired")
    with exclusive(person.store, "prod"), pytest.raises(KeyBusyError):
        person.revoke("prod+retired", destroy=True)
    assert person.deletes() == []


def test_an_id_that_two_keys_are_bound_to_does_not_say_which_to_destroy(person: Revoking) -> None:
    key = person.add("prod")
    person.store.bind(
        person.store.generate("copy", KeyType.RSA_2048), str(key.api_key_id), environment_name(person.sandbox.base_url)
    )
    with pytest.raises(KeyAmbiguousError, match="'copy', 'prod'"):
        person.revoke(str(key.api_key_id), destroy=True)
    assert person.deletes() == []


def test_a_listing_without_scopes_may_be_the_last_manager_and_never_counts_as_another() -> None:
    silent = ApiKey(api_key_id="A")
    assert may_manage(silent)
    assert not manages_keys(silent)


def test_a_401_that_says_nothing_of_the_id_destroys_nothing(person: Revoking) -> None:
    key = person.add("prod")
    person.sandbox.faults.add(parse_fault("GET /api_keys:status=401"))
    with pytest.raises(EndNotProvedError) as caught:
        person.revoke("prod", destroy=True, signer=key.signer())
    assert "--auth" in caught.value.hint
    assert person.names() == ["prod"]


def test_what_an_interrupted_enroll_registered_ends_too(person: Revoking) -> None:
    minted = person.store.generate("prod", KeyType.ED25519)
    person.sandbox.add_key("stranger", PEM_OF_SOMEBODY_ELSE)
    registered = person.sandbox.add_key("prod", minted.public_pem()).api_key_id
    done = person.revoke("prod", destroy=True)
    assert (done.api_key_id, done.revoked, done.private_half) == (registered, True, "destroyed")
    assert registered not in person.sandbox.state.keys


def test_a_minted_key_has_nothing_to_revoke_and_a_pair_to_destroy(person: Revoking) -> None:
    person.store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyProblemError, match="never registered") as caught:
        person.revoke("prod")
    assert "--destroy" in caught.value.hint
    done = person.revoke("prod", destroy=True, never_registered=True)
    assert (done.api_key_id, done.revoked, done.private_half) == (None, False, "destroyed")
    assert person.deletes() == []


def test_a_pair_that_is_registered_twice_is_not_destroyed_under_the_other(person: Revoking) -> None:
    key = person.add("prod")
    second = person.sandbox.add_key("raced", key.public_pem()).api_key_id
    with pytest.raises(KeyProblemError, match="registered twice") as caught:
        person.revoke("prod", destroy=True)
    assert second in caught.value.hint
    assert person.deletes() == []
    person.revoke(second)
    assert person.revoke("prod", destroy=True).private_half == "destroyed"


def test_a_key_that_changed_after_the_question_is_left_alone(person: Revoking) -> None:
    key = person.store.generate("prod", KeyType.ED25519)
    with person.management() as management:
        parts = person.store, Account(management, person.connect), person.said.append
        plan = RevocationPlanner(*parts).plan("prod", destroy=True, force=False, never_registered=True)
        person.store.bind(
            key, person.sandbox.add_key("prod", key.public_pem()).api_key_id, environment_name(person.sandbox.base_url)
        )  # an enroll, meanwhile
        with pytest.raises(KeyBusyError):
            Revoker(*parts).carry_out(plan)
    assert person.store.key("prod").state is KeyState.REGISTERED


def test_a_key_that_may_not_manage_is_refused_before_anything_is_done(person: Revoking) -> None:
    sub = person.add("sub", subaccount=1)
    person.add("prod")
    with pytest.raises(ForbiddenError):
        person.revoke("prod", destroy=True, signer=sub.signer())
    person.sandbox.faults.add(parse_fault("GET /api_keys:drop-before"))
    with pytest.raises(NetworkError):
        person.revoke("prod", destroy=True)
    assert person.names() == ["prod", "sub"]


@pytest.mark.kms
def test_on_kms_the_deletion_is_scheduled_and_a_killed_run_is_ended(
    account: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store("awskms:///?region=us-east-1") as kms:
        person = Revoking(sandbox, kms)
        key = person.add("prod")
        with monkeypatch.context() as patch:
            patch.setattr("hsm_keys.stores.awskms.replicas.aliases", die)  # the deletion is scheduled by then
            with pytest.raises(Killed):
                person.revoke("prod", destroy=True)
        assert person.names() == ["prod"]
        done = person.revoke("prod", destroy=True)
        assert (done.revoked, done.private_half) == (True, "deletion scheduled")
        assert key.api_key_id not in sandbox.state.keys
        assert person.names() == []


@pytest.mark.kms
def test_on_kms_the_mark_of_a_generate_that_began_after_the_question_is_left_alone(
    account: str, sandbox: SandboxServer
) -> None:
    with open_store("awskms:///?region=us-east-1") as kms:
        person = Revoking(sandbox, kms)
        key = kms.generate("prod", KeyType.ED25519)
        with person.management() as management:
            parts = kms, Account(management, person.connect), person.said.append
            plan = RevocationPlanner(*parts).plan("prod", destroy=True, force=False, never_registered=True)
            kms.destroy(key)
            ImportsKeys.of(kms).imports().prepare("prod", KeyType.ED25519, person.environment)
            with pytest.raises(KeyBusyError):
                Revoker(*parts).carry_out(plan)
            assert is_arriving(kms.key("prod"))
            with pytest.raises(KeyNotRegisteredError) as caught:
                Rotator(*parts).advance("prod")
            assert "generate prod" in caught.value.hint


PEM_OF_SOMEBODY_ELSE = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
