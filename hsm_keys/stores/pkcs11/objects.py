"""A token's objects: found, read, and private and public ones paired by their key.

A token is shared: any object may be another program's, and any may be broken. So label and CKA_ID don't decide which
objects are the halves of a key, and an object that can't be read is skipped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import _pkcs11
from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType

from hsm_keys.errors import SigningError, StoreError, UsageError
from hsm_keys.signing.algorithms import key_type_of
from hsm_keys.stores.key_names import ABORTING, ENDING, FINISHING, RETIRED, SUCCESSOR
from hsm_keys.stores.marks import Mark
from hsm_keys.stores.pkcs11.attributes import read, read_or_none
from hsm_keys.stores.pkcs11.errors import is_gone, reason
from hsm_keys.stores.pkcs11.halves import NO_HALF, Unpaired, proved_half, public_half, said_half
from hsm_keys.stores.pkcs11.marks import read_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.errors import PinError
    from hsm_keys.signing.algorithms import PublicKey

    Candidates = Callable[[bytes | None, str | None], Iterator[PublicKey]]
    Proofs = dict[tuple[int, bytes | None, str | None], PublicKey]

__all__ = ["DESTROYED", "NO_LABEL", "Objects", "Pair", "is_ours", "required"]

NO_LABEL: Final = "it has no label, and keys are named by theirs: give it one with the vendor's tool"

_REPLACED: Final = (
    "its public object was removed or replaced, which takes no PIN: register nothing that another tool shows for it; "
    "enroll a key under another name, or write the right one back from a copy, with the vendor's tool"
)
_UNGUARDED: Final = "it carries a mark of ours, and can be made, used and renamed without a login"
DESTROYED: Final = "+destroyed"
"""The label of a public object whose private half is being destroyed; no key's name begins with a plus."""

_PREFERENCE: Final = (SUCCESSOR, RETIRED, ABORTING, FINISHING)
"""Which key of a rotation has the name while several are being given it; the same as while none has it."""

_LOOKS: Final = 3
_BATCH: Final = 10
_PRIVATE: Final = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
_PUBLIC: Final = {Attribute.CLASS: ObjectClass.PUBLIC_KEY}
_CERTIFICATE: Final = {Attribute.CLASS: ObjectClass.CERTIFICATE}


@dataclass(frozen=True, slots=True)
class Pair:
    """What a token holds of a key pair.

    Args:
        handle: The private object's handle.
        label: The private object's label; None if it has none.
        cka_id: The private object's CKA_ID.
        public_key: The public half; None if there is none that was proved to be its own, or Kalshi takes no such key.
        problem: Why there is no public half, or why the object can't be read; empty for a key of another kind.
        pin_error: What to raise to whoever wants this key, if its public half isn't known for want of a PIN.
        is_guarded: Whether the private object can be made and changed after login alone, as far as the token says.
    """

    handle: int
    label: str | None
    cka_id: bytes | None
    public_key: PublicKey | None
    problem: str = ""
    pin_error: PinError | None = None
    is_guarded: bool = True

    @property
    def name(self) -> str:
        """What people call it: its label, else its CKA_ID, else its handle, which lasts as long as a session."""
        unnamed = f"object {self.handle}" if self.handle else "an object that says nothing of itself"
        return self.label or (f"id {self.cka_id.hex()}" if self.cka_id else unnamed)

    @property
    def is_nameless(self) -> bool:
        """Whether it is a key for Kalshi that can't be named."""
        return self.public_key is not None and not self.label

    @property
    def mark(self) -> Mark:
        """What CKA_ID says of it. On an object that can be written without the PIN, it may be anybody's word."""
        mark = read_mark(self.cka_id)
        return Mark(ours=False, doubt=_UNGUARDED) if mark.ours and not self.is_guarded else mark


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of one token, as a session shows them. Hold the module's mutex around every call.

    Args:
        session: python-pkcs11's session.
        sign: Signs a text with a private object, as Kalshi wants it.
        proofs: The public halves that were proved by a signature. Shared by the sessions of one login, so that a key
            is asked once: by the private object's handle, and by CKA_ID and label, should the handle be given anew.
    """

    session: Any
    sign: Callable[[Any, bytes], bytes]
    proofs: Proofs = field(default_factory=dict)

    def find(self, template: dict[Attribute, Any]) -> list[Any]:
        """Return all matching objects. An iterator left half-used blocks other threads.

        Raises:
            PKCS11Error: If the token is gone.
        """
        try:
            return self._listed(template)
        except ckr.PKCS11Error:
            # One object that can't be read makes some modules refuse every search by label or id, and none by class.
            kind: dict[Attribute, Any] = {name: value for name, value in template.items() if name == Attribute.CLASS}
            if kind == template:
                raise
        named = [(name, value) for name, value in template.items() if name not in kind]
        return [obj for obj in self._listed(kind) if all(read_or_none(obj, name) == value for name, value in named)]

    def _listed(self, template: dict[Attribute, Any]) -> list[Any]:
        """Return all matching objects; listed again where another program destroys one meanwhile."""
        for _ in range(_LOOKS):
            with suppress(ckr.ObjectHandleInvalid):
                return _searched(self.session, template)
        return _searched(self.session, template)

    def private_keys(self, label: str | None = None) -> list[Any]:
        """Return the private keys, of that label if one is given."""
        return self.find(_PRIVATE if label is None else {**_PRIVATE, Attribute.LABEL: label})

    def pairs(self, label: str | None = None) -> list[Pair]:
        """Return the pairs, of that label if one is given, without those that vanish meanwhile.

        Raises:
            PKCS11Error: If the token is gone.
        """
        privates = self.private_keys(label)
        candidates = _Index(self).candidates if label is None else self._candidates
        pairs = [pair for private in privates if (pair := self._pair(private, candidates))]
        if any(pair.problem for pair in pairs):
            self.find(_PRIVATE)  # raises if the whole token doesn't answer, not only one object
        pairs = self._told_apart(pairs, privates)
        return pairs if label is None else [pair for pair in pairs if pair.label == label]

    def _pair(self, private: Any, candidates: Candidates) -> Pair | None:
        label = cka_id = pin_error = None
        try:
            label, cka_id = read(private, Attribute.LABEL), read(private, Attribute.ID)
            public_key, problem = self._half_of(private, candidates), ""
            key_type_of(public_key)
        except ckr.ObjectHandleInvalid:
            return None
        except UsageError:
            public_key, problem = None, ""
        except Unpaired as unpaired:
            public_key, problem, pin_error = None, str(unpaired), unpaired.pin_error
        except ckr.PKCS11Error as error:
            public_key, problem = None, f"it can't be read: {reason(error)}"
        return Pair(private.handle, label, cka_id, public_key, problem, pin_error, _is_guarded(private))

    def _told_apart(self, pairs: list[Pair], privates: list[Any]) -> list[Pair]:
        """Return the pairs, each by a label of its own where several of ours are being given one."""
        labels = Counter(pair.label for pair in pairs if pair.mark.ours)
        objects = {private.handle: private for private in privates}
        for label in [label for label, count in labels.items() if count > 1]:
            namesakes = [pair for pair in pairs if pair.label == label and pair.mark.ours]
            former = {pair.handle: self.former_label(objects[pair.handle]) for pair in namesakes}
            kept = min(former, key=lambda handle: _preference(former[handle]))
            for pair in namesakes:
                before = former[pair.handle]
                if before is not None and pair.handle != kept:
                    pairs[pairs.index(pair)] = replace(pair, label=before)
        return pairs

    def former_label(self, private: Any) -> str | None:
        """Return the label that a private object had before it was given another one; None if that has come to its end.

        Its public object keeps that until it is known that no other key has got the new one meanwhile.

        Raises:
            PKCS11Error: If the token is gone.
        """
        label = read_or_none(private, Attribute.LABEL) or ""
        name = label.partition("+")[0]
        for public in self.public_objects(private):
            former = read_or_none(public, Attribute.LABEL) or ""
            if is_ours(public) and former == DESTROYED:
                return name + ENDING
            if is_ours(public) and former != label and former.partition("+")[0] == name:
                return former
        return None

    def public_key_of(self, private: Any) -> PublicKey | None:
        """Return the public half of a private key object; None if none was proved to be its own.

        Raises:
            PKCS11Error: If the token is gone.
        """
        try:
            return self._half_of(private, self._candidates)
        except (Unpaired, UsageError):
            return None
        except ckr.PKCS11Error as error:
            if is_gone(error):
                self.find(_PRIVATE)
            return None

    def lacks_half(self, private: Any) -> bool:
        """Tell whether the token signs with a private object, and holds no public half of it.

        Raises:
            PKCS11Error: If the token, or the object, is gone.
        """
        try:
            self._half_of(private, self._candidates)
        except Unpaired as unpaired:
            return str(unpaired).startswith(NO_HALF)
        except UsageError:
            return False
        return False

    def fits(self, private: Any, public_key: PublicKey) -> bool:
        """Tell whether a private object is the one of a public key, whatever public objects the token holds.

        Raises:
            Unpaired: If the token doesn't let that be found out.
            PKCS11Error: If the token, or the object, is gone.
        """
        try:
            return self._half_of(private, lambda *_: iter([public_key])) == public_key
        except UsageError:
            return False
        except Unpaired as unpaired:
            if str(unpaired).startswith(NO_HALF):
                return False
            raise

    def _half_of(self, private: Any, candidates: Candidates) -> PublicKey:
        key_type = read(private, Attribute.KEY_TYPE)
        if key_type == CkKeyType.RSA:
            claim = said_half(private)
            if claim is not None:  # an attribute of a private object, which nobody without the PIN can write
                return claim
        elif key_type != CkKeyType.EC_EDWARDS:
            raise UsageError("Kalshi takes no keys of this kind")
        known = _named(private)
        if known not in self.proofs:
            self.proofs[known] = proved_half(private, candidates(*known[1:]), self.sign)
        return self.proofs[known]

    def write(self, private: Any, attribute: Attribute, value: Any) -> None:
        """Change the label or CKA_ID of a private object; what was proved of it stays proved.

        Raises:
            PKCS11Error: If the module forbids it.
        """
        proof = self.proofs.get(_named(private))
        private[attribute] = value
        if proof is not None:
            self.proofs[_named(private)] = proof

    def _candidates(self, cka_id: bytes | None, label: str | None) -> Iterator[PublicKey]:
        """Give the public keys that could be a private one's, the likeliest first."""
        if cka_id:
            yield from filter(None, map(_half, self.find({**_PUBLIC, Attribute.ID: cka_id})))
        if label:
            yield from filter(None, map(_half, self.find({**_PUBLIC, Attribute.LABEL: label})))
        for template in (_PUBLIC, _CERTIFICATE):
            yield from filter(None, map(_half, self.find(template)))

    def public_objects(self, private: Any, public_key: PublicKey | None = None) -> list[Any]:
        """Return the public objects of a private one's key that are ours, or named as it is.

        Args:
            private: The private object.
            public_key: Its public half, if that is known; else it is looked up.
        """
        half = public_key or self.public_key_of(private)
        if half is None:
            return []
        cka_id, label = read(private, Attribute.ID), read(private, Attribute.LABEL)
        names = {Attribute.ID: cka_id, Attribute.LABEL: label}
        searches = [{**_PUBLIC, attribute: value} for attribute, value in names.items() if value]
        named = {public.handle: public for search in searches for public in self.find(search)}
        fitting = [public for public in named.values() if _half(public) == half]
        # A crash between two writes leaves another label or another CKA_ID, two of them leave neither.
        return fitting or [public for public in self.find(_PUBLIC) if is_ours(public) and _half(public) == half]


def _preference(former: str | None) -> int:
    """Return the place of a key among those of one label, by the label that it had before."""
    if former is None:
        return -1
    marks = [former.endswith(mark) for mark in _PREFERENCE]
    return marks.index(True) if any(marks) else len(marks)


def _named(private: Any) -> tuple[int, bytes | None, str | None]:
    return private.handle, read(private, Attribute.ID), read(private, Attribute.LABEL)


class _Index:
    """The public halves of a token, each read once: for pairing many private keys.

    Args:
        objects: The token's objects.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._by_name: defaultdict[tuple[Attribute, Any], list[PublicKey]] = defaultdict(list)
        self._read_before: list[PublicKey] | None = None

    def _every(self) -> list[PublicKey]:
        """Return all of them; cached_property would hold one lock for all tokens up to Python 3.11."""
        if self._read_before is None:
            self._read_before = self._read()
        return self._read_before

    def _read(self) -> list[PublicKey]:
        every = []
        for public in self._objects.find(_PUBLIC):
            half = _half(public)
            if half is not None:
                every.append(half)
                for attribute in (Attribute.ID, Attribute.LABEL):
                    self._by_name[attribute, read_or_none(public, attribute)].append(half)
        return every

    def candidates(self, cka_id: bytes | None, label: str | None) -> Iterator[PublicKey]:
        """Give the public keys that could be a private one's, the likeliest first."""
        every = self._every()
        yield from self._by_name[Attribute.ID, cka_id]
        yield from self._by_name[Attribute.LABEL, label]
        yield from every
        yield from filter(None, map(_half, self._objects.find(_CERTIFICATE)))


def is_ours(obj: Any) -> bool:
    """Tell whether an object carries our mark; on a private one that takes a login to be written."""
    is_private = read_or_none(obj, Attribute.CLASS) == ObjectClass.PRIVATE_KEY
    return read_mark(read_or_none(obj, Attribute.ID)).ours and (_is_guarded(obj) or not is_private)


def _is_guarded(private: Any) -> bool:
    """Tell whether a private object is made and changed after login alone; a token that doesn't say is believed."""
    return read_or_none(private, Attribute.PRIVATE) is not False


def _half(obj: Any) -> PublicKey | None:
    try:
        return public_half(obj)
    except ckr.PKCS11Error:
        return None


def _drop(search: Any) -> None:
    with suppress(ckr.PKCS11Error):
        search._finalize()  # noqa: SLF001 - its own destructor calls nothing else


# A search that is dropped half done, because the module went away, raises where Python can only print it.
_SearchIter: Any = vars(_pkcs11)["SearchIter"]
_Search: Any = type("_Search", (_SearchIter,), {"__del__": _drop})


def _searched(session: Any, template: dict[Attribute, Any]) -> list[Any]:
    try:
        with _Search(session, template, _BATCH) as search:
            return [batch_objects for batch in search for batch_objects in batch]
    except ckr.ObjectHandleInvalid:
        raise
    except ckr.PKCS11Error:
        # It reads each object's class and uses as it goes: one that can't be read takes its batch along.
        with _Search(session, template, 1) as search:
            return [batch_objects for batch in search for batch_objects in _readable(batch)]


class _Unreadable:
    """Stands for an object that doesn't say what it is.

    Args:
        error: What the module answered.
    """

    handle = 0

    def __init__(self, error: ckr.PKCS11Error) -> None:
        self._error = error

    def __getitem__(self, attribute: Attribute) -> Any:
        raise self._error


def _readable(batch: Any) -> list[Any]:
    try:
        return list(batch)
    except ckr.ObjectHandleInvalid:
        raise
    except ckr.PKCS11Error as error:
        return [_Unreadable(error)]


def required(pair: Pair, name: str) -> PublicKey:
    """Return the public half.

    Raises:
        PinError: If it takes a PIN to find it, and none was given, or the token refuses over it.
        SigningError: If none that the token holds was proved to be its own.
        StoreError: If it is of a kind that Kalshi doesn't take.
    """
    if pair.pin_error is not None:
        raise pair.pin_error
    if pair.public_key is not None:
        return pair.public_key
    if not pair.problem:
        raise StoreError(
            f"the token holds a private key {name!r} of a kind that Kalshi doesn't take",
            hint="Kalshi takes RSA (2048, 3072, 4096 bits) and Ed25519: enroll a key under another name",
        )
    raise SigningError(
        f"it isn't proved which public half belongs to the token's private key {name!r}: {pair.problem}",
        hint=_REPLACED if pair.problem.startswith(NO_HALF) else "enroll a key under another name",
    )
