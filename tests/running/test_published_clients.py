"""The clients of docs/clients.md that CI doesn't run, unmodified, each in its own environment::

HSM_KEYS_TEST_CLIENTS=1 ./softhsm-setup.sh pytest tests/running/test_published_clients.py

The bot among them is no package: ``HSM_KEYS_TEST_BOT`` names its built ``apps/mm/dist/main.js``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli import ROOT
from tests.support.mcp import Mcp
from tests.support.order_life import LIFE, TERMS, in_table, lived
from tests.support.orders import TICKER
from tests.support.published import environment
from tests.support.runs import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.runs import Runs

pytestmark = [pytest.mark.program, pytest.mark.softhsm, pytest.mark.sdks, pytest.mark.timeout(300)]

V1 = [("POST", 410)]

KALSHI_PYTHON_ASYNC = f"""
import asyncio, os
from kalshi_python_async import Configuration, KalshiClient

async def main():
    configuration = Configuration(host=os.environ["KALSHI_API_BASE_URL"])
    configuration.api_key_id = os.environ["KALSHI_API_KEY_ID"]
    configuration.private_key_pem = open(os.environ["KALSHI_PRIVATE_KEY_PATH"]).read()
    client = KalshiClient(configuration)
    placed = await client.create_order_v2(**{TERMS!r})
    print((await client.get_order(order_id=placed.order_id)).order.status.value)
    print((await client.cancel_order_v2(order_id=placed.order_id)).reduced_by)
    await client.close()

asyncio.run(main())
"""

PYKALSHI = f"""
import os, sys, threading
from pykalshi import KalshiClient
from pykalshi.enums import BookSide

contained = sys.argv[1:]  # its feed's host is in the code
client = KalshiClient() if contained else KalshiClient(api_base=os.environ["KALSHI_API_BASE_URL"])
heard = threading.Event()
if contained:
    feed = client.feed()
    feed.on("user_orders", lambda message: heard.set())
    feed.subscribe("user_orders")
    feed.start()
    feed._connected.wait(20)
order = client.portfolio.place_order("{TICKER}", book_side=BookSide.BID, count_fp="2.00", price_dollars="0.2000")
if contained:
    print(heard.wait(20))
    feed.stop()
print(client.portfolio.get_order(order.order_id).status.value)
print(client.portfolio.cancel_order(order.order_id).status.value)
"""

PYKALSHI_CLIENT = f"""
import asyncio, os
from pykalshi import create_http_client, create_ws_client

async def main():
    who = os.environ["KALSHI_API_KEY_ID"], os.environ["KALSHI_PRIVATE_KEY_PATH"]
    subscribed, heard = asyncio.Event(), asyncio.Event()
    async def hear(message):
        if '"subscribed"' in message:
            subscribed.set()
        if '"user_order"' in message:
            heard.set()
    feed = create_ws_client(*who, on_message_callback=hear)
    await feed.connect()
    listening = asyncio.create_task(feed.listener_loop())
    await feed.add_markets(["{TICKER}"], ["user_orders"])
    await asyncio.wait_for(subscribed.wait(), 20)
    async with create_http_client(*who) as client:
        placed = await client.create_event_order(**{TERMS!r}, client_order_id="first")
        await asyncio.wait_for(heard.wait(), 20)
        print((await client.get_order(placed.order_id)).order.status.value)
        print((await client.cancel_event_order(placed.order_id)).reduced_by)
    await feed.close()
    listening.cancel()

asyncio.run(main())
"""

KYRO = f"""
import asyncio
from kyro import KyroHTTPError, RestClient, config_from_env
from kyro.rest.api import orders

async def main():
    async with RestClient(config_from_env()) as client:
        try:
            await orders.create_order(client, ticker="{TICKER}", side="yes", action="buy", count=2, yes_price=20)
        except KyroHTTPError as error:
            print(error.status)
        placed = await client.post("/portfolio/events/orders", json={TERMS!r})
        print((await orders.get_order(client, placed["order_id"]))["order"]["status"])
        print((await client.delete("/portfolio/events/orders/" + placed["order_id"]))["reduced_by"])

asyncio.run(main())
"""


@contextmanager
def server(runs: Runs, *words: str, options: tuple[str, ...] = (), **variables: str) -> Iterator[Mcp]:
    """Run an MCP server as an agent's configuration has it, and end it as an agent does: its input ends."""
    given: dict[str, Any] = {"stdin": subprocess.PIPE, "environment": variables}
    with runs.start(*words, options=options, **given) as process:
        try:
            yield Mcp(process)
            process.communicate(timeout=60)
        except BaseException:
            process.kill()
            print(process.communicate()[1])  # noqa: T201 - what the server said
            raise


def test_kalshi_python_async(runs: Runs) -> None:
    done = runs.run(str(environment("kalshi-python-async") / "python"), "-c", KALSHI_PYTHON_ASYNC)
    assert done.stdout.split() == ["resting", "2.00"], done.stderr
    assert lived(runs) == LIFE


@pytest.mark.parametrize("contained", [False, True])
def test_pykalshi(runs: Runs, contained: bool) -> None:
    words = (str(environment("pykalshi") / "python"), "-c", PYKALSHI)
    done = runs.run(*words, "feed", options=("--contain",)) if contained else runs.run(*words)
    assert done.stdout.split() == ["True"] * contained + ["resting", "canceled"], done.stderr
    assert lived(runs)[:3] == LIFE


def test_pykalshi_client(runs: Runs) -> None:
    done = runs.run(str(environment("pykalshi-client") / "python"), "-c", PYKALSHI_CLIENT)
    assert done.stdout.split() == ["resting", "2.00"], done.stderr
    assert lived(runs) == LIFE


def test_kyro(runs: Runs) -> None:
    done = runs.run(str(environment("kyro") / "python"), "-c", KYRO)
    assert done.stdout.split() == ["410", "resting", "2.00"], done.stderr
    assert lived(runs) == V1 + LIFE


def test_kalshi_mcp(runs: Runs) -> None:
    with server(runs, str(environment("kalshi-mcp") / "python"), "-m", "kalshi_mcp") as mcp:
        assert "balance" in mcp.call("get_portfolio").lower()
        assert "410" in mcp.call("place_order", ticker=TICKER, side="yes", quantity=2, price_cents=20)
    assert lived(runs) == V1


def test_mcp_server_kalshi(runs: Runs) -> None:
    with server(runs, str(environment("mcp-server-kalshi") / "mcp-server-kalshi"), options=("--contain",)) as mcp:
        wanted = {"ticker": TICKER, "action": "buy", "side": "yes", "count": 2, "limit_price": 20, "confirm": True}
        placed = mcp.ask("create_order", **wanted)["result"]["order_id"]
        assert mcp.ask("get_order", order_id=placed)["order"]["status"] == "resting"
        assert mcp.ask("cancel_order", order_id=placed)["reduced_by"] == "2.00"
    assert lived(runs) == LIFE


def test_kalshi_mcp_server(runs: Runs) -> None:
    words = str(environment("kalshi-mcp-server") / "kalshi-mcp-server")
    with server(runs, words, options=("--contain",), KALSHI_TRADING_ENABLED="1") as mcp:
        assert mcp.ask("kalshi_get_live_orderbook", ticker=TICKER, duration_s=1)["snapshot"]
        wanted = {"ticker": TICKER, "action": "buy", "side": "yes", "count": 2, "limit_price_cents": 20}
        prepared = mcp.ask("kalshi_prepare_order", **wanted)
        placed = mcp.ask("kalshi_confirm_order", confirmation_id=prepared["confirmation_id"])["order_id"]
        assert mcp.ask("kalshi_get_order", order_id=placed)["order"]["status"] == "resting"
        assert mcp.ask("kalshi_cancel_order", order_id=placed)["reduced_by"] == "2.00"
    assert lived(runs) == LIFE


def test_kalshi_degen_mcp(runs: Runs) -> None:
    words = str(environment("kalshi-degen-mcp") / "kalshi-degen-mcp")
    with server(runs, words, options=("--pem-type", "ed25519")) as mcp:
        placed = mcp.ask("create_order_v2", ticker=TICKER, side="bid", count="2.00", price="0.2000")["order_id"]
        listed = mcp.ask("list_orders", ticker=TICKER)["orders"]
        assert [(order["order_id"], order["status"]) for order in listed] == [(placed, "resting")]
        assert mcp.ask("cancel_order_v2", order_id=placed)["reduced_by"] == "2.00"
    assert lived(runs) == LIFE


def test_a_client_written_by_hand_in_c(runs: Runs) -> None:
    assert in_table("C, libcurl and OpenSSL", "Debian's")
    program = runs.folder / "order_life"
    source = str(ROOT / "tests" / "running" / "order_life.c")
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", source, "-lcurl", "-lcrypto", "-o", program], check=True)
    done = runs.run(str(program), json.dumps(TERMS))
    assert done.stdout.split() == ["resting", "2.00"], (done.returncode, done.stderr)
    assert lived(runs) == LIFE


BOT = os.environ.get("HSM_KEYS_TEST_BOT", "")
BOTS_KEY = 'KALSHI_PRIVATE_KEY="$(cat "$KALSHI_PRIVATE_KEY_PATH")" exec node "$1"'
BOTS_CONFIG = f"""
api: {{enabled: false}}
kalshi: {{demo: true}}
strategy: {{name: symmetric, symmetric: {{spreadCents: 4, sizePerSide: 2}}}}
markets: [{TICKER}]
"""


@pytest.mark.skipif(not BOT, reason="HSM_KEYS_TEST_BOT names no bot")
def test_a_market_maker_that_others_wrote(runs: Runs) -> None:
    assert in_table("kalshi-mm", json.loads((Path(BOT).parents[1] / "package.json").read_text())["version"])
    orders = runs.sandbox.state.book.orders
    command = ("sh", "-c", BOTS_KEY, "sh", str(Path(BOT).absolute()))
    with tempfile.TemporaryDirectory() as folder:  # the tests' own are in /dev/shm, which is empty to it
        (Path(folder) / "config.yaml").write_text(BOTS_CONFIG)
        with runs.start(*command, options=("--contain",), cwd=folder) as bot:
            until(lambda: len(orders) == 2 or bot.poll() is not None)  # it quotes what its WebSocket says of the book
            bot.send_signal(signal.SIGINT)
            out, err = bot.communicate(timeout=60)
    assert (bot.returncode, "Cancelled 2 orders" in out) == (0, True), err
    assert sorted((order.side, order.price, order.remaining) for order in orders.values()) == [
        ("ask", 5200, 0),
        ("bid", 4800, 0),
    ]
    assert [what for what in lived(runs) if what[0] != "GET"] == [("POST", 201), ("DELETE", 200)]
    assert ("GET", 200) in lived(runs)
