"""Requests for quotes, and quotes: the account quotes its own requests."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from hsm_keys.sandbox import bodies
from hsm_keys.sandbox.bodies import body_of
from hsm_keys.sandbox.fixed_point import count_text, price_of, price_text
from hsm_keys.sandbox.markets import MARKETS
from hsm_keys.sandbox.shapes import iso
from hsm_keys.sandbox.wire import Call, SandboxAnswer, flat

__all__ = [
    "accept_quote",
    "communications_id",
    "confirm_quote",
    "create_quote",
    "create_rfq",
    "delete_quote",
    "delete_rfq",
    "quote",
    "quotes",
    "rfq",
    "rfqs",
]


def _rfq(call: Call, rfq_id: str) -> dict[str, Any]:
    rfq = call.state.rfqs.get(rfq_id)
    if rfq is None:
        raise flat(404, "not_found", "rfq not found")
    return rfq


def _quote(call: Call) -> dict[str, Any]:
    quote = call.state.quotes.get(call.path["quote_id"])
    if quote is None or call.path.get("rfq_id") not in {None, quote["rfq_id"]}:
        raise flat(404, "not_found", "quote not found")
    return quote


def _price(text: str, field: str) -> str:
    if text in {"0", "0.00", "0.0000"}:
        return "0.0000"  # no bid on this side
    try:
        return price_text(price_of(text))
    except ValueError as error:
        raise flat(400, "invalid_parameters", f"{field}: {error}") from None


async def communications_id(call: Call) -> SandboxAnswer:
    """``GET /communications/id``."""
    return SandboxAnswer(200, {"communications_id": call.state.user_id})


async def create_rfq(call: Call) -> SandboxAnswer:
    """``POST /communications/rfqs``."""
    body = body_of(call, bodies.CreateRfq)
    if body.market_ticker not in MARKETS:
        raise flat(404, "market_not_found", "market not found")
    count = int(body.contracts_fp or 0) or (body.contracts or 0) * 100
    if not count and body.target_cost_centi_cents is None and body.target_cost_dollars is None:
        raise flat(400, "invalid_parameters", "contracts, contracts_fp or a target cost is needed")
    rfq: dict[str, Any] = {
        "id": str(uuid4()),
        "creator_id": call.state.user_id,
        "market_ticker": body.market_ticker,
        "contracts_fp": count_text(count),
        "status": "open",
        "rest_remainder": body.rest_remainder,
        "created_ts": iso(call.now_ms),
    }
    call.state.rfqs[rfq["id"]] = rfq
    return SandboxAnswer(201, {"id": rfq["id"]})


async def rfqs(call: Call) -> SandboxAnswer:
    """``GET /communications/rfqs``."""
    status = call.query.get("status")
    shown = [it for it in call.state.rfqs.values() if status in {None, it["status"]}]
    return SandboxAnswer(200, {"rfqs": shown, "cursor": ""})


async def rfq(call: Call) -> SandboxAnswer:
    """``GET /communications/rfqs/{rfq_id}``."""
    return SandboxAnswer(200, {"rfq": _rfq(call, call.path["rfq_id"])})


async def delete_rfq(call: Call) -> SandboxAnswer:
    """``DELETE /communications/rfqs/{rfq_id}``."""
    _rfq(call, call.path["rfq_id"])["status"] = "closed"
    return SandboxAnswer(204)


async def create_quote(call: Call) -> SandboxAnswer:
    """``POST /communications/quotes``."""
    body = body_of(call, bodies.CreateQuote)
    rfq = _rfq(call, body.rfq_id)
    if rfq["status"] != "open":
        raise flat(409, "rfq_closed", "the rfq is closed")
    quote = {
        "id": str(uuid4()),
        "rfq_id": body.rfq_id,
        "creator_id": call.state.user_id,
        "rfq_creator_id": rfq["creator_id"],
        "market_ticker": rfq["market_ticker"],
        "contracts_fp": rfq["contracts_fp"],
        "yes_bid_dollars": _price(body.yes_bid, "yes_bid"),
        "no_bid_dollars": _price(body.no_bid, "no_bid"),
        "created_ts": iso(call.now_ms),
        "updated_ts": iso(call.now_ms),
        "status": "open",
        "rest_remainder": body.rest_remainder,
    }
    call.state.quotes[quote["id"]] = quote
    return SandboxAnswer(201, {"id": quote["id"]})


async def quotes(call: Call) -> SandboxAnswer:
    """``GET /communications/quotes``."""
    rfq_id, status = call.query.get("rfq_id"), call.query.get("status")
    shown = [
        it for it in call.state.quotes.values() if rfq_id in {None, it["rfq_id"]} and status in {None, it["status"]}
    ]
    return SandboxAnswer(200, {"quotes": shown, "cursor": ""})


async def quote(call: Call) -> SandboxAnswer:
    """``GET /communications/quotes/{quote_id}``, and the same below its rfq."""
    return SandboxAnswer(200, {"quote": _quote(call)})


def _move(call: Call, before: str, after: str, **changes: object) -> None:
    quote = _quote(call)
    if quote["status"] != before:
        raise flat(409, "invalid_quote_status", f"the quote isn't {before}")
    quote.update(changes, status=after, updated_ts=iso(call.now_ms))


async def accept_quote(call: Call) -> SandboxAnswer:
    """``PUT .../quotes/{quote_id}/accept``."""
    side = body_of(call, bodies.AcceptQuote).accepted_side
    _move(call, "open", "accepted", accepted_side=side, accepted_ts=iso(call.now_ms))
    return SandboxAnswer(204)


async def confirm_quote(call: Call) -> SandboxAnswer:
    """``PUT .../quotes/{quote_id}/confirm``; it isn't executed."""
    _move(call, "accepted", "confirmed", confirmed_ts=iso(call.now_ms))
    return SandboxAnswer(204)


async def delete_quote(call: Call) -> SandboxAnswer:
    """``DELETE .../quotes/{quote_id}``."""
    _move(call, "open", "cancelled", cancelled_ts=iso(call.now_ms))
    return SandboxAnswer(204)
