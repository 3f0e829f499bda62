"""Talks to a server of the Model Context Protocol (2025-06-18) as an agent does: lines of JSON-RPC on its streams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess


class Mcp:
    """A session with a server that runs.

    Args:
        process: The server's, with pipes for its standard input and output.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._number = 0
        client = {"name": "test", "version": "1"}
        self._ask("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client})
        self._send({"method": "notifications/initialized"})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message.get("id") == self._number and "method" not in message:
                assert "error" not in message, message
                return dict(message["result"])
        raise AssertionError("the server has ended")

    def call(self, tool: str, **arguments: Any) -> str:
        """Return the text that a tool answers."""
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})
        return "".join(part["text"] for part in result["content"] if part["type"] == "text")

    def ask(self, tool: str, **arguments: Any) -> Any:
        """Return what a tool answers, which is JSON."""
        text = self.call(tool, **arguments)
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            raise AssertionError(text) from None
