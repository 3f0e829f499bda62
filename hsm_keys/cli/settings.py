"""The values of the options that every command shares, with those that a profile adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Settings"]


@dataclass(slots=True)
class Settings:
    """What the shared options said, then what the profile adds; None where neither says anything.

    ``policy`` and ``api_key_id`` are a profile's alone: the options of those names are some commands' own.
    """

    stores: tuple[str, ...] = ()
    store_options: dict[str, Any] = field(default_factory=dict)
    """The options of back-ends that were given, by ``Option.name``."""
    creation_options: dict[str, Any] = field(default_factory=dict)
    """Those for making keys."""
    profile: str | None = None
    env: str | None = None
    base_url: str | None = None
    ws_url: str | None = None
    exchange: str | None = None
    output: str | None = None
    verbose: bool | None = None
    policy: str | None = None
    api_key_id: str | None = None

    @property
    def as_json(self) -> bool:
        """Whether stdout is for a program."""
        return self.output == "json"
