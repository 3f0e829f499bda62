# ruff: noqa: INP001, T201, S101, S603, S607, D103, ANN001, D102 - a script that prints what it measures
"""What the proxy costs beside nginx, all in one run on one machine: ``./softhsm-setup.sh python benchmarks/proxy.py``.

Needs nginx and a C compiler (Debian: nginx, gcc, libc6-dev). nginx forwards the same requests, of the same client in C
(``load.c``), to the same Kalshi, which is an nginx too and verifies nothing. All of them share the processors.
Processor time is the kernel's word (user and system, /proc/PID/task/*/schedstat), of a program with all its threads and
children; noise touches it least. The last lines hold each target against what was measured: the share of it that was
used up, where 100 % is the target. Below a target that was missed stands the limit of this machine in the same run:
what is left without anything of the product (a bare Python forward or answer, ``floors.py``; the module's own C_Sign),
and the share of that limit that was reached. ``--scale 0.1`` is a quick run that shows that everything works, and
measures nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import httpx2
from limits import TARGETS, Limit, at_least, openssl_speed, signatures, target

from hsm_keys.proxy.audit import AuditTrail
from hsm_keys.proxy.verifying import verify
from hsm_keys.sandbox import SandboxServer
from hsm_keys.signing.pem import load_private_key
from tests.support.softhsm import SoftHsm

HERE = Path(__file__).parent
BALANCE = "/trade-api/v2/portfolio/balance"
ORDERS = "/trade-api/v2/portfolio/events/orders"
LOGGED = "/trade-api/v2/portfolio/positions"
ORDER = json.dumps({
    "ticker": "KXTEST-1", "side": "bid", "count": "1.00", "price": "0.0100", "time_in_force": "immediate_or_cancel",
    "self_trade_prevention_type": "taker_at_cross", "client_order_id": "bench-########",
})  # fmt: skip
POLICY = """version = 1
[clients.default]
read_tokens_per_second = 1000000
write_tokens_per_second = 1000000
max_count = 100
max_price_cents = 60
markets = ["KXTEST-*"]
max_order_dollars = "50"
max_dollars_a_day = "100000000"
"""
NGINX = """daemon off; worker_processes 1; pid {name}.pid; error_log {name}.log crit;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_body_temp_path {name}-1;
proxy_temp_path {name}-2; fastcgi_temp_path {name}-3; uwsgi_temp_path {name}-4; scgi_temp_path {name}-5;
default_type application/json; log_format moments $msec; {http} }}"""
KALSHI = """server {{ listen 127.0.0.1:{port};
location = /trade-api/v2/portfolio/balance {{ return 200 '{{"balance":1}}'; }}
location = /trade-api/v2/portfolio/positions {{ access_log moments moments; return 200 '{{"positions":[]}}'; }}
location = /trade-api/v2/portfolio/events/orders {{
  return 201 '{{"order_id":"x","fill_count":"0.00","remaining_count":"0.00"}}'; }}
location /trade-api/v2/account/ {{ return 404; }}
location / {{ proxy_pass {sandbox}; proxy_set_header Host $http_host; }} }}"""
FORWARD = """upstream kalshi {{ server 127.0.0.1:{port}; keepalive 256; }}
server {{ listen unix:{socket}; location / {{ proxy_pass http://kalshi; proxy_http_version 1.1;
proxy_set_header Connection ""; }} }}"""
SCALE = 1.0


@dataclass
class Load:
    """What a run of ``load`` says; of each request the processor time of who was asked, and of the client."""

    rate: float
    p50: float
    p99: float
    bad: int
    cpu_us: float = 0.0
    client_us: float = 0.0


def family_of(pid: int) -> set[int]:
    """Return a process and those that it has started."""
    family = {pid}
    for entry in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()):
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in family:
                family.add(entry)
    return family


def cpu_s(pid: int) -> float:
    """Processor time of a process and those that it has started, in seconds."""
    ran_ns = 0
    for one in family_of(pid):
        for thread in Path(f"/proc/{one}/task").iterdir():
            with contextlib.suppress(OSError):
                ran_ns += int((thread / "schedstat").read_text().split()[0])
    return ran_ns / 1e9


class Bench:
    """A folder with all that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.load_program = folder / "load"
        subprocess.run(["cc", "-O2", "-pthread", "-o", self.load_program, HERE / "load.c"], check=True)
        (folder / "policy.toml").write_text(POLICY)
        (folder / "policy.toml").chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.running: list[subprocess.Popen[str]] = []

    @property
    def policy(self) -> tuple[str, str]:
        """The option for a policy with every kind of limit."""
        return "--policy", str(self.folder / "policy.toml")

    def nginx(self, name: str, http: str) -> subprocess.Popen[str]:
        conf = self.folder / f"{name}.conf"
        conf.write_text(NGINX.format(name=name, http=http))
        process = subprocess.Popen(["nginx", "-p", self.folder, "-c", conf], text=True)
        self.running.append(process)
        return process

    def proxy(self, name: str, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "hsm_keys", "proxy", "--name", name, "--socket", str(self.folder / name),
             *options],
            env={**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "XDG_RUNTIME_DIR": str(self.folder)},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.running.append(process)
        assert process.stderr is not None
        print(process.stderr.readline().strip(), file=sys.stderr)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return process

    def floor(self, kind: str, *arguments: object) -> tuple[Path, subprocess.Popen[str]]:
        """Start what Python costs by itself; return its socket."""
        path = self.folder / f"floor-{kind}"
        process = subprocess.Popen([sys.executable, HERE / "floors.py", kind, path, *map(str, arguments)], text=True)
        self.running.append(process)
        wait_for(path)
        return path, process

    def load(self, what, address, *, process=None, connections=1, rate=0.0, seconds=8.0, method="GET", path=BALANCE,
             body="") -> Load:  # fmt: skip
        before = cpu_s(process.pid) if process else 0.0
        given = (address, connections, max(1.0, seconds * SCALE), rate, method, path, *([body] if body else []))
        clients = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([self.load_program, *map(str, given)], check=True, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        client_s = after.ru_utime + after.ru_stime - clients.ru_utime - clients.ru_stime
        total, _, bad, reached, p50, p99, longest = (float(number) for number in done.stdout.split())
        used = (cpu_s(process.pid) - before) * 1e6 / total if process else 0.0
        times = f"p50 {p50:6.0f}  p99 {p99:6.0f}  longest {longest:7.0f}"
        sys.stdout.write(
            f"{what:62} {reached:6.0f}/s  {times}  cpu {used:5.0f} us\n"
        )  # whole lines, of two threads too
        if bad:
            print(f"  {bad:.0f} answers weren't 2xx")
        return Load(reached, p50, p99, int(bad), used, client_s * 1e6 / total)

    def stop(self, process: subprocess.Popen[str]) -> None:
        self.running.remove(process)
        process.terminate()
        process.wait()


def main() -> None:
    global SCALE  # noqa: PLW0603 - one run, one scale
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=0, help="also look whether memory grows over so many requests")
    parser.add_argument("--sessions", type=int, default=0, help="the same over so many WebSocket sessions")
    given = parser.parse_args()
    SCALE = given.scale
    folder = Path(tempfile.mkdtemp(prefix="hsm-"))
    folder.chmod(0o711)  # nginx's worker is another user
    bench = Bench(folder)
    try:
        measure(bench, given.requests, given.sessions)
    finally:
        for process in list(bench.running):
            bench.stop(process)
        shutil.rmtree(folder)
    print("\ntarget used up")
    for one in TARGETS:
        print(f"{one.used:6.0%}  {one.said}")
        if one.used > 1 and one.limit:
            print(f"        {one.limit}")


def measure(bench: Bench, requests: int, sessions: int) -> None:
    softhsm = SoftHsm(bench.folder)
    os.environ["SOFTHSM2_CONF"] = str(softhsm.conf)
    token = softhsm.init_token()
    with SandboxServer() as sandbox:
        os.environ |= {
            "KALSHI_API_BASE_URL": f"http://127.0.0.1:{bench.port}/trade-api/v2",
            "KALSHI_WS_URL": sandbox.ws_url,
            "HSM_KEYS_STORE": token.uri,
            "KALSHI_KEY_ID": sandbox.bootstrap_key_id,
            "KALSHI_PRIVATE_KEY": sandbox.bootstrap_pem,
        }
        bench.kalshi = bench.nginx(
            "kalshi", KALSHI.format(port=bench.port, sandbox=sandbox.base_url.removesuffix("/trade-api/v2"))
        )
        forward = bench.nginx("forward", FORWARD.format(port=bench.port, socket=bench.folder / "plain"))
        wait_for(bench.folder / "plain")
        for name, kind in (("rsa", "rsa-2048"), ("ed", "ed25519"), ("ed2", "ed25519")):
            command = [sys.executable, "-m", "hsm_keys", "enroll", "--name", name, "--key-type", kind]
            subprocess.run(command, check=True, capture_output=True)
        at_once(bench, token.uri)
        ahead(bench, token.uri, forward, requests, sessions)
    verify_a_million(bench.folder, load_private_key(sandbox.bootstrap_pem))


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


def at_once(bench: Bench, uri: str) -> None:
    """Measure a key that signs each request when it comes: RSA-2048 on SoftHSM."""
    openssl_speed()
    signature = signatures(uri, "rsa", SCALE)
    floor, forward = bench.floor("sign", bench.port, uri, "rsa")
    proxy = bench.proxy("rsa", *bench.policy)
    direct = bench.load("direct, unsigned", bench.port)
    bare = bench.load("bare Python forward that signs in a thread", floor, process=forward)
    through = bench.load("proxy, signing at once (RSA-2048)", bench.folder / "rsa", process=proxy)
    added = (through.p50 - direct.p50) / signature.us
    target("p50 added to a direct request when signing at once", added, 1.15, "signatures",
           Limit((bare.p50 - direct.p50) / signature.us, "a bare Python forward that signs in a thread"))  # fmt: skip
    full = bench.load("proxy, signing at once, 16 clients", bench.folder / "rsa", process=proxy, connections=16)
    at_least("throughput, signing at once", full.rate * signature.us / 1e6, 0.7, "of the token's rate on one thread",
             Limit(signature.rates[2] * signature.us / 1e6, "the module alone on two threads"))  # fmt: skip
    freeze(bench)
    bench.stop(proxy)
    bench.stop(forward)


def ahead(bench: Bench, uri: str, forward, requests: int, sessions: int) -> None:
    """Measure a key that signs ahead (Ed25519 on SoftHSM) beside nginx as a plain forward."""
    signature = signatures(uri, "ed", SCALE)
    floor, python = bench.floor("forward", bench.port)
    proxy = bench.proxy("ed", "--presign", "4", "--presign-rate", "2500", *bench.policy)
    plain, signed = bench.folder / "plain", bench.folder / "ed"
    for what, more, target_applies in (
        ("GET, 1 client, 100/s", {"rate": 100.0}, False),
        ("GET, 4 clients, 400/s", {"rate": 400.0, "connections": 4}, True),
        ("orders under caps, 4 clients, 400/s",
         {"rate": 400.0, "connections": 4, "method": "POST", "path": ORDERS, "body": ORDER}, True),
    ):  # fmt: skip
        direct = bench.load(f"direct: {what}", bench.port, **more)
        nginx = bench.load(f"nginx: {what}", plain, process=forward, **more)
        bare = bench.load(f"bare Python forward: {what}", floor, process=python, **more)
        ours = bench.load(f"proxy, signed ahead: {what}", signed, process=proxy, **more)
        if target_applies:
            least = (bare.cpu_us + signature.cpu_us) / nginx.cpu_us
            target(f"processor time, {what}", ours.cpu_us / nginx.cpu_us, 4, "times nginx's",
                   Limit(least, "C_Sign alone and a bare Python forward"))  # fmt: skip
            per_hop = nginx.p50 - direct.p50
            target(f"added p50, {what}", (ours.p50 - direct.p50) / per_hop, 4, "times nginx's",
                   Limit((bare.p50 - direct.p50) / per_hop, "a bare Python forward"))  # fmt: skip
    floor_ahead, python_ahead = bench.floor("ahead", bench.port, uri, "ed")
    many = {"connections": 16, "rate": 1000.0}
    direct = bench.load("direct, 16 clients, 1,000/s", bench.port, **many)
    bare = bench.load("bare Python forward beside as many signatures, 16 clients, 1,000/s", floor_ahead,
                      process=python_ahead, **many)  # fmt: skip
    bench.stop(python_ahead)
    steady = bench.load("proxy, signed ahead, 16 clients, 1,000/s", signed, process=proxy, **many)
    target("p99 at 1,000 requests a second", steady.p99 / 1000, 3, "ms",
           Limit(bare.p99 / 1000, "a bare Python forward beside as many signatures; "
                                  f"without both, {direct.p99 / 1000:.2g}"))  # fmt: skip
    bare = bench.load("bare Python forward, 16 clients", floor, process=python, connections=16)
    full = bench.load("proxy, signed ahead, 16 clients", signed, process=proxy, connections=16)
    bench.load("nginx, 16 clients", plain, process=forward, connections=16)
    kalshi = bench.load("direct, 16 clients", bench.port, process=bench.kalshi, connections=16)
    needed = signature.cpu_us + bare.cpu_us + full.client_us + kalshi.cpu_us
    at_least("throughput, signed ahead (Ed25519)", full.rate, 1800, "requests a second",
             Limit(min(1e6 / signature.cpu_us, 1e6 * (os.cpu_count() or 1) / needed),
                   "C_Sign alone, a bare Python forward, client and Kalshi on all processors"))  # fmt: skip
    two_proxies(bench, full.rate)
    bench.stop(proxy)
    bench.stop(python)
    headers_in_hand(bench)
    if requests or sessions:
        memory(bench, requests, sessions)


def two_proxies(bench: Bench, one: float) -> None:
    """Measure two proxies at once, each with a key of its own, beside the one that runs already."""
    other = bench.proxy("ed2", "--presign", "4", "--presign-rate", "2500", *bench.policy)
    bench.load("second proxy, 16 clients, to warm up", bench.folder / "ed2", connections=16)
    rates: list[float] = []
    loads = [
        threading.Thread(
            target=lambda name: rates.append(
                bench.load(f"one of two proxies ({name}), 8 clients", bench.folder / name, connections=8).rate
            ),
            args=(name,),
        )
        for name in ("ed", "ed2")
    ]
    for load in loads:
        load.start()
    for load in loads:
        load.join()
    print(f"two proxies: {sum(rates):.0f}/s, {sum(rates) / one:.2f} times one ({one:.0f}/s)")
    bench.stop(other)


def headers_in_hand(bench: Bench) -> None:
    """Measure /sign for a warm client in C, which spins until it asks, beside a bare answer over such a socket."""
    proxy = bench.proxy("ed", "--presign", "4", "--presign-rate", "2500")  # no policy: judged orders go with no /sign
    floor, python = bench.floor("answer")
    wanted = {"path": f"/sign?method=POST&path={ORDERS}", "rate": -500.0}
    bench.load("/sign, signed ahead, to warm up", bench.folder / "ed", **wanted)
    bare = bench.load("bare Python answer, 1 client, 500/s", floor, process=python, **wanted)
    alone = bench.load("/sign, signed ahead, 1 client, 500/s", bench.folder / "ed", process=proxy, **wanted)
    target("p50 of /sign with headers in hand", alone.p50, 60, "us", Limit(bare.p50, "a bare Python answer"))
    bench.load("/sign, signed ahead, closed loop", bench.folder / "ed", process=proxy, path=wanted["path"])
    bench.stop(proxy)
    bench.stop(python)


def memory(bench: Bench, requests: int, sessions: int) -> None:
    """Look at a proxy's memory over many requests and WebSocket sessions; the module is in a process of its own."""
    proxy = bench.proxy("ed2", "--isolated", "--presign", "4", "--presign-rate", "2500", *bench.policy)
    address = bench.folder / "ed2"
    (signer,) = family_of(proxy.pid) - {proxy.pid}

    def resident_mb(pid: int) -> float:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def show(after: str) -> None:
        print(f"memory after {after}: {resident_mb(proxy.pid):.1f} MB, the signer's {resident_mb(signer):.1f} MB")

    bench.load("warming up", address, process=proxy, connections=16, seconds=20)
    asyncio.run(websockets(address, min(sessions, 200)))
    before, done, seconds = resident_mb(proxy.pid), 0.0, 60.0
    show("warming up")
    while done < requests:
        load = bench.load("for memory", address, process=proxy, connections=16, seconds=seconds)
        done += load.rate * max(1.0, seconds * SCALE)
        show(f"{done:,.0f} requests")
    for number in range(0, sessions, 1000):
        asyncio.run(websockets(address, min(1000, sessions - number)))
        show(f"{min(number + 1000, sessions):,} sessions")
    target("the proxy's memory after requests and sessions", resident_mb(proxy.pid), before * 1.05, "MB")
    bench.stop(proxy)


async def websockets(path: Path, count: int) -> None:
    """Open and close so many WebSocket sessions, 16 at a time."""
    left = iter(range(count))

    async def some(session: aiohttp.ClientSession) -> None:
        for _ in left:
            async with session.ws_connect("http://localhost/trade-api/ws/v2") as opened:
                await opened.ping()

    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=16)) as session:
        await asyncio.gather(*(some(session) for _ in range(16)))


def freeze(bench: Bench) -> None:
    """Freeze at full load; look when Kalshi saw the last signed request."""

    def last_seen() -> float:
        return float((bench.folder / "moments").read_text().split()[-1])

    def busy() -> threading.Thread:
        given = (bench.folder / "rsa", 16, 3, 0, "GET", LOGGED)
        thread = threading.Thread(target=subprocess.run, args=([bench.load_program, *map(str, given)],),
                                  kwargs={"capture_output": True})  # fmt: skip
        thread.start()
        time.sleep(1)
        return thread

    with httpx2.Client(
        transport=httpx2.HTTPTransport(uds=str(bench.folder / "hsm-keys" / "rsa.control.sock")), timeout=30
    ) as control:
        loading = busy()
        begun = time.time()
        control.post("http://localhost/freeze")
        answered = time.time() - begun
        loading.join()
        print(f"freeze answered after {answered * 1000:.1f} ms at full load")
        late = max(last_seen() - begun, 0) * 1000
        target("from freeze to the last signed request at Kalshi, at full load", late, 100, "ms")
        control.post("http://localhost/thaw")


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
            path=BALANCE,
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
