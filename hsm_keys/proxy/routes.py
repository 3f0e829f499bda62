"""Judges the route of a request: by what its operation can do, by the policy's rules, and by the hours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hsm_keys.kalshi.operations import WEBSOCKETS, Kind, find_operation
from hsm_keys.proxy.paths import METHODS, is_of_this_version
from hsm_keys.proxy.schemas import SCHEMAS

if TYPE_CHECKING:
    from datetime import datetime

    from hsm_keys.kalshi.operations import Operation
    from hsm_keys.proxy.policy import ClientPolicy

__all__ = ["Route"]

_NAMED: Final = {
    Kind.KEYS: (
        "api_keys",
        "allow_key_management",
        "API keys aren't managed through the proxy: a key that a bot made is in no token",
    ),
    Kind.MONEY: ("transfers", "allow_transfers", "money isn't moved through the proxy"),
    Kind.ADMIN: ("accounts", "allow_account_changes", "accounts aren't changed through the proxy"),
}
"""Kinds that a client needs an option for: the rule, the option, and what is said."""

_BETWEEN_WORDS: Final = re.compile(r"[-_.]")
_KEY_WORDS: Final = ("apikey",)
_MONEY_WORDS: Final = ("transfer", "withdraw", "deposit", "payout")


class Route:
    """What a client's rules make of a method and a path, which is the same for each request.

    Args:
        rules: The client's.
        method: The method as it stands in the request line.
        path: A path that ``split_target`` has let through.

    Attributes:
        rules: The client's.
        operation: What the table says of the request.
        looks_at_body: Whether a limit depends on the body: on what its orders are, or on how many there are.
        looks_at_what_is_sent: Whether the rules look at what is sent to Kalshi, or at what Kalshi answers.
        judges_orders: Whether the limits of orders hold: the policy doesn't leave the request unjudged.
        trades: Whether the operation may add an order.
        tokens_per_second: The client's limit for the operation's method; None where there is none.
        allowed_by: Which rule allows it; "allowed" where nothing but the defaults does.
    """

    __slots__ = (
        "_first",
        "_last",
        "allowed_by",
        "judges_orders",
        "looks_at_body",
        "looks_at_what_is_sent",
        "operation",
        "rules",
        "tokens_per_second",
        "trades",
    )

    def __init__(self, rules: ClientPolicy, method: str, path: str) -> None:
        self.rules = rules
        self.operation = find_operation(method, path)
        self.looks_at_body = _looks_at_body(rules, self.operation, path)
        self.looks_at_what_is_sent = self.looks_at_body or _looks_at_what_is_sent(rules, self.operation)
        self.judges_orders = not rules.leaves_unjudged(method, path)
        by = next((rule for rule in rules.allow or () if rule.matches(self.operation.method, path)), None)
        self.trades = self.operation.counts_as_trade
        self.tokens_per_second = rules.tokens_per_second(self.operation.method)
        self.allowed_by = f"allow {by.text}" if by else "allowed"
        self._first = _against_route(rules, self.operation, method, path)
        self._last = None if self._first else _against_judging(rules, self.operation, path)

    def against(self, at: datetime) -> tuple[str, str] | None:
        """Return the rule that is against a request for what it asks for, and when, and why; None if none is.

        Args:
            at: The time, for time windows.
        """
        return self._first or _against_hours(self.rules, at) or self._last


def _looks_at_body(rules: ClientPolicy, operation: Operation, path: str) -> bool:
    if operation.name not in SCHEMAS:
        return False
    counts = rules.write_tokens_per_second or (rules.orders_per_minute and operation.counts_as_trade)
    if operation.for_each_order and counts:
        return True
    is_limited = bool(rules.order_limits or rules.is_capped)
    return rules.cancels_when_silent or (is_limited and not rules.leaves_unjudged(operation.method, path))


def _looks_at_what_is_sent(rules: ClientPolicy, operation: Operation) -> bool:
    looks_at_orders = bool(rules.order_limits) or rules.is_capped or rules.cancels_when_silent
    return looks_at_orders or (operation in WEBSOCKETS and rules.narrows)


def _against_route(rules: ClientPolicy, operation: Operation, method: str, path: str) -> tuple[str, str] | None:
    if method not in METHODS:
        return "method", f"the method isn't one of {', '.join(METHODS)}"
    named = _NAMED.get(_worst_kind(operation, method, path))
    if named is not None and not getattr(rules, named[1]):
        return named[0], f"{named[2]}; `{named[1]} = true` lets the client"
    if not (is_of_this_version(path) or _names_version(rules, method, path)):
        return "version", 'only /trade-api/v2 is forwarded; a rule in `allow` may name another: "GET /trade-api/v3/**"'
    return _against_rules(rules, method, path)


def _names_version(rules: ClientPolicy, method: str, path: str) -> bool:
    return any(rule.names_a_version and rule.matches(method, path) for rule in rules.allow or ())


def _against_rules(rules: ClientPolicy, method: str, path: str) -> tuple[str, str] | None:
    if rules.read_only and method != "GET":
        return "read_only", "the client may only read"
    if denied := next((rule for rule in rules.deny if rule.matches(method, path, fold=True)), None):
        return f"deny {denied.text}", f"the policy denies {denied.text}"
    if rules.allow is not None and not any(rule.matches(method, path) for rule in rules.allow):
        return "allow", "no rule of the policy allows it"
    return None


def _against_hours(rules: ClientPolicy, at: datetime) -> tuple[str, str] | None:
    if rules.hours is not None and not any(window.holds(at) for window in rules.hours):
        return "hours", "it is outside the hours of the policy"
    return None


def _worst_kind(operation: Operation, method: str, path: str) -> Kind:
    """Return what a request may be: Kalshi may fold case, and a route that is too new for the table may say it."""
    if operation.kind is not Kind.UNKNOWN:
        return operation.kind
    folded = path.casefold()
    kind = find_operation(method, folded).kind
    if kind in _NAMED:
        return kind
    words = _BETWEEN_WORDS.sub("", folded)
    if any(word in words for word in _KEY_WORDS):
        return Kind.KEYS
    if method != "GET" and any(word in words for word in _MONEY_WORDS):
        return Kind.MONEY
    return Kind.UNKNOWN


def _against_judging(rules: ClientPolicy, operation: Operation, path: str) -> tuple[str, str] | None:
    """Refuse what may trade in a way that the client's limits of orders can't judge."""
    if not (rules.limits_orders and operation.counts_as_trade) or operation.name in SCHEMAS:
        return None
    if rules.leaves_unjudged(operation.method, path):
        return None
    if operation.instead:
        sent = f"{operation.method} {operation.instead}"
        return "gone", f"Kalshi switched {operation.name} off, and the client's limits can't judge it: send {sent}"
    named = f'`allow_unjudged = ["{operation.name}"]` lets it through'
    return "allow_unjudged", f"the client's orders are limited, and no limit can judge {operation.name}: {named}"
