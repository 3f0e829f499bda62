"""Whom the clients trust, and that they read it once."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from hsm_keys import AsyncKalshiClient, KalshiClient
from hsm_keys.errors import NetworkError
from hsm_keys.kalshi import surroundings
from hsm_keys.signing.signer import RequestSigner
from tests.support.certificates import self_signed
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from pathlib import Path


class Key:
    """A key that nobody verifies."""

    name = "prod"
    api_key_id = "id"

    def sign(self, _message: bytes) -> bytes:
        return b"signature"


def test_only_who_is_trusted_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authorities that were read for another setting aren't taken for this one."""
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    signer = RequestSigner(Key())
    with Stub((200, {}), tls=context) as stub:
        for trusts in (False, True, False):
            if trusts:
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            else:
                monkeypatch.delenv("SSL_CERT_FILE", raising=False)
            with KalshiClient(signer, base_url=stub.base_url) as client:
                if trusts:
                    assert client.request("POST", "/portfolio/events/orders").status_code == 200
                else:
                    with pytest.raises(NetworkError, match="certificate"):
                        client.request("POST", "/portfolio/events/orders")
    assert len(stub.arrived) == 1


def test_authorities_are_read_once_and_for_plain_http_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    read = []
    original = ssl.SSLContext.load_verify_locations

    def load(context: ssl.SSLContext, *given: str, **named: str) -> None:
        read.append(named or given)
        original(context, *given, **named)

    surroundings._read_authorities.cache_clear()
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    signer = RequestSigner(Key())
    KalshiClient(signer, base_url="http://127.0.0.1:1/trade-api/v2").close()
    assert read == []
    for _ in range(2):
        KalshiClient(signer).close()
        AsyncKalshiClient(signer)
    assert len(read) == 1
