"""The program, as its user runs it: on SoftHSM and on KMS, asked with curl, verified with openssl's key."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.cli import main
from hsm_keys.errors import UsageError
from hsm_keys.processes import children_of
from tests.docs.test_readme import PAGES
from tests.support import node
from tests.support.cli import run_cli, run_json
from tests.support.judging import ORDER
from tests.support.ministack import REGION, account
from tests.support.running_proxy import RunningProxy, program
from tests.support.seen import latest

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.program

V2 = "/trade-api/v2"
TOKEN = "t" * 40
PROXY = [sys.executable, "-m", "hsm_keys", "proxy", "--name", "prod"]


@pytest.fixture(
    params=[pytest.param("token", marks=pytest.mark.softhsm), pytest.param("account", marks=pytest.mark.kms)]
)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that the environment names."""
    where = request.getfixturevalue(request.param)
    if request.param == "token":
        monkeypatch.setenv("HSM_KEYS_STORE", where.uri_without_pin)
        monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(where.pin_file))
        return str(where.pin)
    monkeypatch.setenv("HSM_KEYS_STORE", f"awskms:///?region={REGION}")
    return ""


def curl(proxy: RunningProxy, *arguments: str) -> tuple[int, Any]:
    program = shutil.which("curl")
    assert program is not None, "curl is needed"
    done = subprocess.run(
        [program, "-sS", "--unix-socket", str(proxy.socket), "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_curl_trades_without_a_key(store: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    enrolled = run_json("enroll", "--name", "prod")
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[clients.default]\nmax_count = 5\norders_per_minute = 2\n")
    with RunningProxy(tmp_path, program([*PROXY, "--policy", str(policy), "--presign", "4"])) as proxy:
        assert re.search(r"Max core file size +0 +0 ", Path(f"/proc/{proxy.process.pid}/limits").read_text())
        url = f"http://localhost{V2}/portfolio"
        assert curl(proxy, f"{url}/balance")[0] == 200
        send = ("-H", "Content-Type: application/json", "-d")
        orders = f"{url}/events/orders"
        assert curl(proxy, orders, *send, json.dumps(ORDER))[0] == 201
        assert curl(proxy, orders, *send, json.dumps({**ORDER, "count": "6"}))[0] == 403
        assert curl(proxy, f"http://localhost{V2}/api_keys")[0] == 403
        status = run_json("proxy", "status", "--name", "prod", **proxy.environment)
        assert (status["allowed"], status["denied"], status["not_ready"]) == (2, 2, "")
        assert status["api_key_id"] == enrolled["api_key_id"]
        proxy.stop()
    assert [seen.verified for seen in sandbox.requests if seen.api_key_id == enrolled["api_key_id"]][-2:] == [True] * 2
    pem = tmp_path / "prod.pem"
    pem.write_text(enrolled["public_key_pem"])
    report = run_json("audit", "verify", str(proxy.audit), "--public-key", str(pem))
    assert (report["findings"], report["closed"]) == ([], True)
    assert report["checkpoints"] > 0
    assert not store or store not in "".join(proxy.said) + proxy.trail()


TYPESCRIPT = """
const { Configuration, PortfolioApi, OrdersApi, ApiKeysApi } = require("kalshi-typescript");
const [basePath, apiKey, privateKeyPath] = process.argv.slice(1);
const configuration = new Configuration({ basePath, apiKey, privateKeyPath });
const order = { ticker: "KXTEST-1", side: "bid", count: "5.00", price: "0.40", time_in_force: "good_till_canceled",
  self_trade_prevention_type: "maker" };
const status = (asked) => asked.then((answer) => answer.status, (error) => error.response.status);
(async () => {
  const statuses = [
    await status(new PortfolioApi(configuration).getBalance()),
    await status(new OrdersApi(configuration).getOrders()),
    await status(new OrdersApi(configuration).createOrderV2(order)),
    await status(new OrdersApi(configuration).createOrderV2({ ...order, count: "6.00" })),
    await status(new ApiKeysApi(configuration).getApiKeys()),
  ];
  console.log(JSON.stringify(statuses));
})();
"""


def with_tokens(folder: Path) -> RunningProxy:
    """Start a proxy on loopback for a client with a token and a throwaway PEM, as docs/proxy.md says."""
    (folder / "policy.toml").write_text("version = 1\n[clients.bot]\nmax_count = 5\n")
    (folder / "clients").mkdir()
    (folder / "clients" / "bot").touch(mode=0o600)
    (folder / "clients" / "bot").write_text(TOKEN)
    subprocess.run(["openssl", "genrsa", "-out", folder / "throwaway.pem", "2048"], check=True, capture_output=True)
    tcp = ["--listen", "127.0.0.1:0", "--clients", str(folder / "clients"), "--policy", str(folder / "policy.toml")]
    return RunningProxy(folder, program([*PROXY, *tcp]))


def recipe(proxy: RunningProxy, language: str, *command: str, **environment: str) -> Any:
    """Run what docs/proxy.md gives for a client that takes a PEM, and return what it printed."""
    codes = [
        block.code for block in PAGES["docs/proxy"] if block.language == language and "throwaway.pem" in block.code
    ]
    code = codes[-1].replace("127.0.0.1:8090", f"127.0.0.1:{proxy.port}")
    done = subprocess.run(
        [*command, code],
        cwd=proxy.folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kalshi_typescript_with_a_throwaway_pem(store: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    """As it comes from npm: it has a token for a key id, and signs in vain."""
    where = node.folder()
    enrolled = run_json("enroll", "--name", "prod")
    with with_tokens(tmp_path) as proxy:
        done = subprocess.run(
            ["node", "-e", TYPESCRIPT, f"http://127.0.0.1:{proxy.port}{V2}", TOKEN, tmp_path / "throwaway.pem"],
            cwd=where,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        modules = str(where / "node_modules")
        assert "balance:" in recipe(proxy, "js", "node", "-e", NODE_PATH=modules, PROXY_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [200, 200, 201, 403, 403]
    signed = [
        seen for seen in sandbox.requests if seen.api_key_id == enrolled["api_key_id"] and seen.status in {200, 201}
    ]
    assert [(seen.method, seen.verified) for seen in signed][-4:] == [
        ("GET", True),
        ("GET", True),
        ("POST", True),
        ("GET", True),
    ]


def test_a_client_that_takes_only_a_pem(store: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    """openssl signs with the throwaway and curl sends: what reaches Kalshi is signed with the key of the store."""
    enrolled = run_json("enroll", "--name", "prod")
    with with_tokens(tmp_path) as proxy:
        assert "balance" in json.loads(recipe(proxy, "sh", "bash", "-euo", "pipefail", "-c"))
        assert TOKEN not in proxy.trail()
    seen = latest(sandbox)
    assert (seen.api_key_id, seen.verified, seen.status) == (enrolled["api_key_id"], True, 200)


@pytest.mark.softhsm
@pytest.mark.parametrize("store", ["token"], indirect=True)
def test_freeze_ends_signing_at_full_load(store: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    """No request is signed once freeze has returned; how long it takes is for the benchmark."""
    run_json("enroll", "--name", "prod")
    with RunningProxy(tmp_path, program(PROXY)) as proxy:
        stop, statuses = threading.Event(), SimpleQueue[int]()

        def load() -> None:
            while not stop.is_set():
                statuses.put(proxy.request("GET", f"{V2}/portfolio/balance")[0])

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert {statuses.get(timeout=60) for _ in range(20)} == {200}
        assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
        frozen_at = time.time_ns() // 1_000_000
        refused = 0
        while refused < 20:
            refused += statuses.get(timeout=60) != 200
        stop.set()
        for thread in threads:
            thread.join()
        stamps = [int(seen.timestamp) for seen in sandbox.requests if seen.verified and seen.timestamp]
        assert max(stamps) <= frozen_at


@pytest.mark.softhsm
@pytest.mark.parametrize("store", ["token"], indirect=True)
def test_a_signer_in_a_process_of_its_own(store: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    """It ends with the proxy, a freeze holds, and a signer that is gone costs answers and repeats no order."""
    run_json("enroll", "--name", "prod")
    orders = f"{V2}/portfolio/events/orders"
    send = (f"http://localhost{orders}", "-H", "Content-Type: application/json", "-d")
    with RunningProxy(tmp_path, program([*PROXY, "--isolated"])) as proxy:
        assert curl(proxy, *send, json.dumps(ORDER))[0] == 201
        (signer,) = children_of(proxy.process.pid)
        assert b"hsm_keys.stores.isolated" in Path(f"/proc/{signer}/cmdline").read_bytes()
        assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
        assert curl(proxy, *send, json.dumps(ORDER))[0] == 403
        assert run_cli("proxy", "thaw", "--name", "prod", **proxy.environment).returncode == 0
        os.kill(signer, signal.SIGKILL)
        statuses = [curl(proxy, *send, json.dumps({**ORDER, "client_order_id": "after"}))[0]]
        while statuses[-1] == 503 and len(statuses) < 200:  # it isn't started again at once
            time.sleep(0.1)
            statuses.append(curl(proxy, *send, json.dumps({**ORDER, "client_order_id": "after"}))[0])
        assert (statuses[-1], set(statuses[:-1]) - {503}) == (201, set())
        (signer,) = children_of(proxy.process.pid)
        proxy.stop()
    assert not Path(f"/proc/{signer}").exists()
    assert len([seen for seen in sandbox.requests if seen.path == orders and seen.verified]) == 2


@pytest.mark.softhsm
@pytest.mark.parametrize("store", ["token"], indirect=True)
def test_its_log_is_json_where_that_is_asked_for(store: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    run_json("enroll", "--name", "prod")
    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[clients.default]\n")
    with RunningProxy(tmp_path, program([*PROXY, "--output", "json", "--policy", str(policy)])) as proxy:
        for header in (b"KALSHI-ACCESS-KEY: tok\x00en", b"Content-Length: token"):
            assert proxy.raw(b"GET / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n").startswith(b"400")
        policy.write_text("version = 2\n")
        proxy.reload()
        proxy.stop()
    said = [json.loads(line) for line in proxy.said]
    assert [(line["level"], line["message"].split()[0]) for line in said if line["level"] == "info"] == [
        ("info", "serving"),
        ("info", "stopping:"),
    ]
    assert not any("tok" in line["message"] for line in said)
    assert [line["message"].split(":")[0] for line in said if line["level"] == "error"] == [
        "the policy wasn't reloaded, the old one stays in force"
    ]


def test_the_kill_switch_waits_for_no_library() -> None:
    code = (
        "import sys; from hsm_keys.cli import main; sys.argv[1:] = ['proxy', 'freeze', '--name', 'prod']\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code)\n"
        "heavy = {'aiohttp', 'httpx2', 'pydantic', 'prometheus_client', 'cryptography', 'pkcs11'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3", "[]"]


def test_nobody_can_trace_it_once_it_has_a_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process of its user can read the PIN, or the key of a store, out of its memory."""
    from hsm_keys.cli import proxy, session

    calls: list[str] = []

    def opened_store(*_: object, **__: object) -> None:
        calls.append("opened_store")
        raise UsageError("the store")

    monkeypatch.setattr(proxy, "keep_to_itself", lambda: calls.append("keep_to_itself"))
    monkeypatch.setattr(session, "opened_store", opened_store)
    with pytest.raises(SystemExit):
        main(["proxy", "--name", "prod", "--env", "demo"])
    assert calls == ["keep_to_itself", "opened_store"]


def test_no_key_and_no_name() -> None:
    assert run_cli("proxy").returncode == 2
    assert "hsm-keys proxy --name prod" in run_cli("proxy").stderr
    assert run_cli("proxy", "status", "--name", "prod").returncode == 3
    assert run_cli("proxy", "--name", "prod", "--listen", "0.0.0.0:80").returncode == 2
