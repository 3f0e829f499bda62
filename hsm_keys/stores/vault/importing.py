"""Putting a private key that was made elsewhere into the engine: first a record in the entry, then the key, wrapped.

The mark of an import under way is the record in the phase ``importing``, with the environment that the key comes from.
Each run writes the name of its own Transit key into it, and binds the imported key by check-and-set: so if a
second run takes the mark over, either that is refused, or the first run's key isn't bound and is removed. Until it is
removed, the entry names it ``NAME+ending``: `revoke` removes it if the run that imported it couldn't. A run that gets
no answer to its import, and finds no key, takes its own mark over before it deletes the API key.
The key is wrapped with RSA_AES_KEY_WRAP (``signing/wrapping.py``) for the engine's own wrapping key.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.errors import HsmKeysError, KeyBusyError, KeyExistsError
from hsm_keys.signing.algorithms import KeyType, key_type_of
from hsm_keys.signing.wrapping import wrap
from hsm_keys.stores.key_imports import KeyImports, PendingImport, taken_over
from hsm_keys.stores.key_names import ENDING, check_new_name
from hsm_keys.stores.vault.creation import mend
from hsm_keys.stores.vault.entries import Entries, new_transit_key
from hsm_keys.stores.vault.errors import VaultGarbledAnswerError, VaultKeyNotFoundError
from hsm_keys.stores.vault.records import Phase, Record, Records, is_late, label_of, set_aside, take_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.signing.algorithms import PrivateKey
    from hsm_keys.stores.base import StoredKey
    from hsm_keys.stores.vault.transit import Transit, TransitKey

__all__ = ["VaultImports"]

_WRAPPING_BITS: Final = 4096
_WHERE: Final = "the Transit engine"


class VaultImports(KeyImports):
    """Imports into one Transit engine.

    Args:
        entries: Where names are kept.
        transit: The engine.
        key: Makes the key of a label, its record, and what the engine says of it.
    """

    def __init__(self, entries: Entries, transit: Transit, key: Callable[[str, Record, TransitKey], StoredKey]) -> None:
        self._entries = entries
        self._transit = transit
        self._key = key
        self._wrapping_keys: dict[str, RSAPublicKey] = {}
        self._seen: dict[str, Record | None] = {}
        self._prepared: dict[str, Record] = {}

    def _pending(self, name: str) -> Record | None:
        record = self._entries.read(check_new_name(name)).records.get(name)
        return record if record is not None and record.phase is Phase.IMPORTING else None

    def pending(self, name: str) -> PendingImport | None:
        """Return what an interrupted import left: a record, with its Transit key or without."""
        record = self._seen[name] = self._pending(name)
        if record is None:
            return None
        transit_key = self._transit.read(record.transit_key, name, record.version)
        key = None if transit_key is None else self._key(name, record, transit_key)
        return PendingImport(KeyType(str(record.key_type)), key, record.environment)

    def prepare(self, name: str, key_type: KeyType, environment: str) -> None:
        """Leave the record, and get the wrapping key, so that the import takes one call."""
        own = Record(
            new_transit_key(name),
            environment=environment,
            phase=Phase.IMPORTING,
            key_type=str(key_type),
            run=secrets.token_hex(8),
        )

        def begin(records: Records) -> None:
            record = records.get(name)
            if record is not None and record.phase is Phase.IMPORTING and record != self._seen.get(name, record):
                raise taken_over(name, _WHERE)
            if record is not None and (record.phase is not Phase.IMPORTING or self._is_there(record, name)):
                raise KeyExistsError(
                    f"there is an entry for {name!r} already",
                    hint=f"choose another name, or see it: hsm-keys show {name}",
                )
            set_aside(records, name)  # the other run may be alive, and import its key late
            records[name] = own

        self._wrapping_keys[name] = self._wrapping_key()  # before anything is left: an engine may take no imports
        self._prepared[name] = own  # if the answer gets lost, the entry tells
        self._entries.change(name, begin)

    def _is_there(self, record: Record, name: str) -> bool:
        return self._transit.read(record.transit_key, name) is not None

    def is_taken_over(self, name: str) -> bool:
        """Tell whether the entry has another record in its place."""
        return self._pending(name) != self._prepared[name]

    def _wrapping_key(self) -> RSAPublicKey:
        try:
            key = load_pem_public_key(self._transit.wrapping_key().encode())
        except ValueError:
            key = None
        if not isinstance(key, RSAPublicKey) or key.key_size != _WRAPPING_BITS:
            raise VaultGarbledAnswerError(
                f"the engine's wrapping key is no RSA key of {_WRAPPING_BITS} bits; nothing was sent",
                hint="check that the address is really OpenBao's or Vault's",
            )
        return key

    def put(self, name: str, private_key: PrivateKey, api_key_id: str, environment: str) -> StoredKey:
        """Import the key, and bind it if the mark is this run's still."""
        record = self._prepared[name]
        if self.is_taken_over(name):
            raise taken_over(name, _WHERE)
        key_type = key_type_of(private_key.public_key())
        wrapped = wrap(private_key, self._wrapping_keys.pop(name), hashes.SHA256())
        self._transit.import_key(record.transit_key, name, key_type, wrapped.aes_key + wrapped.private_key)
        transit_key = self._transit.read(record.transit_key, name, record.version)
        if transit_key is None:
            raise VaultKeyNotFoundError(f"the imported key {name!r} is gone", hint="`hsm-keys list` shows the keys")
        try:
            bound = self._bound(name, api_key_id, environment)
        except KeyBusyError:
            with suppress(HsmKeysError):  # the error that this run gave way says more
                self._set_aside(name, api_key_id, environment)
            raise
        return self._key(name, bound, transit_key)

    def _bound(self, name: str, api_key_id: str, environment: str) -> Record:
        """Write the API key id into the record of this run; another one may have found the key, and done the same."""
        own = self._prepared[name]
        bound = Record(own.transit_key, api_key_id=api_key_id, environment=environment)

        def write(records: Records) -> None:
            record = records.get(name)
            if record not in {own, bound}:
                raise taken_over(name, _WHERE)
            records[name] = bound

        self._entries.change(name, write)
        return bound

    def _set_aside(self, name: str, api_key_id: str, environment: str) -> None:
        """Let the entry name this run's key as one whose end has begun, unless another run has found it."""
        record = self._prepared[name]
        own = record.transit_key

        def write(records: Records) -> None:
            label = label_of(records, own)
            if (label is None or is_late(label)) and name + ENDING not in records and self._is_there(record, name):
                take_out(records, own)
                records[name + ENDING] = Record(own, api_key_id=api_key_id, environment=environment)

        self._entries.change(name, write)

    def give_up(self, name: str) -> None:
        """Put another mark in the place of this run's, unless the key has come: if it comes late, nobody binds it."""
        own = self._prepared[name]
        other = replace(own, transit_key=new_transit_key(name), run=secrets.token_hex(8))

        def write(records: Records) -> None:
            if records.get(name) == own and not self._is_there(own, name):
                set_aside(records, name)
                records[name] = other

        if self._entries.change(name, write).records.get(name) == other:
            self._prepared[name] = other

    def withdraw(self, name: str) -> None:
        """Delete the Transit key, unless another run has found it; if it hasn't, nobody writes it into the entry."""
        own = self._prepared[name].transit_key

        def begin(records: Records) -> None:
            if label_of(records, own) == name + ENDING:
                records[name + ENDING] = replace(records[name + ENDING], phase=Phase.DESTROYING)

        label = label_of(dict(self._entries.change(name, begin).records), own)
        if label is None or label == name + ENDING or is_late(label):
            self._transit.delete(own, name)
            self._entries.change(name, lambda records: take_out(records, own))

    def end(self, name: str) -> None:
        """Remove the record of a key that never came, and keys that came late. A bound one is no mark any more."""
        self._remove_mark(name)
        mend(self._entries, self._transit, name)

    def _remove_mark(self, name: str) -> None:
        record = self._prepared.get(name) or self._pending(name)
        if record is None or self._is_there(record, name):
            return

        def remove(records: Records) -> None:
            if records.get(name) == record:
                del records[name]

        self._entries.change(name, remove)
