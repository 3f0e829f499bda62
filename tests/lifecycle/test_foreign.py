"""Keys of other programs in the same token: shown, of use for signing, and never ended, renamed or bound."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from pkcs11.constants import Attribute

from hsm_keys import KeyState, KeyType, open_store
from hsm_keys.errors import (
    ForeignKeyError,
    KeyExistsError,
    KeyNotRegisteredError,
    KeyProblemError,
    UsageError,
)
from hsm_keys.inspecting.custody_report import examine_account
from hsm_keys.inspecting.reconcile import judge
from hsm_keys.inspecting.snapshot import observe
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle.enroll import Enrollment, adopt, enroll_offline
from hsm_keys.lifecycle.generate import Generator
from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.lifecycle.repairing import fix
from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
from hsm_keys.lifecycle.revoke import Revoked, Revoker
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.lifecycle.rotation_marks import Stage
from hsm_keys.stores.abilities import RenamesKeys
from tests.lifecycle.person import Person
from tests.support.foreign import ED25519, LIKE_OURS, make_pair, objects_of, pkcs11_tool
from tests.support.oddkeys import import_pair, session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys import StoredKey
    from hsm_keys.inspecting.findings import Finding
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = pytest.mark.softhsm


class Sharing(Person):
    """Somebody with the bootstrap key, whose token other programs use, too."""

    def adopt(self, name: str, api_key_id: str) -> Enrollment:
        return adopt(
            self.store, name, api_key_id, environment=self.environment, connect=self.connect, report=self.said.append
        )

    def generate(self, name: str) -> Enrollment:
        with self.management() as management:
            maker = KalshiGenerator(
                ApiKeyRequest(name), KeyType.ED25519, Account(management, self.connect), self.said.append
            )
            return Generator(self.store, maker).run()

    def rotate(self, name: str) -> None:
        with self.management() as management:
            rotator = Rotator(self.store, Account(management, self.connect), self.said.append)
            rotator.advance(name)
            rotator.finish(name, keep_old=False)

    def abort(self, name: str) -> None:
        with self.management() as management:
            Rotator(self.store, Account(management, self.connect), self.said.append).abort(name)

    def revoke(self, word: str, *, destroy: bool = True) -> Revoked:
        with self.management() as management:
            parts = self.store, Account(management, self.connect), self.said.append
            return Revoker(*parts).carry_out(RevocationPlanner(*parts).plan(word, destroy=destroy, force=False))

    def find(self) -> list[Finding]:
        with self.management() as management:
            found = judge(observe(self.stores, Account(management, self.connect), self.said.append))
        return [finding for finding in found if finding.api_key_id != self.sandbox.bootstrap_key_id]

    def custody(self) -> dict[str, str]:
        """Return verdict and place of each API key but the bootstrap key, by its name."""
        with self.management() as management:
            listed = management.api_keys.list().api_keys
        entries = examine_account(self.stores, listed, self.connect, environment=self.environment)
        return {entry.name: f"{entry.verdict}: {entry.location}" for entry in entries if entry.name != "bootstrap"}

    def register(self, key: StoredKey, name: str | None = None) -> str:
        """Register a key by hand, as on Kalshi's account page; return the API key's id."""
        return self.sandbox.add_key(name or key.name, key.public_pem()).api_key_id

    def lives(self, api_key_id: str) -> bool:
        return api_key_id in self.sandbox.state.keys

    def changes(self) -> list[str]:
        return [seen.method for seen in self.sandbox.requests if seen.method != "GET"]


@pytest.fixture(params=[(ED25519, "01"), (ED25519, LIKE_OURS), ("rsa:2048", LIKE_OURS)], ids=["id-01", "uuid", "rsa"])
def foreign(token: TestToken, request: pytest.FixtureRequest) -> None:
    """Two pairs of another program, with one CKA_ID."""
    key_type, cka_id = request.param
    for label in ("alpha", "beta"):
        make_pair(token, label, key_type=key_type, cka_id=cka_id)


@pytest.fixture
def one(token: TestToken) -> None:
    """One pair of another program, with a CKA_ID that looks like an API key id."""
    make_pair(token, "alpha", cka_id=LIKE_OURS)


@pytest.fixture
def person(token: TestToken, sandbox: SandboxServer) -> Iterator[Sharing]:
    """Its token is opened after ``foreign`` has filled it."""
    with open_store(token.uri) as store:
        yield Sharing(sandbox, store)


@pytest.mark.usefixtures("foreign")
def test_they_are_shown_as_not_ours_and_each_signs_as_itself(person: Sharing) -> None:
    alpha, beta = person.store.keys()
    assert [(key.name, key.state, key.api_key_id, key.environment) for key in (alpha, beta)] == [
        ("alpha", KeyState.FOREIGN, None, None),
        ("beta", KeyState.FOREIGN, None, None),
    ]
    assert alpha.public_pem() != beta.public_pem()
    for key in (alpha, beta):
        with pytest.raises(KeyNotRegisteredError, match="isn't ours") as caught:
            key.signer()
        assert "--api-key-id" in caught.value.hint
        with person.connect(key.signer(api_key_id=person.register(key))) as client:
            assert client.get_json("/portfolio/balance")


@pytest.mark.usefixtures("foreign")
def test_no_workflow_changes_them_or_does_anything_at_kalshi(person: Sharing, softhsm: SoftHsm) -> None:
    before = objects_of(softhsm)
    attempts: list[Callable[[], object]] = [
        lambda: person.enroll("alpha"),
        lambda: enroll_offline(person.store, "alpha", None, person.said.append, environment=person.environment),
        lambda: person.generate("alpha"),
        lambda: Stage.read(person.store, "alpha"),
        lambda: person.rotate("alpha"),
        lambda: person.abort("alpha"),
        lambda: person.revoke("alpha"),
        lambda: person.revoke("alpha", destroy=False),
    ]
    for attempt in attempts:
        with pytest.raises(ForeignKeyError, match="isn't ours") as caught:
            attempt()
        assert caught.value.hint
    assert objects_of(softhsm) == before
    assert person.changes() == []


@pytest.mark.usefixtures("foreign")
def test_no_store_call_changes_them(person: Sharing, softhsm: SoftHsm) -> None:
    before, key = objects_of(softhsm), person.store.key("alpha")
    with pytest.raises(ForeignKeyError, match="alpha"):
        person.store.destroy(key)
    with pytest.raises(ForeignKeyError, match="alpha"):
        RenamesKeys.of(person.store).rename(key, "other")
    person.store.mend("alpha")
    assert not person.store.clear("alpha")
    assert objects_of(softhsm) == before


@pytest.mark.usefixtures("foreign")
def test_reconcile_and_custody_pass_over_them(person: Sharing, softhsm: SoftHsm) -> None:
    before = objects_of(softhsm)
    assert person.find() == []
    assert person.custody() == {}
    elsewhere = person.sandbox.add_key("alpha", person.store.generate("gone", KeyType.ED25519).public_pem()).api_key_id
    person.store.destroy(person.store.key("gone"))
    assert [(finding.code, finding.api_key_id) for finding in person.find()] == [("elsewhere", elsewhere)]
    assert objects_of(softhsm) == before


@pytest.mark.usefixtures("foreign")
def test_one_that_kalshi_knows_is_named_and_bound_by_adopt_alone(person: Sharing, softhsm: SoftHsm) -> None:
    api_key_id = person.register(person.store.key("beta"), "desk")
    before = objects_of(softhsm)
    (found,) = person.find()
    assert (found.code, found.name, found.api_key_id, found.repair) == ("not-adopted", "beta", api_key_id, None)
    assert f"adopt beta --api-key-id {api_key_id}" in str(found.command)
    with person.management() as management:
        assert fix([found], person.stores, Account(management, person.connect), person.said.append) == []
    assert person.custody() == {"beta": f"in custody: {person.store.describe()}, as a key that isn't ours"}
    assert objects_of(softhsm) == before
    key = person.adopt("beta", api_key_id).key
    assert (key.state, key.api_key_id, key.environment) == (KeyState.REGISTERED, api_key_id, person.environment)
    assert person.find() == []
    assert person.store.key("alpha").state is KeyState.FOREIGN


@pytest.mark.usefixtures("foreign")
def test_what_is_adopted_ends_alone(person: Sharing, softhsm: SoftHsm) -> None:
    others = objects_of(softhsm)
    api_key_id = person.register(person.store.key("beta"))
    person.adopt("beta", api_key_id)
    assert person.revoke("beta").private_half == "destroyed"
    assert not person.lives(api_key_id)
    left = objects_of(softhsm)
    assert len(left) == 2  # alpha's
    assert left.items() <= others.items()


@pytest.mark.usefixtures("one")
def test_its_api_key_is_ended_by_the_id_and_the_pair_stays(person: Sharing, softhsm: SoftHsm) -> None:
    api_key_id, before = person.register(person.store.key("alpha")), objects_of(softhsm)
    with pytest.raises(UsageError, match="not in"):
        person.revoke(api_key_id)
    assert person.revoke(api_key_id, destroy=False).private_half == "elsewhere"
    assert not person.lives(api_key_id)
    assert objects_of(softhsm) == before


def test_our_key_and_another_ones_may_share_a_name(person: Sharing, token: TestToken, softhsm: SoftHsm) -> None:
    mine = person.enroll("alpha").key
    make_pair(token, "alpha", cka_id="01")
    before = objects_of(softhsm)
    assert person.store.key("alpha").public_pem() == mine.public_pem()
    assert [finding.code for finding in person.find()] == ["same-name-in-stores"]
    with pytest.raises(ForeignKeyError, match="'alpha'"):
        person.rotate("alpha")  # two keys of the name: the new one could not get it
    assert objects_of(softhsm) == before
    assert person.revoke("alpha").private_half == "destroyed"
    (left,) = person.store.keys()
    assert (left.name, left.ours) == ("alpha", False)


@pytest.mark.parametrize("mark", ["+next", "+retired"])
def test_a_name_that_a_rotation_takes_is_found_before_anything_is_made(
    person: Sharing, token: TestToken, softhsm: SoftHsm, mark: str
) -> None:
    person.enroll("alpha")
    make_pair(token, f"alpha{mark}")
    before, changes = objects_of(softhsm), person.changes()
    with pytest.raises(ForeignKeyError, match=rf"alpha\{mark}.*rotation of 'alpha'"):
        person.rotate("alpha")
    assert (objects_of(softhsm), person.changes()) == (before, changes)
    assert person.find() == []  # nor is it a rotation that was begun


@pytest.mark.parametrize("mark", ["+next", "+retired"])
def test_a_key_of_a_kind_that_kalshi_does_not_take_is_in_the_way_as_well(
    person: Sharing, token: TestToken, softhsm: SoftHsm, mark: str
) -> None:
    person.enroll("alpha")
    make_pair(token, f"alpha{mark}", key_type="EC:prime256v1")
    before, changes = objects_of(softhsm), person.changes()
    assert [key.name for key in person.store.keys()] == ["alpha"]
    with pytest.raises(KeyExistsError, match=rf"alpha\{mark}.*rotation of 'alpha'"):
        person.rotate("alpha")
    assert (objects_of(softhsm), person.changes()) == (before, changes)


def test_labels_like_those_of_a_rotation_are_no_handover(person: Sharing, token: TestToken, softhsm: SoftHsm) -> None:
    for label in ("alpha+next", "alpha+retired"):
        make_pair(token, label)
    with pytest.raises(KeyProblemError, match="no key called 'alpha'"):
        person.store.key("alpha")
    assert person.find() == []
    api_key_id, before = person.register(person.store.key("alpha+next")), objects_of(softhsm)
    with pytest.raises(UsageError, match="unfinished workflow"):
        person.adopt("alpha+next", api_key_id)
    assert objects_of(softhsm) == before


@pytest.mark.parametrize("imported", [False, True])
def test_a_name_that_kalshi_was_asked_for_is_taken_meanwhile(
    person: Sharing, token: TestToken, monkeypatch: pytest.MonkeyPatch, *, imported: bool
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Generator, "_import", die)
        person.generate("alpha")
    (lost,) = person.registered("alpha")
    if imported:
        import_pair(person.store, "alpha")
    else:
        make_pair(token, "alpha")
    theirs = person.register(person.store.key("alpha"))
    with pytest.raises(ForeignKeyError, match="'alpha'"):
        person.generate("alpha")
    assert (person.lives(lost), person.lives(theirs)) == (False, True)
    assert [(key.name, key.ours) for key in person.store.keys()] == [("alpha", False)]


def test_a_key_enrolled_meanwhile_keeps_its_api_key(person: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Generator, "_import", die)
        person.generate("alpha")
    (lost,) = person.registered("alpha")
    mine = person.register(person.store.generate("alpha", KeyType.ED25519))  # registered, and not bound
    with pytest.raises(KeyExistsError, match="made in the store"):
        person.generate("alpha")
    assert (person.lives(lost), person.lives(mine)) == (False, True)


def test_a_key_that_another_program_has_renamed_is_not_bound(person: Sharing) -> None:
    key = person.store.generate("alpha", KeyType.ED25519)
    for obj in session_of(person.store).get_objects({Attribute.LABEL: "alpha"}):
        obj[Attribute.ID] = b"theirs now"
    with pytest.raises(ForeignKeyError, match="alpha"):
        person.store.bind(key, "0f8fad5b-d9cb-469f-a165-70867728950e", "demo")


def test_a_public_object_of_another_program_stays(person: Sharing, token: TestToken, softhsm: SoftHsm) -> None:
    make_pair(token, "alpha")
    pkcs11_tool(token, "--delete-object", "--type", "privkey", "--id", "01")
    before = objects_of(softhsm)
    person.enroll("alpha")
    person.rotate("alpha")
    person.revoke("alpha")
    assert objects_of(softhsm) == before
