"""Keys in a Transit engine: a store over one cluster of OpenBao or HashiCorp Vault.

``hsm-keys vault policy`` prints the policies that the workflows need.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import KeyBusyError, KeyExistsError, StoreUnavailableError, UsageError
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys
from hsm_keys.stores.base import Contents, KeyStore, StoredKey, Unusable
from hsm_keys.stores.key_names import ENDING, IMPORTING, check_label
from hsm_keys.stores.marks import FOREIGN
from hsm_keys.stores.ownership import check_not_registered_since, check_ours, renamed_meanwhile
from hsm_keys.stores.succession import statement_about
from hsm_keys.stores.vault import creation
from hsm_keys.stores.vault.connection import VaultConnection
from hsm_keys.stores.vault.custody_facts import watched_paths
from hsm_keys.stores.vault.entries import KEY_PREFIX, Entries, base_of
from hsm_keys.stores.vault.environment import with_environment
from hsm_keys.stores.vault.errors import (
    VaultAccessDeniedError,
    VaultGarbledAnswerError,
    VaultKeyNotFoundError,
    VaultKeyUnsuitableError,
)
from hsm_keys.stores.vault.key import VaultKey
from hsm_keys.stores.vault.records import (
    Phase,
    Record,
    Records,
    hand_over,
    is_late,
    is_transit_name,
    label_of,
    take_out,
)
from hsm_keys.stores.vault.transit import Transit
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.stores.checks import Check
    from hsm_keys.stores.marks import Claim
    from hsm_keys.stores.vault.importing import VaultImports
    from hsm_keys.stores.vault.transit import TransitKey
    from hsm_keys.stores.vault.uri import VaultUri

__all__ = ["VaultStore"]

_reopening = ProcessLock()


class VaultStore(KeyStore, RenamesKeys, ImportsKeys):
    """The keys of a Transit engine that have their entries in a KV v2 engine.

    Args:
        uri: Says which.

    Raises:
        UsageError: If what the environment says can't be used.
        VaultTokenError: If there is no token.
    """

    def __init__(self, uri: VaultUri) -> None:
        self._uri: Final = with_environment(uri)
        self._closed = False
        self._connection = VaultConnection(self._uri)
        self.transit: Final = Transit(self.connection, self._uri.mount)
        self.entries: Final = Entries(self.connection, self._uri.kv)
        self.uri = str(self._uri)

    def connection(self) -> VaultConnection:
        """Return this process's connection; in a forked child it is made anew."""
        if self._closed:
            raise StoreUnavailableError("the store is closed", hint="open it again")
        if self._connection.generation != fork_generation():
            with _reopening:
                if self._connection.generation != fork_generation():
                    self._connection = VaultConnection(self._uri)
        return self._connection

    def describe(self) -> str:
        """Return what people call this store."""
        where = f"{self._uri.namespace}/{self._uri.mount}" if self._uri.namespace else self._uri.mount
        return f"Vault's {where}/ at {', '.join(self._uri.addresses)}"

    def keys(self) -> list[StoredKey]:
        """Return every key that has an entry, sorted by name; or the one that the URI names."""
        return self.contents().keys

    def contents(self) -> Contents:
        """Return every key that has an entry, and those that can't be used.

        Costs one request for the names, and one for each name and each key.
        """
        keys: list[StoredKey] = []
        unusable: list[Unusable] = []
        for base in [base_of(self._uri.key)] if self._uri.key else self.entries.names():
            try:
                entry = self.entries.read(base)
            except (VaultAccessDeniedError, VaultGarbledAnswerError) as error:
                unusable.append(Unusable(base, error.message))
                continue
            for label, record in entry.records.items():
                if self._uri.key in {"", label}:
                    self._sort_in(label, record, keys, unusable)
        return Contents(sorted(keys, key=lambda key: key.name), unusable)

    def _sort_in(self, label: str, record: Record, keys: list[StoredKey], unusable: list[Unusable]) -> None:
        if record.phase is Phase.MAKING or is_late(label):
            return
        try:
            transit_key = self.transit.read(record.transit_key, label, record.version)
        except (VaultAccessDeniedError, VaultKeyUnsuitableError) as error:
            unusable.append(Unusable(label, error.message, record.mark))
            return
        if transit_key is not None:
            keys.append(self._key(label, record, transit_key))
        elif record.phase is None and not label.endswith(ENDING):
            unusable.append(Unusable(label, f"its Transit key {record.transit_key} is gone", record.mark))
        elif record.phase is Phase.IMPORTING:
            unusable.append(Unusable(label + IMPORTING, "a `generate` was interrupted before it came", record.mark))

    def _key(self, label: str, record: Record, transit_key: TransitKey) -> VaultKey:
        return VaultKey(self, label, record.mark, str(replace(self._uri, key=label)), transit_key)

    @takes_no_private_key
    def key(self, name: str) -> VaultKey:
        """Return a key.

        Args:
            name: Its name; or, for a key that was made elsewhere, the Transit engine's name for it. If the store's URI
                names a key, then that one's name, or nothing.

        Raises:
            VaultKeyNotFoundError: If there is none, or its Transit key is gone.
            VaultKeyUnsuitableError: If it can't sign Kalshi requests.
        """
        return self.key_and_voucher(name)[0]

    def key_and_voucher(self, name: str) -> tuple[VaultKey, str | None]:
        """Return a key as ``key`` does, and what the key before it signed about it, in base64."""
        own = self._uri.key
        if own and name not in {"", own}:
            raise VaultKeyNotFoundError(
                f"the store's URI names the key {own!r}, not {shown(name)}", hint="leave the key out of the URI"
            )
        label = name or own
        record = self._record(label)
        if record is not None and record.phase is not Phase.MAKING:
            transit_key = self.transit.read(record.transit_key, label, record.version)
            if transit_key is not None:
                return self._key(label, record, transit_key), record.vouched
            if record.phase is None:
                raise VaultKeyNotFoundError(
                    f"the Transit key of {label!r} is gone: {self._uri.mount}/keys/{record.transit_key}",
                    hint=f"nothing signs for API key {record.api_key_id} any more: end it with "
                    f"`hsm-keys revoke {record.api_key_id}`"
                    if record.api_key_id
                    else "somebody has deleted it; a key under another name can take its place",
                )
        return self._foreign(label), None

    def _record(self, label: str) -> Record | None:
        try:
            check_label(label)
        except UsageError:
            return None
        return self.entries.read(base_of(label)).records.get(label)

    def _foreign(self, name: str) -> VaultKey:
        """Return a key that has no entry, by its own name."""
        foreign = None
        if is_transit_name(name) and not name.startswith(KEY_PREFIX):
            try:
                foreign = self.transit.read(name, name)
            except VaultAccessDeniedError:
                foreign = None  # a token that may use only our keys
        if foreign is None:
            raise VaultKeyNotFoundError(
                f"{self.describe()} has no key {shown(name)}",
                hint="`hsm-keys list` shows the keys, `hsm-keys enroll` makes one",
            )
        return VaultKey(self, name, FOREIGN, str(replace(self._uri, key=name)), foreign)

    def read_again(self, key: VaultKey) -> TransitKey:
        """Return what the engine says of a key now.

        Raises:
            VaultKeyNotFoundError: If it is gone.
        """
        transit_key = self.transit.read(key.transit_key, key.name, key.version)
        if transit_key is None:
            raise VaultKeyNotFoundError(
                f"the Transit key of {key.name!r} is gone", hint="`hsm-keys list` shows the keys"
            )
        return transit_key

    def capabilities(self, transit_key: str) -> dict[str, list[str]] | None:
        """Return what the token may do on the paths that let a private half out; None where the server won't say."""
        return self.connection().capabilities(watched_paths(self._uri.mount, transit_key))

    @takes_no_private_key
    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048, environment: str | None = None) -> VaultKey:
        """Make a key in the engine; see ``creation.make``."""
        check_label(name)
        if self._uri.key not in {"", name}:
            raise UsageError(f"the store's URI names the key {self._uri.key!r}", hint="leave the key out of the URI")
        return self._key(name, *creation.make(self.entries, self.transit, name, key_type, environment))

    def diagnose(self, keys: Sequence[StoredKey]) -> list[Check]:
        """Look at every server, at the engine, at the token, and at whether it may sign with each key."""
        from hsm_keys.stores.vault.diagnosis import engine, servers, signing, token

        connection, mount = self.connection(), self.transit.mount
        checks = [*servers(connection), *engine(connection, mount), token(connection)]
        return checks + signing(connection, mount, keys)

    def imports(self) -> VaultImports:
        """Return what imports keys into the engine.

        Raises:
            UsageError: If the store's URI names a key.
        """
        from hsm_keys.stores.vault.importing import VaultImports

        if self._uri.key:
            raise UsageError(f"the store's URI names the key {self._uri.key!r}", hint="leave the key out of the URI")
        return VaultImports(self.entries, self.transit, self._key)

    @takes_no_private_key
    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> VaultKey:
        """Write API key id and environment into the entry; a key that was made elsewhere gets one.

        Raises:
            KeyNotFoundError: If the entry doesn't name the key any more, or somebody is destroying it.
            KeyExistsError: If a key of ours has the name of one that was made elsewhere.
            VaultError: If the server refuses.
        """
        vault_key = _vault_key(key)
        known = check_api_key_id(api_key_id)
        if not key.ours:
            check_label(key.name)
        new_records: list[Record] = []

        def write(records: Records) -> None:
            label = label_of(records, vault_key.transit_key)
            if (label is None and key.ours) or is_late(label or ""):
                raise VaultKeyNotFoundError(f"the entry of {key.name!r} doesn't name {vault_key.transit_key} any more")
            if label is None and key.name in records:
                raise KeyExistsError(f"{self.describe()} already has another key {key.name!r}")
            label = label or key.name
            record = records.get(label, Record(vault_key.transit_key, vault_key.version))
            phase = record.phase if record.phase is Phase.DESTROYING else None  # its Transit key may be gone by now
            # Another run has begun its end: it is registered, or its API key was looked for.
            if phase and (record.api_key_id is None or record.api_key_id != key.api_key_id):
                raise VaultKeyNotFoundError(f"somebody else is destroying the key {key.name!r}")
            records[label] = replace(
                record, api_key_id=known, environment=environment, phase=phase, key_type=None, run=None, claim=None
            )
            new_records[:] = [records[label]]

        self.entries.change(base_of(key.name), write)
        return self._key(key.name, new_records[0], vault_key.found)

    def begin_registration(self, key: StoredKey, environment: str, claim: Claim | None = None) -> VaultKey:
        """Write the environment and the claim into the entry.

        Raises:
            KeyNotFoundError: If the entry doesn't name the key any more.
            KeyBusyError: If it names an API key id for it, or another label; or its destruction was begun.
            VaultError: If the server refuses.
        """
        vault_key = self._changeable(key)
        begun: list[Record] = []

        def write(records: Records) -> None:
            label = label_of(records, vault_key.transit_key)
            if label is None:
                raise VaultKeyNotFoundError(f"the entry of {key.name!r} doesn't name {vault_key.transit_key} any more")
            if records[label].api_key_id is not None:
                raise KeyBusyError(f"somebody else registered {key.name!r} meanwhile", hint="run it again")
            if label != key.name:
                raise renamed_meanwhile(key.name, self.describe())
            if records[label].phase is Phase.DESTROYING:
                raise KeyBusyError(
                    f"the destruction of {key.name!r} was begun, and hasn't ended",
                    hint=f"let it come to its end: hsm-keys revoke {key.name} --destroy",
                )
            records[label] = replace(records[label], environment=environment, claim=str(claim) if claim else None)
            begun[:] = [records[label]]

        self.entries.change(base_of(key.name), write)
        return self._key(key.name, begun[0], vault_key.found)

    def rename(self, key: StoredKey, name: str) -> VaultKey:
        """Give the key another label: in one step where both belong to one name, else the new entry first."""
        check_label(name)
        vault_key = self._changeable(key)
        old, new = base_of(key.name), base_of(name)
        moved: list[Record] = []

        def move_in(records: Records) -> None:
            label = label_of(records, vault_key.transit_key)
            if label is None and old == new:
                raise VaultKeyNotFoundError(f"the entry of {key.name!r} doesn't name {vault_key.transit_key} any more")
            if label not in {None, key.name, name}:
                raise renamed_meanwhile(key.name, self.describe())
            if name in records and label != name:
                raise KeyExistsError(f"{self.describe()} already has a key {name!r}")
            records[name] = records.pop(label) if label is not None else _record_of(vault_key)
            moved[:] = [records[name]]

        self.entries.change(new, move_in)
        if old != new:
            self.entries.change(old, lambda records: take_out(records, vault_key.transit_key))
        return self._key(name, moved[0], vault_key.found)

    def hand_over(self, name: str, taker: StoredKey, leaver: StoredKey, mark: str) -> tuple[VaultKey, VaultKey]:
        """Give the name to another key in one step, after the old key has signed a statement about the new one."""
        taking, leaving = self._changeable(taker), self._changeable(leaver)
        vouched = b64encode(leaving.sign(statement_about(taking.public_key()))).decode()
        keys = {taking.transit_key: taker.name, leaving.transit_key: leaver.name}
        after = self.entries.change(
            base_of(name), lambda records: hand_over(records, name, name + mark, keys, vouched)
        ).records
        return self._key(name, after[name], taking.found), self._key(name + mark, after[name + mark], leaving.found)

    def destroy(self, key: StoredKey) -> None:
        """Delete the Transit key, and what the entry says of it. There is no way back.

        The entry says first that the key is being destroyed; it stays in the list until its Transit key is gone.
        """
        vault_key = self._changeable(key)
        base = base_of(key.name)

        def begin(records: Records) -> None:
            label = label_of(records, vault_key.transit_key)
            if label is not None:
                check_not_registered_since(key, records[label].mark, self.describe())
                records[label] = replace(records[label], phase=Phase.DESTROYING)

        self.entries.change(base, begin)
        self.transit.delete(vault_key.transit_key, key.name)
        self.entries.change(base, lambda records: take_out(records, vault_key.transit_key))

    def mend(self, name: str) -> None:
        """Take out of the entry what a destruction that was interrupted left there."""
        creation.mend(self.entries, self.transit, name)

    def clear(self, name: str) -> bool:
        """Delete a key that was made for that name, and never got it."""
        return creation.clear(self.entries, self.transit, name)

    def _changeable(self, key: StoredKey) -> VaultKey:
        check_ours(key, self.describe())
        return _vault_key(key)

    def close(self) -> None:
        """Close the connections. Signing with the store's keys ends here."""
        if not self._closed:
            self._closed = True
            self._connection.close()


def _vault_key(key: StoredKey) -> VaultKey:
    if not isinstance(key, VaultKey):
        raise UsageError(f"the key {key.name!r} is not in Vault")
    return key


def _record_of(key: VaultKey) -> Record:
    return Record(key.transit_key, key.version, key.api_key_id, key.environment)
