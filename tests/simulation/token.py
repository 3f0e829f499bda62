"""A PKCS#11 token: objects with labels and CKA_IDs, and the sessions of one process on it.

Below the real ``Pkcs11Store``, its ``Objects`` and ``Mint``. A pair is made in two steps, the public object first, as
SoftHSM does it: a kill can come in between.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pkcs11 import exceptions as ckr
from pkcs11.constants import DEFAULT, Attribute, ObjectClass
from pkcs11.mechanisms import KeyType as CkKeyType
from pkcs11.mechanisms import Mechanism

from hsm_keys.forks import fork_generation
from hsm_keys.stores.pkcs11.key_pairs import sweep
from hsm_keys.stores.pkcs11.objects import Objects
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from hsm_keys.stores.pkcs11.token_connection import TokenConnection
from hsm_keys.stores.uri import Pkcs11Uri
from tests.simulation.effects import Call
from tests.simulation.pairs import pair_of

if TYPE_CHECKING:
    from hsm_keys.stores.pkcs11.key import Pkcs11Key
    from tests.simulation.world import World

_POINT = b"\x04\x20"
_MADE_INSIDE = {
    Attribute.LOCAL: True,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
}
_MADE_OUTSIDE = dict.fromkeys(_MADE_INSIDE, False)
_USES = {
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
    Attribute.MODIFIABLE: True,
    Attribute.ALWAYS_AUTHENTICATE: False,
}
_URI = Pkcs11Uri(token="kalshi", serial="5157", module_path="/simulated.so")
_FIND = Call("C_FindObjects")
_SIGN = Call("C_Sign")
_LIBRARY = SimpleNamespace(manufacturer_id="simulated")


class Kept:
    """An object as the token keeps it; it is never changed, but another one takes its place.

    Args:
        handle: The number by which sessions call it.
        values: Its attributes.
        public: The public half of its pair.
    """

    def __init__(self, handle: int, values: dict[Attribute, Any], public: bytes) -> None:
        self.handle: Final = handle
        self.values: Final = values
        self.public: Final = public
        self.label: Final[str] = values[Attribute.LABEL]
        self.is_private: Final = bool(values[Attribute.CLASS] == ObjectClass.PRIVATE_KEY)
        self._hash: Final = hash((public, *values.items()))  # no command that is begun depends on the number

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept) and (self.handle, self.public, self.values) == (
            other.handle,
            other.public,
            other.values,
        )


@dataclass
class Token:
    """A token.

    Args:
        world: Its surroundings.
    """

    world: World
    objects: dict[int, Kept] = field(default_factory=dict)
    on_destroyed: list[Any] = field(default_factory=list)
    _handles: int = 0

    def add(self, values: dict[Attribute, Any], public: bytes) -> Kept:
        self._handles += 1
        kept = self.objects[self._handles] = Kept(self._handles, values, public)
        return kept

    def change(self, handle: int, attribute: Attribute, value: Any) -> None:
        kept = self.objects.get(handle)
        if kept is None:
            raise ckr.ObjectHandleInvalid
        self.objects[handle] = Kept(handle, {**kept.values, attribute: value}, kept.public)

    def remove(self, handle: int) -> None:
        kept = self.objects.pop(handle, None)
        if kept is None:
            raise ckr.ObjectHandleInvalid
        if kept.is_private:
            for hook in self.on_destroyed:
                hook(kept.public)

    def publics(self) -> set[bytes]:
        """Return the public halves of which it keeps the private one."""
        return {kept.public for kept in self.objects.values() if kept.is_private}

    def labels(self) -> dict[str, bytes]:
        """Return label and public half of each private object."""
        return {kept.label: kept.public for kept in self.objects.values() if kept.is_private}

    def litter(self) -> list[str]:
        """Return what shouldn't be there: public objects without a private one."""
        names = {(kept.label, kept.public) for kept in self.objects.values() if kept.is_private}
        found = [
            f"a public object {kept.label}"
            for kept in self.objects.values()
            if not kept.is_private and (kept.label, kept.public) not in names
        ]
        return found + [
            f"{label} without a public object"
            for label, public in names
            if not any(kept.public == public and not kept.is_private for kept in self.objects.values())
        ]

    def state(self) -> Any:
        return tuple(self.objects.values())

    def handles(self) -> tuple[int, ...]:
        return self._handles, *self.objects

    def snapshot(self) -> Any:
        return self._handles, tuple(self.objects.values())

    def restore(self, snapshot: Any) -> None:
        self._handles = max(self._handles, snapshot[0])
        self.objects = {kept.handle: kept for kept in snapshot[1]}

    def open(self) -> Pkcs11Store:
        """Open it, as a new process does."""
        return TokenStore(self)


@cache
def _call(label: str) -> Call:
    return Call(label, changes=True)


class _Object:
    """A handle of an object, as python-pkcs11 gives it."""

    half = "public"

    def __init__(self, session: Session, handle: int) -> None:
        self.session = session
        self.handle = handle

    def _kept(self) -> Kept:
        kept = self.session.held.objects.get(self.handle)
        if kept is None:
            raise ckr.ObjectHandleInvalid
        return kept

    def __getitem__(self, attribute: Attribute) -> Any:
        values = self._kept().values
        if attribute == Attribute.VALUE:
            raise ckr.AttributeSensitive
        if attribute not in values:
            raise ckr.AttributeTypeInvalid
        return values[attribute]

    def __setitem__(self, attribute: Attribute, value: Any) -> None:
        held, call = self.session.held, _call(f"C_SetAttributeValue {attribute.name} {self.half}")
        held.world.effect(call, lambda: held.change(self.handle, attribute, value))

    def destroy(self) -> None:
        held = self.session.held
        held.world.effect(_call(f"C_DestroyObject {self.half}"), lambda: held.remove(self.handle))

    def copy(self, attributes: dict[Attribute, Any]) -> Any:
        raise ckr.FunctionFailed


class _Private(_Object):
    half = "private"

    def sign(self, message: bytes, mechanism: Mechanism | None = None) -> bytes:
        assert mechanism == Mechanism.EDDSA
        pair = pair_of(self._kept().public)
        return self.session.held.world.effect(_SIGN, lambda: pair.sign(message))


class Session:
    """A session that may write."""

    def __init__(self, held: Token) -> None:
        self.held = held
        mechanisms = {Mechanism.EC_EDWARDS_KEY_PAIR_GEN, Mechanism.EDDSA}
        self.token = SimpleNamespace(slot=SimpleNamespace(get_mechanisms=lambda: mechanisms))

    def search(self, template: dict[Attribute, Any]) -> list[_Object]:
        def look() -> list[_Object]:
            return [
                self._object(kept) for kept in self.held.objects.values() if template.items() <= kept.values.items()
            ]

        return self.held.world.effect(_FIND, look)

    def _object(self, kept: Kept) -> _Object:
        return (_Private if kept.is_private else _Object)(self, kept.handle)

    def create_domain_parameters(self, *_: Any, **__: Any) -> Session:
        return self

    def generate_keypair(self, *, label: str, id: bytes, **_: Any) -> tuple[_Object, _Object]:  # noqa: A002
        """Make a pair: the public object, then the private one."""
        pair = self.held.world.pair()
        common = {Attribute.KEY_TYPE: CkKeyType.EC_EDWARDS, Attribute.LABEL: label, Attribute.ID: id}
        public = {**common, Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.EC_POINT: _POINT + pair.public}
        private = {
            **common,
            **_MADE_INSIDE,
            **_USES,
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.PRIVATE: True,
        }
        held, world = self.held, self.held.world
        first = world.effect(_call("C_GenerateKeyPair public"), lambda: held.add(public, pair.public))
        second = world.effect(_call("C_GenerateKeyPair private"), lambda: held.add(private, pair.public))
        return self._object(first), self._object(second)

    def create_object(self, values: dict[Attribute, Any]) -> _Object:
        """Take an object that was made elsewhere."""
        given = {name: value for name, value in values.items() if value is not DEFAULT}
        if given[Attribute.CLASS] == ObjectClass.PRIVATE_KEY:
            secret = given.pop(Attribute.VALUE)
            public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
            given |= {**_MADE_OUTSIDE, Attribute.MODIFIABLE: True, Attribute.ALWAYS_AUTHENTICATE: False}
        else:
            public = given[Attribute.EC_POINT].removeprefix(_POINT)
            Ed25519PublicKey.from_public_bytes(public)
        call = _call(f"C_CreateObject {'private' if given[Attribute.CLASS] == ObjectClass.PRIVATE_KEY else 'public'}")
        return self._object(self.held.world.effect(call, lambda: self.held.add(given, public)))


class _Connection:
    """Stands in for ``TokenConnection``: sessions and a login, in a module that never goes away."""

    usable = True
    description = 'token "kalshi" (serial 5157)'
    locate = TokenConnection.locate

    def __init__(self, token: Token) -> None:
        self.token = Session(token).token
        self.generation = fork_generation()
        self.login = SimpleNamespace(times=1)
        self.module = SimpleNamespace(mutex=nullcontext(), library=_LIBRARY, release=lambda: None)
        self.objects = Objects(Session(token), lambda private, text: private.sign(text, mechanism=Mechanism.EDDSA))

    def make_ready(self) -> None:
        """It always is."""

    def close(self) -> None:
        """Nothing is open."""

    def log_in_again(self, *_: Any) -> bool:
        """Tell that it wasn't for want of a login: here a key that was found can only be destroyed then."""
        return False

    def sign(self, key: Pkcs11Key, message: bytes, *, digest: bool, opened_just_now: bool = False) -> bytes:
        assert not digest
        private = self.locate(self.objects, key)  # type: ignore[misc]  # stands in for one
        signature: bytes = private.sign(message, mechanism=Mechanism.EDDSA)
        return signature


class TokenStore(Pkcs11Store):
    def __init__(self, token: Token) -> None:
        self._opening: Any = SimpleNamespace(uri=_URI, times=1, description=_Connection.description, pin="")
        self.uri = str(_URI)
        self._closed = False
        self._connection: Any = _Connection(token)
        sweep(self._connection.objects)

    def _fresh(self) -> Any:
        return self._connection

    def _recovered(self, connection: Any) -> Any:
        self._opening.times += 1
        return connection
