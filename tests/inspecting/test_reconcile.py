"""Observing and repairing on a real token against a strict server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.errors import KalshiError, KeyBusyError, OutcomeUnknownError
from hsm_keys.inspecting.reconcile import judge
from hsm_keys.inspecting.snapshot import observe
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle.enroll import enroll
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.repairing import fix
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.sandbox import parse_fault
from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.marks import Claim, Intent
from tests.lifecycle.person import Person
from tests.support.ministack import account
from tests.support.oddkeys import make_decrypting, make_twin

if TYPE_CHECKING:
    from hsm_keys import KeyStore, StoredKey
    from hsm_keys.inspecting.findings import Finding
    from hsm_keys.sandbox import SandboxServer

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.softhsm


class Killed(BaseException):
    """The process ends here."""


def die(*_: object, **__: object) -> None:
    raise Killed


def rotate(rotator: Rotator) -> None:
    rotator.advance("prod")
    rotator.finish("prod", keep_old=False)


class Looking(Person):
    """Somebody with the bootstrap key, who looks at one or more stores."""

    def find(self) -> list[Finding]:
        """Look, and leave the bootstrap key out, which is always elsewhere."""
        with self.management() as management:
            found = judge(observe(self.stores, Account(management, self.connect), self.said.append))
        return [finding for finding in found if finding.api_key_id != self.sandbox.bootstrap_key_id]

    def codes(self) -> list[tuple[str, str]]:
        return [(finding.code, finding.name) for finding in self.find()]

    def fix(self, found: list[Finding] | None = None) -> list[Finding]:
        with self.management() as management:
            account = Account(management, self.connect)
            return fix(self.find() if found is None else found, self.stores, account, self.said.append)

    def add(
        self,
        name: str,
        *,
        bind: bool = True,
        store: KeyStore | None = None,
        key_type: KeyType = KeyType.ED25519,
    ) -> StoredKey:
        place = store or self.store
        key = place.generate(name, key_type)
        api_key_id = self.sandbox.add_key(name, key.public_pem()).api_key_id
        return place.bind(key, api_key_id, self.environment) if bind else key


@pytest.fixture
def person(store: KeyStore, sandbox: SandboxServer) -> Looking:
    return Looking(sandbox, store)


def test_all_is_well_and_nothing_is_written(person: Looking) -> None:
    person.add("prod")
    assert person.find() == []
    assert {seen.method for seen in person.sandbox.requests} == {"GET"}


def test_an_enroll_that_lost_its_answer_is_found_and_bound(person: Looking, store: KeyStore) -> None:
    person.add("other")
    person.sandbox.add_key("prod", PEM_OF_SOMEBODY_ELSE)
    person.sandbox.faults.add(parse_fault("POST /api_keys:drop-after:1"))
    person.sandbox.faults.add(parse_fault("GET /portfolio/balance:drop-before:3"))
    with person.management() as management, pytest.raises(OutcomeUnknownError):
        enroll(
            store,
            "prod",
            key_type=None,
            scopes=None,
            subaccount=None,
            account=Account(management, person.connect),
            report=person.said.append,
        )
    by_code = {finding.code: finding for finding in person.find()}
    assert set(by_code) == {"not-bound", "elsewhere", "same-name-at-kalshi"}
    lost = by_code["not-bound"].api_key_id
    assert person.sandbox.state.keys[str(lost)].public_pem == store.key("prod").public_pem()
    deletes_and_posts = [seen for seen in person.sandbox.requests if seen.method != "GET"]
    assert [finding.code for finding in person.fix()] == ["not-bound"]
    assert store.key("prod").api_key_id == lost
    assert [seen for seen in person.sandbox.requests if seen.method != "GET"] == deletes_and_posts
    assert "not-bound" not in {finding.code for finding in person.find()}


def test_what_was_registered_anew_by_hand_is_bound_anew(person: Looking, store: KeyStore) -> None:
    key = person.add("prod")
    person.sandbox.state.delete_key(str(key.api_key_id))
    assert person.codes() == [("gone", "prod")]
    assert person.fix() == []
    again = person.sandbox.add_key("prod", key.public_pem()).api_key_id
    assert person.codes() == [("wrong-id", "prod")]
    person.fix()
    assert store.key("prod").api_key_id == again
    assert person.find() == []


def test_the_id_of_another_pair_is_found_by_signing(person: Looking, store: KeyStore) -> None:
    # Of two Ed25519 keys with one CKA_ID the token doesn't tell which public half is whose.
    prod, other = (person.add(name, key_type=KeyType.RSA_2048) for name in ("prod", "other"))
    store.bind(other, str(prod.api_key_id), environment_name(person.sandbox.base_url))
    assert sorted(person.codes()) == [("wrong-id", "other")]
    person.fix()
    assert store.key("other").api_key_id == other.api_key_id
    person.sandbox.state.delete_key(str(other.api_key_id))
    store.bind(store.key("other"), str(prod.api_key_id), environment_name(person.sandbox.base_url))
    assert person.codes() == [("refused", "other")]


def test_a_pair_that_is_registered_twice_keeps_what_it_is_bound_to(person: Looking, store: KeyStore) -> None:
    key = person.add("prod")
    raced = person.sandbox.add_key("raced", key.public_pem()).api_key_id
    found = person.find()
    assert [(finding.code, finding.api_key_id) for finding in found] == [("registered-twice", raced)]
    assert f"revoke {raced}" in str(found[0].command)
    assert person.fix() == []
    assert store.key("prod").api_key_id == key.api_key_id


def test_twins_are_told_apart_and_bound_each_to_its_own(person: Looking, store: KeyStore) -> None:
    person.add("prod", bind=False)
    make_twin(store, "prod")
    assert [code for code, _ in person.codes()] == ["not-bound", "not-registered", "same-name-in-stores"]
    assert len(person.fix()) == 1
    assert [code for code, _ in person.codes()] == ["not-registered", "same-name-in-stores"]


def test_a_key_for_something_else_in_the_token_is_no_obstacle(person: Looking, store: KeyStore) -> None:
    person.add("prod")
    make_decrypting(store, "foreign")
    assert person.codes() == []


def test_a_repair_gives_way_to_whoever_works_on_the_key(person: Looking, store: KeyStore) -> None:
    person.add("prod", bind=False)
    found = person.find()
    with exclusive(store, "prod"), pytest.raises(KeyBusyError):
        person.fix(found)
    store.bind(store.key("prod"), str(found[0].api_key_id), environment_name(person.sandbox.base_url))
    with pytest.raises(KeyBusyError, match="changed by somebody else"):
        person.fix(found)


def test_a_pair_that_took_the_name_meanwhile_is_not_taken_for_the_one_that_was_seen(
    person: Looking, store: KeyStore
) -> None:
    person.add("prod", bind=False)
    found = person.find()
    store.destroy(store.key("prod"))
    store.generate("prod", KeyType.ED25519)
    with pytest.raises(KeyBusyError, match="changed by somebody else"):
        person.fix(found)


def test_what_another_machine_is_about_to_delete_is_bound_once_that_is_over(
    person: Looking, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = person.add("prod", bind=False)
    found = person.find()
    api_key_id = str(found[0].api_key_id)
    store.begin_registration(key, person.environment, Claim(Intent.LEAVES, api_key_id))
    monkeypatch.setattr("hsm_keys.lifecycle.ending.time.sleep", lambda _: person.sandbox.state.delete_key(api_key_id))
    with pytest.raises(KeyBusyError):
        person.fix(found)
    assert store.key("prod").api_key_id is None


def test_what_kalshi_no_longer_takes_is_not_bound(person: Looking, store: KeyStore) -> None:
    person.add("prod", bind=False)
    found = person.find()
    person.sandbox.state.delete_key(str(found[0].api_key_id))
    with pytest.raises(KalshiError):
        person.fix(found)
    assert store.key("prod").api_key_id is None


@pytest.mark.parametrize(
    ("dies_in", "code"),
    [
        ("hsm_keys.lifecycle.registering.Registrar._create", "rotation-begun"),
        ("hsm_keys.lifecycle.registering.bind", "rotation-begun"),
        ("hsm_keys.stores.pkcs11.store.Pkcs11Store.hand_over", "rotation-registered"),
        ("hsm_keys.lifecycle.ending._End.delete", "rotation-grace"),
        ("hsm_keys.stores.pkcs11.store.Pkcs11Store.destroy", "rotation-ending"),
    ],
)
def test_a_killed_rotation_is_found_and_its_own_command_ends_it(
    person: Looking, store: KeyStore, monkeypatch: pytest.MonkeyPatch, dies_in: str, code: str
) -> None:
    person.add("prod")
    with person.management() as management:
        rotator = Rotator(store, Account(management, person.connect), person.said.append)
        with monkeypatch.context() as patch:
            patch.setattr(dies_in, die)
            with pytest.raises(Killed):
                rotate(rotator)
        found = person.find()
        assert [finding.code for finding in found] == [code]
        assert "rotate prod" in str(found[0].command)
        assert person.fix() == []
        rotator.finish("prod", keep_old=False)
    assert person.find() == []


def test_a_rotation_killed_within_the_handover_is_found(
    person: Looking, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.add("prod")
    with person.management() as management:
        rotator = Rotator(store, Account(management, person.connect), person.said.append)
        rename = RenamesKeys.of(store).rename
        renamed: list[str] = []

        def die_second(key: StoredKey, name: str) -> StoredKey:
            if renamed:
                raise Killed
            renamed.append(name)
            return rename(key, name)

        with monkeypatch.context() as patch:
            patch.setattr(store, "rename", die_second)
            with pytest.raises(Killed):
                rotator.advance("prod")
        assert person.codes() == [("rotation-handover", "prod+next")]
        rotator.finish("prod", keep_old=True)
    assert person.find() == []  # the old pair is kept on purpose


@pytest.mark.kms
@pytest.mark.parametrize(
    ("dies_in", "code"),
    [
        ("alias_handover._point", "rotation-handover"),
        ("alias_handover._remove_alias", "rotation-handover"),
        ("replicas.aliases", "rotation-ending"),
    ],
)
def test_a_killed_rotation_on_kms_is_found_and_its_own_command_ends_it(
    account: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, dies_in: str, code: str
) -> None:
    with open_store("awskms:///?region=us-east-1") as kms:
        person = Looking(sandbox, kms)
        person.add("prod")
        with person.management() as management:
            rotator = Rotator(kms, Account(management, person.connect), person.said.append)
            with monkeypatch.context() as patch:
                patch.setattr(f"hsm_keys.stores.awskms.{dies_in}", die)
                with pytest.raises(Killed):
                    rotate(rotator)
            assert [found for found, _ in person.codes()] == [code]
            rotator.finish("prod", keep_old=False)
        assert person.find() == []


@pytest.mark.kms
def test_an_account_over_a_token_and_kms(store: KeyStore, account: str, sandbox: SandboxServer) -> None:
    with open_store("awskms:///?region=us-east-1") as kms:
        alone, together = Looking(sandbox, store), Looking(sandbox, store, kms)
        together.add("in-hsm")
        in_kms = together.add("in-kms", store=kms)
        lost = together.add("lost", bind=False, store=kms)
        assert alone.codes() == [("elsewhere", "in-kms"), ("elsewhere", "lost")]
        assert together.codes() == [("not-bound", "lost")]
        together.fix()
        assert together.find() == []
        assert kms.key("lost").public_key() == lost.public_key()
        together.add("in-kms")
        assert [code for code, _ in together.codes()] == ["same-name-at-kalshi", "same-name-in-stores"]
        kms.destroy(in_kms)
        assert ("elsewhere", "in-kms") in together.codes()


PEM_OF_SOMEBODY_ELSE = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
