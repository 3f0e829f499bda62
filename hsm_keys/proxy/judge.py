"""The judge: a policy, what has been taken of its limits, and the kill switch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from hsm_keys.kalshi.operations import Kind
from hsm_keys.proxy.accounts import Demand
from hsm_keys.proxy.capping import CapError, hold_of, orders_of
from hsm_keys.proxy.caps import Caps
from hsm_keys.proxy.costs import Costs
from hsm_keys.proxy.limits import MinuteCap, TokenBucket
from hsm_keys.proxy.orders import Request, UnclearBodyError, read_request
from hsm_keys.proxy.policy import TIER, ClientPolicy, Policy
from hsm_keys.proxy.reservations import Reservations
from hsm_keys.proxy.routes import Route
from hsm_keys.proxy.tiers import Tier

if TYPE_CHECKING:
    from datetime import datetime

    from hsm_keys.kalshi.operations import Operation
    from hsm_keys.proxy.settling import Hold

__all__ = ["ALLOW_ALL", "Judge", "Verdict"]

ALLOW_ALL: Final = Policy(version=1, clients={"default": ClientPolicy()})
"""Without a policy: everything but API keys, transfers, and changes of accounts."""


_NO_CAPS: Final = Caps()
_ROUTES: Final = 1024
"""Routes of clients that are kept: paths of single orders among them, of which there are ever new ones."""


class Verdict(NamedTuple):
    """What the judge says.

    Attributes:
        allowed: Whether the request may be signed.
        rule: Which rule decided; "allowed" where nothing but the defaults did.
        message: What the client is told.
        retry_after: Seconds after which it may be allowed; 0 if waiting doesn't help.
        trades: Whether it may add an order.
        request: What its body asks for, where that was read.
        hold: What it holds of the caps on money from now on.
    """

    allowed: bool
    rule: str
    message: str = ""
    retry_after: int = 0
    trades: bool = False
    request: Request | None = None
    hold: Hold | None = None

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
        self.reads = _bucket(self.reads, rules.tokens_per_second("GET"))
        self.writes = _bucket(self.writes, rules.tokens_per_second("POST"))
        self.orders = _cap(self.orders, rules.orders_per_minute)

    def left(self, now: float) -> dict[str, dict[str, float]]:
        """Return the limits, and what is left of each."""
        buckets = {"read_tokens_per_second": self.reads, "write_tokens_per_second": self.writes}
        left = {
            name: {"limit": bucket.rate, "left": round(bucket.left(now), 1)}
            for name, bucket in buckets.items()
            if bucket is not None
        }
        if self.orders is not None:
            left["orders_per_minute"] = {"limit": self.orders.most, "left": self.orders.left(now)}
        return left


@dataclass(slots=True)
class Judge:
    """Judges requests by a policy.

    Args:
        policy: The policy.

    Attributes:
        frozen: While it is set, nothing is allowed.
        costs: What calls cost.
        tier: What Kalshi allows the account.
        reservations: What is taken of the caps on money.
    """

    policy: Policy = ALLOW_ALL
    frozen: bool = False
    costs: Costs = field(default_factory=Costs)
    tier: Tier = field(default_factory=Tier)
    reservations: Reservations = field(default_factory=Reservations)
    _taken: dict[str, _Taken] = field(default_factory=dict)
    _routes: dict[tuple[str, str, str], Route] = field(default_factory=dict)
    _routes_of: Policy | None = None

    def replace(self, policy: Policy) -> None:
        """Judge by another policy from now on. What was taken of limits that it has as well stays taken."""
        self.policy = policy
        for name, taken in list(self._taken.items()):
            rules = policy.client(name)
            if rules is None:
                del self._taken[name]
            else:
                taken.follow(rules)

    def left(self, now: float) -> dict[str, dict[str, dict[str, float]]]:
        """Return what is left of each limit of each client that has asked, and of those that the policy names.

        Args:
            now: Seconds of a steady clock.
        """
        return {client: self._taken_by(client).left(now) for client in sorted({*self.policy.clients, *self._taken})}

    def needs_body(self, client: str, method: str, path: str) -> bool:
        """Tell whether the body has to be read before the request can be judged."""
        route = self._route(client, method, path)
        return route is not None and route.looks_at_body

    def judge(
        self, client: str, method: str, path: str, body: bytes | None, *, at: datetime, now: float, query: str = ""
    ) -> Verdict:
        """Judge a request, and take from the client's limits what it costs if it is allowed.

        Args:
            client: The client's name.
            method: The method as it stands in the request line.
            path: A path that ``split_target`` has let through.
            body: The body, where ``needs_body`` asks for it.
            at: The time, for time windows.
            now: Seconds of a steady clock, for limits.
            query: What follows the path's question mark.

        Raises:
            JournalError: If what the request may cost can't be written down.
        """
        route = self._route(client, method, path)
        refused = self._against_route(client, route, at)
        if refused is not None or route is None:
            return refused or _denied_stranger(client)
        rules, operation = route.rules, route.operation
        if not route.looks_at_body:
            refused = self._by_rate(client, route, 1, now)
            return refused or _allowed(route, hold=hold_of(self.reservations, operation, path))
        try:
            request = _read(operation, path, body or b"", query)
        except UnclearBodyError as error:
            return _denied("body", f"the body can't be judged: {error}")
        asked, against = self._asked(client, route, request)
        refused = against or self._by_rate(client, route, request.count, now)
        if refused is not None:
            return refused._replace(request=request)
        orders = self.reservations.reserve(client, asked, remember=rules.remembers) if asked is not None else []
        hold = hold_of(self.reservations, operation, path, orders)
        return _allowed(route, request=request, hold=hold)

    def judge_headers(self, client: str, method: str, path: str, *, at: datetime, now: float) -> Verdict:
        """Judge a request for headers alone: what is sent with them, and what Kalshi answers, isn't seen here.

        Args:
            client: The client's name.
            method: The method that is to be signed.
            path: The path that is, which ``split_target`` has let through.
            at: The time, for time windows.
            now: Seconds of a steady clock, for limits.
        """
        route = self._route(client, method, path)
        refused = self._against_route(client, route, at)
        if refused is not None or route is None:
            return refused or _denied_stranger(client)
        if route.looks_at_what_is_sent:
            return _denied("sign", "the client's rules look at what is sent, so its requests go through the proxy")
        return self._by_rate(client, route, 1, now) or _allowed(route)

    def _asked(self, client: str, route: Route, request: Request) -> tuple[Demand | None, Verdict | None]:
        """Return what a request asks for of the caps on money, and the refusal for what its orders are."""
        rules = route.rules
        against = rules.order_limits.against(request.exposures) if route.judges_orders else None
        is_capped = route.judges_orders and rules.is_capped
        if against is not None or not (is_capped or rules.cancels_when_silent) or not request.exposures:
            return None, _denied(*against) if against is not None else None
        try:
            orders = orders_of(self.reservations, request, capped=is_capped)
        except CapError as error:
            return None, _denied(error.rule, str(error))
        if not orders:
            return None, None
        asked = Demand(orders)
        caps = (rules.caps, rules.together) if is_capped else (_NO_CAPS, _NO_CAPS)
        denial = self.reservations.against(client, *caps, asked)
        if denial is None:
            return asked, None
        return None, _denied(denial.rule, f"{denial.rule}: {denial.message}", retry_after=denial.retry_after)

    def judge_route(self, client: str, method: str, path: str, *, at: datetime) -> Verdict | None:
        """Return the refusal of a request whatever its body is; None if there is none. Nothing is taken from limits."""
        return self._against_route(client, self._route(client, method, path), at)

    def _against_route(self, client: str, route: Route | None, at: datetime) -> Verdict | None:
        if self.frozen:
            return _denied("frozen", "signing is frozen: `hsm-keys proxy thaw` resumes it")
        if route is None:
            return _denied_stranger(client)
        against = route.against(at)
        return _denied(*against) if against is not None else None

    def _route(self, client: str, method: str, path: str) -> Route | None:
        """Return what the policy makes of a client's route; None for a client that it has no rules for."""
        if self._routes_of is not self.policy or len(self._routes) >= _ROUTES:
            self._routes, self._routes_of = {}, self.policy
        route = self._routes.get((client, method, path))
        if route is None:
            rules = self.policy.client(client)
            if rules is not None:
                route = self._routes[client, method, path] = Route(rules, method, path)
        return route

    def _by_rate(self, client: str, route: Route, orders: int, now: float) -> Verdict | None:
        """Return the refusal of a request for how many there were; None if it isn't refused, and then it counts."""
        operation, taken = route.operation, self._taken_by(client)
        bucket = taken.reads if operation.method == "GET" else taken.writes
        ordering = taken.orders if route.trades else None
        cost = self.costs.of(operation, orders)
        rule, wait = "tokens per second", bucket.wait_for(cost, now) if bucket else 0.0
        if ordering and (longer := ordering.wait_for(orders, now)) > wait:
            rule, wait = "orders_per_minute", longer
        if self._follows_tier(route) and (longer := self.tier.wait_for(operation.method, cost, now)) > wait:
            rule, wait = "tier", longer
        if wait == math.inf:
            return _denied(rule, f"{rule}: it asks for more than there ever is")
        if wait > 0:
            whose = "Kalshi's limit for the account" if rule == "tier" else "the client's limit"
            return _denied(rule, f"{rule}: {whose} is reached", retry_after=math.ceil(wait))
        self.tier.spend(operation.method, cost, now)
        if bucket:
            bucket.take(cost)
        if ordering:
            ordering.take(orders, now)
        return None

    def _follows_tier(self, route: Route) -> bool:
        """Tell whether a request is held against the account's buckets: where the client's tokens are limited.

        A limit in numbers is an upper bound, below which Kalshi's own one holds as soon as it is known. Without any
        limit Kalshi itself refuses what is too much.
        """
        limit = route.tokens_per_second
        return limit is not None and (limit == TIER or self.tier.is_known)

    def _taken_by(self, client: str) -> _Taken:
        taken = self._taken.get(client)
        if taken is None:
            taken = self._taken[client] = _Taken()
            rules = self.policy.client(client)
            if rules is not None:
                taken.follow(rules)
        return taken


def _denied(rule: str, message: str, *, retry_after: int = 0) -> Verdict:
    return Verdict(allowed=False, rule=rule, message=message, retry_after=retry_after)


def _denied_stranger(client: str) -> Verdict:
    return _denied("client", f"the policy has no rules for {client!r}, nor default")


def _allowed(route: Route, *, request: Request | None = None, hold: Hold | None = None) -> Verdict:
    return Verdict(allowed=True, rule=route.allowed_by, trades=route.trades, request=request, hold=hold)


def _read(operation: Operation, path: str, body: bytes, query: str) -> Request:
    if not (body or query) and operation.kind is Kind.REDUCE:  # Kalshi refuses it, or takes it for nothing
        return Request()
    return read_request(operation, path, body, query)


def _bucket(old: TokenBucket | None, rate: float | None) -> TokenBucket | None:
    if rate is None or rate == TIER:
        return None
    if old is None:
        return TokenBucket(rate)
    old.change(rate)
    return old


def _cap(old: MinuteCap | None, most: int | None) -> MinuteCap | None:
    if old is None or most is None:
        return None if most is None else MinuteCap(most)
    old.most = most
    return old
