"""An answer has a limit of size, decoded, and of time: whoever stands in for Kalshi can't fill the memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import time
import tracemalloc
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import stamina

from hsm_keys import AsyncKalshiClient, KalshiClient, RequestSigner
from hsm_keys.errors import NetworkError, OutcomeUnknownError
from hsm_keys.kalshi import whole_answer
from tests.support.kalshi_stub import Stub, send
from tests.support.presigning import CountingKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

BOTH = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def request(stub: Stub, method: str, *, use_async: bool) -> Any:
    signer = RequestSigner(CountingKey())

    async def run() -> Any:
        async with AsyncKalshiClient(signer, base_url=stub.base_url) as client:
            return await client.request(method, "/x")

    if use_async:
        return asyncio.run(run())
    with KalshiClient(signer, base_url=stub.base_url) as client:
        return client.request(method, "/x")


def zeros(mebibytes: int, wbits: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packer.flush()


def coded(status: int, body: bytes, coding: str) -> Any:
    return lambda handler: send(handler, status, body, {"Content-Encoding": coding})


@cache
def bomb(coding: str) -> bytes:
    if coding == "deflate":
        return zeros(40, 15)
    return zeros(300, 31) if coding == "gzip" else gzip.compress(bomb("gzip"))


@pytest.mark.parametrize(
    ("coding", "status", "use_async"),
    [
        ("gzip", 200, False),
        ("gzip", 401, False),
        ("gzip", 404, True),
        ("deflate", 200, True),
        ("gzip, gzip", 200, False),
    ],
)
def test_a_bomb_is_given_up_where_the_limit_is(status: int, coding: str, use_async: bool) -> None:
    with Stub(coded(status, bomb(coding), coding)) as stub:
        tracemalloc.start()
        try:
            with pytest.raises(NetworkError, match="larger than 32 MiB"):
                request(stub, "GET", use_async=use_async)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(stub.arrived) == 1  # another try would bring the same
    assert peak < 5 * whole_answer.LARGEST


def test_a_change_whose_answer_is_a_bomb_may_have_been_carried_out() -> None:
    with Stub(coded(200, bomb("gzip"), "gzip")) as stub, pytest.raises(OutcomeUnknownError, match="larger than"):
        request(stub, "POST", use_async=False)


def test_the_process_stays_small() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Stub(coded(200, bomb("gzip"), "gzip")) as stub, pytest.raises(NetworkError):
        request(stub, "GET", use_async=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


@BOTH
def test_a_long_answer_is_read_whole_and_decoded(use_async: bool) -> None:
    body = json.dumps({"markets": ["x" * 99] * 80_000}).encode()
    with Stub(coded(200, gzip.compress(body), "gzip")) as stub:
        answer = request(stub, "GET", use_async=use_async)
    assert answer.content == body
    assert answer.json()["markets"][0] == "x" * 99
    assert "Content-Encoding" not in answer.headers
    assert (answer.request.method, answer.http_version) == ("GET", "HTTP/1.1")
    assert answer.elapsed.total_seconds() > 0


@BOTH
def test_an_answer_in_drops_is_given_up(use_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_answer, "LONGEST_S", 0.3)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            pass

    with Stub(drip) as stub, pytest.raises(OutcomeUnknownError, match="ReadTimeout"):
        request(stub, "POST", use_async=use_async)
