"""A WebSocket session with the sandbox, for tests: commands, and all that has been told since."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

    from tests.sandbox.client import Caller

__all__ = ["Listener", "listen"]


@contextmanager
def listen(caller: Caller, *, perps: bool = False) -> Iterator[Listener]:
    """Open a session of somebody with an API key: about events, or about perpetuals."""
    below = "/margin" if perps else ""
    headers = caller.headers("GET", "/trade-api/ws/v2" + below)
    with connect(caller.server.ws_url + below, additional_headers=headers, proxy=None, open_timeout=20) as session:
        yield Listener(session)


class Listener:
    """Sends commands on a session, and returns what is told."""

    def __init__(self, session: ClientConnection) -> None:
        self.session = session
        self._ids = count(1000)

    def send(self, command: str, **params: Any) -> int:
        """Send a command, and return its id."""
        command_id = next(self._ids)
        self.session.send(json.dumps({"id": command_id, "cmd": command, "params": params}))
        return command_id

    def told(self) -> list[dict[str, Any]]:
        """Return all messages that haven't been returned before."""
        last = self.send("list_subscriptions")
        messages: list[dict[str, Any]] = []
        while True:
            message = json.loads(self.session.recv(timeout=20))
            if message.get("id") == last:
                return messages
            messages.append(message)

    def ask(self, command: str, **params: Any) -> list[dict[str, Any]]:
        """Send a command, and return what comes of it."""
        self.send(command, **params)
        return self.told()
