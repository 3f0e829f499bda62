"""What is left of the caps on money, for `hsm-keys proxy limits`, the status and the metrics."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hsm_keys.proxy.amounts import DOLLAR
from hsm_keys.proxy.reservations import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.proxy.accounts import CapAccount
    from hsm_keys.proxy.cap_clock import CapClock
    from hsm_keys.proxy.caps import Caps
    from hsm_keys.proxy.policy import Policy
    from hsm_keys.proxy.reservations import Reservations

__all__ = ["left_dollars", "remaining"]


def remaining(policy: Policy, reservations: Reservations) -> list[dict[str, Any]]:
    """Return the rest of each cap, as JSON.

    Dollars and contracts are decimal strings. ``client`` is None for what all clients share; ``back_at`` says when time
    gives something back, None if it doesn't; of contracts there is a row for each market in which something was done.

    Args:
        policy: The caps.
        reservations: What is taken of them.
    """
    return [
        row
        for client, caps in _capped(policy, reservations)
        for row in _rows(client or None, caps, reservations.account(client), reservations.clock)
    ]


def left_dollars(policy: Policy, reservations: Reservations) -> Iterator[tuple[str, str, float]]:
    """Give client (``all`` for all together), cap and the dollars that are left, for metrics."""
    for row in remaining(policy, reservations):
        if row["cap"] in {"max_dollars_a_day", "max_open_dollars"}:
            yield row["client"] or "all", row["cap"], float(row["left"])


def _capped(policy: Policy, reservations: Reservations) -> Iterator[tuple[str, Caps]]:
    """Give those for whom there are caps: clients by their names, then all together."""
    for name in sorted({*policy.clients, *reservations.clients}):
        rules = policy.client(name)
        if rules is not None and rules.caps:
            yield name, rules.caps
    if policy.together.caps:
        yield ALL, policy.together.caps


def _rows(client: str | None, caps: Caps, account: CapAccount, clock: CapClock) -> Iterator[dict[str, Any]]:
    account.day.forget(clock.now_ms())
    if caps.order is not None:
        yield _row(client, "max_order_dollars", caps.order, 0)
    if caps.day is not None:
        back_at = account.day.back_at(1)
        yield _row(client, "max_dollars_a_day", caps.day, account.day.total + account.live) | {
            "back_at": None if back_at is None else _as_text(clock.wall_at(back_at))
        }
    if caps.open is not None:
        yield _row(client, "max_open_dollars", caps.open, account.open)
    if caps.market is not None:
        for ticker in sorted(account.markets):
            yield {
                "client": client,
                "cap": "max_contracts_a_market",
                "market": ticker,
                "most": _decimal(caps.market, 100),
                "left_to_buy": _decimal(max(0, account.room(ticker, "bid", caps.market)), 100),
                "left_to_sell": _decimal(max(0, account.room(ticker, "ask", caps.market)), 100),
            }


def _row(client: str | None, cap: str, most: int, taken: int) -> dict[str, Any]:
    """Return a row of dollars."""
    return {
        "client": client,
        "cap": cap,
        "most": _decimal(most, DOLLAR),
        "left": _decimal(max(0, most - taken), DOLLAR),
    }


def _as_text(wall_ms: int) -> str:
    return datetime.fromtimestamp(round(wall_ms / 1000), UTC).isoformat()


def _decimal(amount: int, unit: int) -> str:
    return f"{amount // unit}.{amount % unit:0{len(str(unit)) - 1}}"
