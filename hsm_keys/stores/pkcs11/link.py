"""A token, logged in: what is opened anew, as a whole, after a fork and when a module had to be brought back."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.mechanisms import MGF, Mechanism

from hsm_keys.errors import HsmKeysError, KeyNotFoundError, SigningError, StoreError, StoreUnavailableError
from hsm_keys.forks import fork_generation
from hsm_keys.signing.algorithms import SALT_LENGTH, KeyType
from hsm_keys.stores.pkcs11 import objects
from hsm_keys.stores.pkcs11.generate import sweep
from hsm_keys.stores.pkcs11.login import Login, log_in
from hsm_keys.stores.pkcs11.pool import Lane, SessionPool
from hsm_keys.stores.pkcs11.tokens import describe_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.base import StoredKey
    from hsm_keys.stores.pins import Pin
    from hsm_keys.stores.pkcs11.key import Pkcs11Key
    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["Link"]

# Without the parameter python-pkcs11 signs with SHA-1 and a salt of 20 bytes, and no module complains.
_PSS: Final = (Mechanism.SHA256, MGF.SHA256, SALT_LENGTH)
_SIGNATURE_BUFFER: Final = 512  # bytes: RSA-4096


@dataclass(slots=True, eq=False)
class Link:
    """Sessions on one token, and the login that they share.

    Args:
        module: The module.
        token: python-pkcs11's token.
        description: The token's label and serial, for people.
        login: The login, with the session that manages objects.
        pool: The sessions that sign.
    """

    module: Module
    token: Any
    description: str
    login: Login
    pool: SessionPool
    offered: set[Any] | None = None
    epoch: int = field(init=False)
    generation: int = field(default_factory=fork_generation)

    def __post_init__(self) -> None:
        self.epoch = self.module.epoch

    @classmethod
    def open(cls, module: Module, token: Any, get_pin: Callable[[], Pin], *, force: bool) -> Link:
        """Log in, and remove what an interrupted destruction left.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            StoreError: If no session can be opened.
        """
        login = log_in(module, token, get_pin, force=force)
        with module.mutex:
            sweep(login.session)
        return cls(module, token, describe_token(token), login, SessionPool(module, token.open, login.session))

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
            with lane.guard:
                signature: bytes = sign(message)
        except HsmKeysError:
            pool.put(lane)  # its session is as good as before
            raise
        except BaseException:
            pool.discard(lane)
            raise
        pool.put(lane)
        return signature

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
