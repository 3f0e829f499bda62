"""Custody: a key that can be taken out, or could have been, is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute
from pkcs11.mechanisms import KeyType as CkKeyType

from hsm_keys import KeyType, open_store
from hsm_keys.errors import CustodyError
from hsm_keys.inspecting.custody import prove_custody
from hsm_keys.stores.custody_verdicts import CustodyVerdict
from hsm_keys.stores.pkcs11.custody import _judge, _try_to_copy, _try_to_read
from tests.support.oddkeys import import_pair, make_extractable

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken


@pytest.mark.softhsm
@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_a_key_made_in_the_token_is_in_custody(token: TestToken, key_type: KeyType) -> None:
    with open_store(token.uri) as store:
        report = prove_custody(store.generate("prod", key_type))
    said = report.as_dict()
    assert said["verdict"] == "in custody"
    assert said["problems"] == []
    assert {name: said[name] for name in ("sensitive", "extractable", "always_sensitive", "never_extractable")} == {
        "sensitive": True,
        "extractable": False,
        "always_sensitive": True,
        "never_extractable": True,
    }
    assert said["local"] is True
    assert said["private_half_readable"] is False
    assert said["private_half_copyable"] is False
    assert said["private_half_wrappable"] is False
    notes = {fact.name: fact.note for fact in report.facts}
    assert notes["private_half_copyable"] == "tried to copy it with CKA_EXTRACTABLE true: AttributeReadOnly"
    secrets = "CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT"
    tried = secrets if key_type is KeyType.RSA_2048 else "CKA_VALUE"
    assert notes["private_half_readable"] == f"tried to read {tried}: AttributeSensitive"
    assert said["signature_verified"] is True


@pytest.mark.softhsm
def test_an_extractable_key_is_refused(token: TestToken) -> None:
    with open_store(token.uri) as store:
        make_extractable(store, "prod")
        with pytest.raises(CustodyError, match="extractable=True") as caught:
            prove_custody(store.key("prod"))
        assert [key.name for key in store.keys()] == ["prod"]
    assert caught.value.exit_code == 5
    assert "private_half_wrappable=True" in caught.value.message  # it was tried, and the token gave it out
    assert "private_half_copyable=True" in caught.value.message


@pytest.mark.softhsm
def test_what_to_do_with_one_that_is_not_in_custody_depends_on_its_api_key(token: TestToken) -> None:
    """One that may live is never to be destroyed."""
    with open_store(token.uri) as store:
        make_extractable(store, "prod")
        with pytest.raises(CustodyError) as minted:
            prove_custody(store.key("prod"))
        store.bind(store.key("prod"), "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "demo")
        with pytest.raises(CustodyError) as registered:
            prove_custody(store.key("prod"))
    assert "destroy it" in minted.value.hint
    assert "as API key 3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d: `hsm-keys rotate prod`" in registered.value.hint
    assert "destroy" not in registered.value.hint


class _Lax:
    """A private key of a module that says one thing and does another."""

    def __init__(self, *, copied: bool | None, given: Attribute | None = None) -> None:
        self.copied = copied
        self.given = given
        self.destroyed = 0

    def __getitem__(self, attribute: Attribute) -> Any:
        if attribute is Attribute.KEY_TYPE:
            return CkKeyType.RSA
        if attribute is Attribute.EXTRACTABLE:
            return self.copied
        if attribute is self.given:
            return b"secret"
        raise ckr.AttributeSensitive

    def copy(self, _template: dict[Attribute, Any]) -> _Lax:
        if self.copied is None:
            raise ckr.FunctionNotSupported
        return self

    def destroy(self) -> None:
        self.destroyed += 1


@pytest.mark.parametrize(
    ("copied", "verdict"), [(True, CustodyVerdict.BAD), (False, CustodyVerdict.GOOD), (None, CustodyVerdict.GOOD)]
)
def test_a_copy_that_can_be_taken_out_is_no_custody_and_lives_no_longer(
    verdict: CustodyVerdict, *, copied: bool | None
) -> None:
    key = _Lax(copied=copied)
    fact = _try_to_copy(key)
    assert (fact.verdict, fact.value) == (verdict, copied is True)
    assert key.destroyed == (copied is not None)


def test_one_part_of_the_secret_is_the_secret() -> None:
    fact = _try_to_read(_Lax(copied=None, given=Attribute.PRIME_2))
    assert (fact.verdict, fact.value) == (CustodyVerdict.BAD, True)
    assert "CKA_PRIME_2: it was given out" in fact.note
    assert "secret" not in fact.note


@pytest.mark.softhsm
@pytest.mark.parametrize("sensitive", [True, False])
def test_an_imported_key_is_refused_and_never_printed(token: TestToken, *, sensitive: bool) -> None:
    with open_store(token.uri) as store:
        secret = import_pair(store, "prod", sensitive=sensitive).private_numbers().d
        key = store.key("prod")
        with pytest.raises(CustodyError) as caught:
            prove_custody(key)
    assert "local=False" in caught.value.message
    if not sensitive:
        assert "private_half_readable=True" in caught.value.message
    shown = f"{caught.value!r} {key!r} {vars(key)!r}"
    assert str(secret) not in shown
    assert f"{secret:x}"[:32] not in shown


ANSWERS = st.sampled_from([True, False, None])


@given(local=ANSWERS, always=ANSWERS, never=ANSWERS)
def test_local_false_is_excused_only_where_the_key_was_never_outside(
    *, local: bool | None, always: bool | None, never: bool | None
) -> None:
    said = {"local": local, "always_sensitive": always, "never_extractable": never}
    verdict = _judge("local", local, said).verdict
    if local is None:
        assert verdict is CustodyVerdict.UNKNOWN
    elif local:
        assert verdict is CustodyVerdict.GOOD
    elif always and never:
        assert verdict is CustodyVerdict.UNKNOWN
    else:
        assert verdict is CustodyVerdict.BAD


@pytest.mark.parametrize("name", ["sensitive", "extractable", "always_sensitive", "never_extractable", "sign"])
def test_what_the_token_does_not_say_is_unknown_and_the_wrong_answer_is_bad(name: str) -> None:
    good = name != "extractable"
    assert _judge(name, good, {}).verdict is CustodyVerdict.GOOD
    assert _judge(name, None, {}).verdict is CustodyVerdict.UNKNOWN
    assert _judge(name, not good, {}).verdict is CustodyVerdict.BAD
