"""The exposure of an order: the values that limits and caps judge, and that the ledger keeps."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

__all__ = ["Exposure", "Key"]

Key: TypeAlias = str | tuple[str, str, int, int, bool]
"""What is the same for an order that is sent twice: its name, or what it asks for."""


class Exposure(NamedTuple):
    """What an order, or an amendment of one, may come to.

    Attributes:
        market: The market's ticker.
        side: ``bid`` or ``ask``, of the YES leg.
        size: Hundredths of a contract.
        cost: Hundredths of a cent that a contract may cost at most; 0 if the order can only reduce a position, and of a
            perpetual future, of which it can't be told.
        rests: Whether it stays in the book until it is filled or cancelled.
        client_order_id: Its name, by which it is looked up; empty if it has none.
        amends: The id at Kalshi of the order that it changes; empty for a new one.
        perps: Whether it is for a perpetual future.
        subaccount: The subaccount that it names; None if it names none.
        price: The price of the YES leg, in hundredths of a cent.
    """

    market: str
    side: str
    size: int
    cost: int
    rests: bool = True
    client_order_id: str = ""
    amends: str = ""
    perps: bool = False
    subaccount: int | None = None
    price: int = 0

    @property
    def keys(self) -> tuple[Key, Key]:
        """Its name, and what it asks for whatever its name is."""
        return self.client_order_id, self[:5]
