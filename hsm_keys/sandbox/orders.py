"""The V2 order routes: of events below ``/portfolio/events/orders``, of perpetuals below ``/margin/orders``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hsm_keys.sandbox import bodies
from hsm_keys.sandbox.bodies import body_of
from hsm_keys.sandbox.fixed_point import count_of, count_text
from hsm_keys.sandbox.markets import MARKET_VERSION, MARKETS, PERPS
from hsm_keys.sandbox.matching import Order, OrderRefused
from hsm_keys.sandbox.queries import asked_subaccount, integer
from hsm_keys.sandbox.shapes import summary
from hsm_keys.sandbox.subaccounts import subaccount_of
from hsm_keys.sandbox.wire import Call, SandboxAnswer, WireError, flat, nested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.sandbox.grouping import Groups
    from hsm_keys.sandbox.markets import Market
    from hsm_keys.sandbox.matching import Book

__all__ = ["Desk", "gone"]

_ANY_SHARD = -1


class Desk:
    """Takes, changes and ends the orders of one exchange.

    Args:
        perps: Whether it is the exchange of perpetuals.
    """

    def __init__(self, *, perps: bool) -> None:
        self._perps = perps
        self._markets: Mapping[str, Market] = PERPS if perps else MARKETS

    def _book(self, call: Call) -> Book:
        book = call.state.margin if self._perps else call.state.book
        book.expire(call.now_ms)
        return book

    async def create(self, call: Call) -> SandboxAnswer:
        """``POST``: an order; 201 with what became of it at once."""
        body = body_of(call, bodies.CreateMarginOrder if self._perps else bodies.CreateOrder)
        return SandboxAnswer(201, self._shown(summary(self._place(call, body))))

    def _shown(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer without what Kalshi leaves out below ``/margin``."""
        return _without(answer, "ts_ms") if self._perps else answer

    def _place(self, call: Call, body: bodies.CreateOrder) -> Order:
        market = self._market(body.ticker, body.exchange_index)
        if isinstance(body, bodies.CreateMarginOrder) and (body.market_version or MARKET_VERSION) != MARKET_VERSION:
            raise _refused(409, "market_version_mismatch")
        price, count = int(body.price), int(body.count)
        if price % market.tick:
            raise _refused(400, "invalid_price")
        if body.expiration_time is not None and body.expiration_time * 1000 <= call.now_ms:
            raise flat(400, "invalid_parameters", "expiration_time: must be in the future")
        group = body.order_group_id or None
        order = Order(
            order_id=str(uuid4()),
            client_order_id=body.client_order_id or str(uuid4()),
            market=market,
            side=body.side,
            price=price,
            initial=count,
            remaining=count,
            subaccount=subaccount_of(call, body.subaccount) or 0,
            time_in_force=body.time_in_force,
            self_trade_prevention=body.self_trade_prevention_type,
            created_ms=call.now_ms,
            updated_ms=call.now_ms,
            group=group,
            expires_s=body.expiration_time,
            cancel_on_pause=bool(body.cancel_order_on_pause),
        )
        book = self._book(call)
        groups = self._groups(call)
        try:
            groups.check(group)
            placed = book.place(order, post_only=bool(body.post_only), reduce_only=bool(body.reduce_only))
        except OrderRefused as refusal:
            raise _refused(refusal.status, refusal.code, refusal.details) from None
        groups.matched(placed, placed.filled, call.now_ms)
        return book.orders[placed.order_id]

    def _groups(self, call: Call) -> Groups:
        return call.state.margin_groups if self._perps else call.state.groups

    def _market(self, ticker: str, shard: int | None) -> Market:
        market = self._markets.get(ticker)
        if market is None or shard not in {None, _ANY_SHARD, market.shard}:
            raise _refused(404, "market_not_found")
        return market

    async def create_batch(self, call: Call) -> SandboxAnswer:
        """``POST .../batched``: each order by itself; the answer has a summary or an error for each."""
        answers: list[dict[str, Any]] = []
        for entry in body_of(call, bodies.CreateOrders).orders:
            try:
                answers.append(summary(self._place(call, bodies.checked(entry, bodies.CreateOrder))))
            except WireError as error:
                client_order_id = entry.get("client_order_id")
                named = {"client_order_id": client_order_id} if isinstance(client_order_id, str) else {}
                answers.append(named | {"error": _inner(error)})
        return SandboxAnswer(201, {"orders": answers})

    async def amend(self, call: Call) -> SandboxAnswer:
        """``POST .../{order_id}/amend``: another price or count for a resting order."""
        body = body_of(call, bodies.AmendMarginOrder if self._perps else bodies.AmendOrder)
        order = self._resting(call, call.path["order_id"], asked_subaccount(call), body.exchange_index, body.ticker)
        if body.ticker != order.market.ticker or body.side != order.side:
            raise flat(400, "invalid_parameters", "ticker and side must be those of the order")
        if body.client_order_id is not None and body.client_order_id != order.client_order_id:
            raise flat(400, "invalid_parameters", "client_order_id must be that of the order")
        price, count = int(body.price), int(body.count)
        if price % order.market.tick or count <= order.filled:
            raise flat(400, "invalid_parameters", "price or count can't be those of this order")
        changed = replace(
            order,
            price=price,
            initial=count,
            remaining=count - order.filled,
            client_order_id=body.updated_client_order_id or order.client_order_id,
            expires_s=order.expires_s if body.expiration_time is None else body.expiration_time or None,
            updated_ms=call.now_ms,
        )
        book = self._book(call)
        try:
            amended = book.amend(order, changed)
        except OrderRefused as refusal:
            raise _refused(refusal.status, refusal.code, refusal.details) from None
        self._groups(call).matched(amended, amended.filled - order.filled, call.now_ms)
        return SandboxAnswer(200, self._shown(summary(book.orders[order.order_id])))

    async def decrease(self, call: Call) -> SandboxAnswer:
        """``POST .../{order_id}/decrease``: by so many contracts, or to so many."""
        body = body_of(call, bodies.DecreaseMarginOrder if self._perps else bodies.DecreaseOrder)
        order = self._resting(
            call, call.path["order_id"], asked_subaccount(call), body.exchange_index, body.market_ticker
        )
        if body.reduce_by is not None:
            remaining = max(0, order.remaining - int(body.reduce_by))
        else:
            remaining = _remaining_of(str(body.reduce_to))
            if remaining > order.remaining:
                raise flat(400, "invalid_parameters", "reduce_to: must not be more than what remains")
        left = self._book(call).decrease(order, remaining, call.now_ms)
        return SandboxAnswer(
            200, _without(self._shown(summary(left)), "fill_count", "average_fill_price", "average_fee_paid")
        )

    async def cancel(self, call: Call) -> SandboxAnswer:
        """``DELETE .../{order_id}``: on another shard than 0 the query has to say which, or the market."""
        shard, ticker = integer(call.query, "exchange_index", _ANY_SHARD, 2**31), call.query.get("market_ticker")
        order = self._resting(call, call.path["order_id"], asked_subaccount(call), shard, ticker)
        return SandboxAnswer(200, self._shown(self._cancelled(call, order)))

    def _cancelled(self, call: Call, order: Order) -> dict[str, Any]:
        self._book(call).end(order, call.now_ms)
        return {
            "order_id": order.order_id,
            "client_order_id": order.client_order_id,
            "reduced_by": count_text(order.remaining),
            "ts_ms": call.now_ms,
        }

    async def cancel_batch(self, call: Call) -> SandboxAnswer:
        """``DELETE .../batched``, with a body: each order by itself."""
        answers: list[dict[str, Any]] = []
        for entry in body_of(call, bodies.CancelOrders).orders:
            try:
                order = self._resting(call, entry.order_id, entry.subaccount, entry.exchange_index, entry.market_ticker)
                answers.append(self._cancelled(call, order))
            except WireError as error:
                answers.append({"order_id": entry.order_id, "reduced_by": count_text(0), "error": _inner(error)})
        return SandboxAnswer(200, {"orders": answers})

    async def cancel_all(self, call: Call) -> SandboxAnswer:
        """``DELETE``: everything that rests, on every shard."""
        only = subaccount_of(call, asked_subaccount(call))
        book = self._book(call)
        for order in list(book.orders.values()):
            if order.status == "resting" and only in {None, order.subaccount}:
                book.end(order, call.now_ms)
        return SandboxAnswer(204)

    def _resting(
        self, call: Call, order_id: str, subaccount: int | None, shard: int | None, ticker: str | None
    ) -> Order:
        """Return an order that rests where the call looks for it.

        Raises:
            WireError: 404.
        """
        only = subaccount_of(call, subaccount) or 0  # unless it is named, the primary one: so it is documented
        order = self._book(call).orders.get(order_id)
        found = order is not None and order.status == "resting" and only == order.subaccount
        if order is None or not found or not _looks_at(order.market, shard, ticker):
            raise nested(404, "not_found", "order not found")
        return order


def _looks_at(market: Market, shard: int | None, ticker: str | None) -> bool:
    """Tell whether a call looks at the market's shard: it names it, or the market; named neither, it is shard 0."""
    if ticker is not None and ticker != market.ticker:
        return False
    if shard is None:
        return market.shard == 0 or ticker is not None
    return shard == market.shard or (shard == _ANY_SHARD and ticker is not None)


def _refused(status: int, code: str, details: str | None = None) -> WireError:
    """Return the exchange's refusal in the shape that was seen on Kalshi's wire."""
    return nested(status, code, code.replace("_", " "), details=details)


def _inner(error: WireError) -> object:
    """Return what an entry of a batch says of its error."""
    return error.body.get("error", error.body)


def _remaining_of(text: str) -> int:
    if text.strip("0.") == "" and text[:1] == "0":
        return 0
    try:
        return count_of(text)
    except ValueError as error:
        raise flat(400, "invalid_parameters", f"reduce_to: {error}") from None


def _without(answer: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in fields}


async def gone(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """V1's writes below ``/portfolio/orders``: gone since June 2026, in Kalshi's words, and without a look at a key."""
    instead = "https://docs.kalshi.com/api-reference/orders/create-order-v2"
    raise nested(410, "deprecated_v1_order_endpoint", "Please switch to the V2 endpoints", details=instead)
