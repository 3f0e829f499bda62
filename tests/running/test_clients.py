"""Published clients, unmodified, behind `hsm-keys run`: each places, reads and cancels an order."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import node
from tests.support.order_life import LIFE, TERMS, in_table, lived
from tests.support.published import PACKAGES
from tests.support.sdks import need

if TYPE_CHECKING:
    from tests.support.runs import Runs

pytestmark = [pytest.mark.program, pytest.mark.softhsm, pytest.mark.sdks]

KALSHI_SDK = f"""
import asyncio, os, sys
from kalshi import AsyncKalshiClient, KalshiAuth, KalshiConfig
from kalshi.models.orders import CreateOrderV2Request

async def main():
    urls = {{"base_url": os.environ["KALSHI_BASE_URL"], "ws_base_url": os.environ["KALSHI_WS_URL"]}}
    if sys.argv[1:]:  # its from_env has no variable for the WebSocket, and takes Kalshi's own host
        client = AsyncKalshiClient.from_env()
    else:
        client = AsyncKalshiClient(auth=KalshiAuth.try_from_env(), config=KalshiConfig(**urls))
    async with client, client.ws.connect() as session:
        heard = await session.subscribe_user_orders()
        placed = await client.orders.create_v2(request=CreateOrderV2Request(**{TERMS!r}, client_order_id="first"))
        print((await asyncio.wait_for(anext(heard), 20)).msg.client_order_id)
        print((await client.orders.get(placed.order_id)).status)
        print((await client.orders.cancel_v2(placed.order_id)).reduced_by)

asyncio.run(main())
"""

KALSHI_PYTHON = f"""
import os
from kalshi_python_sync import Configuration, KalshiClient

configuration = Configuration(host=os.environ["KALSHI_API_BASE_URL"])
configuration.api_key_id = os.environ["KALSHI_API_KEY_ID"]
configuration.private_key_pem = open(os.environ["KALSHI_PRIVATE_KEY_PATH"]).read()
client = KalshiClient(configuration)
placed = client.create_order_v2(**{TERMS!r})
print(client.get_order(order_id=placed.order_id).order.status.value)
print(client.cancel_order_v2(order_id=placed.order_id).reduced_by)
"""

TYPESCRIPT = f"""
const {{ Configuration, OrdersApi }} = require("kalshi-typescript");
const configuration = new Configuration({{
  basePath: process.env.KALSHI_API_BASE_URL,
  apiKey: process.env.KALSHI_API_KEY_ID,
  privateKeyPath: process.env.KALSHI_PRIVATE_KEY_PATH,
}});
(async () => {{
  const orders = new OrdersApi(configuration);
  const placed = (await orders.createOrderV2({TERMS!r})).data;
  console.log((await orders.getOrder(placed.order_id)).data.order.status);
  console.log((await orders.cancelOrderV2(placed.order_id)).data.reduced_by);
}})();
"""

CURL = f"""
set -eu
ask() {{ curl -sSf -H "KALSHI-ACCESS-KEY: $KALSHI_KEY_ID" -H "Content-Type: application/json" "$@"; }}
url=https://external-api.kalshi.com/trade-api/v2/portfolio
id=$(ask -d '{str(TERMS).replace("'", '"')}' $url/events/orders | sed 's/.*"order_id": *"\\([^"]*\\)".*/\\1/')
ask $url/orders/$id | grep -o resting | head -1
ask -X DELETE $url/events/orders/$id | sed 's/.*"reduced_by": *"\\([^"]*\\)".*/\\1/'
"""


@pytest.mark.parametrize("contained", [False, True])
def test_kalshi_sdk(runs: Runs, contained: bool) -> None:
    assert in_table("kalshi-sdk", need("kalshi-sdk"))
    words = (sys.executable, "-c", KALSHI_SDK)
    done = runs.run(*words, "from_env", options=("--contain",)) if contained else runs.run(*words)
    assert done.stdout == "first\nresting\n2.00\n", done.stderr
    assert lived(runs) == LIFE


def test_kalshi_python_sync(runs: Runs) -> None:
    version = need("kalshi-python-sync")
    if sys.version_info < (3, 13):
        pytest.skip(f"kalshi-python-sync {version} writes no orders that Kalshi still takes")
    assert in_table("kalshi-python-sync", version)
    done = runs.python(KALSHI_PYTHON)
    assert done.stdout.split() == ["resting", "2.00"], done.stderr
    assert lived(runs) == LIFE


def test_kalshi_typescript(runs: Runs) -> None:
    folder = node.folder()
    assert in_table("kalshi-typescript", "3.30.0")
    done = runs.run("node", "-e", TYPESCRIPT, cwd=folder)
    assert done.stdout.split() == ["resting", "2.00"], done.stderr
    assert lived(runs) == LIFE


def test_curl_with_kalshis_own_host(runs: Runs) -> None:
    assert shutil.which("curl"), "curl is needed"
    done = runs.run("bash", "-c", CURL, options=("--contain",))
    assert done.stdout.split() == ["resting", "2.00"], done.stderr
    assert lived(runs) == LIFE


def test_the_table_has_every_client_that_is_run_behind_a_flag() -> None:
    assert [package for package, version in PACKAGES.items() if not in_table(package, version)] == []
