# ruff: noqa: INP001, T201, S603, S607 - a part of scripts that print what they measure
"""What is to be had on a machine without the product, and what was measured of each target."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Final

from hsm_keys.stores import open_store

TARGETS: list[Target] = []
_SHORTEST_S: Final = 0.5
_OPENSSL: Final = {"+F2": "RSA-2048", "+F6": "Ed25519"}
"""How lines of ``openssl speed -mr`` begin; signatures a second, and verifications, stand at their end."""

_PATH: Final = "/trade-api/v2/portfolio/balance"


@dataclass
class Limit:
    """What is to be had on this machine without the product: a number, and what it is of."""

    value: float
    of: str


@dataclass
class Target:
    """What was measured of a target; ``used`` is the share of it that was used up."""

    used: float
    said: str
    limit: str = ""


def target(what: str, measured: float, most: float, unit: str, limit: Limit | None = None) -> None:
    """Note what was measured of a target, and the most that it may be."""
    said = f"{what}: {measured:.4g} of at most {most:.4g} {unit}"
    TARGETS.append(Target(measured / most, said, _shown(limit, unit, limit.value / measured) if limit else ""))


def at_least(what: str, measured: float, least: float, unit: str, limit: Limit | None = None) -> None:
    """Note what was measured of a target, and the least that it may be."""
    said = f"{what}: {measured:.4g} of at least {least:.4g} {unit}"
    TARGETS.append(Target(least / measured, said, _shown(limit, unit, measured / limit.value) if limit else ""))


def _shown(limit: Limit, unit: str, reached: float) -> str:
    return f"limit here: {limit.value:.4g} {unit} ({limit.of}), of which {reached:.0%} is reached"


@dataclass
class Signatures:
    """What signatures cost without a proxy: time and processor time of one, and the module's own rates by threads."""

    us: float
    cpu_us: float
    rates: dict[int, float]


def signatures(uri: str, name: str, scale: float) -> Signatures:
    """Sign on one thread as the library does, then let the module alone sign on one thread and on two."""
    with open_store(uri) as store:
        key = store.key(name)
        signer, taken = key.signer(), []
        for number in range(int(3000 * scale) + 100):
            begun = time.perf_counter()
            signer.headers("GET", f"{_PATH}/{number}")
            taken.append(time.perf_counter() - begun)
        seconds = max(_SHORTEST_S, 2 * scale)
        counts: list[int] = []
        cpu_us: list[float] = []

        def sign() -> None:
            with store.raw(key) as raw:
                until, count, begun = time.perf_counter() + seconds, 0, time.thread_time()
                while time.perf_counter() < until:
                    raw(b"%d" % count)
                    count += 1
                cpu_us.append((time.thread_time() - begun) * 1e6 / count)
                counts.append(count)

        rates = {}
        for threads in (1, 2):
            counts.clear()
            running = [threading.Thread(target=sign) for _ in range(threads)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            rates[threads] = sum(counts) / seconds
    signature = Signatures(sorted(taken)[len(taken) // 2] * 1e6, cpu_us[0], rates)
    print(
        f"{name}: a signature takes {signature.us:.0f} us; C_Sign alone {signature.cpu_us:.0f} us of the processor, "
        f"{rates[1]:.0f}/s on one thread, {rates[2]:.0f}/s on two"
    )
    return signature


def openssl_speed() -> None:
    """Print what openssl signs on one processor and on two."""
    for processes in ("1", "2"):
        done = subprocess.run(
            ["openssl", "speed", "-seconds", "1", "-mr", "-multi", processes, "ed25519", "rsa2048"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        lines = [line.split(":") for line in done.stdout.splitlines() if line.startswith(tuple(_OPENSSL))]
        rates = ", ".join(
            f"{'RSA-2048' if fields[0] == '+F2' else 'Ed25519'} {float(fields[-2]):.0f}/s" for fields in lines
        )
        print(f"openssl speed on {processes} of the processors: {rates}")
