"""What the query of a request asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hsm_keys.sandbox.subaccounts import subaccount_of
from hsm_keys.sandbox.wire import flat

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hsm_keys.sandbox.markets import Market
    from hsm_keys.sandbox.wire import Call

__all__ = ["Selection", "asked_subaccount", "choice", "integer", "names", "wanted"]

_MAX_SUBACCOUNT: Final = 63
_MAX_SECONDS: Final = 253_402_300_799  # the last second that RFC 3339 can write
_MAX_NAMES: Final = 100
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")


def integer(query: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    """Return an integer of the query; None if it isn't there.

    Raises:
        WireError: 400, if it is none, or out of range.
    """
    text = query.get(name)
    if text is None:
        return None
    if _INTEGER.fullmatch(text) is None or not least <= int(text) <= most:
        raise flat(400, "invalid_parameters", f"{name} must be an integer from {least} to {most}")
    return int(text)


def choice(query: Mapping[str, str], name: str, choices: Collection[str]) -> str | None:
    """Return a word of the query; None if it isn't there, or empty.

    Raises:
        WireError: 400, if it is another one.
    """
    text = query.get(name) or None
    if text is not None and text not in choices:
        raise flat(400, "invalid_parameters", f"{name} must be {', '.join(choices)}")
    return text


def names(query: Mapping[str, str], name: str) -> frozenset[str] | None:
    """Return names with commas between them; None if there are none.

    Raises:
        WireError: 400, if there are too many.
    """
    listed = frozenset(query.get(name, "").split(",")) - {""}
    if len(listed) > _MAX_NAMES:
        raise flat(400, "invalid_parameters", f"{name} must have at most {_MAX_NAMES} names")
    return listed or None


def asked_subaccount(call: Call) -> int | None:
    """Return the subaccount of the query; None if it names none.

    Raises:
        WireError: 400, if it is none.
    """
    return integer(call.query, "subaccount", 0, _MAX_SUBACCOUNT)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which orders, fills or positions a listing is asked for; None is all.

    Args:
        tickers: Their markets.
        events: The events of those markets.
        subaccount: Whose they are.
        shard: Where they are.
        since_ms: When they were made, at the earliest; in milliseconds since 1970.
        until_ms: The same, at the latest.
    """

    tickers: frozenset[str] | None
    events: frozenset[str] | None
    subaccount: int | None
    shard: int | None
    since_ms: int | None
    until_ms: int | None

    def takes(self, market: Market, subaccount: int, made_ms: int | None = None) -> bool:
        """Tell whether something is asked for; positions have no time at which they were made."""
        return (
            (self.tickers is None or market.ticker in self.tickers)
            and (self.events is None or market.event.ticker in self.events)
            and self.subaccount in {None, subaccount}
            and self.shard in {None, market.shard}
            and (made_ms is None or self.since_ms is None or made_ms >= self.since_ms)
            and (made_ms is None or self.until_ms is None or made_ms <= self.until_ms)
        )


def wanted(call: Call, *, tickers: str = "ticker") -> Selection:
    """Return what a listing is asked for.

    Args:
        call: The call.
        tickers: The parameter that has the markets.

    Raises:
        WireError: 400, if a parameter is none; 403, if it is another subaccount than the key's.
    """
    since, until = (integer(call.query, name, 0, _MAX_SECONDS) for name in ("min_ts", "max_ts"))
    return Selection(
        tickers=names(call.query, tickers),
        events=names(call.query, "event_ticker"),
        subaccount=subaccount_of(call, asked_subaccount(call)),
        shard=integer(call.query, "exchange_index", -1, 2**31),
        since_ms=None if since is None else since * 1000,
        until_ms=None if until is None else until * 1000,
    )
