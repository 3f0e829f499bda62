"""Custody: a key that can be taken out, or could have been, is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import KeyType, open_store
from hsm_keys.errors import CustodyError
from hsm_keys.lifecycle.custody import prove_custody
from hsm_keys.stores.base import Verdict
from hsm_keys.stores.pkcs11.custody import _judge
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
    assert said["private_half_wrappable"] is False
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
        assert verdict is Verdict.UNKNOWN
    elif local:
        assert verdict is Verdict.GOOD
    elif always and never:
        assert verdict is Verdict.UNKNOWN
    else:
        assert verdict is Verdict.BAD


@pytest.mark.parametrize("name", ["sensitive", "extractable", "always_sensitive", "never_extractable", "sign"])
def test_what_the_token_does_not_say_is_unknown_and_the_wrong_answer_is_bad(name: str) -> None:
    good = name != "extractable"
    assert _judge(name, good, {}).verdict is Verdict.GOOD
    assert _judge(name, None, {}).verdict is Verdict.UNKNOWN
    assert _judge(name, not good, {}).verdict is Verdict.BAD
