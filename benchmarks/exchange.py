# ruff: noqa: INP001, T201 - a script
"""A stand-in for Kalshi that only counts, for benchmarks: quick, in a process of its own, and no judge of signatures.

Every order is filled at once. ``GET /counted`` says what came: how many orders, what they may cost in hundredths of a
cent, and when orders and cancels of all came since it was asked the last time (``time.monotonic``).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from httptools import HttpRequestParser

from hsm_keys.proxy.amounts import worst_case

PREFIX: Final = "/trade-api/v2"
ORDERS: Final = f"{PREFIX}/portfolio/events/orders"
PAGE: Final = 500


class Counted:
    """What came."""

    def __init__(self) -> None:
        self.orders = self.spent = 0
        self.placed: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self.moments: list[tuple[float, str]] = []

    def place(self, body: bytes) -> dict[str, str]:
        """Fill an order, and count it."""
        order = json.loads(body)
        self.orders += 1
        self.spent += worst_case(_hundredths(order["count"], 2), _hundredths(order["price"], 4))
        self.moments.append((time.monotonic(), "POST"))
        self.placed[order["ticker"]].append(
            {
                "order_id": f"o{self.orders}",
                "client_order_id": order["client_order_id"],
                "ticker": order["ticker"],
                "status": "executed",
                "fill_count_fp": order["count"],
                "remaining_count_fp": "0.00",
            }
        )
        name = order["client_order_id"]
        return {"order_id": f"o{self.orders}", "client_order_id": name, "fill_count": order["count"]} | {
            "remaining_count": "0.00"
        }

    def listed(self, query: str) -> dict[str, Any]:
        """Return a page of the orders of a market; none of them rests."""
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        orders = [] if "status" in asked else self.placed[asked["ticker"]]
        start = int(asked.get("cursor", 0))
        more = str(start + PAGE) if len(orders) > start + PAGE else ""
        return {"orders": orders[start : start + PAGE], "cursor": more}

    def report(self) -> dict[str, Any]:
        """Return the counts, and forget the moments."""
        moments, self.moments = self.moments, []
        return {"orders": self.orders, "spent": self.spent, "moments": moments}


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self.parser = HttpRequestParser(self)
        self.target, self.body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Keep a part of the target."""
        self.target += url

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer the request."""
        method, (path, _, query) = self.parser.get_method(), self.target.decode().partition("?")
        body, self.target, self.body = self.body, b"", b""
        status, said = self.answer(method.decode(), path, query, body)
        content = json.dumps(said).encode()
        self.transport.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content))

    def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        if (method, path) == ("POST", ORDERS):
            return 201, self.counted.place(body)
        if (method, path) == ("DELETE", ORDERS):
            self.counted.moments.append((time.monotonic(), "DELETE"))
            return 200, {}
        if path == f"{PREFIX}/portfolio/orders":
            return 200, self.counted.listed(query)
        if path == f"{PREFIX}/portfolio/fills":
            return 200, {"fills": []}
        return (200, self.counted.report()) if path == "/counted" else (404, {})


class Exchange:
    """The stand-in as a process; a context manager, which sets the environment for a proxy before it."""

    def __enter__(self) -> Self:
        command = [sys.executable, str(Path(__file__))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this very file
        self.port = int(self.process.stdout.readline()) if self.process.stdout else 0
        private = Ed25519PrivateKey.generate()
        os.environ |= {
            "KALSHI_API_BASE_URL": f"http://127.0.0.1:{self.port}{PREFIX}",
            "KALSHI_WS_URL": f"ws://127.0.0.1:{self.port}/trade-api/ws/v2",
            "KALSHI_KEY_ID": "00000000-0000-4000-8000-000000000001",
            "KALSHI_PRIVATE_KEY": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }
        return self

    def counted(self) -> dict[str, Any]:
        """Return what came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with closing(connection):
            connection.request("GET", "/counted")
            said: dict[str, Any] = json.loads(connection.getresponse().read())
            return said

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def _hundredths(text: str, decimals: int) -> int:
    whole, _, rest = text.partition(".")
    return int(whole + rest.ljust(decimals, "0"))


async def serve() -> None:
    """Serve until it is terminated."""
    counted = Counted()
    server = await asyncio.get_running_loop().create_server(lambda: Answering(counted), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
