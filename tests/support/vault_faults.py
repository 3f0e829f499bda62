"""A network in front of a real OpenBao that fails as it is told, and shows what was sent."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from collections.abc import Callable

Fault = tuple[int, Any] | str
"""A status and a body (JSON or bytes); or ``drop`` before, ``lose`` after the server has done it, ``hang``."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone."""


class FaultyVault:
    """Passes requests on to a server, but for those that meet a fault.

    Args:
        behind: The server's address.
    """

    def __init__(self, behind: str) -> None:
        self.faults: list[tuple[str, Fault]] = []
        """Each is met once, by the next request whose method and path hold the text."""
        self.always: Fault | None = None
        """What every request meets."""
        self.seen: list[tuple[str, str]] = []
        self.ports: list[int] = []
        """Of the clients: a connection has one."""
        self.change: Callable[[Any], Any] = lambda body: body
        """Changes the body of each good answer."""
        self._behind = behind
        self._over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _fault(self, line: str) -> Fault | None:
        for number, (text, fault) in enumerate(self.faults):
            if text in line:
                del self.faults[number]
                return fault
        return self.always

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - self is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                line = f"{self.command} {self.path}"
                outer.seen.append((self.command, self.path.removeprefix("/v1/")))
                outer.ports.append(self.client_address[1])
                fault = outer._fault(line)
                if isinstance(fault, tuple):
                    self.answer(*fault)
                    return
                if fault == "hang":
                    outer._over.wait(30)
                if fault in {"drop", "hang"}:
                    self.close_connection = True
                    return
                status, answer = outer._pass_on(self.command, self.path, body, dict(self.headers.items()))
                if fault == "lose":
                    self.close_connection = True
                    return
                self.answer(status, answer)

            do_GET = do_POST = do_DELETE = do_LIST = do_PUT = handle_any  # noqa: N815 - http.server's names

            def answer(self, status: int, body: Any) -> None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:9/v1/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Say nothing."""

        return Handler

    def _pass_on(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        kept = {name: value for name, value in headers.items() if name.lower() in {"x-vault-token", "content-type"}}
        request = Request(self._behind + path, method=method, data=body or None, headers=kept)  # noqa: S310 - loopback
        try:
            with urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
                content = answer.read()
                return answer.status, self.change(json.loads(content)) if content else None
        except HTTPError as error:
            return error.code, error.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
