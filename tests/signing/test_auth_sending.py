"""``signer.auth()`` signs when a request is sent: not when it is prepared, looked at, copied or logged."""

from __future__ import annotations

import copy
import logging
import pickle
import time
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests

from hsm_keys import RequestSigner
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, SIGNED_HEADERS, TIMESTAMP_HEADER
from hsm_keys.signing.pem import PemKey
from tests.support.http_clients import HAS_NIQUESTS, niquests
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.sandbox import SandboxServer

PREPARING = pytest.mark.parametrize(
    "library", [requests, *([niquests] if HAS_NIQUESTS else [])], ids=lambda module: module.__name__
)
HTTPX = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
PATH = "/portfolio/balance"


class Counting(PemKey):
    """Counts its signatures, as KMS does for the bill."""

    signed = 0

    def sign(self, message: bytes, /) -> bytes:
        self.signed += 1
        return super().sign(message)


@pytest.fixture
def key(sandbox: SandboxServer) -> Counting:
    return Counting(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub((200, {})) as stub:
        yield stub


@PREPARING
def test_reading_a_prepared_request_signs_nothing(sandbox: SandboxServer, key: Counting, library: Any) -> None:
    with library.Session() as session:
        session.auth = RequestSigner(key).auth(base_url=sandbox.base_url)
        prepared = session.prepare_request(library.Request("GET", sandbox.base_url + PATH))
        for _ in range(4):
            seen = dict(prepared.headers.items())
            assert set(SIGNED_HEADERS) <= set(seen)
            _ = prepared.headers[SIGNATURE_HEADER], list(prepared.headers), len(prepared.headers), str(prepared.headers)
            copy.deepcopy(prepared.headers)
            prepared.copy()
        assert key.signed == 0
        assert session.send(prepared).status_code == 200
    assert key.signed == 1
    assert [request.verified for request in sandbox.requests] == [True]


@PREPARING
def test_what_logs_the_headers_costs_nothing_and_shows_what_was_sent(
    stub: Stub, key: Counting, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    class Logging(library.adapters.HTTPAdapter):  # type: ignore[misc]  # one of two libraries
        def send(self, request: Any, **options: Any) -> Any:
            logging.getLogger("a bot").info("sends %s", dict(request.headers))
            answer = super().send(request, **options)
            logging.getLogger("a bot").info("sent %s", dict(request.headers))
            return answer

    with library.Session() as session:
        session.mount("http://", Logging())
        session.auth = RequestSigner(key).auth(base_url=stub.base_url)
        answer = session.get(stub.base_url + PATH)
    assert key.signed == 1
    assert len([record for record in caplog.records if record.name == "a bot"]) == 2
    (seen,) = stub.arrived
    assert {name: answer.request.headers[name] for name in SIGNED_HEADERS} == {
        name: seen.headers[name] for name in SIGNED_HEADERS
    }
    assert key.signed == 1


@PREPARING
def test_a_prepared_request_is_stamped_when_it_is_sent_each_time(stub: Stub, key: Counting, library: Any) -> None:
    now = [1_700_000_000_000]
    with library.Session() as session:
        session.auth = RequestSigner(key, clock=lambda: now[0]).auth(base_url=stub.base_url)
        prepared = session.prepare_request(library.Request("GET", stub.base_url + PATH))
        for later in (60_000, 120_000):
            now[0] = 1_700_000_000_000 + later
            session.send(prepared)
    assert [seen.timestamp - 1_700_000_000_000 for seen in stub.arrived] == [60_000, 120_000]
    assert key.signed == 2


@PREPARING
def test_what_is_shown_before_can_not_be_sent(stub: Stub, key: Counting, library: Any) -> None:
    """A transport that makes text of the values, where it could encode them, fails: it sends nothing unsigned."""
    auth = RequestSigner(key).auth(base_url=stub.base_url)
    prepared = auth(library.Request("GET", stub.base_url + PATH).prepare())
    for name in SIGNED_HEADERS:
        for text in (str(prepared.headers[name]), pickle.loads(pickle.dumps(prepared.headers[name]))):  # noqa: S301
            with pytest.raises(UnicodeEncodeError):
                text.encode("latin-1")
    assert key.signed == 0
    sent = {name: value.encode("latin-1") for name, value in prepared.headers.items() if name in SIGNED_HEADERS}
    assert sent[KEY_HEADER] == key.api_key_id.encode()
    assert key.signed == 1


@HTTPX
def test_hooks_that_read_what_httpx_sends_cost_nothing(stub: Stub, key: Counting, library: Any) -> None:
    read: list[Any] = []

    def look(request: Any) -> None:
        shown = [(dict(request.headers), list(request.headers.raw), request.headers[SIGNATURE_HEADER]) for _ in "abc"]
        read.extend(shown)

    with library.Client(
        auth=RequestSigner(key).auth(base_url=stub.base_url), event_hooks={"request": [look]}
    ) as client:
        client.get(stub.base_url + PATH)
    assert key.signed == 1
    assert {signature for _, _, signature in read} == {stub.arrived[0].headers[SIGNATURE_HEADER]}


@HTTPX
def test_a_connection_that_took_long_sends_fresh_headers(
    stub: Stub, key: Counting, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock, stamps = Clock(), iter(range(1_700_000_000_000, 1_700_000_009_000, 1000))
    monkeypatch.setattr("hsm_keys.signing.signed_headers.time", clock)

    def slow(event: str, _info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            clock.now += 3

    with library.Client(auth=RequestSigner(key, clock=lambda: next(stamps)).auth(base_url=stub.base_url)) as client:
        client.get(stub.base_url + PATH, extensions={"trace": slow})
    assert stub.arrived[0].timestamp > 1_700_000_000_000
    assert key.signed == 2


def test_a_trace_of_the_caller_goes_on(stub: Stub, key: Counting) -> None:
    import asyncio

    events: list[str] = []

    async def trace(event: str, _info: dict[str, Any]) -> None:
        events.append(event)

    async def use() -> None:
        async with httpx2.AsyncClient(auth=RequestSigner(key).auth(base_url=stub.base_url)) as client:
            await client.get(stub.base_url + PATH, extensions={"trace": trace})

    asyncio.run(use())
    assert "http11.send_request_headers.started" in events
    assert key.signed == 1


def test_a_retry_after_a_long_wait_is_no_refusal(sandbox: SandboxServer, key: Counting) -> None:
    """urllib3 waits between its attempts, longer than a timestamp is good for."""
    from urllib3.util.retry import Retry

    waited: list[float] = []

    class Waiting(Retry):
        def sleep(self, response: Any = None) -> None:
            waited.append(time.time())

    now = [time.time_ns() // 1_000_000 - 60_000]

    def clock() -> int:
        return now[0] + 60_000 * len(waited)

    with Stub((503, {}), (200, {})) as stub, requests.Session() as session:
        session.auth = RequestSigner(key, clock=clock).auth(base_url=stub.base_url)
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=Waiting(total=2, status_forcelist=[503])))
        assert session.get(stub.base_url + PATH).status_code == 200
        first, second = (int(seen.headers[TIMESTAMP_HEADER]) for seen in stub.arrived)
        assert second - first == 60_000 * len(waited) > 0
