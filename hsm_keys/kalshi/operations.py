"""Every operation that Kalshi has: method and path, what it can do, what it costs, and what a key needs for it.

This is the only list of Kalshi's routes. It is data, cheap to import, and imports nothing of this program: the policy,
the rate limits, the sandbox and the hints of errors all read it. It was read out of kalshi-python-sync 3.34.0 and
kalshi-sdk 22.4.0; tests/kalshi/test_drift.py compares it with those that are installed. Costs and scopes are those that
Kalshi's documentation names; ``GET /account/endpoint_costs`` has today's costs.

The clearing house's API (``/klear-api/v1``) isn't here: it has a host and a login of its own, and no API key signs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, lru_cache
from typing import Final

__all__ = [
    "DEFAULT_COST",
    "OPERATIONS",
    "REST_PREFIX",
    "WEBSOCKETS",
    "Kind",
    "Operation",
    "find_operation",
    "words_in_place",
]

REST_PREFIX: Final = "/trade-api/v2"
"""What stands before the paths of the REST API."""

DEFAULT_COST: Final = 10
"""Tokens of a call, unless another cost is known."""


class Kind(StrEnum):
    """What an operation can do."""

    READ = "read"
    """It changes nothing."""
    TRADE = "trade"
    """It may add exposure, or take away what protects a position."""
    REDUCE = "reduce"
    """It only ever takes orders, quotes and requests away, or makes them smaller."""
    MONEY = "money"
    """It moves balances or positions from one account or shard to another."""
    KEYS = "keys"
    """It manages API keys, or lists them."""
    ADMIN = "admin"
    """It changes accounts: tiers, subaccounts, netting, and what an FCM's subtraders may do."""
    MARKET = "market"
    """It makes a market, with no order in it."""
    UNKNOWN = "unknown"
    """It isn't in this table: whatever isn't GET counts as trade."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method and path template.

    Attributes:
        method: HTTP method, in upper case.
        path: Path template below ``/trade-api/v2``, as in Kalshi's OpenAPI document; a WebSocket's path is whole.
        kind: What it can do.
        signed: Whether it needs a signature; public ones don't.
        scope: The narrowest scope that is enough, where that is known; its parent is enough as well.
        cost: Tokens; for each order of a batch, where ``for_each_order`` is set.
        for_each_order: Whether each order of the body costs that much.
        perps: Whether it is an operation on perpetual futures, for which a key is separate.
        instead: Path template of what has taken its place; Kalshi answers 410 then.
    """

    method: str
    path: str
    kind: Kind
    signed: bool = True
    scope: str | None = None
    cost: int = DEFAULT_COST
    for_each_order: bool = False
    perps: bool = False
    instead: str | None = None

    @property
    def name(self) -> str:
        """Method and path template."""
        return f"{self.method} {self.path}"

    @property
    def route(self) -> str:
        """The whole path template."""
        return self.path if self.path.startswith(_ROOT) else REST_PREFIX + self.path

    def replaced(self, path: str) -> str | None:
        """Return the path that has taken the place of one of this operation's; None if it isn't gone."""
        if self.instead is None:
            return None
        values = dict(zip(self.route.split("/"), path.split("/"), strict=True))
        return "/".join(values.get(segment, segment) for segment in (REST_PREFIX + self.instead).split("/"))

    @property
    def scopes(self) -> frozenset[str]:
        """Scopes of which a key needs one; none for a public operation."""
        if not self.signed:
            return frozenset()
        return frozenset({"read" if self.method == "GET" else "write", *([self.scope] if self.scope else [])})

    @property
    def counts_as_trade(self) -> bool:
        """Whether it may add exposure, as far as is known. GET changes nothing (RFC 9110, section 9.2.1)."""
        return self.kind is Kind.TRADE or (self.kind is Kind.UNKNOWN and self.method != "GET")


_ROOT: Final = "/trade-api/"

# kind, method, path; then what differs from the usual: public, a scope, cost=N (for each order), perps, gone=PATH.
_ROWS: Final = """\
admin  POST   /account/api_usage_level/upgrade  cost=30
read   GET    /account/api_usage_level/volume_progress
read   GET    /account/endpoint_costs  public
read   GET    /account/limits
read   GET    /account/limits/perps  perps
keys   GET    /api_keys
keys   POST   /api_keys
keys   POST   /api_keys/generate
keys   DELETE /api_keys/{api_key}
read   GET    /communications/block-trade-proposals  read::block_trade_accept
trade  POST   /communications/block-trade-proposals
trade  POST   /communications/block-trade-proposals/{block_trade_proposal_id}/accept  write::block_trade_accept
read   GET    /communications/id
read   GET    /communications/quotes
trade  POST   /communications/quotes  cost=2
read   GET    /communications/quotes/{quote_id}  cost=2
reduce DELETE /communications/quotes/{quote_id}  cost=2
trade  PUT    /communications/quotes/{quote_id}/accept
trade  PUT    /communications/quotes/{quote_id}/confirm
read   GET    /communications/rfq_batches
trade  POST   /communications/rfq_batches
read   GET    /communications/rfq_batches/{rfq_batch_id}
reduce DELETE /communications/rfq_batches/{rfq_batch_id}
trade  PUT    /communications/rfq_batches/{rfq_batch_id}/accept
read   GET    /communications/rfq_batches/{rfq_batch_id}/best_quotes
read   GET    /communications/rfq_batches/{rfq_batch_id}/quotes
trade  POST   /communications/rfq_batches/{rfq_batch_id}/quotes
reduce DELETE /communications/rfq_batches/{rfq_batch_id}/quotes/{batch_quote_id}
trade  PUT    /communications/rfq_batches/{rfq_batch_id}/quotes/{batch_quote_id}/confirm
read   GET    /communications/rfqs
trade  POST   /communications/rfqs
read   GET    /communications/rfqs/{rfq_id}
reduce DELETE /communications/rfqs/{rfq_id}
read   GET    /communications/rfqs/{rfq_id}/quotes/{quote_id}  cost=2
reduce DELETE /communications/rfqs/{rfq_id}/quotes/{quote_id}  cost=2
trade  PUT    /communications/rfqs/{rfq_id}/quotes/{quote_id}/accept
trade  PUT    /communications/rfqs/{rfq_id}/quotes/{quote_id}/confirm
read   GET    /events  public
read   GET    /events/fee_changes  public
read   GET    /events/multivariate  public
read   GET    /events/{event_ticker}  public
read   GET    /events/{event_ticker}/metadata  public
read   GET    /exchange/announcements  public
read   GET    /exchange/schedule  public
read   GET    /exchange/status  public
read   GET    /exchange/user_data_timestamp  public
read   GET    /fcm/fills
read   GET    /fcm/orders
read   GET    /fcm/positions
money  POST   /fcm/positions/transfers
read   GET    /fcm/subtraders
admin  POST   /fcm/subtraders  write::fcm_risk
read   GET    /fcm/subtraders/blocked_categories
admin  PUT    /fcm/subtraders/blocked_categories  write::fcm_risk
read   GET    /fcm/subtraders/event_contract_daily_cap
admin  PUT    /fcm/subtraders/event_contract_daily_cap  write::fcm_risk
admin  DELETE /fcm/subtraders/event_contract_daily_cap  write::fcm_risk
read   GET    /historical/cutoff  public
read   GET    /historical/fills
read   GET    /historical/markets  public
read   GET    /historical/markets/{ticker}  public
read   GET    /historical/markets/{ticker}/candlesticks  public
read   GET    /historical/orders
read   GET    /historical/positions
read   GET    /historical/trades  public
read   GET    /incentive_programs  public
read   GET    /live_data/batch  public
read   GET    /live_data/events/{event_ticker}  public
read   GET    /live_data/milestone/{milestone_id}  public
read   GET    /live_data/milestone/{milestone_id}/game_stats  public
read   GET    /live_data/weather/{city}  public
read   GET    /live_data/weather/{city}/calibrations  public
read   GET    /live_data/{type}/milestone/{milestone_id}  public
read   GET    /margin/balance  perps
read   GET    /margin/corporate_actions  public perps
read   GET    /margin/cross/positions/{ticker}/exit_trigger  perps
trade  PUT    /margin/cross/positions/{ticker}/exit_trigger  perps
trade  DELETE /margin/cross/positions/{ticker}/exit_trigger  perps
trade  PUT    /margin/cross/positions/{ticker}/exit_trigger/{trigger_id}  perps
trade  DELETE /margin/cross/positions/{ticker}/exit_trigger/{trigger_id}  perps
read   GET    /margin/enabled  perps
read   GET    /margin/exchange/status  public perps
admin  PUT    /margin/fcm/notional_risk_limit  perps
admin  DELETE /margin/fcm/notional_risk_limit  perps
read   GET    /margin/fcm/orders  perps
admin  POST   /margin/fcm/subtraders  write::fcm_risk perps
read   GET    /margin/fcm/subtraders/risk_controls  perps
admin  PUT    /margin/fcm/subtraders/risk_controls  write::fcm_risk perps
admin  DELETE /margin/fcm/subtraders/risk_controls  write::fcm_risk perps
read   GET    /margin/fee_tier_rates  perps
read   GET    /margin/fee_tiers  perps
read   GET    /margin/fills  perps
read   GET    /margin/funding_history  perps
read   GET    /margin/funding_rates/estimate  public perps
read   GET    /margin/funding_rates/historical  public perps
read   GET    /margin/funding_rates/premium_index  public perps
read   GET    /margin/isolated/positions/{ticker}/exit_trigger  perps
trade  PUT    /margin/isolated/positions/{ticker}/exit_trigger  perps
trade  DELETE /margin/isolated/positions/{ticker}/exit_trigger  perps
read   GET    /margin/markets  public perps
read   GET    /margin/markets/orderbooks  public perps
read   GET    /margin/markets/{ticker}  public perps
read   GET    /margin/markets/{ticker}/candlesticks  public perps
read   GET    /margin/markets/{ticker}/orderbook  public perps
read   GET    /margin/notional_risk_limit  perps
read   GET    /margin/order_groups  perps
trade  POST   /margin/order_groups/create  perps
read   GET    /margin/order_groups/{order_group_id}  perps
reduce DELETE /margin/order_groups/{order_group_id}  perps
trade  PUT    /margin/order_groups/{order_group_id}/limit  perps
trade  PUT    /margin/order_groups/{order_group_id}/reset  perps
reduce PUT    /margin/order_groups/{order_group_id}/trigger  perps
read   GET    /margin/orders  perps
trade  POST   /margin/orders  write::trade perps
reduce DELETE /margin/orders  write::trade perps
read   GET    /margin/orders/{order_id}  perps
reduce DELETE /margin/orders/{order_id}  write::trade perps
trade  POST   /margin/orders/{order_id}/amend  write::trade perps
reduce POST   /margin/orders/{order_id}/decrease  write::trade perps
read   GET    /margin/positions  perps
read   GET    /margin/risk  perps
read   GET    /margin/risk_parameters  public perps
read   GET    /margin/trades  public perps
read   GET    /markets  public
read   GET    /markets/candlesticks  public
read   GET    /markets/orderbooks  public
read   GET    /markets/trades  public
read   GET    /markets/{ticker}  public
read   GET    /markets/{ticker}/orderbook  public
read   GET    /milestones  public
read   GET    /milestones/{milestone_id}  public
read   GET    /multivariate_event_collections  public
read   GET    /multivariate_event_collections/{collection_ticker}  public
market POST   /multivariate_event_collections/{collection_ticker}
read   GET    /portfolio/balance  read::portfolio_balance
read   GET    /portfolio/deposits
trade  POST   /portfolio/events/orders  write::trade
reduce DELETE /portfolio/events/orders  write::trade
trade  POST   /portfolio/events/orders/batched  write::trade cost=10 each
reduce DELETE /portfolio/events/orders/batched  write::trade cost=2 each
reduce DELETE /portfolio/events/orders/{order_id}  write::trade cost=2
trade  POST   /portfolio/events/orders/{order_id}/amend  write::trade
reduce POST   /portfolio/events/orders/{order_id}/decrease  write::trade
read   GET    /portfolio/fills
money  POST   /portfolio/intra_exchange_instance_transfer  write::transfer
read   GET    /portfolio/intra_exchange_instance_transfers
read   GET    /portfolio/intra_exchange_instance_transfers/{transfer_id}
admin  POST   /portfolio/margin/subaccounts  perps
money  POST   /portfolio/margin/subaccounts/transfer  write::transfer perps
read   GET    /portfolio/order_groups
trade  POST   /portfolio/order_groups/create
read   GET    /portfolio/order_groups/{order_group_id}
reduce DELETE /portfolio/order_groups/{order_group_id}
trade  PUT    /portfolio/order_groups/{order_group_id}/limit
trade  PUT    /portfolio/order_groups/{order_group_id}/reset
reduce PUT    /portfolio/order_groups/{order_group_id}/trigger
read   GET    /portfolio/orders
read   GET    /portfolio/orders/queue_positions
read   GET    /portfolio/orders/{order_id}  cost=2
read   GET    /portfolio/orders/{order_id}/queue_position
read   GET    /portfolio/positions
read   GET    /portfolio/settlements
admin  POST   /portfolio/subaccounts
read   GET    /portfolio/subaccounts/balances
read   GET    /portfolio/subaccounts/netting
admin  PUT    /portfolio/subaccounts/netting
money  POST   /portfolio/subaccounts/transfer  write::transfer
read   GET    /portfolio/subaccounts/transfers
read   GET    /portfolio/summary/total_resting_order_value
read   GET    /portfolio/target_balance_allocation
money  POST   /portfolio/target_balance_allocation
read   GET    /portfolio/withdrawals
read   GET    /search/filters_by_sport  public
read   GET    /search/tags_by_categories  public
read   GET    /series  public
read   GET    /series/fee_changes  public
read   GET    /series/{series_ticker}  public
read   GET    /series/{series_ticker}/events/{ticker}/candlesticks  public
read   GET    /series/{series_ticker}/events/{ticker}/forecast_percentile_history
read   GET    /series/{series_ticker}/markets/{ticker}/candlesticks  public
read   GET    /structured_targets  public
read   GET    /structured_targets/{structured_target_id}  public
"""

_WEBSOCKET_ROWS: Final = """\
read   GET    /trade-api/ws/v2
read   GET    /trade-api/ws/v2/margin  perps
"""

# Orders as they were written until June 2026; reading them below /portfolio/orders goes on.
_GONE_ROWS: Final = """\
trade  POST   /portfolio/orders  write::trade gone=/portfolio/events/orders
trade  POST   /portfolio/orders/batched  each write::trade gone=/portfolio/events/orders/batched
reduce DELETE /portfolio/orders/batched  each write::trade gone=/portfolio/events/orders/batched
reduce DELETE /portfolio/orders/{order_id}  write::trade gone=/portfolio/events/orders/{order_id}
trade  POST   /portfolio/orders/{order_id}/amend  write::trade gone=/portfolio/events/orders/{order_id}/amend
reduce POST   /portfolio/orders/{order_id}/decrease  write::trade gone=/portfolio/events/orders/{order_id}/decrease
"""


def _operation(row: str) -> Operation:
    kind, method, path, *words = row.split()
    members = dict(word.split("=") for word in words if "=" in word)
    return Operation(
        method,
        path,
        Kind(kind),
        signed="public" not in words,
        scope=next((word for word in words if "::" in word), None),
        cost=int(members.get("cost", DEFAULT_COST)),
        for_each_order="each" in words,
        perps="perps" in words,
        instead=members.get("gone"),
    )


def _operations(rows: str) -> tuple[Operation, ...]:
    return tuple(_operation(row) for row in rows.splitlines())


OPERATIONS: Final = _operations(_ROWS + _GONE_ROWS)
"""Every operation of the REST API, those that are gone too."""

WEBSOCKETS: Final = _operations(_WEBSOCKET_ROWS)
"""The handshakes of the two WebSockets."""


@dataclass(slots=True)
class _Node:
    """A place in the tree of path segments."""

    literal: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    operations: dict[str, Operation] = field(default_factory=dict)

    def grow(self, segment: str) -> _Node:
        if not segment.startswith("{"):
            return self.literal.setdefault(segment, _Node())
        if self.parameter is None:
            self.parameter = _Node()
        return self.parameter


def _tree() -> _Node:
    root = _Node()
    for operation in OPERATIONS + WEBSOCKETS:
        node = root
        for segment in operation.route.split("/")[1:]:
            node = node.grow(segment)
        node.operations[operation.method] = operation
    return root


_TREE: Final = _tree()


@lru_cache(maxsize=1024)  # a request is looked up several times, and most requests have the path of an earlier one
def find_operation(method: str, path: str) -> Operation:
    """Return the operation that a request is for.

    A literal segment is looked for before a parameter, and only it counts then: ``batched`` is never an order's id.

    Args:
        method: HTTP method, in upper case.
        path: The path as it goes to Kalshi, or below ``/trade-api/v2``; without a query.

    Returns:
        The row of the table; one of the kind ``UNKNOWN``, with this very path, if it has none.
    """
    node = _TREE
    for segment in (path if path.startswith(_ROOT) else REST_PREFIX + path).split("/")[1:]:
        child = node.literal.get(segment, node.parameter)
        if child is None or not segment:
            break
        node = child
    else:
        if method in node.operations:
            return node.operations[method]
    return Operation(method, path, Kind.UNKNOWN)


@cache
def words_in_place(before: tuple[str, ...]) -> frozenset[str]:
    """Return the literal words that the table has behind such segments, whatever the method: ``batched``, say.

    Args:
        before: The segments before that place, of a whole path; ``*`` and ``{name}`` stand for any one.
    """
    nodes = [_TREE]
    for segment in before:
        if segment == "*" or segment.startswith("{"):
            nodes = [child for node in nodes for child in (*node.literal.values(), node.parameter) if child is not None]
        else:
            branches = (node.literal.get(segment, node.parameter) for node in nodes)
            nodes = [child for child in branches if child is not None]
    return frozenset(word for node in nodes for word in node.literal)
