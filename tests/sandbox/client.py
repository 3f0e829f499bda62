"""A client for the sandbox's tests: signs with ``cryptography`` directly, and sends targets byte for byte."""

from __future__ import annotations

import http.client
import json
import time
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

    from hsm_keys.sandbox import SandboxServer

PREFIX = "/trade-api/v2"
BALANCE = f"{PREFIX}/portfolio/balance"
API_KEYS = f"{PREFIX}/api_keys"
ORDERS = f"{PREFIX}/portfolio/orders"
"""Where orders are read."""

EVENT_ORDERS = f"{PREFIX}/portfolio/events/orders"
"""Where they are made, changed and ended."""

PrivateKey: TypeAlias = rsa.RSAPrivateKey | Ed25519PrivateKey


@cache
def rsa_key(which: int = 0) -> rsa.RSAPrivateKey:
    """One of a few RSA keys, each made once in a test run."""
    assert which >= 0
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load(pem: str) -> PrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, PrivateKey)
    return key


def sign(key: PrivateKey, message: str, *, salt: int = 32) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message.encode())
    return key.sign(message.encode(), padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def headers_for(api_key_id: str, timestamp: str, signature: bytes | str) -> dict[str, str]:
    return {
        "KALSHI-ACCESS-KEY": api_key_id,
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": signature if isinstance(signature, str) else b64encode(signature).decode(),
    }


@dataclass
class Reply:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json")
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The nested error of an authentication failure."""
        assert set(self.json) == {"error"}
        return self.json["error"]


def port_of(server: SandboxServer) -> int:
    return int(server.base_url.removesuffix(PREFIX).rpartition(":")[2])


def ws_port_of(server: SandboxServer) -> int:
    return int(server.ws_url.split("/")[2].rpartition(":")[2])


def send(
    server: SandboxServer,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    port: int = 0,
) -> Reply:
    """Send one request on a connection of its own, to the REST port or another; the target goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port or port_of(server), timeout=20)
    try:
        connection.request(method, target, body=body, headers=dict(headers))
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


@dataclass
class Caller:
    """Somebody with an API key."""

    server: SandboxServer
    api_key_id: str
    key: PrivateKey

    @classmethod
    def bootstrap(cls, server: SandboxServer) -> Caller:
        return cls(server, server.bootstrap_key_id, load(server.bootstrap_pem))

    @classmethod
    def added(cls, server: SandboxServer, *, key: PrivateKey | None = None, **restrictions: Any) -> Caller:
        """Somebody whose key was pasted on the account page."""
        made = key or Ed25519PrivateKey.generate()
        return cls(server, server.add_key("added", pem_of(made), **restrictions).api_key_id, made)

    def headers(
        self, method: str, target: str, *, message: str | None = None, timestamp: int | None = None, salt: int = 32
    ) -> dict[str, str]:
        stamp = str(now_ms() if timestamp is None else timestamp)
        text = f"{stamp}{method}{target.partition('?')[0]}" if message is None else stamp + message
        return headers_for(self.api_key_id, stamp, sign(self.key, text, salt=salt))

    def call(self, method: str, target: str, body: object = None, **signing: Any) -> Reply:
        """Send a signed request; ``signing`` bends the signature as ``headers`` describes."""
        headers = self.headers(method, target, **signing)
        payload: bytes | None = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return send(self.server, method, target, headers, payload)
