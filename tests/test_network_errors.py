"""Why nobody was reached, as the HTTP libraries that this package uses raise it."""

from __future__ import annotations

import socket
import ssl

import anyio
import httpx2
import pytest

from hsm_keys.network_errors import why_not_reached
from tests.support.ports import free_port


def test_a_host_where_nobody_listens() -> None:
    async def get_async() -> None:
        async with httpx2.AsyncClient(trust_env=False) as client:
            await client.get(f"http://localhost:{free_port()}")

    with pytest.raises(httpx2.ConnectError) as raised:
        httpx2.get(f"http://localhost:{free_port()}", trust_env=False)
    assert why_not_reached(raised.value) == "connection refused"
    with pytest.raises(httpx2.ConnectError) as raised:
        anyio.run(get_async)
    assert why_not_reached(raised.value) == "connection refused"


def test_each_kind_has_its_words() -> None:
    handshake = ssl.SSLError(1, "no")
    handshake.reason = "WRONG_VERSION_NUMBER"
    words = {
        "its name can't be resolved": socket.gaierror(-2, "Name or service not known"),
        "TLS: its certificate isn't trusted": ssl.SSLCertVerificationError(1, "no"),
        "TLS: the handshake failed": ssl.SSLError(1, "no"),
        "TLS: the handshake failed, wrong version number": handshake,
        "no answer in time": TimeoutError(),
        "connection refused": ExceptionGroup("several", [ConnectionRefusedError(111, "no"), OSError()]),
        "": ValueError("its text isn't one of ours"),
    }
    for expected, cause in words.items():
        error = httpx2.ConnectError("All connection attempts failed")
        error.__cause__ = cause
        assert why_not_reached(error) == expected
