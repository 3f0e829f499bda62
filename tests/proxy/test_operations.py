"""Operations: metrics, health, logs, a stop that drains, and what systemd and Grafana are given."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from asyncio import gather
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

from hsm_keys.proxy.audit import AuditTrail
from hsm_keys.proxy.control import Control
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.marker import FreezeMarker
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.running import RunningRequests
from hsm_keys.proxy.signing import ProxySigner
from hsm_keys.proxy.verifying import verify
from hsm_keys.sandbox.faults import parse_fault
from tests.proxy.test_audit import Key
from tests.support.cli import ROOT, run_cli, run_json
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys.proxy.cancelling import Cancelling
    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.signing.signer import RequestSigner
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

pytestmark = pytest.mark.program

V2 = "/trade-api/v2"
BALANCE = f"{V2}/portfolio/balance"


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def read(address: str, path: str) -> tuple[int, str]:
    try:
        with urlopen(Request(f"http://{address}{path}"), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "contrib" / "grafana" / "hsm-keys-proxy.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\bhsm_keys_\w+", target["expr"])
    }
    labels = {
        label
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for group in re.findall(r"by \(([^)]*)\)", target["expr"])
        for label in group.split(", ")
    }
    metrics = Metrics()
    metrics.verdicts.labels("allowed", "allowed").inc()
    metrics.upstream.labels("200").observe(0.1)
    metrics.presigned.labels("hit").inc()
    metrics.left.labels("all", "max_open_dollars").set(1)
    metrics.silences.labels("maker").inc()
    metrics.to_cancel.labels("maker").set(1)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert asked <= {sample.name for sample in samples}
    assert labels <= {label for sample in samples for label in sample.labels}
    of_families = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in asked}
    assert of_families == {family.name for family in metrics.registry.collect()}  # nothing is left out


def test_what_is_counted_in_numbers_is_added_when_somebody_asks() -> None:
    metrics = Metrics()
    metrics.verdict("allowed", "allowed").inc()
    metrics.allowed, metrics.hits = 2, 4
    for _ in range(2):
        summary = metrics.summary()
        assert (summary["allowed"], summary["presign"]) == (3, {"hit": 4})
    metrics.allowed, metrics.hits = 1, 1
    for _ in range(2):
        text = metrics.text().decode()
        assert 'hsm_keys_proxy_verdicts_total{rule="allowed",verdict="allowed"} 4.0' in text
        assert 'hsm_keys_proxy_presign_total{outcome="hit"} 5.0' in text
        assert "hsm_keys_proxy_store_healthy 1.0" in text
        assert "hsm_keys_proxy_signing_queue 0.0" in text
    metrics.waiting, metrics.is_healthy = 3, False
    assert (metrics.summary()["signing_queue"], metrics.summary()["store_healthy"]) == (3, False)
    assert "hsm_keys_proxy_store_healthy 0.0" in metrics.text().decode()
    assert "hsm_keys_proxy_signing_queue 3.0" in metrics.text().decode()


def test_a_client_cannot_make_metrics_grow(start: Start) -> None:
    address = free_address()
    proxy = start('[clients.default]\nallow = ["GET /portfolio/balance"]', metrics=address)
    proxy.request("GET", BALANCE)
    proxy.request("GET", f"{V2}/portfolio/0")
    before = read(address, "/metrics")[1].count("\n")
    for number in range(20):
        assert proxy.request("GET", f"{V2}/portfolio/{number}?{number}", headers={"X-Id": str(number)})[0] == 403
    proxy.raw(f"GET {V2}/../{V2} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert read(address, "/metrics")[1].count("\n") - before <= 2  # one rule more: a count, and when it began


def test_readiness(start: Start, sandbox: SandboxServer) -> None:
    proxy = start(metrics=(address := free_address()))
    assert read(address, "/readyz") == (200, "ready\n")
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    assert read(address, "/readyz") == (503, "signing is frozen\n")
    assert read(address, "/healthz") == (200, "ok\n")
    assert read(address, "/status")[0] == 404  # what steers it is on the control socket alone
    assert run_cli("proxy", "thaw", "--name", "prod", **proxy.environment).returncode == 0
    assert read(address, "/readyz")[0] == 200


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[tuple[Control, AuditTrail, Counted]]:
    key, judge, metrics = Counted(), Judge(), Metrics()
    signs = ProxySigner(cast("RequestSigner", SimpleNamespace(key=key, api_key_id=key.api_key_id)), judge, metrics)
    trail = AuditTrail(tmp_path / "audit", key=lambda: key)
    marker = FreezeMarker(tmp_path / "frozen")
    yield Control("prod", judge, signs, trail, metrics=metrics, marker=marker, running=RunningRequests()), trail, key
    marker.close()
    trail.close()
    signs.close()


def test_many_who_ask_for_readiness_cost_one_signature(steered: tuple[Control, AuditTrail, Counted]) -> None:
    control, _, key = steered

    async def ask() -> None:
        asked = make_mocked_request("GET", "/readyz")
        answers = await gather(*(control.answer_metrics(asked) for _ in range(50)))
        assert [answer.status for answer in answers] == [200] * 50

    asyncio.run(ask())
    assert key.signed == 1


def test_a_cancel_goes_out_before_a_thread_or_the_disk_is_waited_for(
    steered: tuple[Control, AuditTrail, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    control, _, _ = steered
    steps: list[str] = []
    monkeypatch.setattr(ProxySigner, "freeze", lambda _: steps.append("threads"))
    monkeypatch.setattr(FreezeMarker, "write", lambda _, *, frozen: steps.append(f"disk: {frozen}"))

    async def cancel_all() -> dict[str, Any]:
        steps.append(f"cancel, frozen: {control.identity()['frozen']}")
        await asyncio.sleep(0)
        return {"problem": ""}

    control.cancelling = cast("Cancelling", SimpleNamespace(cancel_all=cancel_all))

    async def freeze_and_thaw() -> None:
        freezing = asyncio.create_task(control.answer(make_mocked_request("POST", "/freeze/cancel-all")))
        await asyncio.sleep(0)
        await control.answer(make_mocked_request("POST", "/thaw"))
        await freezing

    asyncio.run(freeze_and_thaw())
    assert steps == ["cancel, frozen: True", "threads", "disk: True", "disk: False"]


def test_a_trail_that_cannot_be_written_is_what_status_says(
    steered: tuple[Control, AuditTrail, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    control, _, _ = steered
    monkeypatch.setattr(AuditTrail, "failed", "No space left on device")

    async def ask() -> None:
        ready = await control.answer_metrics(make_mocked_request("GET", "/readyz"))
        status = await control.answer(make_mocked_request("GET", "/status"))
        assert isinstance(ready, web.Response)
        assert isinstance(status, web.Response)
        assert (ready.status, ready.text) == (503, "No space left on device\n")
        assert json.loads(status.text or "")["not_ready"] == "No space left on device"

    asyncio.run(ask())


class Counted(Key):
    """A key that counts its signatures."""

    signed = 0

    def sign(self, message: bytes) -> bytes:
        self.signed += 1
        time.sleep(0.01)  # as long as others need to ask too
        return super().sign(message)


def test_status(start: Start, sandbox: SandboxServer) -> None:
    proxy = start(ahead=2)
    for _ in range(3):
        assert proxy.request("GET", BALANCE)[0] == 200
    proxy.request("GET", f"{V2}/api_keys")
    sandbox.stop()
    assert proxy.request("GET", BALANCE)[0] == 502
    told = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert (told["allowed"], told["denied"], told["denied_by"]) == (4, 1, {"api_keys": 1})
    assert (told["upstream"]["200"]["count"], told["upstream"]["none"]["count"]) == (3, 1)
    assert 0 < told["upstream"]["200"]["p50_ms"] <= told["upstream"]["200"]["p99_ms"]
    signed = told["signing"]["count"] + told["presign"].get("hit", 0)
    assert signed == 3  # nothing is signed for a Kalshi that can't be reached
    assert (told["store_healthy"], told["signing_queue"], told["websockets"]) == (True, 0, 0)
    shown = run_cli("proxy", "status", "--name", "prod", **proxy.environment).stdout
    assert re.search(r"denied by +api_keys: 1 *\n", shown)
    assert re.search(r"upstream +200: 3, p50 [\d.]+ ms, p99 [\d.]+ ms *\n", shown)
    assert told["audit_head"] in shown  # whole, to be copied


def test_times_are_estimated_as_prometheus_does() -> None:
    metrics = Metrics()
    assert metrics.summary()["signing"] == {"count": 0, "p50_ms": None, "p99_ms": None}
    for _ in range(100):
        metrics.signing.observe(0.0015)  # between 1 and 2 ms
    assert metrics.summary()["signing"] == {"count": 100, "p50_ms": 1.5, "p99_ms": 1.99}
    metrics.upstream.labels("504").observe(45)  # beyond the last bound
    assert metrics.summary()["upstream"]["504"] == {"count": 1, "p50_ms": 30000.0, "p99_ms": 30000.0}


def test_a_stop_drains(start: Start, sandbox: SandboxServer) -> None:
    """What is under way gets its answer, WebSockets a going away, new connections nothing."""
    proxy = start()
    sandbox.faults.add(parse_fault("GET /portfolio/balance:latency=1500"))
    with unix_connect(str(proxy.socket), "ws://localhost/trade-api/ws/v2") as websocket:
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(proxy.request, "GET", BALANCE)
            while not any(line["kind"] == "decision" and line["path"] == BALANCE for line in proxy.lines()):
                assert not under_way.done()
            proxy.process.terminate()
            assert under_way.result(20)[0] == 200
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=20)
        assert websocket.close_code == 1001
    assert proxy.process.wait(20) == 0
    assert not proxy.socket.exists()
    assert [line["kind"] for line in proxy.lines()][-2:] == ["close", "checkpoint"]
    assert (
        next(line for line in proxy.lines() if line["kind"] == "outcome" and line["status"] == 200)["latency_us"] > 1e6
    )


def test_a_proxy_that_was_killed_leaves_every_decision(
    proxy: RunningProxy, start: Start, sandbox: SandboxServer
) -> None:
    """And the next one goes on with its trail."""
    answers = []

    def load() -> None:
        with suppress(OSError, HTTPException):
            while True:
                answers.append(proxy.request("GET", BALANCE)[0])

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(load)
        while len(answers) < 20:
            time.sleep(0.01)
        proxy.process.kill()
        proxy.process.wait(20)
    signed = sum(seen.verified and seen.path == BALANCE for seen in sandbox.requests)
    decided = [line for line in proxy.lines() if line["kind"] == "decision" and line["verdict"] == "allowed"]
    assert len(decided) >= signed >= len(answers)
    again = start()
    assert again.request("GET", BALANCE)[0] == 200
    again.stop()
    report = verify(again.audit)
    assert (report.findings, report.closed) == ([], True)


ACTIVATED = """
import os, sys
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.executable, [sys.executable, "-m", "tests.support.running_proxy", "{}"])
"""


def test_a_socket_that_systemd_hands_over(sandbox: SandboxServer, tmp_path: Path) -> None:
    """It is served, and stays where it is when the proxy ends: the next one gets it again."""
    from tests.support.running_proxy import RunningProxy, program

    path = tmp_path / "by-systemd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        for _ in range(2):
            waiting = socket.socket(socket.AF_UNIX)  # before there is a proxy, as the one that starts it
            waiting.connect(str(path))
            with RunningProxy(
                tmp_path, program([sys.executable, "-c", ACTIVATED, str(listener.fileno())], (listener.fileno(),))
            ) as proxy:
                assert f"serving 'prod' at the socket {path}" in proxy.said[0]
                proxy.socket = path
                assert proxy.request("GET", BALANCE)[0] == 200
                waiting.sendall(f"GET {BALANCE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                assert waiting.recv(12) == b"HTTP/1.1 200"
                waiting.close()
            assert path.exists()


def test_the_units_are_what_systemd_takes(tmp_path: Path) -> None:
    """Every setting is known, and little is left to harden."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is needed")
    for unit in (ROOT / "hsm_keys" / "proxy" / "systemd").glob("*@*"):
        text = unit.read_text().replace("/opt/hsm-keys/bin/hsm-keys", sys.executable)
        (tmp_path / unit.name.replace("@", "@prod")).write_text(text)
    service = str(tmp_path / "hsm-keys-proxy@prod.service")
    said = subprocess.run([program, "verify", service], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    secure = [program, "security", "--offline=yes", "--threshold=20", service]  # 2.0 of 10
    assert subprocess.run(secure, capture_output=True, text=True, check=False).returncode == 0


EXPIRES = "hsm_keys_proxy_region_expiration_timestamp_seconds"


def test_metrics_and_status_tell_when_the_accounts_attestation_ends(start: Start, sandbox: SandboxServer) -> None:
    ends = int(time.time()) + 3 * 86400
    sandbox.state.region_expiration_ts = ends
    proxy = start(metrics=(address := free_address()))
    shown = [line for line in read(address, "/metrics")[1].splitlines() if line.startswith(f"{EXPIRES} ")]
    assert [float(line.split()[1]) for line in shown] == [ends]
    told = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert told["attested_until"].startswith(time.strftime("%Y-%m-%d", time.gmtime(ends)))
    asked = [seen for seen in sandbox.requests if seen.path == f"{V2}/api_keys"]
    assert [(seen.status, seen.verified) for seen in asked] == [(200, True)]  # once an hour


def test_nothing_is_signed_for_an_attestation_while_frozen_or_out_of_reach(
    start: Start, sandbox: SandboxServer
) -> None:
    proxy = start(metrics=(address := free_address()))
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    assert f"\n{EXPIRES} NaN\n" in read(address, "/metrics")[1]
    assert not [seen for seen in sandbox.requests if seen.path == f"{V2}/api_keys"]
    assert run_json("proxy", "status", "--name", "prod", **proxy.environment)["attested_until"] is None
    shown = run_cli("proxy", "status", "--name", "prod", **proxy.environment).stdout
    assert "None" not in shown
    assert re.search(r"^attested until +-$", shown, re.MULTILINE)


def test_a_disk_that_is_slow_holds_up_no_cancel_and_thaws_nothing(
    steered: tuple[Control, AuditTrail, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    control, _, _ = steered
    disk = threading.Event()

    def write(_marker: FreezeMarker, *, frozen: bool) -> None:
        assert not frozen or disk.wait(20)

    monkeypatch.setattr(FreezeMarker, "write", write)

    def ask(path: str) -> asyncio.Task[web.StreamResponse]:
        return asyncio.create_task(control.answer(make_mocked_request("POST", path)))

    async def freeze_and_thaw() -> None:
        cancelled = asyncio.Event()

        async def cancel_all() -> dict[str, Any]:
            cancelled.set()
            return {"status": 204, "problem": "", "resting": 0}

        control.cancelling = cast("Cancelling", SimpleNamespace(cancel_all=cancel_all))
        frozen = ask("/freeze/cancel-all")
        await cancelled.wait()
        thawed = ask("/thaw")
        await asyncio.sleep(0)
        assert (control.identity()["frozen"], frozen.done(), thawed.done()) == (True, False, False)
        once_more = ask("/freeze")
        await asyncio.sleep(0)
        disk.set()
        assert [answer.status for answer in await gather(frozen, thawed, once_more)] == [200] * 3
        assert control.identity()["frozen"], "the last word was a freeze"
        await ask("/thaw")
        assert not control.identity()["frozen"]

    asyncio.run(freeze_and_thaw())
