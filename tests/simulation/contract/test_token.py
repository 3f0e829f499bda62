"""A token: the double's session and python-pkcs11's on SoftHSM, by the same calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType
from pkcs11.mechanisms import Mechanism

from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.pkcs11.halves import public_half
from hsm_keys.stores.pkcs11.importing import _import_pair
from hsm_keys.stores.pkcs11.key_pairs import _generate
from tests.simulation.pairs import Pair

if TYPE_CHECKING:
    from hsm_keys.stores.pkcs11.objects import Objects

PRIVATE = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
PUBLIC = {Attribute.CLASS: ObjectClass.PUBLIC_KEY}
ID = b"kalshi:minted:" + bytes(20)


def make(objects: Objects, label: str = "prod", cka_id: bytes = ID) -> tuple[Any, Any]:
    return _generate(objects.session, label, KeyType.ED25519, cka_id)


def test_a_pair_is_two_objects_of_one_label_and_id(objects: Objects) -> None:
    public, private = make(objects)
    for each, kind in ((public, ObjectClass.PUBLIC_KEY), (private, ObjectClass.PRIVATE_KEY)):
        assert (each[Attribute.CLASS], each[Attribute.LABEL], each[Attribute.ID]) == (kind, "prod", ID)
        assert each[Attribute.KEY_TYPE] == CkKeyType.EC_EDWARDS
    assert public_half(public) == objects.public_key_of(private)
    assert private.sign(b"text", mechanism=Mechanism.EDDSA) == objects.sign(private, b"text")


def test_a_pair_says_that_it_was_made_inside_and_stays_there(objects: Objects) -> None:
    _, private = make(objects)
    said = {
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.PRIVATE: True,
        Attribute.LOCAL: True,
        Attribute.ALWAYS_SENSITIVE: True,
        Attribute.NEVER_EXTRACTABLE: True,
        Attribute.SIGN: True,
        Attribute.DECRYPT: False,
        Attribute.UNWRAP: False,
        Attribute.DERIVE: False,
        Attribute.MODIFIABLE: True,
        Attribute.ALWAYS_AUTHENTICATE: False,
    }
    assert {attribute: private[attribute] for attribute in said} == said
    with pytest.raises((ckr.AttributeSensitive, ckr.AttributeTypeInvalid)):
        private[Attribute.VALUE]


def test_a_label_may_be_there_twice(objects: Objects) -> None:
    make(objects)
    make(objects, cka_id=ID + b"other")
    assert len(objects.private_keys("prod")) == 2
    assert len(objects.find({**PUBLIC, Attribute.LABEL: "prod"})) == 2


def test_objects_are_found_by_class_label_and_id(objects: Objects) -> None:
    make(objects)
    make(objects, "bot", b"kalshi:minted:" + bytes(19) + b"1")
    assert len(objects.find(PRIVATE)) == len(objects.find(PUBLIC)) == 2
    assert len(objects.find({Attribute.ID: ID})) == 2
    assert len(objects.find({**PRIVATE, Attribute.LABEL: "prod"})) == 1
    assert objects.find({**PRIVATE, Attribute.LABEL: "pro"}) == []
    assert objects.find({**PRIVATE, Attribute.LABEL: "prod", Attribute.ID: b"other"}) == []


def test_label_and_id_are_written_to_one_object_alone(objects: Objects) -> None:
    public, private = make(objects)
    private[Attribute.LABEL] = "prod+retired"
    private[Attribute.ID] = b"kalshi:prod:" + bytes(16)
    assert (private[Attribute.LABEL], private[Attribute.ID]) == ("prod+retired", b"kalshi:prod:" + bytes(16))
    assert (public[Attribute.LABEL], public[Attribute.ID]) == ("prod", ID)
    assert objects.private_keys("prod") == []
    assert len(objects.private_keys("prod+retired")) == 1


def test_a_destroyed_object_is_no_more(objects: Objects) -> None:
    public, private = make(objects)
    (same,) = objects.private_keys("prod")
    private.destroy()
    assert objects.private_keys() == []
    assert len(objects.find(PUBLIC)) == 1
    with pytest.raises(ckr.ObjectHandleInvalid):
        private[Attribute.LABEL]
    with pytest.raises(ckr.ObjectHandleInvalid):
        same[Attribute.LABEL] = "other"
    with pytest.raises(ckr.ObjectHandleInvalid):
        same.destroy()
    public.destroy()
    assert objects.find(PUBLIC) == []


def test_a_handle_is_not_given_again(objects: Objects) -> None:
    _, private = make(objects)
    handle = private.handle
    private.destroy()
    make(objects, "bot")
    assert handle not in {each.handle for each in objects.private_keys()}


def test_a_signature_with_a_destroyed_object_is_refused(objects: Objects) -> None:
    _, private = make(objects)
    private.destroy()
    with pytest.raises((ckr.ObjectHandleInvalid, ckr.KeyHandleInvalid)):
        private.sign(b"text", mechanism=Mechanism.EDDSA)


def test_what_was_made_elsewhere_says_so(objects: Objects) -> None:
    pair = Pair(1).private_key
    private = _import_pair(objects, "prod", ID, pair)
    said = {
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.PRIVATE: True,
        Attribute.LOCAL: False,
        Attribute.ALWAYS_SENSITIVE: False,
        Attribute.NEVER_EXTRACTABLE: False,
        Attribute.SIGN: True,
    }
    assert {attribute: private[attribute] for attribute in said} == said
    assert (private[Attribute.LABEL], private[Attribute.ID]) == ("prod", ID)
    assert objects.public_key_of(private) == pair.public_key()
    _import_pair(objects, "prod", ID, pair)
    assert len(objects.private_keys("prod")) == 2
