"""The policy file (TOML): which client may send which requests. A file with anything unknown in it is refused."""

from __future__ import annotations

import re
import tomllib
from datetime import time as TimeOfDay  # noqa: N812 - beside time in seconds
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from hsm_keys.errors import UsageError
from hsm_keys.files import check_nobody_else_writes
from hsm_keys.proxy.caps import Caps, Contracts, MoneyCaps
from hsm_keys.proxy.orders import OrderLimits
from hsm_keys.proxy.paths import Rule
from hsm_keys.settings_errors import not_toml, wrong_settings
from hsm_keys.values import NAME, describe, shown, shown_path

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

__all__ = ["TIER", "ClientPolicy", "Policy", "Window", "load_policy", "parse_policy"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WINDOW: Final = re.compile(r"(\w{3})(?:-(\w{3}))? (\d\d):(\d\d)-(\d\d):(\d\d) ([A-Za-z_]+(?:/[A-Za-z_+\-0-9]+)*)")
_LONGEST_SILENCE_S: Final = 86_400

TIER: Final = inf
"""Tokens a second of a client that has no limit of its own, and keeps to Kalshi's for the account."""


class Window(BaseModel):
    """A time of day on some days of the week, such as ``Mon-Fri 09:30-16:00 America/New_York``; the end isn't in it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    days: frozenset[int]
    begin: TimeOfDay
    end: TimeOfDay | None
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: object) -> Window:
        """Read one.

        Raises:
            ValueError: If it isn't one.
        """
        match = _WINDOW.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError("a time window looks like 'Mon-Fri 09:30-16:00 America/New_York'")
        first, last, *clock, zone = match.groups()
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"days are {', '.join(_DAYS)}")
        start, stop = _DAYS.index(first), _DAYS.index(last or first)
        days = frozenset((start + step) % 7 for step in range((stop - start) % 7 + 1))
        try:
            begin = TimeOfDay(int(clock[0]), int(clock[1]))
            end = None if clock[2:] == ["24", "00"] else TimeOfDay(int(clock[2]), int(clock[3]))
        except ValueError:
            raise ValueError("a time is between 00:00 and 24:00") from None
        if end is not None and end <= begin:
            raise ValueError("a window ends after it begins; write one that passes midnight as two")
        try:
            return cls(days=days, begin=begin, end=end, zone=ZoneInfo(zone))
        except (ZoneInfoNotFoundError, OSError):
            raise ValueError(f"there is no time zone {shown(zone)}") from None

    def holds(self, now: datetime) -> bool:
        """Tell whether this moment is in it."""
        there = now.astimezone(self.zone)
        clock = there.time()
        return there.weekday() in self.days and self.begin <= clock and (self.end is None or clock < self.end)


def _rule(text: object) -> Rule:
    if not isinstance(text, str):
        raise ValueError("a rule is a text such as 'GET /portfolio/**'")  # noqa: TRY004 - pydantic wants ValueError
    return Rule.parse(text)


def _rate(value: object, number: ValidatorFunctionWrapHandler) -> float:
    """Read a number, or the word for what Kalshi allows the account."""
    return TIER if value == "tier" else float(number(value))


_Rule = Annotated[Any, BeforeValidator(_rule)]
_Window = Annotated[Window, BeforeValidator(Window.parse)]
_Rate = Annotated[float, Field(gt=0, le=1_000_000, strict=False, allow_inf_nan=False), WrapValidator(_rate)]


class ClientPolicy(MoneyCaps):
    """What one client may do. Whatever isn't said is allowed, but for API keys, transfers and changes of accounts."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)

    _together: Caps = PrivateAttr(default_factory=Caps)

    uids: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    read_only: bool = False
    allow: list[_Rule] | None = None
    deny: list[_Rule] = Field(default_factory=list)
    allow_key_management: bool = False
    allow_transfers: bool = False
    allow_account_changes: bool = False
    allow_unjudged: list[_Rule] = Field(default_factory=list)
    read_tokens_per_second: _Rate | None = None
    write_tokens_per_second: _Rate | None = None
    orders_per_minute: Annotated[int, Field(gt=0)] | None = None
    hours: list[_Window] | None = None
    max_count: Contracts | None = None
    max_price_cents: Annotated[int, Field(gt=0, lt=100)] | None = None
    markets: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = None
    cancel_after_silence_seconds: Annotated[int, Field(gt=0, le=_LONGEST_SILENCE_S)] | None = None

    @cached_property
    def order_limits(self) -> OrderLimits:
        """What an order may ask for."""
        most = None if self.max_price_cents is None else self.max_price_cents * 100
        return OrderLimits(self.max_count, most, self.markets)

    @property
    def limits_orders(self) -> bool:
        """Whether orders are limited in any way."""
        return (
            bool(self.order_limits) or self.orders_per_minute is not None or self.is_capped or self.cancels_when_silent
        )

    @property
    def narrows(self) -> bool:
        """Whether the client may do less than all of what is open to everybody without a policy."""
        by_tokens = self.read_tokens_per_second is not None or self.write_tokens_per_second is not None
        by_rules = self.allow is not None or bool(self.deny) or self.hours is not None
        return self.read_only or self.limits_orders or by_tokens or by_rules

    @cached_property
    def together(self) -> Caps:
        """The caps of all clients together."""
        return self._together

    @cached_property
    def is_capped(self) -> bool:
        """Whether caps on money hold for the client, its own or those of all together."""
        return bool(self.caps or self._together)

    @cached_property
    def remembers(self) -> bool:
        """Whether orders are remembered, so that none goes out twice."""
        return (self.caps.duplicate_ms or self._together.duplicate_ms) is not None

    @property
    def cancels_when_silent(self) -> bool:
        """Whether the client's orders are cancelled once nothing is heard of it."""
        return self.cancel_after_silence_seconds is not None

    def joined(self, together: Caps) -> None:
        """Have those caps of all clients together."""
        self._together = together

    def tokens_per_second(self, method: str) -> float | None:
        """Return how many tokens a second requests of a method may cost: ``TIER`` for Kalshi's limit, None for any."""
        return self.read_tokens_per_second if method == "GET" else self.write_tokens_per_second

    def leaves_unjudged(self, method: str, path: str) -> bool:
        """Tell whether the policy names a request as one that no limit of orders has to judge."""
        return any(rule.matches(method, path) for rule in self.allow_unjudged)


class Policy(BaseModel):
    """Who may ask for what. A client that isn't named has the rules of ``default``; without one it may do nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    clients: Annotated[dict[str, ClientPolicy], Field(min_length=1)]
    together: MoneyCaps = Field(default_factory=MoneyCaps, alias="all")

    def model_post_init(self, _context: Any, /) -> None:
        """Have the clients know what they share."""
        for client in self.clients.values():
            client.joined(self.together.caps)

    @field_validator("clients")
    @classmethod
    def _check_clients(cls, clients: dict[str, ClientPolicy]) -> dict[str, ClientPolicy]:
        seen: dict[int, str] = {}
        for name, client in clients.items():
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{describe(name)} is no name for a client: letters, digits, dots, dashes, underscores"
                )
            for uid in client.uids:
                if seen.setdefault(uid, name) != name:
                    raise ValueError(f"uid {uid} is both {seen[uid]} and {name}")
        return clients

    @property
    def is_capped(self) -> bool:
        """Whether money is capped for anybody."""
        return any(client.is_capped for client in self.clients.values())

    def client(self, name: str) -> ClientPolicy | None:
        """Return the rules of a client; None if it has none."""
        return self.clients.get(name) or self.clients.get("default")

    def client_of_uid(self, uid: int) -> str:
        """Return the name of the client that a local user is."""
        return next((name for name, client in self.clients.items() if uid in client.uids), "default")


def parse_policy(text: str, *, source: str = "the policy") -> Policy:
    """Read a policy.

    Args:
        text: TOML 1.0.
        source: What errors call it.

    Raises:
        UsageError: If it isn't one; the message says where.
    """
    try:
        return Policy.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f"{source} isn't TOML: {not_toml(error)}", hint="correct it; `hsm-keys proxy check` tries it"
        ) from None
    except ValidationError as error:
        wrong = wrong_settings(error, {*Policy.model_fields, *ClientPolicy.model_fields, "all"})
        raise UsageError(
            f"{source} can't be used: {wrong}", hint="docs/proxy.md lists the settings of a policy"
        ) from None


def load_policy(path: Path, *, in_force: bool = False) -> Policy:
    """Read a policy's file.

    Args:
        path: The file.
        in_force: Refuse one that others can change.

    Raises:
        UsageError: If it can't be read, or isn't a policy.
    """
    try:
        with path.open("rb") as file:
            if in_force:
                check_nobody_else_writes(path, file.fileno())
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise UsageError(f"the policy {shown_path(path)} can't be read: {reason}", hint="give a TOML file") from None
    return parse_policy(text, source=f"the policy {path}")
