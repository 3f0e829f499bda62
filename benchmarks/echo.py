# ruff: noqa: INP001, T201 - a script
"""What a machine does to any event loop: a process that works as long for a request as a proxy does, and no more.

It says when it came to a question that was asked meanwhile. How late that is, is none of the proxy's doing.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

from httptools import HttpRequestParser

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Working(asyncio.Protocol):
    """One connection: ``POST`` is worked for, ``GET`` asks for the time (``time.monotonic``)."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.parser = HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer the request."""
        now = time.monotonic()
        if self.parser.get_method() == b"POST":
            end = time.thread_time() + self.seconds
            while time.thread_time() < end:
                pass
        content = json.dumps({"remaining_count": "0.00", "now": now}).encode()
        self.transport.write(b"HTTP/1.1 201 X\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))


class Echo:
    """That process; a context manager.

    Args:
        path: Where its socket is.
        seconds: The processor's time for each request.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.echo", str(self._path), str(self._seconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - this very module
        if self.process.stdout:
            self.process.stdout.readline()
        return self

    def connect(self) -> socket.socket:
        """Return a connection."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self._path))
        return connection

    def came_to_it(self) -> float:
        """Ask, and return when the process came to it."""
        connection = http.client.HTTPConnection("localhost")
        with closing(connection):
            connection.sock = self.connect()
            connection.request("GET", "/")
            return float(json.loads(connection.getresponse().read())["now"])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait()


async def serve(path: str, seconds: float) -> None:
    """Serve until it is terminated."""
    server = await asyncio.get_running_loop().create_unix_server(lambda: Working(seconds), path)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2])))
