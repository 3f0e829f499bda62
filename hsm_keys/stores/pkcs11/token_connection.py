"""One token that this process is logged in to: its sessions and its login, opened anew after a fork or a restart."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute
from pkcs11.mechanisms import KeyType as CkKeyType
from pkcs11.mechanisms import Mechanism

from hsm_keys.errors import HsmKeysError, KeyNotFoundError, SigningError, StoreError, StoreUnavailableError
from hsm_keys.forks import fork_generation
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.pkcs11.attributes import read, read_or_none
from hsm_keys.stores.pkcs11.cryptoki import sign_mechanism
from hsm_keys.stores.pkcs11.halves import Unpaired
from hsm_keys.stores.pkcs11.key_pairs import sweep
from hsm_keys.stores.pkcs11.login import Login, log_in, open_session
from hsm_keys.stores.pkcs11.objects import Objects
from hsm_keys.stores.pkcs11.pool import PoolMember, SessionPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.stores.pins import PinGetter
    from hsm_keys.stores.pkcs11.key import Pkcs11Key
    from hsm_keys.stores.pkcs11.module import Module

__all__ = ["TokenConnection"]

_ED25519_SIGNATURE: Final = 64  # bytes
_LONGEST_SIGNATURE: Final = 512  # bytes: RSA-4096


@dataclass(slots=True, eq=False)
class TokenConnection:
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
    def open(cls, module: Module, token: Any, description: str, get_pin: PinGetter, *, force: bool) -> TokenConnection:
        """Log in, and remove what an interrupted destruction left.

        Args:
            module: The module.
            token: python-pkcs11's token.
            description: What people call it.
            get_pin: Gives the PIN.
            force: Whether to log in where the next wrong PIN would lock the token.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            StoreError: If no session can be opened.
        """
        login = log_in(module, token, get_pin, force=force)
        pool = SessionPool(module, partial(open_session, token, rw=False), login.session)
        connection = cls(module, token, description, login, pool, get_pin)
        with module.mutex:
            sweep(connection.objects)
        return connection

    @property
    def usable(self) -> bool:
        """Whether it belongs to this process, and to the module as it was initialised last."""
        ours = self.generation == fork_generation() and self.epoch == self.module.epoch
        return ours and not self.pool.closed

    def close(self) -> None:
        """Close the sessions; the last connection of a token logs out. Not to be called for one of another process."""
        if self.epoch == self.module.epoch:
            with suppress(StoreUnavailableError):  # a module that hangs must not block close()
                self.pool.close()
                self.login.release()

    def sign(self, key: Pkcs11Key, message: bytes, *, digest: bool, opened_just_now: bool = False) -> bytes:
        """Sign in a session of the pool; for the last argument see ``locate``.

        Raises:
            PoolClosedError: If the connection isn't usable any more.
            PKCS11Error: If the token refuses, or is gone.
            HsmKeysError: If the key can't be found or can't sign.
        """
        pool = self.pool
        member = pool.take()
        try:
            sign = member.handles.get((key.fingerprint, digest)) or self._prepare(
                member, key, digest=digest, opened_just_now=opened_just_now
            )
        except HsmKeysError:
            pool.put(member)  # its session is as good as before
            raise
        except BaseException:
            pool.discard(member)
            raise
        try:
            with member.guard:
                signature: bytes = sign(message)
        except BaseException:
            pool.discard(member)  # with whatever is under way in its session
            raise
        pool.put(member)
        return signature

    @contextmanager
    def loop(self, key: Pkcs11Key) -> Iterator[Callable[[bytes], bytes]]:
        """Give what signs with a key in a session of its own, without the pool around it."""
        with self.module.mutex:
            member = PoolMember(open_session(self.token, rw=False), nullcontext())
        try:
            yield self._prepare(member, key, digest=False, opened_just_now=True)
        finally:
            with self.module.mutex, suppress(ckr.PKCS11Error):
                member.session.close()

    def make_ready(self) -> None:
        """Make sure that the session which manages objects is there and logged in.

        Code that shares the module may have logged out; then a token shows no private keys, and no error.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            PKCS11Error: If the session is gone, or the token is.
        """
        with self.module.mutex:
            self._log_in()

    def _log_in(self) -> bool:
        """Log in if nobody is; return whether it was so. All sessions forget their handles first."""
        if self.module.library.functions.is_logged_in(self.login.session.handle):
            return False
        for pool in list(self.module.pools):
            pool.forget()
        self.login.log_in(self.get_pin)
        return True

    def log_in_again(self, key: Pkcs11Key, error: ckr.PKCS11Error, logins: int) -> bool:
        """Log in after a signature failed, if the login was lost; where there is one, the key may want its own.

        Without a login, a module doesn't know the handle of a private key any more, or says that nobody is logged in.

        Args:
            key: The key.
            error: What the module answered.
            logins: How often the process had logged in before: another thread may have seen the same loss first.

        Returns:
            Whether the signature is to be tried once more.

        Raises:
            PinError: If the PIN is refused, or can't be tried.
            PKCS11Error: If the session is gone, or the token is.
        """
        with self.module.mutex:
            if self._log_in() or self.login.times != logins:
                return True
            if not isinstance(error, ckr.UserNotLoggedIn):
                return False
            self._want_pin.add(key.fingerprint)
            self.pool.forget()
            return True

    @property
    def objects(self) -> Objects:
        """The token's objects, in the session that may write."""
        return self._objects(self.login.session)

    def _objects(self, session: Any) -> Objects:
        return Objects(session, self._sign_once, self.login.proofs)

    def locate(self, objects: Objects, key: Pkcs11Key, *, opened_just_now: bool = True) -> Any:
        """Return the private object that belongs to the key's public half; hold the module's mutex.

        A rotation in another process may have renamed it meanwhile. Of two with one key, that with the key's own
        CKA_ID is meant.

        Args:
            objects: Where to look.
            key: The key.
            opened_just_now: Whether an empty token is to be believed: SoftHSM shows one when its storage is gone.

        Raises:
            KeyHandleInvalid: If an empty token isn't to be believed.
            KeyNotFoundError: If the key isn't there.
            PinError: If it is for the PIN that it can't be told.
            SigningError: If the token doesn't let it be told, as it doesn't sign.
            PKCS11Error: If the token fails over it.
        """
        doubt: Unpaired | ckr.PKCS11Error | None = None
        for label in (key.name, None):
            likeliest_first = sorted(
                objects.private_keys(label), key=lambda private: read_or_none(private, Attribute.ID) != key.cka_id
            )
            for private in likeliest_first:
                try:
                    if objects.fits(private, key.public_key()):
                        return private
                except (Unpaired, ckr.PKCS11Error) as error:
                    if label is not None or read_or_none(private, Attribute.ID) == key.cka_id:
                        doubt = doubt or error
        if not opened_just_now and not objects.private_keys():
            raise ckr.KeyHandleInvalid("it shows no private key at all")
        if doubt is not None:
            raise _undecided(key, doubt)
        raise KeyNotFoundError(
            f"the key {key.name!r} is no longer in {self.description}",
            hint="it was destroyed, or the token's storage is gone; see `hsm-keys list`",
        )

    def _prepare(
        self, member: PoolMember, key: Pkcs11Key, *, digest: bool, opened_just_now: bool
    ) -> Callable[[bytes], bytes]:
        """Look the key up in a session and keep what signs with it: lookups are linear in the token's objects."""
        with self.module.mutex:
            private = self.locate(self._objects(member.session), key, opened_just_now=opened_just_now)
        if not hasattr(private, "sign"):  # python-pkcs11 leaves it out where CKA_SIGN is false
            raise SigningError(
                f"the token says that the key {key.name!r} can't sign", hint="enroll a key made for signing"
            )
        sign = self._signing(
            private,
            is_rsa=key.key_type is not KeyType.ED25519,
            digest=digest,
            length=key.signature_length,
            wants_pin=key.fingerprint in self._want_pin,
        )
        member.handles[key.fingerprint, digest] = sign
        return sign

    def _signing(
        self, private: Any, *, is_rsa: bool, digest: bool, length: int, wants_pin: bool
    ) -> Callable[[bytes], bytes]:
        """Return what signs with a private object in its session."""
        mechanism = self._rsa_mechanism(digest=digest) if is_rsa else Mechanism.EDDSA
        sign = self.module.library.functions.signing(
            private.session.handle,
            private.handle,
            sign_mechanism(mechanism, pss=is_rsa),
            length,
            self._authenticate if wants_pin or read(private, Attribute.ALWAYS_AUTHENTICATE) else None,
        )
        return _digest_first(sign) if mechanism is Mechanism.RSA_PKCS_PSS and not digest else sign

    def _sign_once(self, private: Any, text: bytes) -> bytes:
        """Sign outside of the pool, to prove which public half a private object belongs to."""
        is_rsa = read(private, Attribute.KEY_TYPE) == CkKeyType.RSA
        how = {"is_rsa": is_rsa, "digest": False, "length": _LONGEST_SIGNATURE if is_rsa else _ED25519_SIGNATURE}
        try:
            return self._signing(private, wants_pin=False, **how)(text)
        except ckr.UserNotLoggedIn:
            if not self.module.library.functions.is_logged_in(private.session.handle):
                raise
            # The key needs a login each time, but its attributes don't say so.
            return self._signing(private, wants_pin=True, **how)(text)

    def _authenticate(self, session: int) -> None:
        self.login.authenticate(session, self.get_pin)

    def _rsa_mechanism(self, *, digest: bool) -> Mechanism:
        """Return the mechanism for a message or for its digest; some tokens have PSS only over a digest."""
        if self.offered is None:
            self.offered = self.token.slot.get_mechanisms()
        mechanisms = (Mechanism.RSA_PKCS_PSS,) if digest else (Mechanism.SHA256_RSA_PKCS_PSS, Mechanism.RSA_PKCS_PSS)
        for mechanism in mechanisms:
            if mechanism in self.offered:
                return mechanism
        raise StoreError(
            f"{self.description} has no {mechanisms[0].name}, which this signature needs",
            hint="use an Ed25519 key, or another token",
        )


def _undecided(key: Pkcs11Key, doubt: Unpaired | ckr.PKCS11Error) -> Exception:
    """Return what to raise where an object may be the key, and the token doesn't let that be found out."""
    if isinstance(doubt, Unpaired):
        return doubt.pin_error or SigningError(
            f"the token's private key {key.name!r} can't be used: {doubt}", hint="enroll a key under another name"
        )
    return doubt


def _digest_first(sign: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda message: sign(hashlib.sha256(message).digest())
