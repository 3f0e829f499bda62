"""The commands of Kalshi's WebSockets, exactly as its clients send them. All of them only read."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hsm_keys.proxy.strict_json import UnclearJsonError, strict_object

__all__ = ["UnknownCommandError", "check_command"]


class UnknownCommandError(ValueError):
    """What a client says over a WebSocket isn't a command that is known; the message quotes nothing of it."""


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Markets(_Said):
    market_ticker: str | None = None
    market_tickers: list[str] | None = None
    market_id: str | None = None
    market_ids: list[str] | None = None
    index_ids: list[str] | None = None
    send_initial_snapshot: bool | None = None


class _SubscribeParams(_Markets):
    channels: list[str]
    event_tickers: list[str] | None = None
    shard_factor: int | None = None
    shard_key: int | None = None
    skip_ticker_ack: bool | None = None


class _UpdateParams(_Markets):
    action: Literal[
        "add_markets", "delete_markets", "get_snapshot", "subscribe_indices", "unsubscribe_indices", "indexlist"
    ]
    sid: int | None = None
    sids: list[int] | None = None


class _UnsubscribeParams(_Said):
    sids: list[int]


class _Command(_Said):
    id: int | None = None


class _Subscribe(_Command):
    cmd: Literal["subscribe"]
    params: _SubscribeParams


class _Update(_Command):
    cmd: Literal["update_subscription"]
    params: _UpdateParams


class _Unsubscribe(_Command):
    cmd: Literal["unsubscribe"]
    params: _UnsubscribeParams


class _List(_Command):
    cmd: Literal["list_subscriptions"]
    params: _Said | None = None


_COMMANDS: Final[TypeAdapter[_Subscribe | _Update | _Unsubscribe | _List]] = TypeAdapter(
    Annotated[_Subscribe | _Update | _Unsubscribe | _List, Field(discriminator="cmd")]
)


def check_command(message: bytes) -> None:
    """Refuse what isn't a command that is known.

    Args:
        message: What a client sends, in UTF-8.

    Raises:
        UnknownCommandError: If it isn't one.
    """
    try:
        _COMMANDS.validate_python(strict_object(message))
    except UnclearJsonError as error:
        raise UnknownCommandError(f"the command {error}") from None
    except ValidationError as error:
        kind = error.errors(include_url=False, include_input=False)[0]["type"]
        what = "the command isn't known" if kind.startswith("union_tag") else "the command has unknown parameters"
        raise UnknownCommandError(what) from None
