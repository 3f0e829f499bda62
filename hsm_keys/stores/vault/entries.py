"""The metadata of the keys of a name: one KV v2 entry, changed by check-and-set.

A key in the Transit engine holds no metadata, and can't be renamed. So the entry ``hsm-keys/NAME`` says which Transit
key has which label (NAME, and during a workflow NAME+next and the like), the API key id and environment of each, and
which workflow was begun with it. All labels of a name are in one entry, and a change is refused if somebody else has
changed the entry since. So a rotation changes the name's key in one step::

    {"keys": {"prod": {"transit_key": "hsm-keys-prod_-3f2a...", "version": 1, "api_key_id": "...",
                       "environment": "demo"}}}
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from hsm_keys.errors import KeyBusyError, OutcomeUnknownError, StoreError
from hsm_keys.stores.vault.error_mapping import VaultCall, field_of
from hsm_keys.stores.vault.errors import VaultError, VaultGarbledAnswerError
from hsm_keys.stores.vault.records import Record
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.stores.vault.connection import VaultConnection
    from hsm_keys.stores.vault.records import Records

__all__ = ["FOLDER", "KEY_PREFIX", "Entries", "KvEntry", "base_of", "new_transit_key", "prefix_of"]

FOLDER: Final = "hsm-keys"
"""The folder of the entries in the KV engine."""

KEY_PREFIX: Final = "hsm-keys-"
"""What the names of our Transit keys begin with."""

_ATTEMPTS: Final = 5
_CONFLICT: Final = "check-and-set"


@dataclass(frozen=True, slots=True)
class KvEntry:
    """An entry as it was read.

    Args:
        version: Its version; 0 if there never was one.
        records: Label to record.
    """

    version: int
    records: Mapping[str, Record]


def base_of(label: str) -> str:
    """Return the name behind a label: ``prod`` for ``prod+next``. It names the entry."""
    return label.partition("+")[0]


def prefix_of(base: str) -> str:
    """Return what the Transit keys of a name begin with, and those of no other name.

    The engine takes letters, digits, ``_``, ``-`` and ``.``, and so do names. As ``_`` is doubled in the name, the
    ``_-`` behind it is its end: a policy can hold a token to the keys of one name.
    """
    return f"{KEY_PREFIX}{base.replace('_', '__')}_-"


def new_transit_key(base: str) -> str:
    """Return a name for a new Transit key, which no other run comes upon."""
    return prefix_of(base) + secrets.token_hex(8)


class Entries:
    """The entries in a KV engine.

    Args:
        connection: Gives this process's connection.
        mount: Where the engine is mounted.
    """

    def __init__(self, connection: Callable[[], VaultConnection], mount: str) -> None:
        self._connection = connection
        self._mount = mount

    def names(self) -> list[str]:
        """Return the names that there are entries for, sorted."""
        call = VaultCall("list the names of keys", "LIST", f"{self._mount}/metadata/{FOLDER}/")
        answer = self._connection().ask(call)
        if answer.status == HTTPStatus.NOT_FOUND:
            return []
        return sorted(str(name) for name in field_of(answer, "keys", list, call) if not str(name).endswith("/"))

    def read(self, base: str) -> KvEntry:
        """Return the entry of a name; an empty one if there is none.

        Raises:
            VaultGarbledAnswerError: If something is there that isn't ours.
            VaultError: If the server refuses.
            NetworkError: If it doesn't answer.
        """
        call = VaultCall(f"read the entry of {shown(base)}", "GET", self._path(base))
        answer = self._connection().ask(call)
        metadata = answer.data.get("metadata")
        version = metadata.get("version") if isinstance(metadata, dict) else 0
        if (
            answer.status == HTTPStatus.NOT_FOUND
        ):  # never written, or deleted by somebody: a deleted one still has its version
            return KvEntry(version if isinstance(version, int) else 0, {})
        if answer.status == HTTPStatus.BAD_REQUEST or not isinstance(metadata, dict) or not isinstance(version, int):
            raise self._no_kv(base)
        data = field_of(answer, "data", dict, call)
        content = data.get("keys")
        records = (
            {label: Record.parse(each) for label, each in content.items()} if isinstance(content, dict) else {"": None}
        )
        own = {label: record for label, record in records.items() if record is not None and base_of(label) == base}
        if len(own) < len(records):
            raise VaultGarbledAnswerError(
                f"the entry {self._mount}/{FOLDER}/{base} isn't one that hsm-keys has written",
                hint="somebody has changed it: bring back an earlier version (bao kv rollback)",
            )
        return KvEntry(version, own)

    def write(self, base: str, entry: KvEntry, records: Mapping[str, Record]) -> KvEntry:
        """Write an entry in the place of the one that was seen, and return it. A lost answer is settled by looking.

        Raises:
            KeyBusyError: If somebody else has changed it since.
            VaultError: If the server refuses.
            OutcomeUnknownError: If the server doesn't answer any more.
        """
        call = VaultCall(f"write the entry of {shown(base)}", "POST", self._path(base), changes=True)
        keys = {label: record.as_dict() for label, record in sorted(records.items())}
        try:
            answer = self._connection().ask(call, {"options": {"cas": entry.version}, "data": {"keys": keys}})
        except OutcomeUnknownError:
            now = self.read(base)
            if now.version == entry.version + 1 and dict(now.records) == dict(records):
                return now
            if now.version == entry.version:
                raise  # it may still be under way
            raise _changed(base) from None
        if answer.status == HTTPStatus.BAD_REQUEST and answer.says(_CONFLICT):
            raise _changed(base)
        if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES or "version" not in answer.data:
            raise self._no_kv(base)
        return KvEntry(field_of(answer, "version", int, call), dict(records))

    def change(self, base: str, change: Callable[[Records], None]) -> KvEntry:
        """Change an entry, whatever others change in it at the same time; nothing is written where nothing changes.

        Args:
            base: The name.
            change: Changes the records; called again where somebody else was faster.

        Raises:
            KeyBusyError: If somebody else is faster again and again, or ``change`` says so.
        """
        for left in reversed(range(_ATTEMPTS)):
            entry = self.read(base)
            records = dict(entry.records)
            change(records)
            if records == dict(entry.records):
                return entry
            try:
                return self.write(base, entry, records)
            except KeyBusyError:
                if not left:
                    raise
        raise _changed(base)

    def _path(self, base: str) -> str:
        return f"{self._mount}/data/{FOLDER}/{quote(base, safe='')}"

    def _no_kv(self, base: str) -> StoreError:
        return VaultError(
            f"the engine at {self._mount}/ isn't one of KV version 2 (asked for the entry of {shown(base)})",
            hint="name a KV v2 engine: kv= in the store's URI; `bao kv enable-versioning` turns a version 1 into one",
        )


def _changed(base: str) -> KeyBusyError:
    return KeyBusyError(
        f"somebody else has changed the entry of {shown(base)} at the same moment",
        hint="run the same command again: it continues from there",
    )
