"""A token, logged in: what is opened anew, as a whole, after a fork and when a module had to be brought back."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute
from pkcs11.mechanisms import Mechanism

from hsm_keys.errors import HsmKeysError, KeyNotFoundError, SigningError, StoreError, StoreUnavailableError
from hsm_keys.forks import fork_generation
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.pkcs11 import objects
from hsm_keys.stores.pkcs11.cryptoki import sign_mechanism
from hsm_keys.stores.pkcs11.generate import sweep
from hsm_keys.stores.pkcs11.login import Login, log_in, open_session
from hsm_keys.stores.pkcs11.pool import Lane, SessionPool
from hsm_keys.stores.pkcs11.tokens import describe_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.stores.base import StoredKey
    from hsm_keys.stores.pins import PinGetter
    from hsm_keys.stores.pkcs11.key import Pkcs11Key
    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["Link"]


@dataclass(slots=True, eq=False)
class Link:
    """Sessions on one token, and the login that they share.

    Args:
        module: The module.
        token: python-pkcs11's token.
        description: The token's label and serial, for people.
        login: The login, with the session that manages objects.
        pool: The sessions that sign.
        get_pin: Gives the PIN, where the login was lost, and to keys that want it each time.
    """

    module: Module
    token: Any
    description: str
    login: Login
    pool: SessionPool
    get_pin: PinGetter
    offered: set[Any] | None = None
    epoch: int = field(init=False)
    generation: int = field(default_factory=fork_generation)
    _want_pin: set[bytes] = field(default_factory=set)
    """Fingerprints of keys that turned out to want a login for each signature."""

    def __post_init__(self) -> None:
        self.epoch = self.module.epoch

    @classmethod
    def open(cls, module: Module, token: Any, get_pin: PinGetter, *, force: bool) -> Link:
        """Log in, and remove what an interrupted destruction left.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            StoreError: If no session can be opened.
        """
        login = log_in(module, token, get_pin, force=force)
        with module.mutex:
            sweep(login.session)
        pool = SessionPool(module, partial(open_session, token, rw=False), login.session)
        return cls(module, token, describe_token(token), login, pool, get_pin)

    @property
    def usable(self) -> bool:
        """Whether it belongs to this process, and to the module as it was initialised last."""
        ours = self.generation == fork_generation() and self.epoch == self.module.epoch
        return ours and not self.pool.closed

    def close(self) -> None:
        """Close the sessions; the last link of a token logs out. Not to be called for one of another process."""
        if self.epoch == self.module.epoch:
            with suppress(StoreUnavailableError):  # a module that hangs keeps nobody from closing
                self.pool.close()
                self.login.release()

    def sign(self, key: Pkcs11Key, message: bytes, *, digest: bool, opened_just_now: bool = False) -> bytes:
        """Sign in a lane of the pool; for the last argument see ``locate``.

        Raises:
            PoolClosedError: If the link isn't usable any more.
            PKCS11Error: If the token refuses, or is gone.
            HsmKeysError: If the key can't be found or can't sign.
        """
        pool = self.pool
        lane = pool.take()
        try:
            sign = lane.handles.get((key.fingerprint, digest)) or self._prepare(
                lane, key, digest=digest, opened_just_now=opened_just_now
            )
        except HsmKeysError:
            pool.put(lane)  # its session is as good as before
            raise
        except BaseException:
            pool.discard(lane)
            raise
        try:
            with lane.guard:
                signature: bytes = sign(message)
        except BaseException:
            pool.discard(lane)  # with whatever is under way in its session
            raise
        pool.put(lane)
        return signature

    @contextmanager
    def loop(self, key: Pkcs11Key) -> Iterator[Callable[[bytes], bytes]]:
        """Give what signs with a key in a session of its own, without the pool around it."""
        with self.module.mutex:
            lane = Lane(open_session(self.token, rw=False), nullcontext())
        try:
            yield self._prepare(lane, key, digest=False, opened_just_now=True)
        finally:
            with self.module.mutex, suppress(ckr.PKCS11Error):
                lane.session.close()

    def make_ready(self) -> None:
        """Make sure that the session which manages objects is there and logged in.

        Code that shares the module may have logged out; then a token shows no private keys, and no error.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            PKCS11Error: If the session is gone, or the token is.
        """
        with self.module.mutex:
            self.login.log_in(self.get_pin)

    def log_in_again(self, key: Pkcs11Key) -> None:
        """Log in after a signature was refused for want of a login; where there is one, the key wants its own.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            PKCS11Error: If the session is gone, or the token is.
        """
        with self.module.mutex:
            if self.module.library.functions.is_logged_in(self.login.session.handle):
                self._want_pin.add(key.fingerprint)
            else:
                self.login.log_in(self.get_pin)
            self.pool.forget()

    def locate(self, session: Any, key: StoredKey, *, opened_just_now: bool = True) -> Any:
        """Return the private object that belongs to the key's public half; hold the module's mutex.

        A rotation in another process may have renamed it meanwhile.

        Args:
            session: Where to look.
            key: The key.
            opened_just_now: Whether an empty token is to be believed: SoftHSM shows one when its storage is gone.

        Raises:
            KeyHandleInvalid: If an empty token isn't to be believed.
            KeyNotFoundError: If the key isn't there.
        """
        for label in (key.name, None):
            for private in objects.private_keys(session, label):
                if objects.public_key_of(session, private) == key.public_key():
                    return private
        if not opened_just_now and not objects.private_keys(session):
            raise ckr.KeyHandleInvalid("it shows no private key at all")
        raise KeyNotFoundError(
            f"the key {key.name!r} is no longer in {self.description}",
            hint="it was destroyed, or the token's storage is gone; see `hsm-keys list`",
        )

    def _prepare(self, lane: Lane, key: Pkcs11Key, *, digest: bool, opened_just_now: bool) -> Callable[[bytes], bytes]:
        """Look the key up in a lane and keep what signs with it: lookups are linear in the token's objects."""
        with self.module.mutex:
            private = self.locate(lane.session, key, opened_just_now=opened_just_now)
        if not hasattr(private, "sign"):  # python-pkcs11 leaves it out where CKA_SIGN is false
            raise SigningError(
                f"the token says that the key {key.name!r} can't sign", hint="enroll a key made for signing"
            )
        is_rsa = key.key_type is not KeyType.ED25519
        mechanism = self._rsa_mechanism(digest=digest) if is_rsa else Mechanism.EDDSA
        wants_pin = key.fingerprint in self._want_pin or objects.read(private, Attribute.ALWAYS_AUTHENTICATE)
        sign = self.module.library.functions.signing(
            lane.session.handle,
            private.handle,
            sign_mechanism(mechanism, pss=is_rsa),
            key.signature_length,
            self._authenticate if wants_pin else None,
        )
        if mechanism is Mechanism.RSA_PKCS_PSS and not digest:
            sign = _digest_first(sign)
        lane.handles[key.fingerprint, digest] = sign
        return sign

    def _authenticate(self, session: int) -> None:
        self.login.authenticate(session, self.get_pin)

    def _rsa_mechanism(self, *, digest: bool) -> Mechanism:
        """Return the mechanism for a message or for its digest; some tokens have PSS only over a digest."""
        if self.offered is None:
            self.offered = self.token.slot.get_mechanisms()
        known = (Mechanism.RSA_PKCS_PSS,) if digest else (Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS)
        for mechanism in known:
            if mechanism in self.offered:
                return mechanism
        raise StoreError(
            f"{self.description} has no {known[0].name}, which this signature needs",
            hint="use an Ed25519 key, or another token",
        )


def _digest_first(sign: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda message: sign(hashlib.sha256(message).digest())
