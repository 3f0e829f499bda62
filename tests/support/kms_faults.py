"""A local KMS with one key and canned faults. It signs with `cryptography`, and keeps what reached it.

Faults are set for an operation, and if need be for one Region, which it reads off the request's signature:
one address stands for every Region. With a backend (ministack) it only stands in between.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

KEY_ID = "mrk-00112233445566778899aabbccddeeff"
ACCOUNT = "111122223333"

_SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/kms/")
_ACCESS_KEY = re.compile(r"Credential=([^/]+)/")
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def arn_in(region: str) -> str:
    return f"arn:aws:kms:{region}:{ACCOUNT}:key/{KEY_ID}"


@dataclass(frozen=True)
class Refuse:
    """An error answer of KMS."""

    code: str
    message: str = ""
    status: int = 400


@dataclass(frozen=True)
class Body:
    """Any bytes, as a 200 answer."""

    content: bytes
    encoding: str = "application/x-amz-json-1.1"


@dataclass(frozen=True)
class Changed:
    """The right answer, changed."""

    change: Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Hang:
    """No answer, until the server ends."""


@dataclass(frozen=True)
class Reset:
    """The connection is reset instead of an answer."""


@dataclass(frozen=True)
class Cut:
    """The answer ends in its middle."""


@dataclass(frozen=True)
class Lost:
    """The work is done, and the answer isn't sent."""


@dataclass(frozen=True)
class Slow:
    """The right answer, after so many seconds."""

    after_s: float


Fault = Refuse | Body | Changed | Hang | Reset | Cut | Lost | Slow


@dataclass(frozen=True)
class Seen:
    """A request that reached the server."""

    operation: str
    region: str
    parameters: dict[str, Any]
    port: int
    """The client's: one a connection."""
    authorization: str = field(repr=False)


@dataclass
class _Plan:
    once: list[Fault] = field(default_factory=list)
    always: Fault | None = None


class FaultyKms:
    """The server. As a context manager it runs on a free port of loopback.

    Args:
        backend: URL of a KMS that does the work; without it there is one key, which can sign.
    """

    def __init__(self, backend: str = "") -> None:
        self.backend = backend
        self.seen: list[Seen] = []
        self.tags: dict[str, str] = {
            "hsm-keys:name": "prod",
            "hsm-keys:api-key-id": "key-id-1",
            "hsm-keys:environment": "prod",
        }
        self.metadata: dict[str, Any] = {}
        self.private_key: rsa.RSAPrivateKey | Ed25519PrivateKey = rsa_key()
        self.spec = "RSA_2048"
        self.delay_s = 0.0
        self.access_key = ""
        """The one access key that is valid; empty: any is."""
        self.ended = threading.Event()
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"kms": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def fault(self, operation: str, *faults: Fault, region: str = "") -> None:
        """Let the next requests of an operation ("*" is any) fail so, one after the other."""
        self._plan(operation, region).once.extend(faults)

    def always(self, operation: str, fault: Fault | None, *, region: str = "") -> None:
        """Let every request of an operation fail so; None ends it."""
        self._plan(operation, region).always = fault

    def of(self, operation: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.operation == operation]

    def _plan(self, operation: str, region: str) -> _Plan:
        with self._lock:
            return self._plans.setdefault((operation, region), _Plan())

    def next_fault(self, operation: str, region: str) -> Fault | None:
        with self._lock:
            for place in ((operation, region), (operation, ""), ("*", region), ("*", "")):
                plan = self._plans.get(place)
                if plan is not None and plan.once:
                    return plan.once.pop(0)
                if plan is not None and plan.always is not None:
                    return plan.always
        return None

    def answer(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        """Do what KMS does."""
        if self.backend:
            return self._forward(seen)
        operation: Callable[[Seen], dict[str, Any]] = getattr(self, f"_{seen.operation}")
        return 200, operation(seen)

    def _forward(self, seen: Seen) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection(self.backend.partition("//")[2], timeout=30)
        headers = {
            "Authorization": seen.authorization,
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"TrentService.{seen.operation}",
        }
        try:
            connection.request("POST", "/", json.dumps(seen.parameters), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"{}")
        finally:
            connection.close()

    def _GetPublicKey(self, seen: Seen) -> dict[str, Any]:  # noqa: N802 - KMS's name
        der = self.private_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {
            "KeyId": arn_in(seen.region),
            "KeySpec": self.spec,
            "KeyUsage": "SIGN_VERIFY",
            "PublicKey": b64encode(der).decode(),
        }

    def _ListResourceTags(self, seen: Seen) -> dict[str, Any]:  # noqa: N802
        return {"Tags": [{"TagKey": key, "TagValue": value} for key, value in self.tags.items()], "Truncated": False}

    def _DescribeKey(self, seen: Seen) -> dict[str, Any]:  # noqa: N802
        metadata = {
            "KeyId": KEY_ID,
            "Arn": arn_in(seen.region),
            "KeyState": "Enabled",
            "Origin": "AWS_KMS",
            "KeySpec": self.spec,
            "KeyUsage": "SIGN_VERIFY",
            "KeyManager": "CUSTOMER",
        }
        return {"KeyMetadata": {**metadata, **self.metadata}}

    def _ListAliases(self, seen: Seen) -> dict[str, Any]:  # noqa: N802
        return {"Aliases": [{"AliasName": "alias/hsm-keys/prod", "TargetKeyId": KEY_ID}], "Truncated": False}

    def _CreateAlias(self, seen: Seen) -> dict[str, Any]:  # noqa: N802
        return {}

    def _Sign(self, seen: Seen) -> dict[str, Any]:  # noqa: N802
        if self.delay_s:
            self.ended.wait(self.delay_s)
        message = b64decode(seen.parameters["Message"])
        key = self.private_key
        signature = (
            key.sign(message) if isinstance(key, Ed25519PrivateKey) else key.sign(message, _PSS, hashes.SHA256())
        )
        return {
            "KeyId": seen.parameters["KeyId"],
            "Signature": b64encode(signature).decode(),
            "SigningAlgorithm": seen.parameters["SigningAlgorithm"],
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    kms: ClassVar[FaultyKms]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        parameters = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].partition(".")[2]
        scope = _SCOPE.search(self.headers["Authorization"])
        seen = Seen(
            operation, scope[1] if scope else "", parameters, self.client_address[1], self.headers["Authorization"]
        )
        self.kms.seen.append(seen)
        fault = self.kms.next_fault(operation, seen.region) or self._refusal(seen)
        if fault is None or isinstance(fault, Changed | Slow):
            if isinstance(fault, Slow):
                self.kms.ended.wait(fault.after_s)
            status, answer = self.kms.answer(seen)
            if isinstance(fault, Changed):
                fault.change(answer)
            self._send(status, json.dumps(answer).encode())
        elif isinstance(fault, Refuse):
            self._send(fault.status, json.dumps({"__type": fault.code, "message": fault.message}).encode())
        elif isinstance(fault, Body):
            self._send(200, fault.content)
        else:
            self._break(fault, seen)

    def _refusal(self, seen: Seen) -> Refuse | None:
        used = _ACCESS_KEY.search(seen.authorization)
        known = not self.kms.access_key or (used is not None and used[1] == self.kms.access_key)
        return None if known else Refuse("ExpiredTokenException")

    def _break(self, fault: Hang | Reset | Cut | Lost, seen: Seen) -> None:
        self.close_connection = True
        if isinstance(fault, Hang):
            self.kms.ended.wait()
        elif isinstance(fault, Cut):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b'{"Signature": "AAAA')
            self.wfile.flush()
        else:
            if isinstance(fault, Lost):
                self.kms.answer(seen)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""
