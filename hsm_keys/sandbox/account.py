"""What the account's usage level allows, and what a call costs."""

from __future__ import annotations

from typing import Final

from hsm_keys.kalshi.operations import DEFAULT_COST, OPERATIONS
from hsm_keys.sandbox.wire import Call, SandboxAnswer

__all__ = ["endpoint_costs", "limits"]

_BUDGETS: Final = {"basic": (200, 100), "premier": (1000, 1000)}
"""Tokens a second for reading and writing, as on Kalshi's page of summer 2026. They are told and not enforced."""


async def limits(call: Call) -> SandboxAnswer:
    """``GET /account/limits`` and ``GET /account/limits/perps``."""
    read, write = _BUDGETS[call.state.tier]
    return SandboxAnswer(
        200,
        {
            "usage_tier": call.state.tier,
            "read": {"refill_rate": read, "bucket_capacity": read},
            "write": {"refill_rate": write, "bucket_capacity": write},
            "grants": [],
        },
    )


async def endpoint_costs(call: Call) -> SandboxAnswer:  # noqa: ARG001 - a handler
    """``GET /account/endpoint_costs``: public."""
    costs = [
        {"method": operation.method, "path": operation.route, "cost": operation.cost}
        for operation in OPERATIONS
        if operation.cost != DEFAULT_COST and operation.instead is None
    ]
    return SandboxAnswer(200, {"default_cost": DEFAULT_COST, "endpoint_costs": costs})
