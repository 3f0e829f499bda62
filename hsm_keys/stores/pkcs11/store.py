"""Keys in a PKCS#11 token. The token is the registry: label is the name, CKA_ID the API key id."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute
from pkcs11.mechanisms import MGF, Mechanism

from hsm_keys.errors import (
    KeyAmbiguousError,
    KeyBusyError,
    KeyExistsError,
    KeyNotFoundError,
    SigningError,
    StoreError,
    StoreUnavailableError,
)
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.signing.algorithms import SALT_LENGTH, KeyType, signature_length, verifies
from hsm_keys.stores.base import RETIRED, SUCCESSOR, CustodyFact, KeyStore, StoredKey, check_label
from hsm_keys.stores.pkcs11 import objects
from hsm_keys.stores.pkcs11.errors import reason, told_as_ours
from hsm_keys.stores.pkcs11.generate import check_can_make, destroy_pair, make_pair, sweep, write_id, write_label
from hsm_keys.stores.pkcs11.login import log_in
from hsm_keys.stores.pkcs11.module import acquire, find_module
from hsm_keys.stores.pkcs11.pool import Lane, SessionPool
from hsm_keys.stores.pkcs11.tokens import describe_token, find_token, token_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.pkcs11.importing import Pkcs11Imports
    from hsm_keys.stores.pkcs11.raw import RawSigner
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["Pkcs11Key", "Pkcs11Store"]

# Without the parameter python-pkcs11 signs with SHA-1 and a salt of 20 bytes, and no module complains.
_PSS: Final = (Mechanism.SHA256, MGF.SHA256, SALT_LENGTH)
_SIGNATURE_BUFFER: Final = 512  # bytes: RSA-4096

_T = TypeVar("_T")

_reopening = ProcessLock()


class Pkcs11Key(StoredKey):
    """A key pair in a token."""

    def __init__(self, store: Pkcs11Store, name: str, cka_id: bytes | None, public_key: PublicKey) -> None:
        self.name = name
        self.api_key_id = objects.decode_id(cka_id)
        self.uri = store.key_uri(name)
        self.cka_id = cka_id or b""
        self.fingerprint: Final = objects.default_id(public_key)
        """SHA-1 of the public key's bits: the key's identity, whatever its label and id say."""
        self._store = store
        self._public_key = public_key
        self._signature_length = signature_length(public_key)
        self._proved: set[bool] = set()  # of messages, of digests

    def public_key(self) -> PublicKey:
        """Return the public half, read once from the token."""
        return self._public_key

    def current(self) -> StoredKey:
        """Return the key that carries this key's name now."""
        return self._store.key(self.name)

    def attributes(self) -> dict[str, bool | str | int | None]:
        """Return what the token says about the private object."""
        said: dict[str, bool | str | int | None] = {"label": self.name, "id": self.cka_id.hex()}
        return {**said, **self._store.examine(self, objects.read_facts)}

    def custody_facts(self) -> list[CustodyFact]:
        """Return the token's attributes, judged, and the outcome of trying to read the private half."""
        return self._store.examine(self, objects.custody_facts)

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature, made in the token.

        The first one is verified here, with a salt of exactly 32 bytes: a module that ignores the parameter
        signs without complaint what Kalshi refuses.

        Raises:
            StoreError: If the token can't be reached.
            SigningError: If the token refuses, or gives something that doesn't verify.
        """
        return self._signed(message, digest=False)

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Return the RSASSA-PSS signature over a SHA-256 digest, made in the token, where it has CKM_RSA_PKCS_PSS.

        Raises:
            StoreError: If the token can't be reached.
            SigningError: If the token refuses, or gives something that doesn't verify.
        """
        return self._signed(digest, digest=True)

    def _signed(self, message: bytes, *, digest: bool) -> bytes:
        if not isinstance(message, bytes):  # python-pkcs11 would encode a str, and sign it
            raise TypeError(f"a message to sign is bytes, not {type(message).__name__}")
        signature = self._store.sign(self, message, digest=digest)
        if len(signature) != self._signature_length:
            raise SigningError(
                f"the token gave a signature of {len(signature)} bytes instead of {self._signature_length}",
                hint="the module is at fault: try the vendor's newest version",
            )
        if digest not in self._proved:
            if not verifies(self._public_key, message, signature, digest=digest):
                raise SigningError(
                    f"the token's signature with the key {self.name!r} doesn't verify",
                    hint="public and private object may not belong together, or the module ignores the PSS salt",
                )
            self._proved.add(digest)
        return signature


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
        module = acquire(self._module_path)
        try:
            token = find_token(module, self._wanted)
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
        found: list[StoredKey] = []
        with self._module.mutex, told_as_ours("list its keys"):
            session = self._login.session
            for private in objects.private_keys(session):
                name, public_key = objects.read(private, Attribute.LABEL), objects.public_key_of(session, private)
                if name and public_key is not None:
                    found.append(Pkcs11Key(self, name, objects.read(private, Attribute.ID), public_key))
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
            session = self._login.session
            return [
                Pkcs11Key(
                    self,
                    name,
                    objects.read(private, Attribute.ID),
                    objects.require_public_key(session, private, name),
                )
                for private in objects.private_keys(session, name)
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
        with self._module.mutex:
            session = self._login.session
            with told_as_ours(f"look up the key {name!r}"):
                taken = bool(objects.private_keys(session, name))
            if taken:
                raise KeyExistsError(
                    f"{self.description} already has a key called {name!r}",
                    hint=f"choose another name, or see it: hsm-keys show {name}",
                )
            private, public_key = make_pair(session, name, key_type)
            with told_as_ours(f"look up the key {name!r}"):
                alone = len(objects.private_keys(session, name)) == 1
                if not alone:  # no token refuses a second key of a label; whoever sees two gives way
                    destroy_pair(session, private)
            if not alone:
                raise KeyBusyError(
                    f"somebody else made a key {name!r} in {self.description} meanwhile; this one is destroyed",
                    hint="run the same command again in a while: it goes on from what is there",
                )
            return Pkcs11Key(self, name, objects.read(private, Attribute.ID), public_key)

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
