"""The WebSocket behind a signed handshake: subscriptions are acknowledged, and no market data follows."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from aiohttp import WSCloseCode, WSMsgType, web

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Sessions"]

_CHANNELS: Final = frozenset(
    {
        "orderbook_delta",
        "ticker",
        "trade",
        "fill",
        "market_positions",
        "market_lifecycle_v2",
        "multivariate_market_lifecycle",
        "multivariate",
        "communications",
        "order_group_updates",
        "user_orders",
        "cfbenchmarks_value",
    }
)
_PING_EVERY_S: Final = 10.0  # as Kalshi does


class Sessions:
    """Serves sessions, and closes those that are still open when the server stops."""

    def __init__(self) -> None:
        self._open: WeakSet[web.WebSocketResponse] = WeakSet()

    async def serve(self, request: web.Request, headers: Mapping[str, str]) -> web.WebSocketResponse:
        """Upgrade a request whose signature was found good, and answer commands until either side closes.

        Whether deleting a key ends its open sessions at Kalshi is not documented. Here they live on: revoking a
        key must not rely on more. The next handshake is refused.

        Args:
            request: The request.
            headers: What goes into the head of the 101 beside what the protocol wants.

        Raises:
            HTTPBadRequest: If the request is no WebSocket handshake (RFC 6455, section 4.2.1).
        """
        session = web.WebSocketResponse(heartbeat=_PING_EVERY_S)
        session.headers.update(headers)
        await session.prepare(request)
        self._open.add(session)
        subscription_ids = count(1)
        async for message in session:  # pings are answered, and a close acknowledged, below this
            if message.type is WSMsgType.TEXT:
                for reply in _replies(message.data, subscription_ids):
                    await session.send_json(reply)
        return session

    async def close(self, _: web.Application) -> None:
        """Say goodbye to all who are connected."""
        for session in list(self._open):
            await session.close(code=WSCloseCode.GOING_AWAY, message=b"the sandbox stops")


def _replies(text: str, subscription_ids: Iterator[int]) -> Iterator[dict[str, Any]]:
    """Answer one command, in the shapes of Kalshi's AsyncAPI document."""
    try:
        command = json.loads(text)
    except (ValueError, RecursionError):
        command = None
    if not isinstance(command, dict):
        yield _error(None, 1, "Unable to process message")
        return
    command_id = command.get("id")
    if command.get("cmd") != "subscribe":
        yield _error(command_id, 5, "Unknown command")
        return
    params = command.get("params")
    if not isinstance(params, dict):
        yield _error(command_id, 2, "Params required")
        return
    channels = params.get("channels")
    if not isinstance(channels, list) or not channels:
        yield _error(command_id, 3, "Channels required")
        return
    for channel in channels:
        if isinstance(channel, str) and channel in _CHANNELS:
            yield {"id": command_id, "type": "subscribed", "msg": {"channel": channel, "sid": next(subscription_ids)}}
        else:
            yield _error(command_id, 8, "Unknown channel name")


def _error(command_id: object, code: int, message: str) -> dict[str, Any]:
    return {"id": command_id, "type": "error", "msg": {"code": code, "msg": message}}
