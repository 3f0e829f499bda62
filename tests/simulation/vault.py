"""Vault: a Transit engine and a KV v2 engine with check-and-set, behind a connection that answers as the server does.

Below the real ``VaultStore``, its ``Entries`` and ``Transit``.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hsm_keys.errors import NetworkError, OutcomeUnknownError
from hsm_keys.forks import fork_generation
from hsm_keys.stores.vault.entries import Entries
from hsm_keys.stores.vault.error_mapping import VaultAnswer, VaultCall, refusal_of
from hsm_keys.stores.vault.store import VaultStore
from hsm_keys.stores.vault.transit import Transit
from hsm_keys.stores.vault.uri import VaultUri
from tests.simulation import effects
from tests.simulation.pairs import Pair, pair_of
from tests.simulation.wrapping import WRAPPING_PEM, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.world import World

_T = TypeVar("_T")

_ADDRESS = "https://vault.example"
_CONFLICT = "check-and-set parameter did not match the current version"
_FOLDER = "secret/data/hsm-keys/"


@lru_cache(4096)
def _read(data: str) -> dict[str, Any]:
    """Return what JSON holds, to be looked at only."""
    content: dict[str, Any] = json.loads(data)
    return content


class TransitKey(NamedTuple):
    """A key of the engine."""

    pair: Pair
    imported: bool = False
    deletable: bool = False

    def said(self) -> dict[str, Any]:
        version = {"public_key": b64encode(self.pair.public).decode(), "creation_time": "2026-11-28T00:00:00Z"}
        return {
            "type": "ed25519",
            "keys": {"1": version},
            "latest_version": 1,
            "exportable": False,
            "allow_plaintext_backup": False,
            "deletion_allowed": self.deletable,
            "imported_key": self.imported,
            "derived": False,
        }


@dataclass
class Vault:
    """Two engines.

    Args:
        world: Their surroundings.
    """

    world: World
    keys: dict[str, TransitKey] = field(default_factory=dict)
    entries: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name to version and data, in JSON."""
    on_destroyed: list[Any] = field(default_factory=list)

    def publics(self) -> set[bytes]:
        """Return the public halves of the keys that it keeps."""
        return {key.pair.public for key in self.keys.values()}

    def _records(self) -> list[tuple[str, dict[str, Any]]]:
        return [each for _, data in self.entries.values() for each in _read(data).get("keys", {}).items()]

    def labels(self) -> dict[str, bytes]:
        """Return label and public half of each key that has one."""
        return {
            label: self.keys[record["transit_key"]].pair.public
            for label, record in self._records()
            if record["transit_key"] in self.keys and record.get("phase") != "making"
        }

    def litter(self) -> list[str]:
        """Return what shouldn't be there: keys without a record, and records without a key or half done."""
        named = {record["transit_key"] for _, record in self._records()}
        found = [f"a key {name} without a record" for name in self.keys if name not in named and "hsm-keys-" in name]
        found += [
            f"a record of {label} without a key"
            for label, record in self._records()
            if record["transit_key"] not in self.keys and record.get("phase") != "destroying"
        ]
        return found + [
            f"{label} is in the phase {record['phase']}"
            for label, record in self._records()
            if record.get("phase") is not None and record["transit_key"] in self.keys
        ]

    def snapshot(self) -> Any:
        return tuple(self.entries.items()), tuple(self.keys.items())

    state = snapshot

    def handles(self) -> tuple[int, ...]:
        return ()

    def restore(self, snapshot: Any) -> None:
        self.entries = dict(snapshot[0])
        self.keys = dict(snapshot[1])

    def open(self) -> VaultStore:
        """Open it, as a new process does."""
        return _Store(self)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer a request as the server does: a status, and its data or errors."""
        engine, _, rest = path.partition("/")
        return self._kv(method, path, body) if engine == "secret" else self._transit(method, rest, body)

    def _kv(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "LIST":
            return (200, {"keys": sorted(self.entries)}) if self.entries else (404, None)
        name = path.removeprefix(_FOLDER)
        version, data = self.entries.get(name, (0, ""))
        if method == "GET":
            if not data:
                return 404, None
            return 200, {"data": _read(data), "metadata": {"version": version}}
        if body["options"]["cas"] != version:
            return 400, [_CONFLICT]
        self.entries[name] = (version + 1, json.dumps(body["data"]))
        return 200, {"version": version + 1}

    def _transit(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        kind, _, rest = path.partition("/")
        name, _, what = rest.partition("/")
        if kind == "wrapping_key":
            return 200, {"public_key": WRAPPING_PEM}
        key = self.keys.get(name)
        if kind == "sign":
            if key is None:
                return 400, ["signing key not found"]
            signature = b64encode(key.pair.sign(b64decode(body["input"]))).decode()
            return 200, {"signature": f"vault:v1:{signature}"}
        if method == "GET":
            return (404, None) if key is None else (200, key.said())
        if method == "DELETE":
            return self._delete(name, key)
        return self._post(name, what, key, body)

    def _post(self, name: str, what: str, key: TransitKey | None, body: Any) -> tuple[int, Any]:
        if what == "config":
            if key is None:
                return 400, [f"no existing key named {name} could be found"]
            key = self.keys[name] = key._replace(deletable=bool(body["deletion_allowed"]))
            return 200, key.said()
        if what == "import":
            if key is not None:
                return 500, ["the import path cannot be used with an existing key"]
            self.keys[name] = TransitKey(pair_of(unwrapped(b64decode(body["ciphertext"]))), imported=True)
            return 204, None
        if key is None:
            assert body["type"] == "ed25519"
            key = self.keys[name] = TransitKey(self.world.pair())
        return 200, key.said()

    def _delete(self, name: str, key: TransitKey | None) -> tuple[int, Any]:
        if key is None or not key.deletable:
            return 400, ["could not delete key"]
        del self.keys[name]
        for hook in self.on_destroyed:
            hook(key.pair.public)
        return 204, None


def _lost(call: VaultCall) -> Callable[[bool], Exception]:
    def lost(sent: bool) -> Exception:
        if call.changes and sent:
            return OutcomeUnknownError(f"whether {call.what} was done isn't known", hint="run it again")
        return NetworkError(f"no answer to {call.what}")

    return lost


def _label(call: VaultCall) -> str:
    parts = call.path.split("/")
    last = f" {parts[3]}" if len(parts) > 3 and parts[0] == "transit" else ""
    return f"{call.method} {parts[0]}/{parts[1]}{last}"


@lru_cache(4096)
def _passing(call: VaultCall) -> effects.Call:
    return effects.Call(_label(call), call.changes, _lost(call))


class Connection:
    """Stands in for ``Connection``: one attempt at each call."""

    def __init__(self, vault: Vault) -> None:
        self.generation = fork_generation()
        self._vault = vault

    def ask(self, call: VaultCall, body: dict[str, Any] | None = None) -> VaultAnswer:
        return self._vault.world.effect(_passing(call), lambda: self._answer(call, body))

    def _answer(self, call: VaultCall, body: Any) -> VaultAnswer:
        status, said = self._vault.answer(call.method, call.path, body)
        answer = VaultAnswer(status, {"errors": said or []} if status >= 400 else {"data": said}, _ADDRESS)
        refusal = refusal_of(answer, call)
        if refusal is not None:
            raise refusal
        return answer

    def sign(self, call: VaultCall, content: bytes, read: Callable[[VaultAnswer], _T]) -> _T:
        return read(self.ask(call, json.loads(content)))

    def capabilities(self, paths: Sequence[str]) -> dict[str, list[str]] | None:
        return {path: ["deny"] for path in paths}

    def close(self) -> None:
        """Nothing is open."""


class _Store(VaultStore):
    def __init__(self, vault: Vault) -> None:
        uri = VaultUri(addresses=(_ADDRESS,))
        self._uri = uri  # type: ignore[misc]
        self._closed = False
        self._connection: Any = Connection(vault)
        self.transit = Transit(self.connection, uri.mount)  # type: ignore[misc]
        self.entries = Entries(self.connection, uri.kv)  # type: ignore[misc]
        self.uri = str(uri)
