"""Putting a private key that was made elsewhere into a token: sensitive, not extractable, for signing alone.

The mark of an import under way is a throwaway pair with the label ``NAME+importing``, imported in the same way. It
shows beforehand that the token takes such keys. When a mark is removed, its public object goes first, so that a private
object alone is still a mark. Each run makes a throwaway pair of its own. A run that takes the mark over replaces the
other run's pair by its own, and then checks whether the key has arrived; a run that imports the key looks at the mark
afterwards. So of two runs at least one sees the other, and gives way. The key that it imported is named ``NAME+ending``
until it is removed: `revoke` removes it if the run couldn't. If the run was killed before it gave way, CKA_ID tells
the two keys apart: a key gets the usual CKA_ID only after its run has looked at the mark, or after another run has
continued with it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pkcs11 import exceptions as ckr
from pkcs11.constants import DEFAULT, Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import MGF, Mechanism
from pkcs11.mechanisms import KeyType as CkKeyType

from hsm_keys.errors import KeyExistsError, StoreError
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.wrapping import wrap
from hsm_keys.stores.key_imports import KeyImports, PendingImport, taken_over
from hsm_keys.stores.key_names import ENDING, IMPORTING, ROTATION, check_new_name
from hsm_keys.stores.pkcs11.attributes import ED25519_OID, read
from hsm_keys.stores.pkcs11.errors import is_gone, reason
from hsm_keys.stores.pkcs11.halves import big_integer, public_template
from hsm_keys.stores.pkcs11.key import Pkcs11Key
from hsm_keys.stores.pkcs11.key_pairs import (
    can_write_id,
    check_can_sign,
    destroy_pair,
    remove_orphans,
    write_id,
    write_label,
)
from hsm_keys.stores.pkcs11.marks import (
    importing_id,
    is_passing_registered,
    passing_registered_id,
    read_mark,
    usual_id,
)
from hsm_keys.stores.pkcs11.objects import is_ours

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hsm_keys.signing.algorithms import PrivateKey
    from hsm_keys.stores.base import StoredKey
    from hsm_keys.stores.pkcs11.objects import Objects
    from hsm_keys.stores.pkcs11.store import Pkcs11Store

__all__ = ["Pkcs11Imports"]

_WRAPPING_BITS: Final = 2048  # of a key that lives as long as the session: the largest that every token makes quickly

_UNWRAPPING: Final = frozenset({Mechanism.RSA_PKCS_KEY_PAIR_GEN, Mechanism.RSA_PKCS_OAEP, Mechanism.AES_KEY_WRAP_PAD})

_PROTECTED: Final = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
_SIGNS_ONLY: Final = {
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
# python-pkcs11 would send every use, and modules refuse those that half a pair can't have.
_UNSAID: Final = dict.fromkeys((Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT)

_NOT_TAKEN: Final = (
    ckr.AttributeReadOnly,
    ckr.AttributeSensitive,
    ckr.AttributeTypeInvalid,
    ckr.AttributeValueInvalid,
    ckr.FunctionFailed,
    ckr.FunctionNotSupported,
    ckr.TemplateIncomplete,
    ckr.TemplateInconsistent,
)
"""What modules answer that want no private key in the clear."""


class Pkcs11Imports(KeyImports):
    """Imports into one token.

    Args:
        store: The token.
    """

    def __init__(self, store: Pkcs11Store) -> None:
        self._store = store
        self._seen: dict[str, set[bytes | None]] = {}
        """Name to CKA_IDs of the marks that were there when they were looked at."""
        self._marks: dict[str, bytes] = {}
        """Name to CKA_ID of the throwaway pair of this run."""
        self._to_withdraw: dict[str, bytes] = {}
        """Name to CKA_ID of the key that this run has put in."""

    def pending(self, name: str) -> PendingImport | None:
        """Return what an interrupted import left: its throwaway key is the mark."""
        with self._store.managing(f"look up the import of {name!r}") as objects:
            marks = _ours(objects.private_keys(name + IMPORTING))
            self._seen[name] = {read(mark, Attribute.ID) for mark in marks}
            if not marks:
                return None
            key = self._store.key(name) if objects.private_keys(name) else None
            environment = read_mark(read(marks[0], Attribute.ID)).environment
            return PendingImport(key.key_type if key else _key_type_of(marks[0]), key, environment)

    def prepare(self, name: str, key_type: KeyType, environment: str) -> StoredKey:
        """Import a throwaway key of the type under ``NAME+importing``; earlier ones go after it has come."""
        check_new_name(name)
        label, pair = name + IMPORTING, _throwaway(key_type)
        with self._store.managing("take a key that was made elsewhere") as objects:
            check_can_sign(objects.session.token, key_type)
            _check_free(objects, name)
            marks = _marks(objects, name)
            if not marks <= self._seen.get(name, marks):
                raise taken_over(name, self._store.describe())
            remove_orphans(objects, label)
            earlier = [obj for obj in _halves(objects, label) if read(obj, Attribute.ID) in marks]
            own = self._marks[name] = importing_id(pair.public_key(), environment)
            _import_pair(objects, label, own, pair)
            for obj in earlier:
                with suppress(ckr.ObjectHandleInvalid):  # the run that it belongs to has ended it itself
                    obj.destroy()
            others = _marks(objects, name) - {own}  # of runs that began after this one had looked
            if others or objects.private_keys(name):
                if others or not earlier:  # else this mark may be all that tells of an API key that got lost
                    self.end(name)
                raise taken_over(name, self._store.describe())
            return self._store.key(label)

    def is_taken_over(self, name: str) -> bool:
        """Tell whether the throwaway pair of this run is gone."""
        with self._store.managing(f"look up the import of {name!r}") as objects:
            return self._marks[name] not in _marks(objects, name)

    def put(self, name: str, private_key: PrivateKey, api_key_id: str, environment: str) -> StoredKey:
        """Put the private half in, bound from its first moment: CKA_ID is part of what is created."""
        check_new_name(name)
        mark = passing_registered_id(api_key_id, environment)
        with self._store.managing("take a key that was made elsewhere") as objects:
            _check_free(objects, name)
            self._to_withdraw[name] = mark
            private = _import_pair(objects, name, mark, private_key)
            # No token refuses a second key of a label.
            if len(objects.private_keys(name)) > 1 or self._is_overtaken(objects, name, private):
                if not objects.private_keys(name + ENDING):
                    with suppress(ckr.PKCS11Error):  # a token with fixed labels: it stays as it is
                        write_label(objects, private, name + ENDING)
                raise taken_over(name, self._store.describe())
            half = objects.public_key_of(private) or private_key.public_key()
            return Pkcs11Key(self._store, name, read(private, Attribute.ID), half)

    def _is_overtaken(self, objects: Objects, name: str, private: Any) -> bool:
        """Tell whether another run has taken the import over, and didn't continue with the key that this one imported.

        A run that continues with this key gives it the usual CKA_ID before it removes the mark. So if the mark is gone
        and the CKA_ID isn't the usual one, that run has imported a key of its own, which a rotation may have renamed.
        """
        own, marks = self._marks.get(name), _marks(objects, name)
        if marks or own is None:
            rotating = any(_ours(objects.private_keys(name + mark)) for mark in ROTATION)  # begun since: of another key
            return bool(marks) and (rotating or own not in marks)
        return is_passing_registered(read(private, Attribute.ID)) and can_write_id(objects, private)

    def withdraw(self, name: str) -> None:
        """Destroy the key that this run put in."""
        with self._store.managing(f"destroy the imported key {name!r}") as objects:
            for private in [*objects.private_keys(name), *objects.private_keys(name + ENDING)]:
                if read(private, Attribute.ID) == self._to_withdraw[name]:
                    destroy_pair(objects, private)

    def end(self, name: str) -> None:
        """Give the key that was put in the usual CKA_ID; then destroy the throwaway key, its private object last."""
        with self._store.managing(f"remove the mark of the import of {name!r}") as objects:
            own = self._marks.get(name)
            for private in _ours(objects.private_keys(name)):
                if own is None or read(private, Attribute.ID) == self._to_withdraw.get(name):
                    _settle(objects, private)
            for obj in _halves(objects, name + IMPORTING):
                if own in {None, read(obj, Attribute.ID)}:
                    obj.destroy()


def _settle(objects: Objects, private: Any) -> None:
    """Write the usual CKA_ID of a key that was put in; where that is fixed, it says "registered" just as well.

    Not of one that has no public half: nobody can use it, and by its CKA_ID it is known as what is to be removed.
    """
    usual = usual_id(read(private, Attribute.ID))
    if usual is not None and not objects.lacks_half(private):
        try:
            write_id(objects, private, usual)
        except ckr.PKCS11Error as error:
            if is_gone(error):
                raise


def _ours(objects: Iterable[Any]) -> list[Any]:
    return [obj for obj in objects if is_ours(obj)]


def _marks(objects: Objects, name: str) -> set[bytes | None]:
    """Return the CKA_IDs of the throwaway keys that mark an import."""
    return {read(obj, Attribute.ID) for obj in _ours(objects.private_keys(name + IMPORTING))}


def _halves(objects: Objects, label: str) -> list[Any]:
    """Return our objects of a throwaway key's label, public ones first."""
    publics = objects.find({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label})
    return [*_ours(publics), *_ours(objects.private_keys(label))]


def _check_free(objects: Objects, name: str) -> None:
    if objects.private_keys(name):
        raise KeyExistsError(
            f"the token already has a key called {name!r}",
            hint=f"choose another name, or see it: hsm-keys show {name}",
        )


def _throwaway(key_type: KeyType) -> PrivateKey:
    """Make a key in memory that nobody will use."""
    bits = key_type.rsa_bits
    return Ed25519PrivateKey.generate() if bits is None else rsa.generate_private_key(65537, bits)


def _key_type_of(private: Any) -> KeyType:
    """Return the type of a throwaway key."""
    if read(private, Attribute.KEY_TYPE) == CkKeyType.EC_EDWARDS:
        return KeyType.ED25519
    return KeyType(f"rsa-{8 * len((read(private, Attribute.MODULUS) or b'').lstrip(bytes(1)))}")


def _import_pair(objects: Objects, label: str, cka_id: bytes, private_key: PrivateKey) -> Any:
    """Import both halves under one label and CKA_ID; hold the module's mutex, and check first that the name is free.

    The public object comes first: alone it is harmless, and the next import under that label removes it.

    Returns:
        The private object.

    Raises:
        StoreError: If the token takes no such key; nothing is left behind.
        PKCS11Error: If it fails otherwise.
    """
    common = {Attribute.TOKEN: True, Attribute.LABEL: label, Attribute.ID: cka_id}
    remove_orphans(objects, label)
    try:
        public = {**common, **public_template(private_key.public_key())}
        objects.session.create_object(public)
        private = _import_private(objects.session, common, private_key)
        if not objects.find({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: cka_id, Attribute.LABEL: label}):
            objects.session.create_object(public)  # another run has removed it, while it was alone, or is about to
    except BaseException:
        with suppress(ckr.PKCS11Error):
            remove_orphans(objects, label)
        raise
    return private


def _import_private(session: Any, common: dict[Attribute, Any], private_key: PrivateKey) -> Any:
    """Create the private object in the clear, over the session alone; where the module wants it wrapped, wrap it."""
    try:
        return session.create_object(
            {
                **common,
                **_PROTECTED,
                **_SIGNS_ONLY,
                Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                **_private_half(private_key),
            }
        )
    except _NOT_TAKEN as error:
        refused = reason(error)
    if not _UNWRAPPING.issubset(session.token.slot.get_mechanisms()):
        raise _no_imports(refused)
    try:
        return _unwrap(session, common, private_key)
    except _NOT_TAKEN as error:
        raise _no_imports(f"{refused}; wrapped: {reason(error)}") from None


def _no_imports(refused: str) -> StoreError:
    return StoreError(
        f"the token takes no keys of this type that were made elsewhere ({refused})",
        hint="let the token make the key: hsm-keys enroll; or try another --key-type",
    )


def _unwrap(session: Any, common: dict[Attribute, Any], private_key: PrivateKey) -> Any:
    """Hand the key over wrapped to a key of the token that lives for this session only (C_UnwrapKey)."""
    public, private = session.generate_keypair(
        CkKeyType.RSA,
        _WRAPPING_BITS,
        store=False,
        capabilities=MechanismFlag.UNWRAP,
        public_template=_UNSAID,
        private_template=_PROTECTED,
    )
    aes = None
    try:
        holder = rsa.RSAPublicNumbers(
            int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"), int.from_bytes(public[Attribute.MODULUS], "big")
        ).public_key()
        # SHA-1 is sound in OAEP, and for some modules (SoftHSM among them) the only hash that it may have.
        wrapped = wrap(private_key, holder, hashes.SHA1())  # noqa: S303 - as said
        aes = private.unwrap_key(
            ObjectClass.SECRET_KEY,
            CkKeyType.AES,
            wrapped.aes_key,
            mechanism=Mechanism.RSA_PKCS_OAEP,
            mechanism_param=(Mechanism.SHA_1, MGF.SHA1, None),
            store=False,
            capabilities=MechanismFlag.UNWRAP,
            template=_PROTECTED,
        )
        return aes.unwrap_key(
            ObjectClass.PRIVATE_KEY,
            CkKeyType.RSA if isinstance(private_key, rsa.RSAPrivateKey) else CkKeyType.EC_EDWARDS,
            wrapped.private_key,
            id=common[Attribute.ID],
            label=common[Attribute.LABEL],
            mechanism=Mechanism.AES_KEY_WRAP_PAD,
            store=True,
            capabilities=MechanismFlag.SIGN,
            template={**_PROTECTED, **_SIGNS_ONLY, **_UNSAID},
        )
    finally:
        for passing in (aes, private, public):
            with suppress(ckr.PKCS11Error):
                if passing is not None:
                    passing.destroy()


def _private_half(private_key: PrivateKey) -> dict[Attribute, Any]:
    if isinstance(private_key, Ed25519PrivateKey):
        return {
            Attribute.KEY_TYPE: CkKeyType.EC_EDWARDS,
            Attribute.EC_PARAMS: ED25519_OID,
            Attribute.VALUE: private_key.private_bytes_raw(),
        }
    numbers = private_key.private_numbers()
    return {
        Attribute.KEY_TYPE: CkKeyType.RSA,
        Attribute.MODULUS: big_integer(numbers.public_numbers.n),
        Attribute.PUBLIC_EXPONENT: big_integer(numbers.public_numbers.e),
        Attribute.PRIVATE_EXPONENT: big_integer(numbers.d),
        Attribute.PRIME_1: big_integer(numbers.p),
        Attribute.PRIME_2: big_integer(numbers.q),
        Attribute.EXPONENT_1: big_integer(numbers.dmp1),
        Attribute.EXPONENT_2: big_integer(numbers.dmq1),
        Attribute.COEFFICIENT: big_integer(numbers.iqmp),
    }
