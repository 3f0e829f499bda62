# ruff: noqa: INP001, T201 - a script that prints what it measures
"""Kalshi's SDKs with a key in a store, against the same SDK with its own key in memory, in the same run.

    python benchmarks/sdk.py

Needs the extras ``kms`` and ``sandbox``, the dependency group ``sdks``, SoftHSM, and ministack
(``python -m tests.support.install_ministack``). Whole requests go to the sandbox on loopback, which verifies each of
them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hsm_keys import open_store  # noqa: E402
from hsm_keys.integrations.kalshi_python import sign_with  # noqa: E402
from hsm_keys.sandbox import SandboxServer  # noqa: E402
from hsm_keys.signing.environments import environment_name  # noqa: E402
from tests.support import ministack  # noqa: E402
from tests.support.softhsm import SoftHsm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys import KeyStore, StoredKey

SLOW_S = 0.020
"""What a signature takes on a network HSM or on KMS from nearby, for the stalls."""


def p50s(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return medians in milliseconds; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 20):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= 20:  # noqa: PLR2004 - warm by then
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) * 1000 for name, taken in times.items()}


def show(title: str, medians: dict[str, float]) -> None:
    """Print medians, and what each adds to the first."""
    first = next(iter(medians.values()))
    print(title)
    for name, median in medians.items():
        print(f"  {name:<28} {median:7.3f} ms  {median - first:+7.3f} ms")


def enroll(store: KeyStore, sandbox: SandboxServer) -> StoredKey:
    """Make a registered key."""
    key = store.generate("prod")
    return store.bind(key, sandbox.add_key("prod", key.public_pem()).api_key_id, environment_name(sandbox.base_url))


def kalshi_sdk(sandbox: SandboxServer, keys: dict[str, StoredKey], rounds: int) -> None:
    """Measure what the drop-in key costs in kalshi-sdk."""
    kalshi = import_module("kalshi")
    auths = {"its own key, in memory": kalshi.KalshiAuth.from_pem(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)}
    auths |= {name: kalshi.KalshiAuth(key.api_key_id, key.private_key()) for name, key in keys.items()}
    config = kalshi.KalshiConfig(base_url=sandbox.base_url)
    clients = {name: kalshi.KalshiClient(auth=auth, config=config) for name, auth in auths.items()}
    path = "/trade-api/v2/portfolio/balance"
    signing = {name: lambda auth=auth: auth.sign_request("GET", path) for name, auth in auths.items()}
    show(f"kalshi-sdk {kalshi.__version__}: sign_request", p50s(signing, rounds))
    asking = {name: lambda client=client: client.portfolio.balance() for name, client in clients.items()}
    show(f"kalshi-sdk {kalshi.__version__}: portfolio.balance()", p50s(asking, rounds))
    for client in clients.values():
        client.close()


def kalshi_python(sandbox: SandboxServer, keys: dict[str, StoredKey], rounds: int) -> None:
    """Measure the same in kalshi-python-sync."""
    package = import_module("kalshi_python_sync")
    own = package.Configuration(host=sandbox.base_url)
    own.api_key_id, own.private_key_pem = sandbox.bootstrap_key_id, sandbox.bootstrap_pem
    clients = {"its own key, in memory": package.KalshiClient(own)}
    for name, key in keys.items():
        client = package.KalshiClient(package.Configuration(host=sandbox.base_url))
        clients[name] = sign_with(client, key.signer())
    asking = {name: lambda client=client: client.get_balance() for name, client in clients.items()}
    show(f"kalshi-python-sync {package.__version__}: get_balance()", p50s(asking, rounds))


class _Slow:
    """A key in a store that takes its time."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    def sign(self, *arguments: Any) -> bytes:
        time.sleep(SLOW_S)
        signature: bytes = self._key.sign(*arguments)
        return signature


async def longest_stall(work: Any) -> float:
    """Return for how many milliseconds the loop stood still at most while some work was done."""
    longest, done = 0.0, asyncio.ensure_future(work)
    while not done.done():
        began = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - began)
    await done
    return longest * 1000


async def stalls(sandbox: SandboxServer, key: StoredKey) -> None:
    """Measure what a slow signature does to the event loop, in the middle of seven requests."""
    kalshi, package = import_module("kalshi"), import_module("kalshi_python_async")
    auth = kalshi.KalshiAuth(key.api_key_id, _Slow(key.private_key()))
    sdk = kalshi.AsyncKalshiClient(auth=auth, config=kalshi.KalshiConfig(base_url=sandbox.base_url))
    signer = key.signer()
    signer._live = (*signer._live[:1], _Slow(key).sign, *signer._live[2:])  # noqa: SLF001 - nothing else slows a signer
    ours = sign_with(package.KalshiClient(package.Configuration(host=sandbox.base_url)), signer)
    theirs = package.KalshiClient(package.Configuration(host=sandbox.base_url))
    theirs.kalshi_auth = package.auth.KalshiAuth(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)
    theirs.kalshi_auth.private_key = _Slow(key.private_key())
    theirs.kalshi_auth.key_id = key.api_key_id
    theirs.kalshi_auth.sign = lambda message: _Slow(key).sign(message)
    fix = import_module("kalshi.fix").FixSigner.from_auth(auth)

    async def logon() -> None:
        fix.sign_logon(sending_time="20260102-03:04:05.678", msg_seq_num=1, target_comp_id="KalshiNR")

    print(f"longest stall of the event loop with a signature of {SLOW_S * 1000:.0f} ms")
    for name, work in {
        "kalshi-sdk, AsyncKalshiClient": sdk.portfolio.balance,
        "kalshi-python-async, sign_with": ours.get_balance,
        "kalshi-python-async, kalshi_auth": theirs.get_balance,
        "kalshi-sdk, FIX Logon": logon,
    }.items():
        await work()
        print(f"  {name:<34} {statistics.median([await longest_stall(work()) for _ in range(7)]):6.1f} ms")
    await sdk.close()
    await ours.close()
    await theirs.close()


class _Environment:
    setenv = staticmethod(os.environ.__setitem__)


def main(rounds: int = 500) -> None:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as folder, SandboxServer() as sandbox:
        hsm = SoftHsm(Path(folder))
        os.environ["SOFTHSM2_CONF"] = str(hsm.conf)
        ministack.credentials(_Environment(), ministack.start())  # type: ignore[arg-type]  # all it needs of a MonkeyPatch
        with open_store(hsm.init_token().uri) as token, open_store(f"awskms:///?region={ministack.REGION}") as kms:
            keys = {"SoftHSM": enroll(token, sandbox), "KMS (ministack)": enroll(kms, sandbox)}
            print(f"p50 of {rounds}, RSA-2048, Python {sys.version.split()[0]}")
            kalshi_sdk(sandbox, keys, rounds)
            kalshi_python(sandbox, keys, rounds)
            asyncio.run(stalls(sandbox, keys["SoftHSM"]))
        assert all(seen.verified for seen in sandbox.requests)  # noqa: S101 - what was refused wasn't measured


if __name__ == "__main__":
    main()
