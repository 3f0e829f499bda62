"""The WebSockets behind a signed handshake: subscriptions, and messages about what happens to the account's orders."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakSet

from aiohttp import WSCloseCode, WSMsgType, web

from hsm_keys.sandbox.channels import Subscription, channels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hsm_keys.sandbox.state import SandboxState

__all__ = ["Sessions"]

_HEARTBEAT: Final = b"heartbeat"


class Sessions:
    """Serves sessions, and closes those that are still open when the server stops.

    Args:
        clock_ms: The server's clock, in milliseconds since 1970.
        ping_every_s: How often a ping is sent, in seconds.
    """

    def __init__(self, clock_ms: Callable[[], int], ping_every_s: float) -> None:
        self._clock_ms = clock_ms
        self._ping_every_s = ping_every_s
        self._open: WeakSet[web.WebSocketResponse] = WeakSet()

    async def serve(
        self,
        request: web.Request,
        headers: Mapping[str, str],
        state: SandboxState,
        *,
        perps: bool,
        subaccount: int | None,
    ) -> web.WebSocketResponse:
        """Upgrade a request whose signature was found good, and answer commands until either side closes.

        Whether deleting a key ends its open sessions at Kalshi is not documented. Here they live on: revoking a
        key must not rely on more. The next handshake is refused.

        Args:
            request: The request.
            headers: What goes into the head of the 101 beside what the protocol wants.
            state: The account.
            perps: Whether it is the WebSocket of the perpetuals.
            subaccount: The one that the key is restricted to.

        Raises:
            HTTPBadRequest: If the request is no WebSocket handshake (RFC 6455, section 4.2.1).
        """
        socket = web.WebSocketResponse()
        socket.headers.update(headers)
        await socket.prepare(request)
        self._open.add(socket)
        session = _Session(state, self._clock_ms, perps=perps, subaccount=subaccount)
        background = [
            asyncio.create_task(work) for work in (session.send_to(socket), _ping(socket, self._ping_every_s))
        ]
        leave = state.follow(session.hear)
        try:
            async for message in socket:  # pings are answered, and a close acknowledged, below this
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:  # a published client sends the latter
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


async def _ping(socket: web.WebSocketResponse, every_s: float) -> None:
    with suppress(ConnectionError):
        while True:
            await asyncio.sleep(every_s)
            await socket.ping(_HEARTBEAT)


class _Error(Enum):
    """Why a command is refused: code and words as in Kalshi's AsyncAPI document."""

    UNREADABLE = 1, "Unable to process message"
    NO_PARAMS = 2, "Params required"
    NO_CHANNELS = 3, "Channels required"
    NO_SIDS = 4, "Subscription IDs required"
    UNKNOWN_COMMAND = 5, "Unknown command"
    UNKNOWN_SID = 7, "Unknown subscription ID"
    UNKNOWN_CHANNEL = 8, "Unknown channel name"
    INVALID_PARAMETER = 11, "Invalid parameter"
    NOT_ONE_SID = 12, "Exactly one subscription ID is required"
    UNSUPPORTED_ACTION = 13, "Unsupported action"
    NO_TICKER = 14, "Market Ticker required"
    NO_ACTION = 15, "Action required"


Reply: TypeAlias = dict[str, Any]


class _Session:
    """One connection: what it has subscribed to, and what is still to be sent."""

    def __init__(
        self, state: SandboxState, clock_ms: Callable[[], int], *, perps: bool, subaccount: int | None
    ) -> None:
        self._state = state
        self._clock_ms = clock_ms
        self._perps = perps
        self._subaccount = subaccount
        self._waiting: asyncio.Queue[Reply] = asyncio.Queue()
        self._ids = count(1)
        self._subscriptions: dict[int, Subscription] = {}

    async def send_to(self, socket: web.WebSocketResponse) -> None:
        """Send what waits, in its order."""
        with suppress(ConnectionError):
            while True:
                await socket.send_json(await self._waiting.get())

    def hear(self, kind: str, subject: object) -> None:
        """Tell subscribers what happened; called on the server's thread."""
        if kind.startswith("margin ") == self._perps:
            for subscription in self._subscriptions.values():
                for message in subscription.messages(kind.removeprefix("margin "), subject, self._clock_ms()):
                    self._waiting.put_nowait(message)

    def obey(self, text: str | bytes) -> None:
        """Answer one command, in the shapes of Kalshi's AsyncAPI document."""
        try:
            command = json.loads(text)
        except (ValueError, RecursionError):
            command = None
        if not isinstance(command, dict):
            self._waiting.put_nowait(_error(_Error.UNREADABLE))
            return
        named = {"id": command["id"]} if type(command.get("id")) is int else {}
        params = command.get("params")
        asks_for_snapshot = isinstance(params, dict) and params.get("action") == "get_snapshot"
        for reply in self._replies(command):
            is_answer = asks_for_snapshot or reply["type"] in _ANSWERS  # what a new subscription is told is none
            self._waiting.put_nowait(named | reply if is_answer else reply)

    def _replies(self, command: dict[str, Any]) -> Iterator[Reply]:
        name, params = command.get("cmd"), command.get("params")
        if name == "list_subscriptions":
            held = [{"channel": held.channel, "sid": sid} for sid, held in self._subscriptions.items()]
            yield {"type": "ok", "msg": held}
        elif name not in ("subscribe", "unsubscribe", "update_subscription"):  # a list can't be looked up in a set
            yield _error(_Error.UNKNOWN_COMMAND)
        elif not isinstance(params, dict):
            yield _error(_Error.NO_PARAMS)
        elif not _is_well_formed(params):
            yield _error(_Error.INVALID_PARAMETER)
        elif name == "subscribe":
            yield from self._subscribe(params)
        elif name == "unsubscribe":
            yield from self._unsubscribe(params)
        else:
            yield from self._update(params)

    def _subscribe(self, params: dict[str, Any]) -> Iterator[Reply]:
        wanted = params.get("channels")
        if not isinstance(wanted, list) or not wanted:
            yield _error(_Error.NO_CHANNELS)
            return
        for channel in wanted:
            if not isinstance(channel, str) or channel not in channels_of(perps=self._perps):
                yield _error(_Error.UNKNOWN_CHANNEL)
            elif channel == "orderbook_delta" and not _tickers(params):
                yield _error(_Error.NO_TICKER)
            else:
                tickers, sid = _tickers(params) or None, next(self._ids)
                subscription = Subscription(channel, sid, self._state, tickers, self._perps, self._subaccount)
                self._subscriptions[subscription.sid] = subscription
                yield {"type": "subscribed", "msg": {"channel": channel, "sid": subscription.sid}}
                if channel == "orderbook_delta" or params.get("send_initial_snapshot", True):
                    yield from subscription.snapshots(self._clock_ms())

    def _unsubscribe(self, params: dict[str, Any]) -> Iterator[Reply]:
        if not params.get("sids"):
            yield _error(_Error.NO_SIDS)
        for sid in params.get("sids") or ():
            held = self._subscriptions.pop(sid, None)
            if held is None:
                yield _error(_Error.UNKNOWN_SID)
            else:
                yield {"type": "unsubscribed", "sid": sid, "seq": held.next_seq()}

    def _update(self, params: dict[str, Any]) -> Iterator[Reply]:
        """Change which markets a subscription is about, or tell their order books once more."""
        sids = params.get("sids") or ([params["sid"]] if "sid" in params else [])
        action, tickers = params.get("action"), _tickers(params)
        held = self._subscriptions.get(sids[0]) if len(sids) == 1 else None
        if len(sids) != 1:
            yield _error(_Error.NOT_ONE_SID)
        elif held is None:
            yield _error(_Error.UNKNOWN_SID)
        elif action is None:
            yield _error(_Error.NO_ACTION)
        elif action not in ("add_markets", "delete_markets", "get_snapshot"):
            yield _error(_Error.UNSUPPORTED_ACTION)
        elif not tickers:
            yield _error(_Error.NO_TICKER)
        elif action == "get_snapshot":
            yield from held.snapshots(self._clock_ms(), tickers)
        else:
            new = held.add(tickers) if action == "add_markets" else frozenset()
            if action == "delete_markets":
                held.remove(tickers)
            changed = {"market_tickers": sorted(held.tickers or ())}
            yield {"type": "ok", "sid": held.sid, "seq": held.next_seq(), "msg": changed}
            yield from held.snapshots(self._clock_ms(), new)


_ANSWERS: Final = {"ok", "error", "subscribed", "unsubscribed"}


def _is_well_formed(params: dict[str, Any]) -> bool:
    """Tell whether parameters have the types that they have in Kalshi's document."""
    tickers, sids = params.get("market_tickers"), params.get("sids")
    return (
        isinstance(params.get("market_ticker"), str | None)
        and (tickers is None or (isinstance(tickers, list) and all(isinstance(ticker, str) for ticker in tickers)))
        and (sids is None or (isinstance(sids, list) and all(type(sid) is int for sid in sids)))
        and ("sid" not in params or type(params["sid"]) is int)
    )


def _tickers(params: dict[str, Any]) -> set[str]:
    listed = [*(params.get("market_tickers") or ()), params.get("market_ticker")]
    return {ticker for ticker in listed if ticker is not None}


def _error(why: _Error) -> Reply:
    code, message = why.value
    return {"type": "error", "msg": {"code": code, "msg": message}}
