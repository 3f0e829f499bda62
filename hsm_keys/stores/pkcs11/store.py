"""Keys in a PKCS#11 token. The token is the registry: label is the name, CKA_ID the API key id."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute
from pkcs11.mechanisms import MGF, Mechanism

from hsm_keys.errors import (
    KeyAmbiguousError,
    KeyExistsError,
    KeyNotFoundError,
    SigningError,
    StoreError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.signing.algorithms import SALT_LENGTH, KeyType
from hsm_keys.stores.base import RETIRED, SUCCESSOR, KeyStore, StoredKey, check_label
from hsm_keys.stores.pkcs11 import objects
from hsm_keys.stores.pkcs11.errors import reason, told_as_ours
from hsm_keys.stores.pkcs11.generate import (
    check_can_make,
    destroy_pair,
    mend_pair,
    sweep,
    write_id,
    write_label,
)
from hsm_keys.stores.pkcs11.key import Pkcs11Key
from hsm_keys.stores.pkcs11.login import log_in
from hsm_keys.stores.pkcs11.minting import Mint
from hsm_keys.stores.pkcs11.module import Module, acquire, find_module
from hsm_keys.stores.pkcs11.pool import Lane, SessionPool
from hsm_keys.stores.pkcs11.tokens import describe_token, find_token, token_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.pkcs11.importing import Pkcs11Imports
    from hsm_keys.stores.pkcs11.raw import RawSigner
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["Pkcs11Key", "Pkcs11Store"]

# Without the parameter python-pkcs11 signs with SHA-1 and a salt of 20 bytes, and no module complains.
_PSS: Final = (Mechanism.SHA256, MGF.SHA256, SALT_LENGTH)
_SIGNATURE_BUFFER: Final = 512  # bytes: RSA-4096

_T = TypeVar("_T")

_LOOK_AGAIN_S: Final = 0.05
_reopening = ProcessLock()


class Pkcs11Store(KeyStore):
    """A token, logged in.

    Args:
        uri: Names the module and the token.
        get_pin: Gives the user PIN; called with the token's description, at most once a process.
        force_pin: Log in also where the token says that one more wrong PIN locks it.
    """

    def __init__(self, uri: Pkcs11Uri, get_pin: Callable[[str], Pin], *, force_pin: bool = False) -> None:
        self._module_path = find_module(uri.module_path)
        self._wanted = replace(uri, module_path=self._module_path)
        self._get_pin = get_pin
        self._force_pin = force_pin
        self._pin: Pin | None = None
        self._closed = False
        self._open()

    def _open(self) -> None:
        """Load, find the token, log in. In a forked child this happens again, from nothing."""
        module, token = self._found()
        try:
            self.description = describe_token(token)
            self._login = log_in(module, token, self._pin_once, force=self._force_pin)
            with module.mutex:
                sweep(self._login.session)
        except BaseException:
            module.release()
            raise
        self._module, self._token = module, token
        self._pool = SessionPool(module, token.open)
        self._offered: set[Mechanism | int] | None = None
        self._generation = fork_generation()
        self._token_uri = token_uri(token, self._module_path)
        self.uri = str(self._token_uri)

    def _found(self) -> tuple[Module, Any]:
        """Return the module and the token.

        SoftHSM writes a token's file in place at each login: a program that looks at that moment finds no token, or
        a broken one, until it initialises the module again. So whoever finds none looks a second time.
        """
        try:
            return self._look()
        except (StoreNotFoundError, StoreUnavailableError):
            time.sleep(_LOOK_AGAIN_S)
            return self._look()

    def _look(self) -> tuple[Module, Any]:
        module = acquire(self._module_path)
        try:
            return module, find_token(module, self._wanted)
        except BaseException:
            module.release()
            raise

    def _pin_once(self) -> Pin:
        if self._pin is None:
            self._pin = self._get_pin(self.description)
        return self._pin

    def _fresh(self) -> None:
        """Start afresh after a fork: inherited handles fail, hang, or break the parent."""
        if self._closed:
            raise StoreUnavailableError("the store is closed", hint="open it again")
        if self._generation != fork_generation():
            with _reopening:
                if self._generation != fork_generation():
                    self._open()

    def describe(self) -> str:
        """Return the token's label and serial, as people read them."""
        return self.description

    def key_uri(self, name: str) -> str:
        """Return the URI (RFC 7512) of the private key of that name."""
        return str(replace(self._token_uri, object=name, type="private"))

    def keys(self) -> list[StoredKey]:
        """Return every labelled RSA and Ed25519 pair of the token, sorted by name."""
        self._fresh()
        with self._module.mutex, told_as_ours("list its keys"):
            found: list[StoredKey] = [
                Pkcs11Key(self, pair.label, pair.cka_id, pair.public_key)
                for pair in objects.pairs(self._login.session)
                if pair.label and pair.public_key is not None
            ]
        return sorted(found, key=lambda key: (key.name, key.api_key_id or ""))

    def key(self, name: str) -> StoredKey:
        """Return the key of that label."""
        self._fresh()
        found = self._called(name) or self._handed_over(name)
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(key.cka_id.hex() or "none" for key in found)
            raise KeyAmbiguousError(
                f"{self.description} has {len(found)} private keys called {name!r}, with the ids {ids}",
                hint="rename or remove all but one with the vendor's tool (pkcs11-tool --delete-object --id)",
            )
        known = ", ".join(repr(key.name) for key in self.keys())
        raise KeyNotFoundError(
            f"{self.description} has no key called {name!r}",
            hint=f"it has {known}" if known else f"make one: hsm-keys enroll --name {name}",
        )

    def _called(self, name: str) -> list[Pkcs11Key]:
        with self._module.mutex, told_as_ours(f"look up the key {name!r}"):
            return [
                Pkcs11Key(self, name, pair.cka_id, objects.required(pair.public_key, name))
                for pair in objects.pairs(self._login.session, name)
            ]

    def _handed_over(self, name: str) -> list[Pkcs11Key]:
        """Return the successor, where a rotation has renamed the old key and not yet the new one."""
        if "+" in name:
            return []
        successor = self._called(name + SUCCESSOR) if self._called(name + RETIRED) else []
        return successor or self._called(name)  # by now it may be done

    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048) -> StoredKey:
        """Make a pair that only signs: sensitive, not extractable, and usable after login alone."""
        check_label(name)
        self._fresh()
        check_can_make(self._token, key_type)
        mint = Mint(self._module, self._login.session, self._token_uri, self.description, self._pin)
        public_key = mint.make(name, key_type)
        return Pkcs11Key(self, name, objects.default_id(public_key), public_key)

    def bind(self, key: StoredKey, api_key_id: str) -> StoredKey:
        """Write the API key id to CKA_ID of both objects."""
        cka_id = objects.encode_id(api_key_id)
        with self._module.mutex:
            session, private = self._private_object(key)
            try:
                write_id(session, private, cka_id)
            except ckr.PKCS11Error as error:
                raise StoreError(
                    f"the token doesn't let CKA_ID of {key.name!r} be changed: {reason(error)}",
                    hint=f"give --api-key-id {api_key_id} to every command that uses the key",
                ) from None
        return Pkcs11Key(self, key.name, cka_id, key.public_key())

    def rename(self, key: StoredKey, name: str) -> StoredKey:
        """Write the label of both objects, the public one first: the private one's counts."""
        check_label(name)
        with self._module.mutex:
            session, private = self._private_object(key)
            with told_as_ours(f"look up the key {name!r}"):
                if objects.read(private, Attribute.LABEL) != name and objects.private_keys(session, name):
                    raise KeyExistsError(f"{self.description} already has a key called {name!r}")
            try:
                write_label(session, private, name)
            except ckr.PKCS11Error as error:
                raise StoreError(
                    f"the token doesn't let the label of {key.name!r} be changed: {reason(error)}",
                    hint="keys of this token can't be rotated in place: enroll one under another name",
                ) from None
            return Pkcs11Key(self, name, objects.read(private, Attribute.ID), key.public_key())

    def destroy(self, key: StoredKey) -> None:
        """Destroy the private object, then the public one."""
        with self._module.mutex, told_as_ours(f"destroy the key {key.name!r}"):
            destroy_pair(*self._private_object(key))

    def mend(self, name: str) -> None:
        """Give the public object of that key the private one's label and CKA_ID again."""
        with self.managing(f"mend the key {name!r}") as session:
            for private in objects.private_keys(session, name):
                mend_pair(session, private)

    def imports(self) -> Pkcs11Imports:
        """Return what imports keys into the token."""
        from hsm_keys.stores.pkcs11.importing import Pkcs11Imports

        return Pkcs11Imports(self)

    @contextmanager
    def managing(self, what: str) -> Iterator[Any]:
        """Give the session that changes objects, alone with the module; ``what`` is as for ``told_as_ours``."""
        self._fresh()
        with self._module.mutex, told_as_ours(what):
            yield self._login.session

    def examine(self, key: Pkcs11Key, look: Callable[[Any], _T]) -> _T:
        """Return what ``look`` makes of the key's private object."""
        with self._module.mutex, told_as_ours(f"read the key {key.name!r}"):
            _, private = self._private_object(key)
            return look(private)

    def _private_object(self, key: StoredKey) -> tuple[Any, Any]:
        """Return the managing session and the key's private object in it; hold the module's mutex."""
        self._fresh()
        session = self._login.session
        return session, self._locate(session, key)

    def _locate(self, session: Any, key: StoredKey) -> Any:
        """Return the private object that belongs to the key's public half; hold the module's mutex.

        A rotation in another process may have renamed it meanwhile.
        """
        for label in (key.name, None):
            for private in objects.private_keys(session, label):
                if objects.public_key_of(session, private) == key.public_key():
                    return private
        raise KeyNotFoundError(
            f"the key {key.name!r} is no longer in {self.description}",
            hint="it was destroyed, or the token's storage is gone; see `hsm-keys list`",
        )

    def raw(self, key: StoredKey) -> RawSigner:
        """Return the module's own C_Sign in a session of its own, for measuring.

        Raises:
            StoreError: If the module gives each caller a state of its own, or refuses.
        """
        from hsm_keys.stores.pkcs11.raw import RawSigner

        self._fresh()
        if not self._module.library.locking:
            raise StoreError("the module gives each caller a state of its own, or wasn't initialised here")
        return RawSigner(self._module.file, self._token.slot.slot_id, key.name, key.key_type)

    def sign(self, key: Pkcs11Key, message: bytes, *, digest: bool) -> bytes:
        """Sign in a lane of the pool; see ``Pkcs11Key.sign`` and ``sign_digest``."""
        if self._closed or self._generation != fork_generation():
            self._fresh()
        pool, guard = self._pool, self._module.signing
        lane = pool.take()
        try:
            sign = lane.handles.get((key.fingerprint, digest)) or self._prepare(lane, key, digest=digest)
            with guard:
                signature: bytes = sign(message)
        except BaseException as error:
            pool.discard(lane)
            if isinstance(error, ckr.PKCS11Error):
                with told_as_ours(f"sign with the key {key.name!r}"):
                    raise
            raise
        pool.put(lane)
        return signature

    def _prepare(self, lane: Lane, key: Pkcs11Key, *, digest: bool) -> Callable[[bytes], bytes]:
        """Look the key up in a lane and keep what signs with it: lookups are linear in the token's objects."""
        with self._module.mutex:
            private = self._locate(lane.session, key)
        if not hasattr(private, "sign"):  # python-pkcs11 leaves it out where CKA_SIGN is false
            raise SigningError(
                f"the token says that the key {key.name!r} can't sign", hint="enroll a key made for signing"
            )
        sign: Callable[[bytes], bytes]
        if key.key_type is KeyType.ED25519:
            sign = partial(private.sign, mechanism=Mechanism.EDDSA, buffer_size=_SIGNATURE_BUFFER)
        else:
            mechanism = self._rsa_mechanism(digest=digest)
            sign = partial(private.sign, mechanism=mechanism, mechanism_param=_PSS, buffer_size=_SIGNATURE_BUFFER)
            if mechanism is Mechanism.RSA_PKCS_PSS and not digest:
                sign = _digest_first(sign)
        lane.handles[key.fingerprint, digest] = sign
        return sign

    def _rsa_mechanism(self, *, digest: bool) -> Mechanism:
        """Return the mechanism for a message or for its digest; some tokens have PSS only over a digest."""
        if self._offered is None:
            self._offered = self._token.slot.get_mechanisms()
        known = (Mechanism.RSA_PKCS_PSS,) if digest else (Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS)
        for mechanism in known:
            if mechanism in self._offered:
                return mechanism
        raise StoreError(
            f"{self.description} has no {known[0].name}, which this signature needs",
            hint="use an Ed25519 key, or another token",
        )

    def close(self) -> None:
        """Close the sessions; the last store of a token logs out, the last one of a module finalises it."""
        if self._closed:
            return
        self._closed = True
        self._pin = None
        if self._generation == fork_generation():
            self._pool.close()
            self._login.release()
            self._module.release()


def _digest_first(sign: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda message: sign(hashlib.sha256(message).digest())
