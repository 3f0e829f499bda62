# ruff: noqa: INP001, T201 - a script that prints what it measures
"""Signing through AWS KMS, measured against bare boto3 on the same server in the same run.

    python benchmarks/kms.py

Needs the extra ``kms``, boto3, and ministack (``python -m tests.support.install_ministack``). The rates are taken on a
server that answers after 10 ms with a signature that it made before: what is measured is the client.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import boto3  # type: ignore[import-untyped]  # noqa: E402 - boto3 has no annotations
from botocore.config import Config  # type: ignore[import-untyped]  # noqa: E402 - nor has botocore
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding  # noqa: E402

from hsm_keys.errors import HsmKeysError  # noqa: E402
from hsm_keys.stores.awskms import open_kms  # noqa: E402
from tests.support import ministack  # noqa: E402
from tests.support.kms_faults import Body, Fault, FaultyKms, Hang, Refuse, Reset, Seen, rsa_key  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

MESSAGE: Final = b"1703123456789GET/trade-api/v2/portfolio/balance"
REGION: Final = "us-east-1"
URI: Final = f"awskms:///?region={REGION}"
DELAY_S: Final = 0.010
THREADS: Final = 32


def point_to(url: str) -> None:
    """Point AWS's variables to a server, for this process and its children."""

    class Environment:
        setenv = staticmethod(os.environ.__setitem__)

    ministack.credentials(Environment(), url)  # type: ignore[arg-type]  # all it needs of a MonkeyPatch


def bare(key_id: str) -> Callable[[], bytes]:
    """Return a bare boto3 signature: nothing of it is checked."""
    config: Any = Config(max_pool_connections=THREADS)
    client: Any = boto3.client("kms", region_name=REGION, config=config)

    def sign() -> bytes:
        answer = client.sign(KeyId=key_id, Message=MESSAGE, MessageType="RAW", SigningAlgorithm="RSASSA_PSS_SHA_256")
        signature: bytes = answer["Signature"]
        return signature

    return sign


def percentile(times_s: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return sorted(times_s)[int(len(times_s) * share)] * 1000


def latency(rounds: int = 3000) -> None:
    """One thread on ministack, the two interleaved in changing order."""
    point_to(ministack.start())
    with open_kms(URI) as store:
        key = store.generate("prod")
        ways: dict[str, Callable[[], bytes]] = {"boto3": bare(key.arn), "hsm-keys": lambda: key.sign(MESSAGE)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 200):
            for name in sorted(ways, reverse=bool(number % 2)):
                started = time.perf_counter()
                ways[name]()
                if number >= 200:  # noqa: PLR2004 - warmed up
                    times[name].append(time.perf_counter() - started)
    for name, taken in times.items():
        print(f"latency   {name:<9} p50 {percentile(taken, 0.5):.3f} ms  p99 {percentile(taken, 0.99):.3f} ms")
    ratio = percentile(times["hsm-keys"], 0.5) / percentile(times["boto3"], 0.5)
    print(f"latency   hsm-keys / boto3 at p50: {ratio:.3f} (target 1.05, verification included)")


class SlowSigner(asyncio.Protocol):
    """Answers every call after 10 ms: what was made before for Sign, a short list for the others."""

    answers: Final[dict[bytes, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport: Any = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer once the body is there; KMS's clients don't pipeline."""
        self.received += data
        head, mark, body = self.received.partition(b"\r\n\r\n")
        lower = head.lower()
        if not mark or len(body) < int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]):
            return
        operation = lower.split(b"x-amz-target: trentservice.")[1].split(b"\r\n")[0]
        self.received = b""
        asyncio.get_running_loop().call_later(DELAY_S, self.transport.write, self.answers[operation])


def serve_slowly(ready: Connection) -> None:
    """Run the slow server in a process of its own."""
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    kms = FaultyKms()
    seen = Seen("", REGION, {}, 0, "")
    signature = b64encode(rsa_key().sign(MESSAGE, pss, hashes.SHA256())).decode()
    for operation, answer in {
        b"getpublickey": kms._GetPublicKey(seen),  # noqa: SLF001 - the stand-in's own answers
        b"listresourcetags": kms._ListResourceTags(seen),  # noqa: SLF001
        b"sign": {"KeyId": "key", "Signature": signature, "SigningAlgorithm": "RSASSA_PSS_SHA_256"},
    }.items():
        body = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n"
        SlowSigner.answers[operation] = head % len(body) + body

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(SlowSigner, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def rate(sign: Callable[[], object], threads: int, seconds: float) -> float:
    """Return signatures a second on that many threads."""
    counts = [0] * threads
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            sign()
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - started)


def rate_in_process(way: str, threads: int, seconds: float, result: Connection, start: Any) -> None:
    """Measure in a fresh process, from a common start."""
    with open_kms(URI) as store:
        key = store.key("prod")
        sign: Callable[[], object] = bare(key.arn) if way == "boto3" else lambda: key.sign(MESSAGE)
        rate(sign, threads, 0.5)
        start.wait()
        result.send(rate(sign, threads, seconds))


def rates_in_processes(way: str, processes: int, threads: int, seconds: float) -> float:
    """Return the rate of several processes together."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes)
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [
        context.Process(target=rate_in_process, args=(way, threads, seconds, sender, start)) for _, sender in pipes
    ]
    for worker in workers:
        worker.start()
    total = sum(receiver.recv() for receiver, _ in pipes)
    for worker in workers:
        worker.join()
    return float(total)


def throughput(seconds: float = 4.0) -> None:
    """Many threads, and several processes, on a server that takes 10 ms."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    server = context.Process(target=serve_slowly, args=(sender,), daemon=True)
    server.start()
    point_to(f"http://127.0.0.1:{receiver.recv()}")
    for processes, threads in ((1, THREADS), (4, THREADS // 4)):
        found: dict[str, list[float]] = {"boto3": [], "hsm-keys": []}
        for turn in range(4):
            for way in sorted(found, reverse=bool(turn % 2)):
                found[way].append(rates_in_processes(way, processes, threads, seconds))
        of = {way: statistics.median(rates) for way, rates in found.items()}
        print(
            f"rate      {processes} x {threads:<2} threads, server 10 ms: boto3 {of['boto3']:.0f}/s  "
            f"hsm-keys {of['hsm-keys']:.0f}/s  share {of['hsm-keys'] / of['boto3']:.3f} (target 0.95)"
        )
    server.terminate()
    server.join()


FAULTS: Final[dict[str, Fault]] = {
    "throttled": Refuse("ThrottlingException"),
    "access denied": Refuse("AccessDeniedException"),
    "disabled": Refuse("DisabledException", "key is disabled."),
    "pending deletion": Refuse("KMSInvalidStateException", "key is pending deletion."),
    "expired credentials": Refuse("ExpiredTokenException"),
    "hangs": Hang(),
    "resets": Reset(),
    "garbage": Body(b"<html>"),
}


def faults() -> None:
    """The time of each fault's error, with the default of 2 attempts inside 2 s."""
    for name, fault in FAULTS.items():
        with FaultyKms() as kms:
            point_to(kms.url)
            with open_kms(URI) as store:
                key = store.key("prod")
                key.sign(MESSAGE)
                kms.always("Sign", fault)
                started = time.perf_counter()
                try:
                    key.sign(MESSAGE)
                except HsmKeysError as error:
                    taken = (time.perf_counter() - started) * 1000
                    sent = len(kms.of("Sign")) - 1
                    print(f"fault     {name:<20} {taken:7.1f} ms  {sent} attempt(s)  {error.exit_code} {error.code}")


def failover(per_second: int = 50, seconds: int = 12) -> None:
    """A steady load while the preferred Region dies (hangs), and comes back."""
    times: list[tuple[float, float]] = []
    lost: list[str] = []

    def one(moment: float) -> None:
        started = time.perf_counter()
        try:
            key.sign(MESSAGE)
            times.append((moment, time.perf_counter() - started))
        except HsmKeysError as error:
            lost.append(error.message)

    with FaultyKms() as kms:
        point_to(kms.url)
        with open_kms(f"awskms:///?region={REGION},us-west-2") as store:
            key = store.key("prod")
            key.sign(MESSAGE)
            begin = time.perf_counter()
            workers = []
            for number in range(per_second * seconds):
                moment = number / per_second
                time.sleep(max(0.0, begin + moment - time.perf_counter()))
                if number == per_second * 2:
                    kms.always("*", Hang(), region=REGION)
                if number == per_second * 4:
                    kms.always("*", None, region=REGION)
                workers.append(threading.Thread(target=one, args=(moment,)))
                workers[-1].start()
            for worker in workers:
                worker.join()
        last = kms.of("Sign")[-1].region
    late = [taken for _, taken in times if taken > 0.5]  # noqa: PLR2004 - half a second
    print(
        f"fail-over {per_second}/s, first Region hangs from 2 s to 4 s: {len(times)} signed, {len(lost)} lost, "
        f"{len(late)} late, worst {max(taken for _, taken in times) * 1000:.0f} ms, at the end in {last}"
    )


def cold_start(runs: int = 10) -> None:
    """A whole ``hsm-keys sign``, from exec to exit, on KMS and on SoftHSM."""
    from tests.support.softhsm import SoftHsm, missing

    point_to(ministack.start())
    with open_kms(URI) as store:
        store.generate("prod")
    timed("cold      hsm-keys sign on KMS", runs, "--kms", "--region", REGION)
    if missing():
        return
    with tempfile.TemporaryDirectory() as folder:
        token = SoftHsm(Path(folder)).init_token()
        os.environ["SOFTHSM2_CONF"] = str(Path(folder) / "softhsm2.conf")
        from hsm_keys import open_store

        with open_store(token.uri) as tokens:
            tokens.generate("prod")
        timed("cold      hsm-keys sign on SoftHSM", runs, "--store", token.uri)


def timed(label: str, runs: int, *store: str) -> None:
    """Print the median time of a command in a fresh process."""
    command = [sys.executable, "-m", "hsm_keys", "sign", "GET", "/markets", "--name", "prod", "--api-key-id", "id"]
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run([*command, *store], check=True, capture_output=True, cwd=ROOT)  # noqa: S603
        taken.append(time.perf_counter() - started)
    print(f"{label}: median {statistics.median(taken) * 1000:.0f} ms, best {min(taken) * 1000:.0f} ms")


if __name__ == "__main__":
    latency()
    throughput()
    faults()
    failover()
    cold_start()
