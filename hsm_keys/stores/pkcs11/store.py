"""Keys in a PKCS#11 token. The token is the registry: label is the name, CKA_ID the mark."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute

from hsm_keys.errors import (
    KeyAmbiguousError,
    KeyExistsError,
    KeyNotFoundError,
    PinError,
    SigningError,
    StoreAmbiguousError,
    StoreError,
    StoreNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.base import RETIRED, SUCCESSOR, Contents, KeyStore, StoredKey, Unusable, check_label
from hsm_keys.stores.marks import not_ours
from hsm_keys.stores.pkcs11 import outside
from hsm_keys.stores.pkcs11.attributes import read
from hsm_keys.stores.pkcs11.errors import KEY_REFUSED, LOGIN_LOST, is_gone, reason, told_as_ours
from hsm_keys.stores.pkcs11.generate import check_can_make, destroy_pair, mend_pair, write_id, write_label
from hsm_keys.stores.pkcs11.key import Pkcs11Key
from hsm_keys.stores.pkcs11.link import Link
from hsm_keys.stores.pkcs11.marks import minted_id, registered_id
from hsm_keys.stores.pkcs11.minting import Mint, busy, shows_others_late
from hsm_keys.stores.pkcs11.module import acquire
from hsm_keys.stores.pkcs11.objects import NO_LABEL, Pair, is_ours, required
from hsm_keys.stores.pkcs11.patience import PATIENCE_S, wait_if_ending
from hsm_keys.stores.pkcs11.pool import PoolClosedError
from hsm_keys.stores.pkcs11.restart import restart, sees_new_tokens
from hsm_keys.stores.pkcs11.tokens import FoundToken, find_token
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.pins import Pin, PinGetter, PinWanted
    from hsm_keys.stores.pkcs11.importing import Pkcs11Imports
    from hsm_keys.stores.pkcs11.module import Module
    from hsm_keys.stores.pkcs11.objects import Objects
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["Pkcs11Key", "Pkcs11Store"]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_PAUSES_S: Final = (0.03, 0.07)
_reopening = ProcessLock()


class Pkcs11Store(KeyStore):
    """A token, logged in.

    Args:
        uri: Names the token, with the path of its module.
        get_pin: Gives the user PIN, or None where the token asks on its own pad. What it gives is kept.
        force_pin: Log in also where the token says that one more wrong PIN locks it.
    """

    def __init__(self, uri: Pkcs11Uri, get_pin: PinGetter, *, force_pin: bool = False) -> None:
        self._module_path = str(uri.module_path)
        self._wanted = uri
        self._slot: int | None = None
        self.uri = str(replace(self._wanted, pin_source=None, pin_value=None))  # until the token has told its serial
        self.description = "the token"
        self._get_pin = get_pin
        self._force_pin = force_pin
        self._pin: Pin | None = None
        self._refused: PinError | None = None
        self.opened = 0
        """How often the token was opened: what was proved before holds no longer."""
        self._closed = False
        self._link = self._open()

    def _open(self) -> Link:
        """Load, find the token, log in. In a forked child this happens again, from nothing.

        SoftHSM writes a token's file in place at each login: a program that looks at that moment finds no token, or
        a broken one, until it initialises the module again. So whoever finds none looks again.
        """
        for pause in _PAUSES_S:
            try:
                return self._opened()
            except (StoreNotFoundError, StoreUnavailableError):
                time.sleep(pause)
        return self._opened(anew=True)

    def _opened(self, *, anew: bool = False) -> Link:
        """Open the token; ``anew`` is whether to look also for one that was made after the module was initialised."""
        module = acquire(self._module_path)
        try:
            try:
                found = self._find(module)
            except StoreNotFoundError:
                if not (anew and sees_new_tokens(module)):
                    raise
                found = self._find(module)
            link = self._opened_link(module, found)
        except BaseException:
            module.release()
            raise
        if found.needs_slot:
            _log.warning(
                "another token has label and serial of %s too; only its slot tells it apart, and slot ids can change",
                found.description,
            )
        return link

    def _find(self, module: Module) -> FoundToken:
        """Return the token that the URI names, or of those that it has come to name the one that was chosen."""
        try:
            return find_token(module, self._wanted)
        except StoreAmbiguousError:
            if self._slot is None:
                raise
            return find_token(module, replace(self._wanted, slot_id=self._slot))

    def _opened_link(self, module: Module, found: FoundToken) -> Link:
        self.description = found.description
        link = Link.open(module, found.token, found.description, self._pin_once, force=self._force_pin)
        self.opened += 1
        # What was chosen stays chosen, also where the URI named it in a way that comes to mean another one.
        self._wanted = self._token_uri = found.uri
        self._slot = found.token.slot.slot_id
        self.uri = str(found.uri)
        return link

    def _pin_once(self, wanted: PinWanted) -> Pin | None:
        if self._pin is None:
            self._pin = self._get_pin(wanted)
        return self._pin

    def _fresh(self) -> Link:
        """Return a link that can be used, opened anew after a fork and when the module was brought back.

        Handles of a parent fail, hang, or break it; those of an earlier epoch of the module lead anywhere.
        """
        if self._closed:
            raise StoreUnavailableError("the store is closed", hint="open it again")
        if not self._link.usable:
            wait_if_ending()
            if not _reopening.acquire(PATIENCE_S):
                raise StoreUnavailableError(
                    f"a token hasn't opened again within {PATIENCE_S:.0f} s",
                    hint="check the token and its daemon; restart this program if it never does",
                )
            try:
                if self._link.generation != fork_generation():
                    self._link = self._open()
                elif not self._link.usable:
                    self._link = self._reopened(self._link)
            finally:
                _reopening.release()
        return self._link

    def _reopened(self, link: Link) -> Link:
        """Find the token again and log in, in a module that was initialised again."""
        if self._refused is not None:
            raise self._refused
        if link.epoch == link.module.epoch:  # nobody has initialised it since this link broke
            restart(link.module, link.epoch)
        link.epoch = link.module.epoch  # if the rest fails, the next attempt begins with the module
        try:
            return self._opened_link(link.module, self._find(link.module))
        except PinError as error:
            self._refused = error  # never again in this process
            raise

    def _recovered(self, link: Link) -> Link:
        """Return a link in place of one whose back-end went away.

        It is never used again, also where the module isn't brought back now: SoftHSM, whose storage was away for a
        moment, goes on with half of the objects.
        """
        link.pool.halt(for_good=True)
        restart(link.module, link.epoch)
        return self._fresh()

    def describe(self) -> str:
        """Return the token's label and serial, as people read them."""
        return self.description

    def key_uri(self, name: str) -> str:
        """Return the URI (RFC 7512) of the private key of that name."""
        return str(replace(self._token_uri, object=name, type="private"))

    def contents(self) -> Contents:
        """Return every labelled RSA and Ed25519 pair of the token, sorted by name, and what can't be used."""
        pairs = self._reading("list its keys", lambda link: link.objects.pairs())
        keys = [self._key_of(pair, required(pair, str(pair.label))) for pair in pairs if pair.label and pair.public_key]
        return Contents(
            sorted(keys, key=lambda key: (key.name, key.api_key_id or "")),
            [Unusable(it.name, it.problem or NO_LABEL, it.mark) for it in pairs if it.problem or it.is_nameless],
        )

    def keys(self) -> list[StoredKey]:
        """Return every labelled RSA and Ed25519 pair of the token, sorted by name."""
        return self.contents().keys

    def _key_of(self, pair: Pair, public_key: PublicKey) -> Pkcs11Key:
        return Pkcs11Key(self, str(pair.label), pair.cka_id, public_key, pair.mark)

    def key(self, name: str) -> StoredKey:
        """Return the key of that label; of several the one that is ours, if one alone is."""
        found = self._called(name) or self._handed_over(name)
        ours = [key for key in found if key.ours]
        if len(found) == 1 or len(ours) == 1:
            return (ours or found)[0]
        if found:
            ids = ", ".join(key.cka_id.hex() or "none" for key in found)
            raise KeyAmbiguousError(
                f"{self.description} has {len(found)} private keys called {shown(name)}, with the ids {ids}",
                hint="rename or remove all but one with the vendor's tool (pkcs11-tool --delete-object --id)",
            )
        known = ", ".join(repr(key.name) for key in self.keys())
        raise KeyNotFoundError(
            f"{self.description} has no key called {shown(name)}",
            hint=f"it has {known}" if known else "make one: hsm-keys enroll --name NAME",
        )

    def _called(self, name: str) -> list[Pkcs11Key]:
        def look(link: Link) -> list[Pair]:
            return link.objects.pairs(name)

        what = f"look up the key {shown(name)}"
        found = self._reading(what, look)
        for pause in _PAUSES_S:  # a pair that somebody makes or removes at this moment has one half only
            if all(pair.public_key for pair in found):
                break
            time.sleep(pause)
            found = self._reading(what, look)
        whole = [pair for pair in found if pair.public_key] or found
        return [self._key_of(pair, required(pair, name)) for pair in whole]

    def _reading(self, what: str, look: Callable[[Link], _T]) -> _T:
        """Return what ``look`` finds; if the back-end went away, bring it back, and look once more."""
        link = self._ready(what)
        with told_as_ours(what):
            try:
                with link.module.mutex:
                    return look(link)
            except ckr.PKCS11Error as error:
                if not is_gone(error):
                    raise
            link = self._recovered(link)
            with link.module.mutex:
                return look(link)

    def _ready(self, what: str) -> Link:
        """Return a link whose managing session is there and logged in; ``what`` is as for ``told_as_ours``.

        What makes and changes objects can't be repeated when it fails half way. So the back-end is brought back before.
        """
        link = self._fresh()
        with told_as_ours(what):
            try:
                link.make_ready()
            except ckr.PKCS11Error as error:
                if not is_gone(error):
                    raise
                link = self._recovered(link)
        return link

    def _handed_over(self, name: str) -> list[Pkcs11Key]:
        """Return the successor, where a rotation has renamed the old key and not yet the new one."""
        if "+" in name:
            return []
        successor = self._ours_called(name + SUCCESSOR) if self._ours_called(name + RETIRED) else []
        return successor or self._called(name)  # by now it may be done

    def _ours_called(self, name: str) -> list[Pkcs11Key]:
        return [key for key in self._called(name) if key.ours]

    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048) -> StoredKey:
        """Make a pair that only signs: sensitive, not extractable, and usable after login alone."""
        check_label(name)
        link = self._ready(f"make the key {name!r}")
        check_can_make(link.token, key_type)
        public_key = Mint(link.module, link.objects, self.description).make(name, key_type)
        return Pkcs11Key(self, name, minted_id(public_key), public_key)

    def confirm(self, key: StoredKey) -> None:
        """Look at the token as a new process does, where the module may not show all to this one, and give way."""
        if self._pin is None or not shows_others_late(self._fresh().module):
            return
        if (outside.labelled(self._token_uri, key.name, self._pin) or 0) < 2:  # noqa: PLR2004 - there is another one
            return
        with self._changing(key, f"look at the key {key.name!r}") as (objects, private):
            minted = minted_id(key.public_key())
            theirs = read(private, Attribute.LABEL) != key.name or read(private, Attribute.ID) != minted
            if not theirs:
                destroy_pair(objects, private)
        raise busy(key.name, self.description, "it is theirs now" if theirs else "this one is destroyed")

    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> StoredKey:
        """Write the API key id and its environment to CKA_ID of both objects; that makes the key ours."""
        cka_id = registered_id(api_key_id, environment)
        with self._changing(key, f"bind the key {key.name!r}", ours=key.ours) as (objects, private):
            try:
                write_id(objects, private, cka_id)
            except ckr.PKCS11Error as error:
                if is_gone(error):
                    raise
                raise StoreError(
                    f"the token doesn't let CKA_ID of {key.name!r} be changed: {reason(error)}",
                    hint=f"give --api-key-id {api_key_id} to every command that uses the key",
                ) from None
        return Pkcs11Key(self, key.name, cka_id, key.public_key())

    def rename(self, key: StoredKey, name: str) -> StoredKey:
        """Write the label of both objects, the public one first: the private one's counts."""
        check_label(name)
        with self._changing(key, f"rename the key {key.name!r}") as (objects, private):
            if read(private, Attribute.LABEL) != name and objects.private_keys(name):
                raise KeyExistsError(f"{self.description} already has a key called {name!r}")
            try:
                write_label(objects, private, name)
            except ckr.PKCS11Error as error:
                if is_gone(error):
                    raise
                raise StoreError(
                    f"the token doesn't let the label of {key.name!r} be changed: {reason(error)}",
                    hint="keys of this token can't be rotated in place: enroll one under another name",
                ) from None
            return Pkcs11Key(self, name, read(private, Attribute.ID), key.public_key())

    def destroy(self, key: StoredKey) -> None:
        """Destroy the private object, then the public one."""
        with self._changing(key, f"destroy the key {key.name!r}") as (objects, private):
            destroy_pair(objects, private)

    def mend(self, name: str) -> None:
        """Give the public object of that key the private one's label and CKA_ID again."""
        with self.managing(f"mend the key {name!r}") as objects:
            for private in objects.private_keys(name):
                if is_ours(private):
                    mend_pair(objects, private)

    def imports(self) -> Pkcs11Imports:
        """Return what imports keys into the token."""
        from hsm_keys.stores.pkcs11.importing import Pkcs11Imports

        return Pkcs11Imports(self)

    @contextmanager
    def managing(self, what: str) -> Iterator[Objects]:
        """Give the token's objects, to change them, alone with the module; ``what`` is as for ``told_as_ours``."""
        link = self._ready(what)
        with link.module.mutex, told_as_ours(what):
            yield link.objects

    @contextmanager
    def _changing(self, key: StoredKey, what: str, *, ours: bool = True) -> Iterator[tuple[Objects, Any]]:
        """Give the token's objects and the key's private one among them, as ``managing``.

        Args:
            key: The key.
            what: As for ``told_as_ours``.
            ours: Whether the key must be ours.

        Raises:
            ForeignKeyError: If it must, and isn't.
        """
        wanted, known = _of_token(key), self.opened
        self._reading(what, lambda link: link.locate(link.objects, wanted, opened_just_now=self.opened != known))
        link = self._fresh()
        with link.module.mutex, told_as_ours(what):
            objects = link.objects
            private = link.locate(objects, wanted)
            if ours and not is_ours(private):
                raise not_ours(key, self.description)
            yield objects, private

    def examine(self, key: Pkcs11Key, look: Callable[[Any], _T]) -> _T:
        """Return what ``look`` makes of the key's private object."""
        return self._reading(f"read the key {key.name!r}", lambda link: look(link.locate(link.objects, key)))

    @contextmanager
    def raw(self, key: Pkcs11Key) -> Iterator[Callable[[bytes], bytes]]:
        """Give the module's own C_SignInit and C_Sign, in a session of their own, for measuring on one thread."""
        with told_as_ours(f"sign with the key {key.name!r}"), self._fresh().loop(key) as sign:
            yield sign

    def sign(self, key: Pkcs11Key, message: bytes, *, digest: bool) -> bytes:
        """Sign, as ``Pkcs11Key.sign`` says; if the back-end went away, bring it back, and try once more."""
        link = self._link
        if self._closed or link.generation != fork_generation():
            link = self._fresh()
        first, logins = link, link.login.times
        try:
            return link.sign(key, message, digest=digest)
        except PoolClosedError:
            link = self._fresh()
        except ckr.PKCS11Error as error:
            with told_as_ours(f"sign with the key {key.name!r}"):
                link = self._mended(link, key, error, logins)
        with told_as_ours(f"sign with the key {key.name!r}"):
            return link.sign(key, message, digest=digest, opened_just_now=link is not first)

    def _mended(self, link: Link, key: Pkcs11Key, error: ckr.PKCS11Error, logins: int) -> Link:
        """Return a link to try once more with, after what ``error`` says was mended; else raise it."""
        if isinstance(error, KEY_REFUSED):
            raise SigningError(
                f"the token doesn't let the key {key.name!r} sign: {reason(error)}",
                hint="it isn't made for such signatures: enroll a key under another name",
            )
        if isinstance(error, LOGIN_LOST):
            try:
                if link.log_in_again(key, error, logins):
                    return link
            except ckr.PKCS11Error as further:
                error = further
        if not is_gone(error):
            raise error
        return self._recovered(link)

    def close(self) -> None:
        """Close the sessions; the last store of a token logs out, the last one of a module finalises it."""
        if self._closed:
            return
        self._closed = True
        self._pin = None
        if self._link.generation == fork_generation():
            self._link.close()
            self._link.module.release()


def _of_token(key: StoredKey) -> Pkcs11Key:
    if not isinstance(key, Pkcs11Key):
        raise UsageError(f"the key {key.name!r} is not in a PKCS#11 token")
    return key
