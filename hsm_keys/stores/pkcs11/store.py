"""Keys in a PKCS#11 token. The token is the registry: label is the name, CKA_ID the mark."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import (
    KeyAmbiguousError,
    KeyBusyError,
    KeyExistsError,
    KeyNotFoundError,
    SigningError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.logs import log_request
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.abilities import ImportsKeys, RawSigning, RenamesKeys
from hsm_keys.stores.base import Contents, KeyStore, StoredKey, Unusable
from hsm_keys.stores.checks import Check
from hsm_keys.stores.key_names import ABORTING, FINISHING, IMPORTING, RETIRED, SUCCESSOR, check_label
from hsm_keys.stores.ownership import check_not_registered_since, not_ours, renamed_meanwhile
from hsm_keys.stores.pkcs11 import fresh_process
from hsm_keys.stores.pkcs11.attributes import read
from hsm_keys.stores.pkcs11.errors import KEY_REFUSED, LOGIN_LOST, is_gone, mapped_errors, reason
from hsm_keys.stores.pkcs11.key import Pkcs11Key
from hsm_keys.stores.pkcs11.key_pairs import (
    check_can_make,
    destroy_pair,
    give_back_label,
    is_being_destroyed,
    mend_pair,
    remove_orphans,
    rename_pair,
    write_id,
)
from hsm_keys.stores.pkcs11.marks import minted_id, read_mark, registered_id, registering_id
from hsm_keys.stores.pkcs11.minting import (
    Mint,
    busy,
    is_being_made,
    is_stub,
    remove_stub,
    remove_surplus,
    shows_others_late,
)
from hsm_keys.stores.pkcs11.objects import NO_LABEL, Pair, is_ours, required
from hsm_keys.stores.pkcs11.opening import PAUSES_S, Opening
from hsm_keys.stores.pkcs11.patience import PATIENCE_S, wait_if_ending
from hsm_keys.stores.pkcs11.pool import PoolClosedError
from hsm_keys.stores.pkcs11.restart import restart
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.marks import Claim
    from hsm_keys.stores.pins import PinGetter
    from hsm_keys.stores.pkcs11.importing import Pkcs11Imports
    from hsm_keys.stores.pkcs11.objects import Objects
    from hsm_keys.stores.pkcs11.token_connection import TokenConnection
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["Pkcs11Key", "Pkcs11Store"]

_T = TypeVar("_T")

_reopening = ProcessLock()


class Pkcs11Store(KeyStore, RenamesKeys, ImportsKeys, RawSigning):
    """A token, logged in.

    Args:
        uri: Names the token, with the path of its module.
        get_pin: Gives the user PIN, or None where the token asks on its own pad. What it gives is kept.
        force_pin: Log in also where the token says that one more wrong PIN locks it.
    """

    raw_call = "C_Sign"

    def __init__(self, uri: Pkcs11Uri, get_pin: PinGetter, *, force_pin: bool = False) -> None:
        self._opening = Opening(uri, get_pin, force_pin=force_pin)
        self.uri = str(self._opening.uri)  # until the token has told its serial
        self._closed = False
        self._connection = self._opening.open()
        self.uri = str(self._opening.uri)

    @property
    def description(self) -> str:
        """What people call the token."""
        return self._opening.description

    @property
    def opened(self) -> int:
        """How often the token was opened: what was proved before holds no longer."""
        return self._opening.times

    def _fresh(self) -> TokenConnection:
        """Return a connection that can be used, opened anew after a fork and when the module was brought back.

        Handles of a parent fail, hang, or break it; those of an earlier epoch of the module lead anywhere.
        """
        if self._closed:
            raise StoreUnavailableError("the store is closed", hint="open it again")
        if not self._connection.usable:
            wait_if_ending()
            if not _reopening.acquire(PATIENCE_S):
                raise StoreUnavailableError(
                    f"a token hasn't opened again within {PATIENCE_S:.0f} s",
                    hint="check the token and its daemon; restart this program if it never does",
                )
            try:
                if self._connection.generation != fork_generation():
                    self._connection = self._opening.open()
                elif not self._connection.usable:
                    self._connection = self._opening.reopen(self._connection)
                self.uri = str(self._opening.uri)
            finally:
                _reopening.release()
        return self._connection

    def _recovered(self, connection: TokenConnection) -> TokenConnection:
        """Return a connection in place of one whose back-end went away.

        It is never used again, also where the module isn't brought back now: SoftHSM, whose storage was away for a
        moment, goes on with half of the objects.
        """
        connection.pool.halt(for_good=True)
        restart(connection.module, connection.epoch)
        return self._fresh()

    def software(self) -> str:
        """Return what the module says of itself."""
        return self._connection.module.software

    def describe(self) -> str:
        """Return the token's label and serial, as people read them."""
        return self.description

    def key_uri(self, name: str) -> str:
        """Return the URI (RFC 7512) of the private key of that name."""
        return str(replace(self._opening.uri, object=name, type="private"))

    def contents(self) -> Contents:
        """Return every labelled RSA and Ed25519 pair of the token, sorted by name, and what can't be used."""
        pairs = self._reading("list its keys", lambda token: token.objects.pairs())
        keys = _without_surplus(
            [self._key_of(pair, required(pair, str(pair.label))) for pair in pairs if pair.label and pair.public_key]
        )
        return Contents(
            sorted(keys, key=lambda key: (key.name, key.api_key_id or "")),
            [
                Unusable(it.name, it.problem or NO_LABEL, it.mark, left_over=is_stub(it))
                for it in pairs
                if it.problem or it.is_nameless
            ],
        )

    def keys(self) -> list[StoredKey]:
        """Return every labelled RSA and Ed25519 pair of the token, sorted by name."""
        return self.contents().keys

    def _key_of(self, pair: Pair, public_key: PublicKey) -> Pkcs11Key:
        return Pkcs11Key(self, str(pair.label), pair.cka_id, public_key, pair.mark)

    @takes_no_private_key
    def key(self, name: str) -> StoredKey:
        """Return the key of that label; of several the one that is ours, if one alone is."""
        pair = self._settled(name) or self._handed_over(name) or self._called(name)
        ours = [key for key in pair if key.ours]
        if len(pair) == 1 or len(ours) == 1:
            return (ours or pair)[0]
        if pair:
            ids = ", ".join(key.cka_id.hex() or "none" for key in pair)
            raise KeyAmbiguousError(
                f"{self.description} has {len(pair)} private keys called {shown(name)}, with the ids {ids}",
                hint="rename or remove all but one with the vendor's tool (pkcs11-tool --delete-object --id)",
            )
        names = ", ".join(repr(key.name) for key in self.keys())
        raise KeyNotFoundError(
            f"{self.description} has no key called {shown(name)}",
            hint=f"it has {names}" if names else "make one: hsm-keys enroll --name NAME",
        )

    def holds(self, name: str) -> bool:
        """Tell whether any private object has that label."""
        private_keys: list[Any] = self._reading(
            f"look up {shown(name)}", lambda token: token.objects.private_keys(name)
        )
        return bool(private_keys)

    def _settled(self, name: str) -> list[Pkcs11Key]:
        """Return what has the name, unless all of it is being made still: by somebody who gives way, or was killed.

        Another machine may have begun to make it when a rotation had just taken the name from one key, and not given it
        to the other one yet.
        """
        pairs = self._pairs(name)
        return [] if all(is_being_made(pair) for pair in pairs) else self._keys_of(pairs, name)

    def _called(self, name: str) -> list[Pkcs11Key]:
        return self._keys_of(self._pairs(name), name)

    def _pairs(self, name: str) -> list[Pair]:
        def look(connection: TokenConnection) -> list[Pair]:
            return connection.objects.pairs(name)

        what = f"look up the key {shown(name)}"
        pairs = self._reading(what, look)
        for pause in PAUSES_S:  # a pair that somebody makes or removes at this moment has one half only
            if all(pair.public_key for pair in pairs):
                break
            time.sleep(pause)
            pairs = self._reading(what, look)
        return pairs

    def _keys_of(self, pairs: list[Pair], name: str) -> list[Pkcs11Key]:
        whole = [pair for pair in pairs if pair.public_key] or pairs
        return _without_surplus([self._key_of(pair, required(pair, name)) for pair in whole])

    def _reading(self, what: str, look: Callable[[TokenConnection], _T]) -> _T:
        """Return what ``look`` finds; if the back-end went away, bring it back, and look once more."""
        connection = self._ready(what)
        with mapped_errors(what):
            try:
                with connection.module.mutex:
                    return look(connection)
            except ckr.PKCS11Error as error:
                if not is_gone(error):
                    raise
            connection = self._recovered(connection)
            with connection.module.mutex:
                return look(connection)

    def _ready(self, what: str) -> TokenConnection:
        """Return a connection whose managing session is there and logged in; ``what`` is as for ``mapped_errors``.

        What makes and changes objects can't be repeated when it fails half way. So the back-end is brought back before.
        """
        connection = self._fresh()
        with mapped_errors(what, logs=False):
            try:
                connection.make_ready()
            except ckr.PKCS11Error as error:
                if not is_gone(error):
                    raise
                connection = self._recovered(connection)
        return connection

    def _handed_over(self, name: str) -> list[Pkcs11Key]:
        """Return the key that gets the name, where a rotation has renamed one of the two and not yet the other one."""
        if "+" in name:
            return []
        retired, aborting = self._ours_called(name + RETIRED), self._ours_called(name + ABORTING)
        if retired and aborting:
            return retired
        old = retired or self._ours_called(name + FINISHING)
        new = (aborting or self._ours_called(name + SUCCESSOR)) if old else []
        # It may be finished by now; or the key that was to get the name has ended.
        return new or self._settled(name) or old or (self._put_in(name) if aborting else []) or aborting

    def _put_in(self, name: str) -> list[Pkcs11Key]:
        """Return what a `generate` has put in that was killed before it made sure that nobody else did."""
        whole = [pair for pair in self._pairs(name) if pair.public_key]
        return [key for key in self._keys_of(whole, name) if key.ours and key.api_key_id]

    def _ours_called(self, name: str) -> list[Pkcs11Key]:
        return [key for key in self._called(name) if key.ours]

    @takes_no_private_key
    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048, environment: str | None = None) -> StoredKey:
        """Make a pair that only signs: sensitive, not extractable, and usable after login alone."""
        check_label(name)
        connection = self._ready(f"make the key {name!r}")
        check_can_make(connection.token, key_type)
        mint = Mint(connection.module, connection.objects, self.description)
        public_key, cka_id = mint.make(name, key_type, environment)
        return Pkcs11Key(self, name, cka_id, public_key)

    def confirm(self, key: StoredKey) -> None:
        """Look at the token as a new process does, where the module may not show all to this one, and give way."""
        pin = self._opening.pin
        if pin is None or not shows_others_late(self._fresh().module):
            return
        if (fresh_process.private_keys_labelled(self._opening.uri, key.name, pin) or 0) < 2:  # noqa: PLR2004 - there is another one
            return
        with self._changing(key, f"look at the key {key.name!r}") as (objects, private):
            minted = minted_id(key.public_key(), key.environment)
            theirs = read(private, Attribute.LABEL) != key.name or read(private, Attribute.ID) != minted
            if not theirs:
                destroy_pair(objects, private)
        raise busy(key.name, self.description, "it is theirs now" if theirs else "this one is destroyed")

    def begin_registration(self, key: StoredKey, environment: str, claim: Claim | None = None) -> StoredKey:
        """Write the environment to CKA_ID of both objects; where that is fixed, it is left out."""
        cka_id = registering_id(key.public_key(), environment, claim)
        with self._changing(key, f"mark the key {key.name!r}") as (objects, private):
            if read_mark(read(private, Attribute.ID)).api_key_id is not None:
                raise busy(key.name, self.description, "nothing was changed")
            try:
                write_id(objects, private, cka_id)
            except ckr.PKCS11Error as error:
                if is_gone(error):
                    raise
                return key
            if read_mark(read(private, Attribute.ID)).api_key_id is not None:
                raise busy(key.name, self.description, "it was registered meanwhile")
            if read(private, Attribute.LABEL) != key.name or is_being_destroyed(objects, private):
                raise renamed_meanwhile(key.name, self.description)
        return Pkcs11Key(self, key.name, cka_id, key.public_key())

    @takes_no_private_key
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
            if key.ours and key.api_key_id is None and is_being_destroyed(objects, private):
                raise _destroyed_meanwhile(key.name)
        return Pkcs11Key(self, key.name, cka_id, key.public_key())

    def rename(self, key: StoredKey, name: str) -> StoredKey:
        """Write the label of both objects, as ``rename_pair`` says."""
        check_label(name)
        with self._changing(key, f"rename the key {key.name!r}") as (objects, private):
            label = read(private, Attribute.LABEL)
            former = label if label == key.name else objects.former_label(private) or label
            if former not in {key.name, name}:
                raise renamed_meanwhile(key.name, self.description)
            if label != name and objects.private_keys(name):
                raise KeyExistsError(f"{self.description} already has a key called {name!r}")
            try:
                has_name = rename_pair(objects, private, name, former)
            except ckr.ObjectHandleInvalid:
                raise _destroyed_meanwhile(key.name) from None
            except ckr.PKCS11Error as error:
                if is_gone(error):
                    raise
                raise StoreError(
                    f"the token doesn't let the label of {key.name!r} be changed: {reason(error)}",
                    hint="a key of this token can't be rotated: enroll a new one under another name",
                ) from None
            if not has_name:
                if read(private, Attribute.LABEL) != former:
                    raise renamed_meanwhile(key.name, self.description)
                raise KeyBusyError(
                    f"somebody else gave the name {name!r} in {self.description} to another key at the same moment; "
                    f"the key {former!r} keeps its own",
                    hint="look with `hsm-keys list`, then run the same command again",
                )
            return Pkcs11Key(self, name, read(private, Attribute.ID), key.public_key())

    def destroy(self, key: StoredKey) -> None:
        """Destroy the private object, then the public one."""
        with self._changing(key, f"destroy the key {key.name!r}") as (objects, private):

            def check() -> None:
                check_not_registered_since(key, read_mark(read(private, Attribute.ID)), self.description)

            check()
            destroy_pair(objects, private, check)

    def mend(self, name: str) -> None:
        """Give the public object of that key the private one's label and CKA_ID again; one of no key is destroyed.

        So is a pair that was made at the same moment as another one of the name, and whose maker was killed before it
        gave way; and a private object that has lost its public one while it was made. A key that is being imported gets
        its public object first: then that stays until the import has ended.
        """
        with self.managing(f"mend the key {name!r}") as objects:
            if not any(is_ours(mark) for mark in objects.private_keys(name + IMPORTING)):
                remove_orphans(objects, name)
                for mark in (IMPORTING, SUCCESSOR):  # what was never whole, nobody else looks for
                    remove_orphans(objects, name + mark)
            for private in objects.private_keys(name):
                if is_ours(private):
                    remove_stub(objects, private)
            give_back_label(objects, name)
            remove_surplus(objects, name)
            for private in objects.private_keys(name):
                if is_ours(private):
                    mend_pair(objects, private)

    def clear(self, name: str) -> bool:
        """Destroy a private object that has lost its public one while it was made."""
        with self.managing(f"clear away what is left of {name!r}") as objects:
            privates = [private for private in objects.private_keys(name) if is_ours(private)]
            return sum(remove_stub(objects, private) for private in privates) > 0

    def diagnose(self, keys: Sequence[StoredKey]) -> list[Check]:
        """Look for keys that take a login for each signature."""
        return [Check(f"login for {key.name}", "ok", remark) for key in keys for remark in key.remarks()]

    def imports(self) -> Pkcs11Imports:
        """Return what imports keys into the token."""
        from hsm_keys.stores.pkcs11.importing import Pkcs11Imports

        return Pkcs11Imports(self)

    @contextmanager
    def managing(self, what: str) -> Iterator[Objects]:
        """Give the token's objects, to change them, alone with the module; ``what`` is as for ``mapped_errors``."""
        connection = self._ready(what)
        with connection.module.mutex, mapped_errors(what):
            yield connection.objects

    @contextmanager
    def _changing(self, key: StoredKey, what: str, *, ours: bool = True) -> Iterator[tuple[Objects, Any]]:
        """Give the token's objects and the key's private one among them, as ``managing``.

        Args:
            key: The key.
            what: As for ``mapped_errors``.
            ours: Whether the key must be ours.

        Raises:
            ForeignKeyError: If it must, and isn't.
        """
        wanted, known = _of_token(key), self.opened
        self._reading(what, lambda token: token.locate(token.objects, wanted, opened_just_now=self.opened != known))
        connection = self._fresh()
        with connection.module.mutex, mapped_errors(what):
            objects = connection.objects
            private = connection.locate(objects, wanted)
            if ours and not is_ours(private):
                raise not_ours(key, self.description)
            yield objects, private

    def examine(self, key: Pkcs11Key, look: Callable[[Any], _T]) -> _T:
        """Return what ``look`` makes of the key's private object."""
        return self._reading(f"read the key {key.name!r}", lambda token: look(token.locate(token.objects, key)))

    @contextmanager
    def raw(self, key: StoredKey) -> Iterator[Callable[[bytes], bytes]]:
        """Give the module's own C_SignInit and C_Sign, in a session of their own, for measuring on one thread."""
        with mapped_errors(f"sign with the key {key.name!r}"), self._fresh().loop(_of_token(key)) as sign:
            yield sign

    def sign(self, key: Pkcs11Key, message: bytes, *, digest: bool) -> bytes:
        """Sign, as ``Pkcs11Key.sign`` says; if the back-end went away, bring it back, and try once more."""
        connection = self._connection
        if self._closed or connection.generation != fork_generation():
            connection = self._fresh()
        first, logins = connection, connection.login.times
        what = f"sign with the key {key.name!r}"
        log_request("token", what)
        try:
            return connection.sign(key, message, digest=digest)
        except PoolClosedError:
            connection = self._fresh()
        except ckr.PKCS11Error as error:
            with mapped_errors(what, logs=False):
                connection = self._mended(connection, key, error, logins)
        with mapped_errors(what):
            return connection.sign(key, message, digest=digest, opened_just_now=connection is not first)

    def _mended(
        self, connection: TokenConnection, key: Pkcs11Key, error: ckr.PKCS11Error, logins: int
    ) -> TokenConnection:
        """Return a connection to try once more with, after what ``error`` says was mended; else raise it."""
        if isinstance(error, KEY_REFUSED):
            raise SigningError(
                f"the token doesn't let the key {key.name!r} sign: {reason(error)}",
                hint="it isn't made for such signatures: enroll a key under another name",
            )
        if isinstance(error, LOGIN_LOST):
            try:
                if connection.log_in_again(key, error, logins):
                    return connection
            except ckr.PKCS11Error as further:
                error = further
        if not is_gone(error):
            raise error
        return self._recovered(connection)

    def close(self) -> None:
        """Close the sessions; the last store of a token logs out, the last one of a module finalises it."""
        if self._closed:
            return
        self._closed = True
        self._opening.pin = None
        if self._connection.generation == fork_generation():
            self._connection.close()
            self._connection.module.release()


def _destroyed_meanwhile(name: str) -> KeyNotFoundError:
    return KeyNotFoundError(f"somebody else is destroying the key {name!r}")


def _without_surplus(keys: list[Pkcs11Key]) -> list[Pkcs11Key]:
    """Leave out a pair whose name another one has: its maker gives way, or was killed before it did."""
    taken = {key.name for key in keys if key.ours and not key.passing}
    return [key for key in keys if not (key.ours and key.passing and key.name in taken)]


def _of_token(key: StoredKey) -> Pkcs11Key:
    if not isinstance(key, Pkcs11Key):
        raise UsageError(f"the key {key.name!r} is not in a PKCS#11 token")
    return key
