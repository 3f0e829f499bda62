"""The WebSockets behind a signed handshake: subscriptions, and messages about what happens to the account's orders."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from aiohttp import WSCloseCode, WSMsgType, web

from hsm_keys.sandbox import channels
from hsm_keys.sandbox.channels import Subscription

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hsm_keys.sandbox.state import SandboxState

__all__ = ["Sessions"]

_PING_EVERY_S: Final = 10.0  # as Kalshi does
_HEARTBEAT: Final = b"heartbeat"


class Sessions:
    """Serves sessions, and closes those that are still open when the server stops."""

    def __init__(self) -> None:
        self._open: WeakSet[web.WebSocketResponse] = WeakSet()

    async def serve(
        self, request: web.Request, headers: Mapping[str, str], state: SandboxState, *, perps: bool
    ) -> web.WebSocketResponse:
        """Upgrade a request whose signature was found good, and answer commands until either side closes.

        Whether deleting a key ends its open sessions at Kalshi is not documented. Here they live on: revoking a
        key must not rely on more. The next handshake is refused.

        Args:
            request: The request.
            headers: What goes into the head of the 101 beside what the protocol wants.
            state: The account.
            perps: Whether it is the WebSocket of the perpetuals.

        Raises:
            HTTPBadRequest: If the request is no WebSocket handshake (RFC 6455, section 4.2.1).
        """
        socket = web.WebSocketResponse()
        socket.headers.update(headers)
        await socket.prepare(request)
        self._open.add(socket)
        session = _Session(state, perps=perps)
        background = [asyncio.create_task(work) for work in (session.send_to(socket), _ping(socket))]
        leave = state.follow(session.hear)
        try:
            async for message in socket:  # pings are answered, and a close acknowledged, below this
                if message.type is WSMsgType.TEXT:
                    session.obey(message.data)
        finally:
            leave()
            for task in background:
                task.cancel()
        return socket

    async def close(self, _: web.Application) -> None:
        """Say goodbye to all who are connected."""
        for session in list(self._open):
            await session.close(code=WSCloseCode.GOING_AWAY, message=b"the sandbox stops")


async def _ping(socket: web.WebSocketResponse) -> None:
    with suppress(ConnectionError):
        while True:
            await asyncio.sleep(_PING_EVERY_S)
            await socket.ping(_HEARTBEAT)


class _Session:
    """One connection: what it has subscribed to, and what is still to be sent."""

    def __init__(self, state: SandboxState, *, perps: bool) -> None:
        self._state = state
        self._perps = perps
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._ids = count(1)
        self._subscriptions: dict[int, Subscription] = {}

    async def send_to(self, socket: web.WebSocketResponse) -> None:
        """Send what waits, in its order."""
        with suppress(ConnectionError):
            while True:
                await socket.send_json(await self._waiting.get())

    def hear(self, kind: str, subject: object) -> None:
        """Tell subscribers about an order or a fill; called on the server's thread."""
        if kind.startswith("margin ") == self._perps:
            for subscription in self._subscriptions.values():
                for message in channels.messages(subscription, kind.removeprefix("margin "), subject, self._state):
                    self._waiting.put_nowait(message)

    def obey(self, text: str) -> None:
        """Answer one command, in the shapes of Kalshi's AsyncAPI document."""
        for reply in self._replies(text):
            self._waiting.put_nowait(reply)

    def _replies(self, text: str) -> Iterator[dict[str, Any]]:
        try:
            command = json.loads(text)
        except (ValueError, RecursionError):
            command = None
        if not isinstance(command, dict):
            yield _error(None, 1, "Unable to process message")
            return
        command_id, name, params = command.get("id"), command.get("cmd"), command.get("params")
        obeyed = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe, "update_subscription": self._update}
        if name == "list_subscriptions":
            held = [{"channel": held.channel, "sid": sid} for sid, held in self._subscriptions.items()]
            yield {"id": command_id, "type": "ok", "msg": held}
        elif name not in obeyed:
            yield _error(command_id, 5, "Unknown command")
        elif not isinstance(params, dict):
            yield _error(command_id, 2, "Params required")
        else:
            yield from obeyed[name](command_id, params)

    def _subscribe(self, command_id: object, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        wanted = params.get("channels")
        if not isinstance(wanted, list) or not wanted:
            yield _error(command_id, 3, "Channels required")
            return
        for channel in wanted:
            if not isinstance(channel, str) or channel not in channels.CHANNELS:
                yield _error(command_id, 8, "Unknown channel name")
                continue
            tickers = _tickers(params)
            if channel == "orderbook_delta" and not tickers:
                yield _error(command_id, 14, "Market ticker required")
                continue
            subscription = Subscription(channel, next(self._ids), tickers, perps=self._perps)
            self._subscriptions[subscription.sid] = subscription
            yield {"id": command_id, "type": "subscribed", "msg": {"channel": channel, "sid": subscription.sid}}
            yield from channels.snapshots(subscription, self._state)

    def _unsubscribe(self, command_id: object, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        sids = params.get("sids")
        if not isinstance(sids, list) or not sids:
            yield _error(command_id, 4, "Subscription IDs required")
            return
        for sid in sids:
            held = self._subscriptions.pop(sid, None) if isinstance(sid, int) else None
            if held is None:
                yield _error(command_id, 7, "Unknown subscription ID")
            else:
                yield {"id": command_id, "type": "unsubscribed", "sid": sid, "seq": held.next_seq()}

    def _update(self, command_id: object, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        sids = params.get("sids") or [params.get("sid")]
        held = self._subscriptions.get(sids[0]) if isinstance(sids, list) and len(sids) == 1 else None
        if held is None:
            yield _error(command_id, 7, "Unknown subscription ID")
            return
        if params.get("action") == "add_markets":
            held.tickers |= _tickers(params)
        elif params.get("action") == "delete_markets":
            held.tickers -= _tickers(params)
        else:
            yield _error(command_id, 13, "Unsupported action")
            return
        yield {
            "id": command_id,
            "type": "ok",
            "sid": held.sid,
            "seq": held.next_seq(),
            "msg": {"market_tickers": sorted(held.tickers)},
        }


def _tickers(params: dict[str, Any]) -> set[str]:
    named = params.get("market_tickers")
    listed = [*(named if isinstance(named, list) else []), params.get("market_ticker")]
    return {ticker for ticker in listed if isinstance(ticker, str)}


def _error(command_id: object, code: int, message: str) -> dict[str, Any]:
    return {"id": command_id, "type": "error", "msg": {"code": code, "msg": message}}
