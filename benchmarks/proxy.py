# ruff: noqa: INP001, T201, S101, S603, D103, ANN001, ANN201, PLR2004 - a script that prints what it measures
"""What the proxy costs, all in one run on one machine: ``./softhsm-setup.sh python benchmarks/proxy.py``.

The sandbox, the proxies and the client are processes or threads of their own; on two cores they share them. A plain
forward is the same HTTP library without judging, signing and audit. The last lines hold each target against what was
measured: the share of it that was used up, where 100 % is the target. ``--scale 0.05`` is a quick run that shows
that everything works, and measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import httpx2
from aiohttp import web

from hsm_keys.proxy.audit import AuditTrail
from hsm_keys.proxy.verifying import verify
from hsm_keys.sandbox import SandboxServer
from hsm_keys.signing.pem import load_private_key
from hsm_keys.stores import open_store
from tests.support.softhsm import SoftHsm

PATH = "/trade-api/v2/portfolio/balance"
SCALE = 1.0
TARGETS: list[tuple[float, str]] = []


def target(what: str, measured: float, most: float, unit: str) -> None:
    """Note what was measured of a target, and the most that it may be."""
    TARGETS.append((measured / most, f"{what}: {measured:.3g} of at most {most:g} {unit}"))


def p(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)] * 1000


def latencies(client: httpx2.Client, url: str, headers=dict, pause: float = 0.0, statuses: set[int] | None = None):
    taken = []
    for number in range(int(2000 * SCALE) + 200):
        begun = time.perf_counter()
        answer = client.get(url, headers=headers())
        if number >= 200:
            taken.append(time.perf_counter() - begun)
        assert answer.status_code in (statuses or {200}), answer.text
        if pause:
            time.sleep(pause)
    return taken


def plain_forward(origin: str, path: str) -> None:
    """Forward without doing anything."""

    async def serve() -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def forward(request: web.BaseRequest) -> web.StreamResponse:
                async with session.request(request.method, origin + request.raw_path) as answer:
                    return web.Response(status=answer.status, headers=answer.headers, body=await answer.read())

            runner = web.ServerRunner(web.Server(forward, access_log=None))
            await runner.setup()
            await web.UnixSite(runner, path).start()
            await asyncio.Event().wait()

    asyncio.run(serve())


def started(folder: Path, name: str, *options: str, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "hsm_keys", "proxy", "--name", "prod", "--socket", str(folder / name), *options],
        env={
            **os.environ,
            "XDG_STATE_HOME": str(folder / f"{name}-state"),
            "XDG_RUNTIME_DIR": str(folder),
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    print(process.stderr.readline().strip(), file=sys.stderr)
    return process


def over(socket: Path) -> httpx2.Client:
    return httpx2.Client(transport=httpx2.HTTPTransport(uds=str(socket)), timeout=30)


def rate(socket: Path, path: str = PATH, clients: int = 16) -> float:
    """Requests a second with several clients on one loop."""
    seconds = max(1.5, 4 * SCALE)

    async def run() -> float:
        connector = aiohttp.UnixConnector(str(socket), limit=clients)
        done = 0
        async with aiohttp.ClientSession(connector=connector) as session:
            end = time.perf_counter() + seconds

            async def ask() -> None:
                nonlocal done
                while time.perf_counter() < end:
                    async with session.get(f"http://localhost{path}") as answer:
                        await answer.read()
                    done += 1

            await asyncio.gather(*(ask() for _ in range(clients)))
        return done / seconds

    return asyncio.run(run())


def signing_rate(signer, threads: int) -> float:
    """Signatures a second with so many threads."""
    count = int(1000 * SCALE) + 1

    def sign(_thread: int) -> None:
        for _ in range(count):
            signer.headers("GET", PATH)

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        list(pool.map(sign, range(threads)))
        return threads * count / (time.perf_counter() - begun)


def stub(port_to: multiprocessing.connection.Connection) -> None:
    """A Kalshi that answers at once and verifies nothing: for throughput, where the sandbox would be the limit.

    ``/last`` says when the last signed request arrived, on the clock that all processes share.
    """
    last = 0.0

    async def serve() -> None:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            nonlocal last
            if request.path == "/last":
                return web.json_response(last)
            if "KALSHI-ACCESS-SIGNATURE" in request.headers:
                last = time.monotonic()
            return web.Response(text='{"balance":1}', content_type="application/json")

        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port_to.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(serve())


def main() -> None:
    global SCALE  # noqa: PLW0603 - one run, one scale
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0)
    SCALE = parser.parse_args().scale
    folder = Path(tempfile.mkdtemp(prefix="hsm-"))
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)
    print("\ntarget used up")
    for share, what in TARGETS:
        print(f"{share:6.0%}  {what}")


def measure(folder: Path) -> None:
    softhsm = SoftHsm(folder)
    os.environ["SOFTHSM2_CONF"] = str(softhsm.conf)
    token = softhsm.init_token()
    with SandboxServer() as sandbox:
        os.environ |= {
            "KALSHI_API_BASE_URL": sandbox.base_url,
            "HSM_KEYS_STORE": token.uri,
            "KALSHI_KEY_ID": sandbox.bootstrap_key_id,
            "KALSHI_PRIVATE_KEY": sandbox.bootstrap_pem,
        }
        subprocess.run([sys.executable, "-m", "hsm_keys", "enroll", "--name", "prod"], check=True, capture_output=True)
        origin = sandbox.base_url.removesuffix("/trade-api/v2")
        forwarding = multiprocessing.Process(target=plain_forward, args=(origin, str(folder / "plain")), daemon=True)
        forwarding.start()
        proxy = started(folder, "door")
        with open_store(token.uri) as store, httpx2.Client() as direct:
            signer = store.key("prod").signer()
            measured = {
                "direct, signed (httpx2)": latencies(direct, origin + PATH, lambda: signer.headers("GET", PATH)),
                "through the proxy": latencies(over(folder / "door"), f"http://localhost{PATH}"),
                "direct, again": latencies(direct, origin + PATH, lambda: signer.headers("GET", PATH)),
            }
            rates = {threads: signing_rate(signer, threads) for threads in (1, 2, 4)}
        print("the token alone: " + ", ".join(f"{rate:.0f}/s on {threads} threads" for threads, rate in rates.items()))
        proxy.terminate()
        proxy.wait()
        ahead = started(folder, "ahead", "--presign", "4", "--presign-rate", "500")
        public = "http://localhost/trade-api/v2/exchange/status"
        for pause in (0.025, 0.005):  # at 5 ms caches are warmer, and the worker signs beside each other request
            apart = f"public path, {pause * 1000:.0f} ms apart"
            measured[f"plain forward, no signature, {apart}"] = latencies(over(folder / "plain"), public, pause=pause)
            measured[f"proxy, signed ahead, {apart}"] = latencies(over(folder / "ahead"), public, pause=pause)
        ahead.terminate()
        ahead.wait()
        for what, values in measured.items():
            print(f"{what:58} p50 {p(values, 0.5):.3f} ms  p99 {p(values, 0.99):.3f} ms")
        first, through, again, plain, signed_ahead, often_plain, often_ahead = (
            p(values, 0.5) for values in measured.values()
        )
        direct = (first + again) / 2
        print(
            f"through the proxy: {through / direct:.2f} times a direct request; "
            f"signed ahead {signed_ahead / plain:.2f} and {often_ahead / often_plain:.2f} times a plain forward"
        )
        target("p50 added to a direct signed request", through - direct, 1.0, "ms")
        target("p50 added to a plain forward when signed ahead", signed_ahead - plain, 0.3, "ms")
        forwarding.kill()
    throughput(folder, max(rates.values()))
    verify_a_million(folder, load_private_key(sandbox.bootstrap_pem))


def throughput(folder: Path, token_rate: float) -> None:
    here, there = multiprocessing.Pipe()
    kalshi = multiprocessing.Process(target=stub, args=(there,), daemon=True)
    kalshi.start()
    origin = f"http://127.0.0.1:{here.recv()}"
    forwarding = multiprocessing.Process(target=plain_forward, args=(origin, str(folder / "plain2")), daemon=True)
    forwarding.start()
    proxy = started(folder, "load", KALSHI_API_BASE_URL=f"{origin}/trade-api/v2")
    plain, through = rate(folder / "plain2"), rate(folder / "load")
    limit = min(plain, token_rate)
    print(
        f"plain forward {plain:.0f}/s, the token alone {token_rate:.0f}/s, proxy {through:.0f}/s: {through / limit:.0%}"
    )
    share = through / limit
    TARGETS.append((0.8 / share, f"throughput: {share:.0%} of the token's or the plain forward's, at least 80 %"))
    loading = threading.Thread(target=rate, args=(folder / "load",))
    loading.start()
    time.sleep(1)
    with over(folder / "hsm-keys" / "prod.control.sock") as control:
        control.get("http://localhost/healthz")
        begun = time.monotonic()
        control.post("http://localhost/freeze")
        answered = time.monotonic() - begun
        loading.join()
        last = httpx2.get(f"{origin}/last").json() - begun
        print(f"freeze answered after {answered * 1000:.1f} ms at full load")
        target("from freeze to the last signed request at Kalshi, at full load", max(last, 0) * 1000, 100, "ms")
        control.post("http://localhost/thaw")
        loading = threading.Thread(target=rate, args=(folder / "load",))
        loading.start()
        time.sleep(1)
        begun = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "hsm_keys", "proxy", "freeze", "--name", "prod"],
            check=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
            stdout=subprocess.DEVNULL,
        )
        loading.join()
        last = httpx2.get(f"{origin}/last").json() - begun
        print(f"the command freeze, its start included, to the last signed request: {last * 1000:.0f} ms")
    proxy.terminate()
    proxy.wait()
    kalshi.kill()
    forwarding.kill()


def verify_a_million(folder: Path, private) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    from hsm_keys.signing.algorithms import public_key_pem

    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    key = SimpleNamespace(
        api_key_id="x",
        public_pem=lambda: public_key_pem(private.public_key()),
        sign=lambda message: private.sign(message, pss, hashes.SHA256()),
    )
    trail = AuditTrail(folder / "million", key=lambda: key)
    begun = time.perf_counter()
    for number in range(int(500_000 * SCALE)):
        seq = trail.append(
            "decision",
            client="maker",
            uid=1000,
            pid=4711,
            method="GET",
            path=PATH,
            verdict="allowed",
            rule="allowed",
            status=None,
        )
        trail.append("outcome", of=seq, status=200, latency_us=number)
    wrote = time.perf_counter() - begun
    trail.close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    report = verify(folder / "million")
    checked = time.perf_counter() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{report.lines} lines written in {wrote:.1f} s, verified in {checked:.1f} s: {report.findings}")
    print(f"memory grew by {grown:.0f} MB while they were verified")
    target("1,000,000 audit lines verified", checked * 1e6 / report.lines, 30, "s")


if __name__ == "__main__":
    main()
