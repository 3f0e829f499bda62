"""What Kalshi's answer to a request changes about its orders, and so gives back to the caps."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx2

from hsm_keys.kalshi.bodies import json_in, said_by_kalshi
from hsm_keys.kalshi.whole_answer import decode
from hsm_keys.proxy.amounts import whole
from hsm_keys.proxy.exchanges import EVENTS, PERPETUALS, order_id_of
from hsm_keys.proxy.reservations import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.proxy.exchanges import Exchange
    from hsm_keys.proxy.reservations import Reservations, ReservedOrder

__all__ = ["SETTLED", "Hold"]

# Of each operation, the method and what follows the route of orders.
_CREATE: Final = "POST "
_CREATE_BATCH: Final = "POST /batched"
_AMEND: Final = "POST /{order_id}/amend"
_DECREASE: Final = "POST /{order_id}/decrease"
_CANCEL: Final = "DELETE /{order_id}"
_CANCEL_BATCH: Final = "DELETE /batched"
_CANCEL_ALL: Final = "DELETE "


def _names(*routes: str) -> frozenset[str]:
    """Return the names of operations on both exchanges, by method and what follows the route of orders."""
    return frozenset(_name(route, exchange) for route in routes for exchange in (EVENTS, PERPETUALS))


def _name(route: str, exchange: Exchange) -> str:
    method, _, rest = route.partition(" ")
    return f"{method} {exchange.writes}{rest}"


SETTLED: Final = _names(_DECREASE, _CANCEL, _CANCEL_BATCH, _CANCEL_ALL)
"""Operations that may give something back, and hold nothing themselves."""

_UNCLEAR: Final = _names(_DECREASE, _CANCEL_ALL)
"""Those of which the answer doesn't say all."""

_REFUSED: Final = frozenset(range(400, 500)) - {408}
"""Statuses that say that nothing was done, in Kalshi's words."""


_THERE_ALREADY: Final = re.compile("already|duplicate", re.IGNORECASE)


class Hold:
    """The part of the caps that a request takes until it is over.

    Args:
        reservations: Where it is held.
        operation: Name of the operation.
        path: Its path.
        orders: The orders that it holds something for.
    """

    __slots__ = ("_is_answered", "_operation", "_orders", "_path", "_reservations")

    def __init__(
        self, reservations: Reservations, operation: str, path: str, orders: Sequence[ReservedOrder] = ()
    ) -> None:
        self._reservations = reservations
        self._operation = operation
        self._path = path
        self._orders = orders
        self._is_answered = False

    def hear(self, status: int, encoding: str, body: bytes) -> None:
        """Settle by Kalshi's answer; orders for which it isn't clear are looked up.

        Args:
            status: The HTTP status.
            encoding: The body's Content-Encoding; empty for none.
            body: The body as it came.
        """
        try:
            said = decode(body, encoding) if encoding else body
        except httpx2.DecodingError:
            return
        if status in _REFUSED:
            refusal = said_by_kalshi(httpx2.Response(status, content=said))
            if refusal is not None and not (status == HTTPStatus.CONFLICT and _is_of_its_name(*refusal)):
                self.release()
        elif HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            answer_json = json_in(said)
            self._is_answered = answer_json is not None
            answer = _Answer(self._reservations, order_id_of(self._path), self._orders, answer_json)
            states = _READERS[self._operation](answer)
            self._reservations.settle(states)

    def release(self) -> None:
        """Give everything back: nothing was sent, or Kalshi refused it."""
        self._reservations.settle([State(order.number, 0, 0) for order in self._orders])

    def end(self, *, was_sent: bool) -> None:
        """Note that the request is over.

        Args:
            was_sent: Whether it may have been.
        """
        if not was_sent:
            self.release()
        self._reservations.end(self._orders)
        if was_sent and self._operation in SETTLED and (not self._is_answered or self._operation in _UNCLEAR):
            self._reservations.on_doubt()


class _Answer(NamedTuple):
    """An answer of Kalshi's, and what it is about."""

    reservations: Reservations
    order_id: str
    orders: Sequence[ReservedOrder]
    said: Any


def _one(answer: _Answer) -> list[State]:
    return _created(answer.orders[0], answer.said)


def _batch(answer: _Answer) -> list[State]:
    listed = answer.said.get("orders") if isinstance(answer.said, dict) else None
    if not isinstance(listed, list) or len(listed) != len(answer.orders):
        return []
    return [state for order, one in zip(answer.orders, listed, strict=True) for state in _created(order, one)]


def _amended(answer: _Answer) -> list[State]:
    """Have the amendment take the place of the order; what was filled since counts by the price that is higher."""
    new, old = answer.orders[0], answer.reservations.by_order_id(answer.order_id)
    remaining = _count(answer.said, "remaining_count")
    if old is None or remaining is None or remaining > new.asked.size:
        return []
    before = old.base + old.filled
    more = max(0, new.asked.size - remaining - before)
    if old.asked.cost > new.asked.cost:
        ended = State(old.number, old.filled + more, 0)
        return [ended, State(new.number, 0, remaining, answer.order_id, before + more)]
    return [State(old.number, old.filled, 0), State(new.number, more, remaining, answer.order_id, before)]


def _cancelled(answer: _Answer) -> list[State]:
    return _reduced(answer.reservations.by_order_id(answer.order_id), answer.said, is_over=True)


def _cancelled_batch(answer: _Answer) -> list[State]:
    listed = answer.said.get("orders") if isinstance(answer.said, dict) else None
    return [
        state
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and not one.get("error")
        for state in _reduced(answer.reservations.by_order_id(str(one.get("order_id"))), one, is_over=True)
    ]


def _decreased(answer: _Answer) -> list[State]:
    return _reduced(answer.reservations.by_order_id(answer.order_id), answer.said, is_over=False)


def _unsaid(_answer: _Answer) -> list[State]:
    return []


_READERS: Final[dict[str, Callable[[_Answer], list[State]]]] = {
    name: reader
    for route, reader in (
        (_CREATE, _one),
        (_CREATE_BATCH, _batch),
        (_AMEND, _amended),
        (_DECREASE, _decreased),
        (_CANCEL, _cancelled),
        (_CANCEL_BATCH, _cancelled_batch),
        (_CANCEL_ALL, _unsaid),
    )
    for name in _names(route)
}


def _reduced(order: ReservedOrder | None, answer: Any, *, is_over: bool) -> list[State]:
    """Return what an answer says of an order of which something was taken away."""
    reduced = _count(answer, "reduced_by")
    if order is None or reduced is None:
        return []
    left = max(0, order.live - reduced)
    if is_over:  # what wasn't taken away was filled
        return [State(order.number, order.filled + left, 0, order.order_id, order.base)]
    return [State(order.number, order.filled, left, order.order_id, order.base)]


def _created(order: ReservedOrder, answer: Any) -> list[State]:
    """Return what an answer says of a new order; nothing if it doesn't say it clearly."""
    if not isinstance(answer, dict) or answer.get("client_order_id", order.asked.client_order_id) not in {
        None,
        order.asked.client_order_id,
    }:
        return []
    if (error := answer.get("error")) and not answer.get("order_id"):  # one of a batch
        said = error.values() if isinstance(error, dict) else [error]
        return [] if _is_of_its_name(*said) else [State(order.number, 0, 0)]
    filled, remaining = _count(answer, "fill_count"), _count(answer, "remaining_count")
    if filled is None or remaining is None or filled + remaining > order.asked.size:
        return []
    order_id = answer.get("order_id")
    if not isinstance(order_id, str) or not order_id:
        return []
    return [State(order.number, filled, remaining if order.asked.rests else 0, order_id)]


def _is_of_its_name(*said: object) -> bool:
    """Tell whether a refusal says that there is an order of that client_order_id.

    It may be this very one, where a server before Kalshi's exchange sent it twice.
    """
    return any(_THERE_ALREADY.search(str(part)) for part in said)


def _count(value: Any, name: str) -> int | None:
    return whole(value.get(name), 2) if isinstance(value, dict) else None
