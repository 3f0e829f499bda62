# ruff: noqa: INP001, T201 - a script that prints what it measures
"""What signing costs a client: ``signer.headers()`` over the bare signature, and how long an event loop is held up.

``python benchmarks/clients.py`` needs nothing but the project: the key is in memory, and the token that takes its time
is a sleep of 20 ms (a KMS one Region away). Where SoftHSM is, ``signer.headers()`` is compared with its own C_Sign, and
two threads with one. Each comparison is made in one run, in turns.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))

from hsm_keys import AsyncKalshiClient, RequestSigner, open_store
from hsm_keys.bench.measure import measure, measure_in_turns, order_headers
from hsm_keys.sandbox import SandboxServer
from hsm_keys.signing.pem import PemKey
from hsm_keys.stores.pkcs11.store import Pkcs11Key, Pkcs11Store
from tests.support import softhsm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 5000
PATH = "/trade-api/v2/portfolio/balance"


class Free:
    """A key whose signature costs nothing."""

    name, api_key_id = "free", "0f8fad5b-d9cb-469f-a165-70867728950e"

    def sign(self, message: bytes, /) -> bytes:
        """Return 256 bytes."""
        return message[:1] * 256


class Slow:
    """A key that takes as long as a KMS."""

    def __init__(self, key: PemKey, seconds: float) -> None:
        self.name, self.api_key_id, self._key, self._seconds = key.name, key.api_key_id, key, seconds

    def sign(self, message: bytes, /) -> bytes:
        """Sign after a while."""
        time.sleep(self._seconds)
        return self._key.sign(message)


def microseconds(call: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Return how long each call took."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - begun) / 1000)
    return taken


def overhead() -> None:
    """Compare headers() with the signature that it makes."""
    key = Free()
    signer = RequestSigner(key)
    bare = microseconds(lambda: key.sign(b"1703123456789GET/trade-api/v2/portfolio/balance"))
    whole = microseconds(lambda: signer.headers("GET", PATH))
    print(f"headers() over the signature: p50 {statistics.median(whole) - statistics.median(bare):.1f} microseconds")


def token(seconds: float = 3.0) -> None:
    """Compare headers() with the raw C loop, and two threads with one, on SoftHSM."""
    with tempfile.TemporaryDirectory() as folder:
        hsm = softhsm.SoftHsm(Path(folder))
        os.environ["SOFTHSM2_CONF"] = str(hsm.conf)
        with open_store(hsm.init_token().uri) as store:
            assert isinstance(store, Pkcs11Store)  # noqa: S101 - its loop is what a token does at best
            key = store.bind(store.generate("prod"), Free.api_key_id, "prod")
            assert isinstance(key, Pkcs11Key)  # noqa: S101
            with store.raw(key) as raw:
                headers, loop = measure_in_turns(
                    {"headers": order_headers(key.signer()), "C_Sign": raw}, seconds=seconds
                )
            rates: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(5):
                for threads, measured in rates.items():
                    measured.append(measure("store", key.sign, threads=threads, seconds=seconds / 5).rate)
    p50s = headers.percentile(50), loop.percentile(50)
    print(f"headers() over C_Sign, p50: {p50s[0]:.1f} to {p50s[1]:.1f} us, {p50s[0] / p50s[1]:.3f} (at most 1.05)")
    one, two = (statistics.median(measured) for measured in rates.values())
    print(f"two threads to one: {two:,.0f} to {one:,.0f} a second, {two / one:.2f} (at least 1.85)")


async def stall(use: Callable[[], Awaitable[Any]], requests: int) -> float:
    """Return the longest time in milliseconds that the loop didn't run while requests were sent one by one."""
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        while running:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - begun - 0.001)

    watcher = asyncio.create_task(watch())
    await use()  # a new client loads certificates and connects
    await asyncio.sleep(0.05)
    longest = 0.0
    for _ in range(requests):
        await use()
    running = False
    await watcher
    return longest * 1000


async def stalls(server: SandboxServer, requests: int = 50) -> None:
    """Compare the loop's longest stall: a client that signs in the loop, signer.auth(), AsyncKalshiClient, unsigned."""
    signer = RequestSigner(Slow(PemKey(server.bootstrap_key_id, server.bootstrap_pem), 0.020))
    url = f"{server.base_url}/portfolio/balance"
    async with httpx2.AsyncClient() as plain:
        print(f"unsigned: {await stall(lambda: plain.get(url), requests):.1f} ms")
        in_the_loop = await stall(lambda: plain.get(url, headers=signer.headers("GET", PATH)), requests)
        print(f"signed in the loop: {in_the_loop:.1f} ms")
    async with httpx2.AsyncClient(auth=signer.auth(base_url=server.base_url)) as client:
        print(f"signer.auth(): {await stall(lambda: client.get(url), requests):.1f} ms")
    async with AsyncKalshiClient(signer, base_url=server.base_url) as kalshi:
        used = await stall(lambda: kalshi.request("GET", "/portfolio/balance"), requests)
        print(f"AsyncKalshiClient: {used:.1f} ms")


if __name__ == "__main__":
    overhead()
    if softhsm.missing() is None:
        token()
    with SandboxServer(tier="premier") as sandbox:
        asyncio.run(stalls(sandbox))
