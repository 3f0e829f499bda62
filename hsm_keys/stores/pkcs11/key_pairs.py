"""Makes and destroys key pairs, with a template that every tried module accepted, and without leaving half a pair."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import DEFAULT, Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType
from pkcs11.mechanisms import Mechanism

from hsm_keys.errors import HsmKeysError, KeyNotFoundError, StoreError
from hsm_keys.stores.key_names import ROTATION
from hsm_keys.stores.pkcs11.attributes import ED25519_OID, read
from hsm_keys.stores.pkcs11.errors import is_gone, mapped_errors
from hsm_keys.stores.pkcs11.halves import Unpaired, public_half, public_template
from hsm_keys.stores.pkcs11.objects import DESTROYED, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from hsm_keys.signing.algorithms import KeyType, PublicKey
    from hsm_keys.stores.pkcs11.objects import Objects

__all__ = [
    "can_write_id",
    "check_can_make",
    "check_can_sign",
    "destroy_pair",
    "give_back_label",
    "is_being_destroyed",
    "loses_public_half",
    "make_pair",
    "mend_pair",
    "remove_orphans",
    "rename_pair",
    "sweep",
    "write_id",
    "write_label",
]

_PLAUSIBLE_RSA_LIMIT: Final = 1024

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
    with mapped_errors("list its mechanisms"):
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


def make_pair(objects: Objects, name: str, key_type: KeyType, mark: bytes) -> tuple[Any, PublicKey]:
    """Generate a pair; hold the module's mutex, and check first that the name is free.

    Args:
        objects: The token's, in a session that may write.
        name: The label of both objects.
        key_type: What to make.
        mark: The CKA_ID of both objects, which nothing else has.

    Returns:
        The private object and the public key.

    Raises:
        KeyNotFoundError: If somebody else has destroyed the pair already.
        StoreError: If the token refuses; what it left of the pair is removed.
    """
    try:
        with mapped_errors(f"make an {key_type} key"):
            _, private = _generate(objects.session, name, key_type, mark)
            return private, _public_half_of(objects, private, name, mark)
    except BaseException:
        _remove(objects, mark)
        raise


def _public_half_of(objects: Objects, private: Any, name: str, mark: bytes) -> PublicKey:
    try:
        public_key = objects.public_key_of(private)
    except ckr.ObjectHandleInvalid:  # the object is gone, or the whole token: the search tells
        public_key = None
    if public_key is None:
        if not objects.find({Attribute.ID: mark}):
            raise KeyNotFoundError(
                f"somebody else destroyed the key {name!r} while it was made", hint="run the same command again"
            )
        raise StoreError(
            "the token made a key and doesn't show its public half", hint="log in to the token, or try another token"
        )
    return public_key


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
        curve = session.create_domain_parameters(CkKeyType.EC_EDWARDS, {Attribute.EC_PARAMS: ED25519_OID}, local=True)
        pair = curve.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **common)
    public, private = pair
    return public, private


def _remove(objects: Objects, mark: bytes) -> None:
    with suppress(ckr.PKCS11Error):
        for leftover in objects.find({Attribute.ID: mark}):
            leftover.destroy()


def mend_pair(objects: Objects, private: Any) -> None:
    """Give the public objects the private one's label and CKA_ID, where a crash has left them without.

    Public objects of ours of the same label that belong to no private one are what is left of a generation that was
    killed; they are destroyed.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    for public in objects.public_objects(private):
        _align(public, private)
    remove_orphans(objects, read(private, Attribute.LABEL))


def _align(public: Any, private: Any) -> None:
    for attribute in (Attribute.ID, Attribute.LABEL):
        there = read(public, attribute)
        # Read last: another run that writes a CKA_ID meanwhile begins with this object.
        right = read(private, attribute)
        if there != right:
            public[attribute] = right


def remove_orphans(objects: Objects, label: str) -> None:
    """Destroy the public objects of that label which carry our mark and belong to no private one, whatever its label.

    A public object without our mark is somebody else's, and stays. Where a private key can't be read, all stay.

    Args:
        objects: The token's, in a session that may write.
        label: The label.
    """
    orphans = [public for public in objects.find(_public(label)) if is_ours(public)]
    if orphans:
        privates = objects.private_keys()
        for public in orphans:
            if not _belongs(objects, public, privates):
                with suppress(ckr.ObjectHandleInvalid):  # its maker has given way, and destroyed it
                    _remove_orphan(objects, public)


def _remove_orphan(objects: Objects, public: Any) -> None:
    """Destroy a public object, unless its private one has come.

    Another machine's generation or import begins with this half, and without it nobody finds an Ed25519 key again. So
    first it says that it is being destroyed, and then it is looked for the private one; whoever makes a pair looks at
    what the public one says once both are there. So at least one of the two sees the other one.
    """
    with suppress(ckr.PKCS11Error):  # a token with fixed names: it stays as it is
        public[Attribute.LABEL] = DESTROYED
    privates = objects.private_keys()
    for private in privates:
        if _belongs(objects, public, [private]):
            _align(public, private)
            return
    half = public_half(public)
    public.destroy()
    if half is not None:
        _put_back(objects, half, {private.handle for private in privates})


def _put_back(objects: Objects, half: PublicKey, known: Collection[int]) -> None:
    """Create a public object again whose private one has come meanwhile, and may have got another name since."""
    for private in objects.private_keys():
        if private.handle not in known and not objects.public_objects(private, half) and _is_of(objects, private, half):
            names = {name: read(private, name) for name in (Attribute.LABEL, Attribute.ID)}
            objects.session.create_object({Attribute.TOKEN: True, **names, **public_template(half)})


def _is_of(objects: Objects, private: Any, half: PublicKey) -> bool:
    try:
        return objects.fits(private, half)
    except Unpaired:
        return False


def _belongs(objects: Objects, public: Any, privates: Sequence[Any]) -> bool:
    """Tell whether a public object belongs to one of the private ones, or may do: one can't be read."""
    try:
        half, cka_id = public_half(public), read(public, Attribute.ID)
        # A public object that is being made has no key yet, and its CKA_ID already.
        return any(
            read(private, Attribute.ID) == cka_id or (half is not None and objects.public_key_of(private) == half)
            for private in privates
        )
    except ckr.PKCS11Error:
        return True


def _public(label: str) -> dict[Attribute, Any]:
    return {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label}


def write_id(objects: Objects, private: Any, cka_id: bytes) -> None:
    """Write CKA_ID to both objects, the private one first: it counts if a crash comes in between.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    publics = objects.public_objects(private)
    objects.write(private, Attribute.ID, cka_id)
    for public in publics:
        public[Attribute.ID] = cka_id


def can_write_id(objects: Objects, private: Any) -> bool:
    """Tell whether the token lets a key's CKA_ID be written, or fixes it.

    Raises:
        PKCS11Error: If the token, or the object, is gone.
    """
    try:
        objects.write(private, Attribute.ID, read(private, Attribute.ID))
    except ckr.PKCS11Error as error:
        if is_gone(error):
            raise
        return False
    return True


def write_label(objects: Objects, private: Any, label: str) -> None:
    """Write CKA_LABEL to both objects, the private one first: it counts if a crash comes in between.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    for public in _take_label(objects, private, label):
        public[Attribute.LABEL] = label


def _take_label(objects: Objects, private: Any, label: str) -> list[Any]:
    """Write CKA_LABEL to the private object, and return the public ones."""
    publics = objects.public_objects(private)
    for public in publics:
        _align_id(public, private)
    objects.write(private, Attribute.LABEL, label)
    return publics


def rename_pair(objects: Objects, private: Any, label: str, former: str) -> bool:
    """Give a pair a label, unless another key gets it at the same moment; return whether the pair has it.

    Of two machines that write, the later one sees both keys, and gives way; if both see both, both give way, and the
    label is free again. Until a machine has looked, the public object keeps the former label: so whoever finds two keys
    of one label knows which of them has it, also if the other one's machine was killed before it gave way.

    Nor is it given where another machine has renamed the pair meanwhile: that label comes back.

    Args:
        objects: The token's, in a session that may write.
        private: The private object.
        label: The label.
        former: The label that the pair has, or had when another run began to do this, and was killed.

    Raises:
        ObjectHandleInvalid: If another machine destroyed the pair meanwhile.
        PKCS11Error: If the module forbids it.
    """
    publics = _take_label(objects, private, label)
    if label != former and (len(objects.private_keys(label)) > 1 or _is_renamed(publics, {label, former})):
        write_label(objects, private, objects.former_label(private) or former)
        return False
    try:
        for public in publics:
            public[Attribute.LABEL] = label
    except ckr.PKCS11Error:
        with suppress(ckr.ObjectHandleInvalid):  # it was destroyed
            objects.write(private, Attribute.LABEL, former)
        raise
    try:
        return bool(private[Attribute.LABEL] == label)
    except ckr.ObjectHandleInvalid:
        for public in publics:
            with suppress(ckr.ObjectHandleInvalid):
                public.destroy()
        raise


def _is_renamed(publics: Sequence[Any], expected: Collection[str]) -> bool:
    """Tell whether another machine has given a pair a mark of a rotation since it was looked how the pair is called.

    Its public object has that still, though the private one's label was written over.
    """
    name = min(expected).partition("+")[0]
    marked = {name + mark for mark in ROTATION} - {*expected}
    return any(read(public, Attribute.LABEL) in marked for public in publics)


def give_back_label(objects: Objects, label: str) -> None:
    """Give the keys their former labels again that were being given this one, where several keys of ours have it.

    Raises:
        PKCS11Error: If the module forbids it.
    """
    privates = [private for private in objects.private_keys(label) if is_ours(private)]
    for private in privates if len(privates) > 1 else ():
        former = objects.former_label(private)
        if former is not None and not objects.private_keys(former):
            objects.write(private, Attribute.LABEL, former)


def _align_id(public: Any, private: Any) -> None:
    """Give a public object the private one's CKA_ID again, so that it is never without both of its names."""
    if read(public, Attribute.ID) != read(private, Attribute.ID):
        public[Attribute.ID] = read(private, Attribute.ID)


def destroy_pair(objects: Objects, private: Any, check: Callable[[], None] = lambda: None) -> None:
    """Destroy both objects, the private one first: without a public one an Ed25519 key couldn't be found again.

    Killed in between, it leaves a public object that says what it is; ``sweep`` removes it.

    Args:
        objects: The token's, in a session that may write.
        private: The private object.
        check: Raises if the pair must stay. Called once the public object says that it is being destroyed: whoever
            registers a pair writes its mark first, and looks at that afterwards.

    Raises:
        PKCS11Error: If the module refuses.
    """
    publics = objects.public_objects(private)
    for public in publics:
        with suppress(ckr.PKCS11Error):  # a token with fixed names: it stays as it is
            _align_id(public, private)
            public[Attribute.LABEL] = DESTROYED
    try:
        check()
    except HsmKeysError:
        mend_pair(objects, private)
        raise
    private.destroy()
    for public in publics:
        with suppress(ckr.ObjectHandleInvalid):  # another program that has just opened the token removed it
            public.destroy()


def is_being_destroyed(objects: Objects, private: Any) -> bool:
    """Tell whether the public object says that its pair is being destroyed."""
    return any(read(public, Attribute.LABEL) == DESTROYED for public in objects.public_objects(private))


def loses_public_half(objects: Objects, private: Any) -> bool:
    """Tell whether another run is destroying a pair's public object, or has; an RSA key does without.

    Raises:
        PKCS11Error: If an object, or the token, is gone.
    """
    labels = [read(public, Attribute.LABEL) for public in objects.public_objects(private)]
    return DESTROYED in labels or (not labels and read(private, Attribute.KEY_TYPE) == CkKeyType.EC_EDWARDS)


def sweep(objects: Objects) -> None:
    """Remove the public objects that an interrupted destruction left; hold the module's mutex."""
    with suppress(ckr.PKCS11Error):
        remove_orphans(objects, DESTROYED)
