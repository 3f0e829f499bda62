"""A server that answers what it is told to, and keeps what reached it: for answers that no sane server gives."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from email.message import Message
    from types import TracebackType

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from hsm_keys.sandbox import SandboxServer

Answer: TypeAlias = tuple[int, Any] | Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Arrived:
    method: str
    target: str
    headers: Message  # whose names have no case
    body: bytes

    @property
    def timestamp(self) -> int:
        return int(self.headers["KALSHI-ACCESS-TIMESTAMP"])

    def is_signed_by(self, key: RSAPublicKey | Ed25519PublicKey) -> bool:
        """Judge the signature over what arrived, byte for byte, with a salt of 32; by cryptography alone."""
        signature = base64.b64decode(self.headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
        message = f"{self.timestamp}{self.method}{self.target.partition('?')[0]}".encode()
        try:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            else:
                key.verify(signature, message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


class Stub:
    """Give it answers; it gives them in turn, and the last one for ever.

    An answer is (status, body), or a callable that is handed the handler and does what it wants.
    """

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.answers = list(answers)
        self.arrived: list[Arrived] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                stub.arrived.append(Arrived(self.command, self.path, self.headers, body))
                answer = stub.answers.pop(0) if len(stub.answers) > 1 else stub.answers[0]
                if callable(answer):
                    answer(self)
                else:
                    send(self, *answer)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - names that http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.base_url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/trade-api/v2"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def standing_in(sandbox: SandboxServer, *answers: Answer) -> Iterator[Stub]:
    """Give a stub in the place of a sandbox, which is stopped meanwhile: keys that belong there are taken there."""
    port = urlsplit(sandbox.base_url).port
    sandbox.stop()
    try:
        with Stub(*answers, port=port or 0) as stub:
            yield stub
    finally:
        sandbox.start()


def send(handler: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Read the request and close without a word."""
    handler.close_connection = True
