"""Order groups: once so many contracts of a group matched within 15 seconds, all its orders end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import uuid4

from hsm_keys.sandbox.matching import OrderRefused

if TYPE_CHECKING:
    from hsm_keys.sandbox.matching import Book, Order

__all__ = ["GroupEvent", "Groups", "OrderGroup"]

_WINDOW_MS: Final = 15_000

_Kind: TypeAlias = Literal["created", "triggered", "reset", "deleted", "limit_updated"]


@dataclass(slots=True)
class OrderGroup:
    """One group.

    Args:
        group_id: Its id.
        limit: The most hundredths of a contract that may match within the window.
        subaccount: Whose it is.
        matches: When how much matched.
        is_triggered: Whether its orders were ended, and it takes none until it is reset.
    """

    group_id: str
    limit: int
    subaccount: int
    matches: list[tuple[int, int]] = field(default_factory=list)
    is_triggered: bool = False


@dataclass(frozen=True, slots=True)
class GroupEvent:
    """What happened to a group, and when."""

    kind: _Kind
    group: OrderGroup
    ms: int


class Groups(dict[str, OrderGroup]):
    """The account's groups on one exchange, by id.

    Args:
        book: Where their orders are, and who is told what happens to a group: ``group`` and a GroupEvent.
    """

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book

    def make(self, limit: int, subaccount: int, now_ms: int) -> OrderGroup:
        """Make a group under a new id."""
        group = OrderGroup(str(uuid4()), limit, subaccount)
        self[group.group_id] = group
        self._tell("created", group, now_ms)
        return group

    def _tell(self, kind: _Kind, group: OrderGroup, now_ms: int) -> None:
        self._book.tell("group", GroupEvent(kind, group, now_ms))

    def check(self, group_id: str | None) -> None:
        """Make sure that a new order may be part of a group.

        Raises:
            Refused: 404 if there is none, 400 if it was triggered.
        """
        if group_id is None:
            return
        if group_id not in self:
            raise OrderRefused(404, "not_found", "order group not found")
        if self[group_id].is_triggered:
            raise OrderRefused(400, "invalid_order", "the order group was triggered: reset it first")

    def matched(self, order: Order, count: int, now_ms: int) -> None:
        """Count what an order matched; end the group's orders if that was too much."""
        group = self.get(order.group or "")
        if group is None or not count:
            return
        group.matches = [match for match in group.matches if match[0] > now_ms - _WINDOW_MS] + [(now_ms, count)]
        if sum(matched for _, matched in group.matches) >= group.limit:
            self.trigger(group, now_ms)

    def set_limit(self, group: OrderGroup, limit: int, now_ms: int) -> None:
        """Let more or less match."""
        group.limit = limit
        self._tell("limit_updated", group, now_ms)

    def reset(self, group: OrderGroup, now_ms: int) -> None:
        """Forget what matched, and take orders again."""
        group.matches.clear()
        group.is_triggered = False
        self._tell("reset", group, now_ms)

    def trigger(self, group: OrderGroup, now_ms: int) -> None:
        """End a group's orders, and take none until it is reset."""
        group.is_triggered = True
        self._end_orders(group, now_ms)
        self._tell("triggered", group, now_ms)

    def delete(self, group: OrderGroup, now_ms: int) -> None:
        """End a group's orders, and the group."""
        self._end_orders(group, now_ms)
        del self[group.group_id]
        self._tell("deleted", group, now_ms)

    def _end_orders(self, group: OrderGroup, now_ms: int) -> None:
        for order in list(self._book.orders.values()):
            if order.group == group.group_id and order.status == "resting":
                self._book.end(order, now_ms)
