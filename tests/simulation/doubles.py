"""Puts the doubles in the place of what leaves a process, for as long as lives are simulated."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, nullcontext
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
import stamina
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

import hsm_keys.lifecycle.ending
import hsm_keys.lifecycle.locking
import hsm_keys.signing.algorithms
import hsm_keys.signing.flow
import hsm_keys.signing.signer
import hsm_keys.signing.wrapping
import hsm_keys.stores.awskms.importing
import hsm_keys.stores.pkcs11.importing
import hsm_keys.stores.pkcs11.marks
import hsm_keys.stores.pkcs11.objects
import hsm_keys.stores.vault.creation
import hsm_keys.stores.vault.entries
import hsm_keys.stores.vault.importing
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.stores.awskms.uri import AwsKmsUri
from hsm_keys.stores.pkcs11.marks import fingerprint, read_mark
from hsm_keys.stores.uri import Pkcs11Uri
from hsm_keys.stores.vault.records import Record
from hsm_keys.stores.vault.uri import VaultUri
from hsm_keys.values import looks_secret
from tests.simulation.clock import attempts
from tests.simulation.pairs import pair_of, verifies
from tests.simulation.wrapping import wrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.world import World

_PATIENCE: Final = {name: getattr(hsm_keys.lifecycle.ending, name) for name in ("SETTLE_S", "LATE_S")}


class Stage:
    """The world of the life that is being lived in this process; the doubles look it up here."""

    world: World
    opened: list[tuple[str, str, str]]
    """By descriptor: machine, store and name of a lock."""
    holders: dict[tuple[str, str, str], int]

    def begin(self, world: World) -> None:
        self.world = world
        self.opened = []
        self.holders = {}


STAGE = Stage()


class _Time:
    """Stands in for the module ``time`` where requests are signed: a process has its own clock."""

    @staticmethod
    def time_ns() -> int:
        process = STAGE.world.process
        return int((STAGE.world.clock.now + (process.skew_s if process else 0.0)) * 1e9)

    @staticmethod
    def monotonic() -> float:
        return STAGE.world.clock.now


class _Locks:
    """Stands in for the locks of machines: one holder of a name at a time on each."""

    @staticmethod
    def opened(store: Any, name: str) -> int:
        process = STAGE.world.process
        assert process is not None
        STAGE.opened.append((process.machine, store.describe(), name))
        return len(STAGE.opened) - 1

    @staticmethod
    def try_lock(descriptor: int) -> bool:
        return STAGE.holders.setdefault(STAGE.opened[descriptor], descriptor) == descriptor

    @staticmethod
    def close(descriptor: int) -> None:
        if STAGE.holders.get(STAGE.opened[descriptor]) == descriptor:
            del STAGE.holders[STAGE.opened[descriptor]]


def _retry_context(on: Any, **options: Any) -> Iterator[Any]:
    world = STAGE.world
    jitter = world.process.jitter if world.process else float
    return attempts(world.clock, jitter, world.wait, on=on, **options)


def _sleep(seconds: float) -> None:
    STAGE.world.wait(seconds)


class _Thread:
    """Stands in for a thread that looks a key up aside: it does so at once."""

    def __init__(self, *, target: Any, **_: Any) -> None:
        self.start = target


def _token_hex(length: int) -> str:
    return STAGE.world.unique_bytes(length).hex()


def _random_id(length: int) -> bytes:
    return STAGE.world.unique_bytes(length)


@cache
def _fingerprint(public: bytes) -> bytes:
    return fingerprint(pair_of(public).public_key)


_parse_record = Record.parse
_records: dict[frozenset[Any], Record | None] = {}


def _parse(content: dict[str, Any]) -> Record | None:
    """Stand in for ``Record.parse``: its answer depends on nothing else."""
    content_key = frozenset(content.items())
    record = _records.get(content_key)
    if record is None:
        record = _records[content_key] = _parse_record(content)
    return record


def everywhere(patch: pytest.MonkeyPatch, name: str, real: object, double: object) -> None:
    """Replace a function in every module that has imported it."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("hsm_keys") and vars(module).get(name) is real:
            patch.setattr(module, name, double)


@contextmanager
def doubles() -> Iterator[None]:
    """Let the workflows run on doubles; threads that aren't a life's must not use them meanwhile."""
    locking = hsm_keys.lifecycle.locking
    searched = hsm_keys.stores.pkcs11.objects._searched
    with pytest.MonkeyPatch.context() as patch:
        everywhere(patch, "verifies", hsm_keys.signing.algorithms.verifies, verifies)
        everywhere(patch, "wrap", hsm_keys.signing.wrapping.wrap, wrap)
        patch.setattr(stamina, "retry_context", _retry_context)
        patch.setattr(time, "sleep", _sleep)
        for name, seconds in _PATIENCE.items():  # other tests wait for less
            patch.setattr(hsm_keys.lifecycle.ending, name, seconds)
        patch.setattr(hsm_keys.signing.signer, "time", _Time)
        patch.setattr(hsm_keys.signing.flow, "time", _Time)
        threads = SimpleNamespace(Thread=_Thread)
        patch.setattr(hsm_keys.signing.signer, "threading", threads)
        patch.setattr(
            hsm_keys.signing.signer, "_looking", nullcontext()
        )  # it is one for each process, which is a thread here
        patch.setattr(locking, "_opened", _Locks.opened)
        patch.setattr(locking, "try_lock", _Locks.try_lock)
        patch.setattr(locking, "os", SimpleNamespace(close=_Locks.close))
        tokens = SimpleNamespace(token_hex=_token_hex)
        patch.setattr(hsm_keys.stores.vault.entries, "secrets", tokens)
        patch.setattr(hsm_keys.stores.vault.creation, "secrets", tokens)
        patch.setattr(hsm_keys.stores.vault.importing, "secrets", tokens)
        patch.setattr(hsm_keys.stores.pkcs11.marks, "os", SimpleNamespace(urandom=_random_id))
        for real in (
            check_api_key_id,
            looks_secret,
            read_mark,
            load_der_public_key,
        ):  # their answers depend on nothing else
            everywhere(patch, real.__name__, real, cache(real))
        read_point = cache(Ed25519PublicKey.from_public_bytes)
        patch.setattr(Ed25519PublicKey, "from_public_bytes", staticmethod(read_point))
        patch.setattr(Record, "parse", staticmethod(_parse))
        everywhere(patch, "fingerprint", fingerprint, lambda key: _fingerprint(key.public_bytes_raw()))
        for kind in (Pkcs11Uri, VaultUri, AwsKmsUri):  # each key has one, and a life looks at keys a hundred times
            patch.setattr(kind, "__str__", cache(kind.__str__))
        pkcs11 = hsm_keys.stores.pkcs11
        patch.setattr(pkcs11.importing, "_throwaway", lambda _: STAGE.world.pair().private_key)
        patch.setattr(
            pkcs11.objects,
            "_searched",
            lambda session, template: (
                session.search(template) if hasattr(session, "search") else searched(session, template)
            ),
        )
        yield
