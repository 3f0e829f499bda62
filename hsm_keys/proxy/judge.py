"""The judge: a policy, what has been taken of its limits, and the kill switch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hsm_keys.proxy.limits import MinuteCap, TokenBucket
from hsm_keys.proxy.orders import UnclearBodyError, is_batch, is_judged, judge_orders, orders_in, reduces_only
from hsm_keys.proxy.paths import METHODS
from hsm_keys.proxy.policy import ClientPolicy, Policy

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ALLOW_ALL", "Judge", "Verdict"]

ALLOW_ALL: Final = Policy(version=1, clients={"default": ClientPolicy()})
"""Without a policy: everything but API keys and transfers."""

_CALL_COST: Final = 10
"""Tokens that Kalshi takes for a call; for each order of a batch as well."""

_BETWEEN_WORDS: Final = re.compile(r"[-_.]")
_KEYS: Final = "apikey"
_TRANSFERS: Final = ("transfer", "withdraw", "deposit", "payout")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge says.

    Attributes:
        allowed: Whether the request may be signed.
        rule: Which rule decided; "allowed" where nothing but the defaults did.
        message: What the client is told.
        retry_after: Seconds after which it may be allowed; 0 if waiting doesn't help.
    """

    allowed: bool
    rule: str
    message: str = ""
    retry_after: int = 0

    @property
    def status(self) -> int:
        """The HTTP status of the answer to a request that isn't allowed."""
        return 429 if self.retry_after else 403


@dataclass(slots=True)
class _Taken:
    """What a client has taken of its limits."""

    reads: TokenBucket | None = None
    writes: TokenBucket | None = None
    orders: MinuteCap | None = None

    def follow(self, rules: ClientPolicy) -> None:
        """Have the limits of these rules."""
        self.reads = _bucket(self.reads, rules.read_tokens_per_second)
        self.writes = _bucket(self.writes, rules.write_tokens_per_second)
        self.orders = _cap(self.orders, rules.orders_per_minute)


@dataclass(slots=True)
class Judge:
    """Judges requests by a policy.

    Args:
        policy: The policy.

    Attributes:
        frozen: While it is set, nothing is allowed.
    """

    policy: Policy = ALLOW_ALL
    frozen: bool = False
    _taken: dict[str, _Taken] = field(default_factory=dict)

    def replace(self, policy: Policy) -> None:
        """Judge by another policy from now on. What was taken of limits that it has as well stays taken."""
        self.policy = policy
        for name, taken in list(self._taken.items()):
            rules = policy.client(name)
            if rules is None:
                del self._taken[name]
            else:
                taken.follow(rules)

    def needs_body(self, client: str, method: str, path: str) -> bool:
        """Tell whether the body has to be read before the request can be judged."""
        rules = self.policy.client(client)
        if rules is None:
            return False
        if rules.order_limits:
            return is_judged(method, path)
        return is_batch(method, path) and bool(rules.orders_per_minute or rules.write_tokens_per_second)

    def judge(self, client: str, method: str, path: str, body: bytes | None, *, at: datetime, now: float) -> Verdict:
        """Judge a request, and take from the client's limits what it costs if it is allowed.

        Args:
            client: The client's name.
            method: The method as it stands in the request line.
            path: A path that ``split_target`` has let through.
            body: The body, where ``needs_body`` asks for it.
            at: The time, for time windows.
            now: Seconds of a steady clock, for limits.
        """
        if self.frozen:
            return Verdict(allowed=False, rule="frozen", message="signing is frozen: `hsm-keys proxy thaw` resumes it")
        rules = self.policy.client(client)
        if rules is None:
            return Verdict(allowed=False, rule="client", message=f"the policy has no rules for {client!r}, nor default")
        return _by_routes(rules, method, path, at) or self._by_amount(client, rules, (method, path, body), now)

    def _by_amount(
        self, client: str, rules: ClientPolicy, request: tuple[str, str, bytes | None], now: float
    ) -> Verdict:
        method, path, body = request
        count = 1
        if self.needs_body(client, method, path):
            try:
                orders = orders_in(method, path, body or b"")
                against = judge_orders(method, path, orders, rules.order_limits) if rules.order_limits else None
            except UnclearBodyError as error:
                return Verdict(allowed=False, rule="body", message=f"the order can't be judged: {error}")
            if against is not None:
                return Verdict(allowed=False, rule=against.partition(":")[0], message=against)
            count = len(orders)
        taken = self._taken.get(client)
        if taken is None:
            taken = self._taken[client] = _Taken()
            taken.follow(rules)
        bucket = taken.reads if method == "GET" else taken.writes
        cost = _CALL_COST * count
        waits = {"tokens per second": bucket.wait_for(cost, now) if bucket else 0.0}
        ordering = taken.orders if is_judged(method, path) else None
        waits["orders_per_minute"] = ordering.wait_for(count, now) if ordering else 0.0
        rule, wait = max(waits.items(), key=lambda entry: entry[1])
        if wait == math.inf:
            return Verdict(allowed=False, rule=rule, message=f"{rule}: it asks for more than there ever is")
        if wait > 0:
            message = f"{rule}: the client's limit is reached"
            return Verdict(allowed=False, rule=rule, message=message, retry_after=math.ceil(wait))
        if bucket:
            bucket.take(cost)
        if ordering:
            ordering.take(count, now)
        by = next((rule for rule in rules.allow or () if rule.matches(method, path)), None)
        return Verdict(allowed=True, rule=f"allow {by.text}" if by else "allowed")


def _by_routes(rules: ClientPolicy, method: str, path: str, at: datetime) -> Verdict | None:
    """Return the refusal of a request for what it asks for, and when; None if it isn't refused."""
    against = None
    if method not in METHODS:
        against = "method", f"the method isn't one of {', '.join(METHODS)}"
    elif not rules.allow_key_management and _KEYS in _BETWEEN_WORDS.sub("", path.casefold()):
        against = "api_keys", "API keys aren't managed through the proxy: a key that a bot made is in no token"
    elif not rules.allow_transfers and method != "GET" and any(word in path.casefold() for word in _TRANSFERS):
        against = "transfers", "money isn't transferred through the proxy"
    elif rules.read_only and method != "GET":
        against = "read_only", "the client may only read"
    elif denied := next((rule for rule in rules.deny if rule.matches(method, path, fold=True)), None):
        against = f"deny {denied.text}", f"the policy denies {denied.text}"
    elif rules.allow is not None and not any(rule.matches(method, path) for rule in rules.allow):
        against = "allow", "no rule of the policy allows it"
    elif rules.hours is not None and not any(window.holds(at) for window in rules.hours):
        against = "hours", "it is outside the hours of the policy"
    elif _limits_orders(rules) and method != "GET" and not (is_judged(method, path) or reduces_only(method, path)):
        against = "body", "the client's orders are limited, and this request has no form that the limits can judge"
    return Verdict(allowed=False, rule=against[0], message=against[1]) if against else None


def _limits_orders(rules: ClientPolicy) -> bool:
    return bool(rules.order_limits) or rules.orders_per_minute is not None


def _bucket(old: TokenBucket | None, rate: float | None) -> TokenBucket | None:
    if old is None or rate is None:
        return None if rate is None else TokenBucket(rate)
    old.rate = rate
    return old


def _cap(old: MinuteCap | None, most: int | None) -> MinuteCap | None:
    if old is None or most is None:
        return None if most is None else MinuteCap(most)
    old.most = most
    return old
