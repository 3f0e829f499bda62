"""The shapes in which Kalshi refuses."""

from __future__ import annotations

from typing import Any

__all__ = ["shape_of"]


def shape_of(body: Any) -> str:
    """Return which of the three shapes an error has, or what it is instead."""
    match body:
        case {"error": {"code": str(), "message": str(), **more}} if len(body) == 1 and more.keys() <= {
            "details",
            "service",
        }:
            return "nested"
        case {"code": str(), "message": str(), **more} if more.keys() <= {"details"}:
            return "flat"
        case {"msg": str()} if len(body) == 1:
            return "bare"
    return f"none: {body}"
