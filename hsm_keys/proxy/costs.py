"""The cost of calls in Kalshi's rate tokens: from the built-in table, until Kalshi's own answer is known."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, Field

from hsm_keys.kalshi.operations import DEFAULT_COST, OPERATIONS, REST_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.kalshi.operations import Operation

__all__ = ["Costs", "EndpointCosts"]

_Tokens = Annotated[int, Field(ge=0, le=1_000_000, strict=True)]
_PARAMETERS: Final = ("{", ":", "<", "*")


class _EndpointCost(BaseModel):
    method: str
    path: str
    cost: _Tokens


class EndpointCosts(BaseModel):
    """The answer to ``GET /account/endpoint_costs``."""

    default_cost: _Tokens
    endpoint_costs: list[_EndpointCost]

    def __str__(self) -> str:
        """Return it as the log says it."""
        return f"{self.default_cost}, {len(self.endpoint_costs)} operations have others"


class Costs:
    """What calls cost: by the table of operations, or by Kalshi's own list.

    Args:
        said: Kalshi's list; None for the table's numbers.
    """

    def __init__(self, costs: EndpointCosts | None = None) -> None:
        self._default = DEFAULT_COST
        self._listed = _costs_of_table()
        if costs is not None:
            self._default = costs.default_cost
            self._listed = {(one.method.upper(), _bare(one.path)): one.cost for one in costs.endpoint_costs}

    def of(self, operation: Operation, orders: int = 1) -> int:
        """Return the tokens of a call.

        Args:
            operation: What is called.
            orders: How many orders its body is about, for an operation that costs something for each.
        """
        cost = self._listed.get((operation.method, _bare(operation.path)), self._default)
        return cost * orders if operation.for_each_order else cost


@cache  # a judge is made for each supposed request
def _costs_of_table() -> Mapping[tuple[str, str], int]:
    return {
        (operation.method, _bare(operation.path)): operation.cost
        for operation in OPERATIONS
        if operation.cost != DEFAULT_COST
    }


@cache  # templates are few, and each request asks for one
def _bare(path: str) -> str:
    """Return a path template without its prefix and the names of its parameters, however they are written."""
    below = path.removeprefix(REST_PREFIX)
    return "/".join("{}" if segment.startswith(_PARAMETERS) else segment for segment in below.split("/"))
