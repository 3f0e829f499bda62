"""Making and destroying key pairs: the template that every module took, and no half pair left behind."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import DEFAULT, Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType
from pkcs11.mechanisms import Mechanism

from hsm_keys.errors import StoreError
from hsm_keys.stores.pkcs11.errors import told_as_ours
from hsm_keys.stores.pkcs11.objects import find, private_keys, public_key_of, public_objects, read

if TYPE_CHECKING:
    from hsm_keys.signing.algorithms import KeyType, PublicKey

__all__ = [
    "check_can_make",
    "check_can_sign",
    "destroy_pair",
    "make_pair",
    "mend_pair",
    "remove_orphans",
    "sweep",
    "write_id",
    "write_label",
]

_ED25519_OID: Final = bytes.fromhex("06032b6570")
_PLAUSIBLE_RSA_LIMIT: Final = 1024
_DESTROYED: Final = "+destroyed"
"""The label of a public object whose private half is being destroyed; no key's name begins with a plus."""

# The usual SIGN|VERIFY template is refused by some modules; leaving the public half's uses to the module is
# taken by all. python-pkcs11's own default would also grant DECRYPT and UNWRAP.
_PUBLIC_TEMPLATE: Final = {Attribute.ENCRYPT: DEFAULT, Attribute.VERIFY: DEFAULT, Attribute.WRAP: DEFAULT}
_PRIVATE_TEMPLATE: Final = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.PRIVATE: True,
}


def check_can_make(token: Any, key_type: KeyType) -> None:
    """Make sure that the token offers the mechanisms that such a key needs, before anything is changed.

    Raises:
        StoreError: If it doesn't.
    """
    offered = check_can_sign(token, key_type)
    bits = key_type.rsa_bits
    makes = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if bits is None else Mechanism.RSA_PKCS_KEY_PAIR_GEN
    if makes not in offered:
        raise StoreError(f"the token makes no {key_type} keys", hint="choose another --key-type, or another token")
    if bits is not None:
        _check_rsa_size(token, bits)


def check_can_sign(token: Any, key_type: KeyType) -> set[Any]:
    """Return the token's mechanisms, after making sure that it signs with such keys as Kalshi wants it.

    Raises:
        StoreError: If it doesn't.
    """
    with told_as_ours("list its mechanisms"):
        offered: set[Any] = set(token.slot.get_mechanisms())
    pss = {Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS}
    if not offered & ({Mechanism.EDDSA} if key_type.rsa_bits is None else pss):
        raise StoreError(
            f"the token doesn't sign with {key_type} keys as Kalshi wants it",
            hint="choose another --key-type, or another token",
        )
    return offered


def _check_rsa_size(token: Any, bits: int) -> None:
    largest = 0
    with suppress(ckr.PKCS11Error):
        largest = token.slot.get_mechanism_info(Mechanism.RSA_PKCS_KEY_PAIR_GEN).max_key_length
    if _PLAUSIBLE_RSA_LIMIT <= largest < bits:
        raise StoreError(f"the token makes RSA keys of at most {largest} bits", hint="choose a smaller --key-type")


def make_pair(session: Any, name: str, key_type: KeyType, mark: bytes) -> tuple[Any, PublicKey]:
    """Generate a pair; hold the module's mutex, and check first that the name is free.

    Args:
        session: A session that may write.
        name: The label of both objects.
        key_type: What to make.
        mark: The CKA_ID of both objects, which nothing else has.

    Returns:
        The private object and the public key.

    Raises:
        StoreError: If the token refuses; what it left of the pair is removed.
    """
    try:
        with told_as_ours(f"make an {key_type} key"):
            _, private = _generate(session, name, key_type, mark)
            public_key = public_key_of(session, private)
            if public_key is None:
                raise StoreError("the token made a key and doesn't show its public half")
            return private, public_key
    except BaseException:
        _remove(session, mark)
        raise


def _generate(session: Any, name: str, key_type: KeyType, mark: bytes) -> tuple[Any, Any]:
    common: dict[str, Any] = {
        "store": True,
        "label": name,
        "id": mark,
        "capabilities": MechanismFlag.SIGN,
        "public_template": _PUBLIC_TEMPLATE,
        "private_template": _PRIVATE_TEMPLATE,
    }
    if key_type.rsa_bits is not None:
        pair = session.generate_keypair(CkKeyType.RSA, key_type.rsa_bits, **common)
    else:
        curve = session.create_domain_parameters(CkKeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519_OID}, local=True)
        pair = curve.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **common)
    public, private = pair
    return public, private


def _remove(session: Any, mark: bytes) -> None:
    with suppress(ckr.PKCS11Error):
        for leftover in find(session, {Attribute.ID: mark}):
            leftover.destroy()


def mend_pair(session: Any, private: Any) -> None:
    """Give the public objects the private one's label and CKA_ID, where a crash has left them without.

    One that has neither couldn't be found any more: so this is done before the next of the two is changed. Public
    objects of the same label that belong to no private one, whatever that is called, are what is left of a
    generation that was killed; they are destroyed.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    before = read(private, Attribute.ID)
    for public in public_objects(session, private, read(private, Attribute.KEY_TYPE)):
        for attribute in (Attribute.ID, Attribute.LABEL):
            there = read(public, attribute)
            right = read(private, attribute)  # read last: whoever writes a CKA_ID meanwhile begins with this object
            if there != right:
                public[attribute] = right
    # A public one whose id is just being written has the one from before.
    remove_orphans(session, read(private, Attribute.LABEL), before)


def remove_orphans(session: Any, label: str, *kept: bytes | None) -> None:
    """Destroy the public objects of that label which belong to no private one, whatever that is called.

    Args:
        session: A session that may write.
        label: The label.
        kept: Further values of CKA_ID whose public objects stay.
    """
    template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label}
    found = [(public, read(public, Attribute.ID)) for public in find(session, template)]
    # Read last: whoever writes a CKA_ID meanwhile begins with the private object.
    belonging = {*kept, *(read(private, Attribute.ID) for private in private_keys(session))}
    for public, cka_id in found:
        if cka_id not in belonging:
            public.destroy()


def write_id(session: Any, private: Any, cka_id: bytes) -> None:
    """Write CKA_ID to both objects, the private one first: it counts if a crash comes in between.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    publics = public_objects(session, private, read(private, Attribute.KEY_TYPE))
    private[Attribute.ID] = cka_id
    for public in publics:
        public[Attribute.ID] = cka_id


def write_label(session: Any, private: Any, label: str) -> None:
    """Write CKA_LABEL to both objects, the private one last: it counts if a crash comes in between.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    for public in public_objects(session, private, read(private, Attribute.KEY_TYPE)):
        public[Attribute.LABEL] = label
    private[Attribute.LABEL] = label


def destroy_pair(session: Any, private: Any) -> None:
    """Destroy both objects, the private one first: without a public one an Ed25519 key couldn't be found again.

    Killed in between, it leaves a public object that says what it is; ``sweep`` removes it.

    Raises:
        PKCS11Error: If the module refuses.
    """
    publics = public_objects(session, private, read(private, Attribute.KEY_TYPE))
    for public in publics:
        with suppress(ckr.PKCS11Error):  # where labels are fixed, it is left as it is
            public[Attribute.LABEL] = _DESTROYED
    private.destroy()
    for public in publics:
        with suppress(ckr.ObjectHandleInvalid):  # swept by somebody who has just opened the token
            public.destroy()


def sweep(session: Any) -> None:
    """Remove the public objects that an interrupted destruction left; hold the module's mutex."""
    with suppress(ckr.PKCS11Error):
        for public in find(session, {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: _DESTROYED}):
            if not find(session, {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: read(public, Attribute.ID)}):
                public.destroy()
