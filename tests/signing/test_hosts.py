"""Each environment has hosts of its own for REST, WebSockets and FIX; what Kalshi's SDK knows is the measure."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import pytest

from hsm_keys import RequestSigner, websocket_url
from hsm_keys.errors import UsageError
from hsm_keys.signing.environments import ENVIRONMENTS, PERPS, environment_name, resolve
from hsm_keys.signing.fix import PORTS, TARGETS, fix_address
from tests.support.presigning import CountingKey
from tests.support.sdks import need

PROD, DEMO = "wss://external-api-ws.kalshi.com", "wss://external-api-ws.demo.kalshi.co"
MARGIN = "wss://external-api-margin-ws.kalshi.com/trade-api/ws/v2/margin"
WS, WS_MARGIN = "/trade-api/ws/v2", "/trade-api/ws/v2/margin"
OLD = "https://api.elections.kalshi.com/trade-api/v2"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, PROD + WS),
        ({"environment": "demo"}, DEMO + WS),
        ({"exchange": PERPS}, MARGIN),
        ({"base_url": OLD}, "wss://api.elections.kalshi.com/trade-api/ws/v2"),
        ({"base_url": OLD, "exchange": PERPS}, MARGIN),
        ({"base_url": "https://demo-api.kalshi.co"}, "wss://demo-api.kalshi.co/trade-api/ws/v2"),
        ({"base_url": "https://gateway.example:8443"}, "wss://gateway.example:8443/trade-api/ws/v2"),
        ({"base_url": "http://127.0.0.1:80"}, "ws://127.0.0.1:80/trade-api/ws/v2"),
        ({"ws_url": "wss://gateway.example"}, "wss://gateway.example/trade-api/ws/v2"),
        ({"ws_url": "wss://gateway.example/trade-api/ws/v2/", "exchange": PERPS}, f"wss://gateway.example{WS_MARGIN}"),
        ({"base_url": "https://gateway.example", "ws_url": PROD, "exchange": PERPS}, MARGIN),
        ({"base_url": OLD, "ws_url": PROD + WS}, PROD + WS),
    ],
)
def test_the_websocket_of_a_base_url(given: dict[str, Any], url: str) -> None:
    assert websocket_url(**given, env={}) == url


def test_the_variables_name_it_too() -> None:
    env = {"KALSHI_API_BASE_URL": "http://127.0.0.1:8000/trade-api/v2", "KALSHI_WS_URL": "ws://127.0.0.1:8001" + WS}
    assert websocket_url(env=env) == env["KALSHI_WS_URL"]
    assert websocket_url(env=env, exchange=PERPS) == f"ws://127.0.0.1:8001{WS_MARGIN}"
    assert websocket_url(env=env, ws_url="ws://127.0.0.1:8002") == f"ws://127.0.0.1:8002{WS}"
    # What a sandbox has left in a shell is no place for a production key's handshake.
    assert websocket_url(env=env, environment="prod") == PROD + WS
    assert websocket_url(env={"KALSHI_DEMO": "true"}) == DEMO + WS


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"environment": "demo", "ws_url": PROD},
            "the base URL is of the environment demo, and the WebSocket's URL of prod",
        ),
        ({"ws_url": "ws://gateway.example"}, "neither wss nor loopback"),
        ({"ws_url": "https://gateway.example"}, "neither wss nor loopback"),
        ({"ws_url": "wss://gateway.example/trade-api/v2"}, "the path of the WebSocket URL isn't"),
        ({"ws_url": "wss://user:pass@gateway.example"}, "user name or password"),
        ({"ws_url": "wss://[::1"}, "malformed"),
    ],
)
def test_a_websocket_url_that_can_not_be_one(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        websocket_url(**given, env={})
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("exchange", [None, PERPS])
def test_a_handshake_is_signed_for_hosts_that_serve_it(name: str, exchange: str | None) -> None:
    key = CountingKey()
    signer = RequestSigner(key)
    url = websocket_url(environment=name, exchange=exchange, env={})
    assert signer.websocket_headers(url)
    assert key.messages[-1].decode().partition("GET")[2] == urlsplit(url).path
    hosts = ENVIRONMENTS[name]
    path = urlsplit(url).path
    wrong = hosts.websocket if exchange else hosts.margin_websocket
    for host in (hosts.rest, wrong):
        with pytest.raises(UsageError, match="doesn't serve") as caught:
            signer.websocket_headers(f"wss://{host}{path}")
        assert url in caught.value.hint
    assert len(key.messages) == 1


def test_a_handshake_is_signed_for_a_path_or_an_older_host() -> None:
    key = CountingKey()
    signer = RequestSigner(key)
    for target in (WS, "wss://api.elections.kalshi.com/trade-api/ws/v2", "ws://127.0.0.1:8001", WS_MARGIN):
        signer.websocket_headers(target)
    assert [message.decode().partition("GET")[2] for message in key.messages] == [WS, WS, WS, WS_MARGIN]
    with pytest.raises(UsageError):
        signer.websocket_headers("ws://gateway.example" + WS)


def test_perps_has_variables_of_its_own() -> None:
    env = {"KALSHI_PERPS_DEMO": "true", "KALSHI_API_BASE_URL": "https://gateway.example"}
    assert resolve(exchange=PERPS, env=env) == ENVIRONMENTS["demo"].base_url
    assert resolve(env=env) == "https://gateway.example/trade-api/v2"
    assert resolve(exchange=PERPS, env={**env, "KALSHI_PERPS_DEMO": ""}) == "https://gateway.example/trade-api/v2"
    named = {**env, "KALSHI_PERPS_API_BASE_URL": "https://perps.example"}
    assert resolve(exchange=PERPS, env=named) == "https://perps.example/trade-api/v2"
    with pytest.raises(UsageError, match="KALSHI_PERPS_DEMO is neither"):
        resolve(exchange=PERPS, env={"KALSHI_PERPS_DEMO": "maybe"})


@pytest.mark.parametrize(
    ("target", "where", "address"),
    [
        ("KalshiNR", {}, ("mm.fix.elections.kalshi.com", 8228)),
        ("KalshiMD", {"environment": "demo"}, ("marketdata.fix.demo.kalshi.co", 8233)),
        ("KalshiDC", {"base_url": OLD, "exchange": PERPS}, ("margin-fix-api.fix.elections.kalshi.com", 8229)),
        ("KalshiNR", {"base_url": "https://gateway.example"}, None),
        ("Other", {"environment": "prod"}, None),
    ],
)
def test_where_a_fix_gateway_is(
    target: str, where: dict[str, str], address: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KALSHI_API_BASE_URL", raising=False)
    assert fix_address(target, **where) == address


@pytest.mark.parametrize("target", ["KalshiPT", "KalshiRFQ"])
def test_perps_lacks_some_fix_gateways(target: str) -> None:
    with pytest.raises(UsageError, match="for perpetual futures"):
        fix_address(target, environment="prod", exchange=PERPS)


# What Kalshi's SDK knows of hosts.


@pytest.mark.sdks
def test_the_websockets_are_those_of_kalshi_sdk() -> None:
    need("kalshi-sdk")
    config, perps = import_module("kalshi.config"), import_module("kalshi.perps.config")
    for base_url, url in (
        (config.PRODUCTION_BASE_URL, config.PRODUCTION_WS_URL),
        (config.DEMO_BASE_URL, config.DEMO_WS_URL),
    ):
        assert websocket_url(base_url=base_url, env={}) == url
    for name, base_url, url in (
        ("prod", perps.PERPS_PRODUCTION_BASE_URL, perps.PERPS_PRODUCTION_WS_URL),
        ("demo", perps.PERPS_DEMO_BASE_URL, perps.PERPS_DEMO_WS_URL),
    ):
        assert ENVIRONMENTS[name].base_url == base_url
        assert environment_name(base_url, exchange=PERPS) == f"{name}-perps"
        assert websocket_url(base_url=base_url, exchange=PERPS, env={}) == url


@pytest.mark.sdks
def test_the_fix_gateways_are_those_of_kalshi_sdk() -> None:
    need("kalshi-sdk")
    config = import_module("kalshi.fix.config")
    assert {session.value: port for session, port in config._SESSION_PORTS.items()} == PORTS
    names = {config.FixEnvironment.PRODUCTION: "prod", config.FixEnvironment.DEMO: "demo"}
    for (product, environment), (order_entry, market_data) in config._HOSTS.items():
        exchange = PERPS if product is config.FixProduct.MARGIN else None
        for session in config._PRODUCT_SESSIONS[product]:
            host = market_data if session.value == "KalshiMD" else order_entry
            where = fix_address(session.value, environment=names[environment], exchange=exchange)
            assert where == (host, PORTS[session.value])
    assert set(TARGETS) == set(PORTS)
