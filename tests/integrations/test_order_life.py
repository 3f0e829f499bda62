"""The life of an order with each published client, unmodified, on a key in a token.

Each places, amends, reads and cancels one, and cancels all. Those with a WebSocket receive what happens to their order.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.integrations.kalshi_python import sign_with
from tests.support import node
from tests.support.orders import ORDERS, TICKER
from tests.support.sdks import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys import StoredKey
    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.sandbox.state import SandboxKey
    from tests.support.softhsm import TestToken

pytestmark = [
    pytest.mark.sdks,
    pytest.mark.softhsm,
    pytest.mark.parametrize("store_uri", ["SoftHSM"], indirect=True),
]

TERMS = {
    "ticker": TICKER,
    "side": "bid",
    "price": "0.2000",
    "count": "2.50",
    "time_in_force": "good_till_canceled",
    "self_trade_prevention_type": "taker_at_cross",
}
CHANGED = {"ticker": TICKER, "side": "bid", "price": "0.2100", "count": "1.50"}
LIFE = [
    ("POST", ORDERS, 201),
    ("POST", f"{ORDERS}/1/amend", 200),
    ("GET", "/trade-api/v2/portfolio/orders/1", 200),
    ("DELETE", f"{ORDERS}/1", 200),
    ("POST", ORDERS, 201),
    ("DELETE", ORDERS, 204),
]
"""What reaches the server, with 1 for the first order's id."""


def lived(sandbox: SandboxServer, key: SandboxKey) -> list[tuple[str, str, int | None]]:
    """Return the requests that have arrived, each signed well with the token's key; WebSockets apart."""
    requests = [seen for seen in sandbox.requests if "/ws/" not in seen.path]
    assert {(seen.api_key_id, seen.verified) for seen in requests} == {(key.api_key_id, True)}
    first = next(iter(sandbox.state.orders))
    return [(seen.method, seen.path.replace(first, "1"), seen.status) for seen in requests]


def all_cancelled(sandbox: SandboxServer) -> bool:
    return [order["status"] for order in sandbox.state.orders.values()] == ["canceled", "canceled"]


@pytest.fixture
def key(prod: SandboxKey, store_uri: str) -> Iterator[StoredKey]:
    with open_store(store_uri) as store:
        yield store.key("prod").registered()


def test_kalshi_sdk(prod: SandboxKey, key: StoredKey, sandbox: SandboxServer) -> None:
    need("kalshi-sdk")
    kalshi, models = import_module("kalshi"), import_module("kalshi.models.orders")
    config = kalshi.KalshiConfig(base_url=sandbox.base_url, ws_base_url=sandbox.ws_url)
    with kalshi.KalshiClient(auth=kalshi.KalshiAuth(key.api_key_id, key.private_key("rsa")), config=config) as client:
        placed = client.orders.create_v2(request=models.CreateOrderV2Request(**TERMS, client_order_id="first"))
        amended = client.orders.amend_v2(placed.order_id, request=models.AmendOrderV2Request(**CHANGED))
        assert str(amended.remaining_count) == "1.50"
        read = client.orders.get(placed.order_id)
        assert (read.status, str(read.yes_price), read.client_order_id) == ("resting", "0.2100", "first")
        assert str(client.orders.cancel_v2(placed.order_id).reduced_by) == "1.50"
        client.orders.create_v2(request=models.CreateOrderV2Request(**TERMS, client_order_id="second"))
        client.orders.cancel_all_v2()
    assert lived(sandbox, prod) == LIFE
    assert all_cancelled(sandbox)


def test_kalshi_sdk_hears_of_its_order(prod: SandboxKey, key: StoredKey, sandbox: SandboxServer) -> None:
    need("kalshi-sdk")
    kalshi, models = import_module("kalshi"), import_module("kalshi.models.orders")
    auth = kalshi.KalshiAuth(key.api_key_id, key.private_key("rsa"))
    config = kalshi.KalshiConfig(base_url=sandbox.base_url, ws_base_url=sandbox.ws_url)

    async def run() -> dict[str, Any]:
        async with kalshi.AsyncKalshiClient(auth=auth, config=config) as client, client.ws.connect() as session:
            streams = {
                "user_order": await session.subscribe_user_orders(),
                "fill": await session.subscribe_fill(),
                "market_position": await session.subscribe_market_positions(),
                "trade": await session.subscribe_trade(tickers=[TICKER]),
                "orderbook": await session.subscribe_orderbook_delta(tickers=[TICKER]),
            }
            await client.orders.create_v2(
                request=models.CreateOrderV2Request(**{**TERMS, "price": "0.9900"}, client_order_id="first")
            )
            return {name: await asyncio.wait_for(anext(stream), 20) for name, stream in streams.items()}

    heard = asyncio.run(run())
    assert {name: message.type for name, message in heard.items() if name != "orderbook"} == {
        name: name for name in heard if name != "orderbook"
    }
    assert heard["orderbook"].type == "orderbook_snapshot"
    assert heard["user_order"].msg.client_order_id == heard["fill"].msg.client_order_id == "first"
    assert str(heard["fill"].msg.count) == str(heard["market_position"].msg.position) == "2.50"


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
@pytest.mark.parametrize("name", ["kalshi-python-sync", "kalshi-python-async"])
def test_kalshi_python(
    enrolled: Callable[..., SandboxKey], token: TestToken, sandbox: SandboxServer, name: str, key_type: KeyType
) -> None:
    need(name)
    package = import_module(name.replace("-", "_"))
    if not hasattr(package, "CreateOrderV2Request"):
        pytest.skip(f"{name} {package.__version__} writes no orders that Kalshi still takes")
    registered = enrolled(key_type)

    async def run(client: Any) -> None:
        async def call(method: str, **arguments: Any) -> Any:
            answer = getattr(client, method)(**arguments)
            return await answer if inspect.isawaitable(answer) else answer

        placed = await call("create_order_v2", **TERMS)
        amended = await call("amend_order_v2", order_id=placed.order_id, **CHANGED)
        assert amended.remaining_count == "1.50"
        read = (await call("get_order", order_id=placed.order_id)).order
        assert (read.status.value, read.yes_price_dollars, read.book_side.value) == ("resting", "0.2100", "bid")
        assert (await call("cancel_order_v2", order_id=placed.order_id)).reduced_by == "1.50"
        await call("create_order_v2", **TERMS)
        await call("cancel_all_orders")

    async def run_async(client: Any) -> None:
        async with client:
            await run(client)

    with open_store(token.uri) as store:
        signer = store.key("prod").signer()
        client = sign_with(package.KalshiClient(package.Configuration(host=sandbox.base_url)), signer)
        if hasattr(client, "__aenter__"):
            asyncio.run(run_async(client))
        else:
            asyncio.run(run(client))
            client.rest_client.pool_manager.clear()  # this SDK has no close
    assert lived(sandbox, registered) == LIFE
    assert all_cancelled(sandbox)


def test_pykalshi(prod: SandboxKey, key: StoredKey, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    need("pykalshi")
    pykalshi = import_module("pykalshi")

    class InToken(pykalshi.KalshiClient):  # type: ignore[misc, name-defined] # it has no types
        def _load_private_key(self, key_path: str) -> Any:
            return key.private_key("rsa")

    with InToken(api_key_id=key.api_key_id, private_key_path="none", api_base=sandbox.base_url) as client:
        feed, heard, told = client.feed(), [], threading.Event()
        feed._ws_url = sandbox.ws_url  # it has no option for another host

        def hear(message: Any) -> None:
            heard.append(message)
            told.set()

        feed.on("user_orders", hear)
        feed.subscribe("user_orders")
        with feed:
            order = client.portfolio.place_order(TICKER, book_side="bid", count_fp="2.50", price_dollars="0.2000")
            assert told.wait(20)
            assert (heard[0].order_id, heard[0].status) == (order.order_id, "resting")
            order.amend(count_fp="1.50", price_dollars="0.2100")
            order.refresh()
            assert (order.status.value, order.yes_price_dollars, order.remaining_count_fp) == (
                "resting",
                "0.2100",
                "1.50",
            )
            order.cancel()
            client.portfolio.place_order(TICKER, book_side="bid", count_fp="1", price_dollars="0.2000")
            client.delete("/portfolio/events/orders")  # it has no method of its own for it
    assert lived(sandbox, prod) == LIFE
    assert all_cancelled(sandbox)


def test_kalshi_mcp_server(
    prod: SandboxKey, key: StoredKey, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tools, as a program with a model calls them. It can't amend, and has no tool that cancels all."""
    need("kalshi-mcp-server")
    for name, value in {"API_KEY_ID": prod.api_key_id, "PRIVATE_KEY_PEM": "none", "TRADING_ENABLED": "1"}.items():
        monkeypatch.setenv(f"KALSHI_{name}", value)
    mcp = {name: import_module(f"kalshi_mcp_server.{name}") for name in ("auth", "client", "config", "safety", "ws")}
    limits, tools = import_module("kalshi_mcp_server.rate_limit"), import_module("kalshi_mcp_server.tools.orders")
    fastmcp = import_module("fastmcp")
    hosts = {"rest_base": sandbox.base_url, "ws_url": sandbox.ws_url}  # variables choose among Kalshi's own alone
    config = replace(mcp["config"].Config.from_env(), **hosts)
    signer = mcp["auth"].KalshiSigner(key_id=key.api_key_id, private_key=key.private_key("rsa"))

    async def run() -> list[Any]:
        limiter = limits.KalshiRateLimiter(limits.TierLimits.basic())
        server = fastmcp.FastMCP("kalshi")
        server._kalshi_client = mcp["client"].KalshiClient(config=config, signer=signer, rate_limiter=limiter)
        server._kalshi_safety = mcp["safety"].SafetyController(config)
        tools.register(server)

        async def call(tool: str, **arguments: Any) -> Any:
            return (await caller.call_tool(f"kalshi_{tool}", arguments)).data

        async with mcp["ws"].KalshiWSClient(config=config, signer=signer) as feed, fastmcp.Client(server) as caller:
            await feed.subscribe(channel="user_orders")
            terms = {"ticker": TICKER, "action": "buy", "side": "yes", "count": 3, "limit_price_cents": 20}
            prepared = await call("prepare_order", **terms)
            placed = await call("confirm_order", confirmation_id=prepared["confirmation_id"])
            await call("decrease_order", order_id=placed["order_id"], reduce_by=1)
            read = (await call("get_order", order_id=placed["order_id"]))["order"]
            assert (read["status"], read["yes_price_dollars"], read["remaining_count_fp"]) == (
                "resting",
                "0.2000",
                "2.00",
            )
            assert (await call("cancel_order", order_id=placed["order_id"]))["reduced_by"] == "2.00"
            await server._kalshi_client.aclose()
            return [(await feed.recv())["type"] for _ in range(4)]

    assert asyncio.run(run()) == ["subscribed", "user_order", "user_order", "user_order"]
    assert lived(sandbox, prod) == [
        ("POST", ORDERS, 201),
        ("POST", f"{ORDERS}/1/decrease", 200),
        ("GET", "/trade-api/v2/portfolio/orders/1", 200),
        ("DELETE", f"{ORDERS}/1", 200),
    ]


TYPESCRIPT = """
const { Configuration, OrdersApi } = require("kalshi-typescript");
const axios = require("axios");
const { execFileSync } = require("node:child_process");
const [basePath, python, terms, changed] = process.argv.slice(1);
const http = axios.create();
http.interceptors.request.use(async (config) => {
  const target = new URL(config.url, basePath).pathname;
  const sign = ["-m", "hsm_keys", "sign", config.method.toUpperCase(), target, "--name", "prod", "--output", "json"];
  Object.assign(config.headers, JSON.parse(execFileSync(python, sign)));
  return config;
});
const orders = new OrdersApi(new Configuration({ basePath }), basePath, http);
(async () => {
  const placed = (await orders.createOrderV2(JSON.parse(terms))).data;
  await orders.amendOrderV2(placed.order_id, JSON.parse(changed));
  const read = (await orders.getOrder(placed.order_id)).data.order;
  const cancelled = (await orders.cancelOrderV2(placed.order_id)).data;
  await orders.createOrderV2(JSON.parse(terms));
  await orders.cancelAllOrders();
  console.log(JSON.stringify([read.status, read.yes_price_dollars, cancelled.reduced_by]));
})();
"""


@pytest.mark.program
def test_kalshi_typescript(prod: SandboxKey, token: TestToken, sandbox: SandboxServer) -> None:
    """It has no WebSocket."""
    where = node.folder()
    done = subprocess.run(
        ["node", "-e", TYPESCRIPT, sandbox.base_url, sys.executable, json.dumps(TERMS), json.dumps(CHANGED)],
        cwd=where,
        env={
            **os.environ,
            "HSM_KEYS_STORE": token.uri_without_pin,
            "HSM_KEYS_PIN_FILE": str(token.pin_file),
            "PYTHONPATH": os.getcwd(),  # noqa: PTH109 - for the program that node runs elsewhere
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["resting", "0.2100", "1.50"]
    assert lived(sandbox, prod) == LIFE
    assert all_cancelled(sandbox)
