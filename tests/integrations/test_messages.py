"""Every kind of message of the WebSockets, read with kalshi-sdk's models: of the right types, and no field too many."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import PREFIX, Caller
from tests.support.listening import listen
from tests.support.orders import order_body
from tests.support.sdks import need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

pytestmark = [pytest.mark.sdks]

ANSWERS = {"subscribed", "unsubscribed", "ok", "error"}
COMMON = ANSWERS | {"orderbook_snapshot", "orderbook_delta", "ticker", "trade", "fill", "user_order"}
COMMON |= {"order_group_updates"}
CHANNELS = ["orderbook_delta", "ticker", "trade", "fill", "user_orders", "order_group_updates"]


@pytest.fixture
def boss() -> Iterator[Caller]:
    with SandboxServer(key_type="ed25519") as server:
        yield Caller.bootstrap(server)


def all_told(boss: Caller, *, perps: bool) -> list[dict[str, Any]]:
    """Return messages of every kind that there is."""
    below = f"{PREFIX}/margin" if perps else f"{PREFIX}/portfolio"
    orders = f"{below}/orders" if perps else f"{below}/events/orders"
    terms = {"ticker": "KXPERPTEST" if perps else "KXTEST-1"}
    with listen(boss, perps=perps) as listener:
        channels = CHANNELS if perps else [*CHANNELS, "market_positions"]
        listener.send("subscribe", channels=channels, market_tickers=[terms["ticker"]])
        group = boss.call("POST", f"{below}/order_groups/create", {"contracts_limit": 50}).json["order_group_id"]
        ending = {"expiration_time": 4_000_000_000, "order_group_id": group}
        order = boss.call("POST", orders, order_body(**terms, **ending, client_order_id="rests")).json
        boss.call("POST", orders, order_body(**terms, price="0.6000", client_order_id="fills"))
        boss.call("DELETE", f"{orders}/{order['order_id']}")
        listener.send("update_subscription", sids=[1], action="get_snapshot", market_tickers=[terms["ticker"]])
        listener.send("update_subscription", sid=1, action="add_markets", market_ticker="KXTEST-2")
        listener.send("unsubscribe", sids=[1, 99])
        listener.session.send("{")  # an answer without an id
        listed = {"id": 1, "cmd": "list_subscriptions"}
        listener.session.send(json.dumps(listed))
        return listener.told()


def models(*, perps: bool) -> dict[str, type[BaseModel]]:
    package = "kalshi.perps.ws" if perps else "kalshi.ws"
    found: dict[str, type[BaseModel]] = dict(import_module(f"{package}.dispatch").MESSAGE_MODELS)
    answers = import_module(f"{package}.models.{'control' if perps else 'base'}")
    suffix = "Response" if perps else "Message"
    for kind in ANSWERS:
        name = f"Perps{kind.title()}" if perps and kind == "error" else kind.title()
        found[kind] = getattr(answers, name + suffix)
    return found


@pytest.mark.parametrize("perps", [False, True])
def test_kalshi_sdk_reads_every_message(boss: Caller, perps: bool) -> None:
    need("kalshi-sdk")
    messages, known = all_told(boss, perps=perps), models(perps=perps)
    assert {message["type"] for message in messages} == (COMMON if perps else COMMON | {"market_position"})
    for message in messages:
        model = known[message["type"]]
        if perps and isinstance(message.get("msg"), list):
            model = import_module("kalshi.perps.ws.models.control").ListSubscriptionsResponse
        TypeAdapter(model).validate_json(json.dumps(message), strict=True, extra="forbid")
