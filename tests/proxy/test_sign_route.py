"""Headers alone: for programs that send their requests themselves."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest

from hsm_keys.proxy.paths import UnclearPathError
from hsm_keys.proxy.sign_targets import read_sign_target
from tests.docs.test_readme import PAGES
from tests.support.cli import run_cli
from tests.support.judging import ORDERS, V2

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

BALANCE = f"{V2}/portfolio/balance"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The client in C that docs/proxy.md shows."""
    (source,) = [block.code for block in PAGES["docs/proxy"] if block.language == "c"]
    folder = tmp_path_factory.mktemp("client")
    (folder / "headers.c").write_text(source)
    options = ("-std=gnu11", "-Wall", "-Wextra", "-Werror")
    subprocess.run(["cc", *options, "-o", folder / "headers", folder / "headers.c"], check=True)
    return str(folder / "headers")


def test_a_client_in_c_sends_what_it_signs_by_the_proxy(
    client: str, proxy: RunningProxy, sandbox: SandboxServer
) -> None:
    asked = [client, str(proxy.socket), "GET", BALANCE]
    lines = subprocess.run(asked, capture_output=True, check=True).stdout.decode()
    where = urlsplit(sandbox.base_url)
    with socket.create_connection((where.hostname, where.port or 0), timeout=10) as kalshi:
        kalshi.sendall(f"GET {BALANCE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())
        assert kalshi.recv(12) == b"HTTP/1.1 200"
    (seen,) = [seen for seen in sandbox.requests if seen.path == BALANCE]
    assert seen.verified
    denied = subprocess.run([*asked[:-1], f"{V2}/api_keys"], capture_output=True, text=True, check=False)
    assert (denied.returncode, denied.stdout) == (1, "")
    assert '"api_keys"' in denied.stderr


def lines_of(proxy: RunningProxy, method: str = "GET", path: str = BALANCE) -> bytes:
    return proxy.raw(f"GET /sign?method={method}&path={path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def test_it_is_judged_counted_and_written_down_like_a_request(
    start: Callable[..., RunningProxy], sandbox: SandboxServer
) -> None:
    proxy = start("[clients.default]\ndeny = ['DELETE /**']\norders_per_minute = 1")
    assert lines_of(proxy, "POST", quote(ORDERS, safe=""))[:3] == b"200"
    assert lines_of(proxy, "POST", ORDERS)[:3] == b"429"
    assert lines_of(proxy, "POST", f"{ORDERS}/batched")[:3] == b"403"  # how many there are stands in its body
    assert lines_of(proxy, "DELETE", f"{ORDERS}/x")[:3] == b"403"
    assert run_cli("proxy", "freeze", "--name", "prod", **proxy.environment).returncode == 0
    assert b'"frozen"' in lines_of(proxy)
    proxy.stop()
    lines = proxy.lines()
    decisions = [line for line in lines if line["kind"] == "decision"]
    assert [(line["method"], line["path"], line["rule"], line["sent_by"]) for line in decisions] == [
        ("POST", ORDERS, "allowed", "client"),
        ("POST", ORDERS, "orders_per_minute", "client"),
        ("POST", f"{ORDERS}/batched", "sign", "client"),
        ("DELETE", f"{ORDERS}/x", "deny DELETE /**", "client"),
        ("GET", BALANCE, "frozen", "client"),
    ]
    (outcome,) = [line for line in lines if line["kind"] == "outcome"]
    assert (outcome["of"], outcome["status"]) == (decisions[0]["seq"], 200)
    assert "KALSHI-ACCESS-SIGNATURE" not in proxy.trail()
    assert not any(seen.path == ORDERS for seen in sandbox.requests)


@pytest.mark.parametrize(
    "rules",
    [
        "max_count = 5",
        "max_price_cents = 60",
        "markets = ['KX*']",
        "max_open_dollars = '5'",
        "duplicate_seconds = 2",
        "cancel_after_silence_seconds = 10",
    ],
)
def test_a_client_whose_rules_look_at_what_is_sent_is_refused(start: Callable[..., RunningProxy], rules: str) -> None:
    proxy = start(f"[clients.default]\n{rules}")
    for method, path in (("POST", ORDERS), ("GET", BALANCE)):
        assert b'"sign"' in lines_of(proxy, method, path)


def test_a_client_whose_commands_are_judged_opens_no_websocket_of_its_own(start: Callable[..., RunningProxy]) -> None:
    proxy = start("[clients.default]\nread_only = true")
    assert lines_of(proxy)[:3] == b"200"
    for path in ("/trade-api/ws/v2", "/trade-api/ws/v2/margin"):
        assert b'"sign"' in lines_of(proxy, "GET", path)


def test_caps_of_all_clients_together_count_too(start: Callable[..., RunningProxy]) -> None:
    assert b'"sign"' in lines_of(start("[clients.default]\n[all]\nmax_dollars_a_day = '5'"))


def test_what_is_no_question_for_headers(proxy: RunningProxy, sandbox: SandboxServer) -> None:
    for request in (
        "POST /sign?method=GET&path={} HTTP/1.1\r\nContent-Length: 0",
        "GET /sign?method=GET&path={} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}",
        "GET /sign?method=GET&path={} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c",
        "GET /sign/?method=GET&path={} HTTP/1.1",
        "GET /SIGN?method=GET&path={} HTTP/1.1",
    ):
        head, _, body = request.format(BALANCE).partition("\r\n\r\n")
        assert proxy.raw(f"{head}\r\nHost: x\r\n\r\n{body}".encode())[:3] == b"400", request
    proxy.stop()
    assert {line["verdict"] for line in proxy.lines() if line["kind"] == "decision"} == {"denied"}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?method=GET",
        f"?path={BALANCE}",
        f"?method=GET&path={BALANCE}&path={V2}/api_keys",
        f"?method=GET&method=POST&path={BALANCE}",
        f"?method=GET&path={BALANCE}&timestamp=1",
        f"?Method=GET&path={BALANCE}",
        f"?method=GET;path={BALANCE}",
        f"?method=GET&path={BALANCE}?x=1",
        f"?method=GET&path={BALANCE}%3Fx=1",
        f"?method=GET&path={BALANCE}%0D%0AX:%20y",
        f"?method=GET&path={BALANCE}/",
        f"?method=GET&path={V2}/portfolio/../api_keys",
        f"?method=GET&path={V2}/portfolio/%252e%252e/api_keys",
        f"?method=GET&path={V2}/%FF",
        "?method=GET&path=/portfolio/balance",
        f"?method=GET&path=http://x{BALANCE}",
    ],
)
def test_targets_that_have_no_single_reading(query: str) -> None:
    with pytest.raises(UnclearPathError):
        read_sign_target(f"/sign{query}")


def test_a_method_that_is_none_is_denied(proxy: RunningProxy) -> None:
    for method in ("get", "TRACE", "GET%0D%0A", ""):
        assert lines_of(proxy, method)[:3] == b"403", method


def test_other_targets_are_requests() -> None:
    for target in (BALANCE, "/signs?method=GET&path=x", "/"):
        assert read_sign_target(target) is None
