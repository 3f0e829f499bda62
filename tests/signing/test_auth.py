"""``signer.auth()`` in every HTTP client, against the strict sandbox and against servers that redirect."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from urllib3.util.retry import Retry

from hsm_keys import RequestSigner
from hsm_keys.errors import UsageError
from hsm_keys.sandbox import SandboxServer
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from hsm_keys.signing.pem import PemKey
from tests.support.http_clients import ASYNC, HAS_NIQUESTS, each_client, niquests, run
from tests.support.kalshi_stub import Stub, hang_up, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.server import BaseHTTPRequestHandler

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from hsm_keys.signing.auth import KalshiAuth

HEADERS = (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)


@pytest.fixture
def key(sandbox: SandboxServer) -> PemKey:
    return PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


@pytest.fixture
def public(sandbox: SandboxServer) -> Ed25519PublicKey:
    loaded = serialization.load_pem_private_key(sandbox.bootstrap_pem.encode(), password=None)
    assert isinstance(loaded, Ed25519PrivateKey)
    return loaded.public_key()


@each_client
@pytest.mark.parametrize(
    "wanted",
    [
        ("GET", "/portfolio/balance", 200),
        ("GET", "/portfolio/orders?limit=5&ticker=A%20B", 200),
        ("GET", "/portfolio/balance/", 200),
        ("POST", "/portfolio/events/orders", 400),
        ("DELETE", "/portfolio/events/orders/a%2fb", 404),
    ],
)
def test_kalshi_takes_what_it_signs(
    sandbox: SandboxServer, key: PemKey, client: Any, wanted: tuple[str, str, int]
) -> None:
    method, path, status = wanted
    auth = RequestSigner(key).auth(base_url=sandbox.base_url)
    answer = run(client)(auth, method, sandbox.base_url + path)
    assert answer.status_code == status
    seen = sandbox.requests
    assert [(request.method, request.verified) for request in seen] == [(method, True)]


@each_client
def test_ed25519(client: Any) -> None:
    with SandboxServer(tier="premier", key_type="ed25519") as server:
        auth = RequestSigner(PemKey(server.bootstrap_key_id, server.bootstrap_pem)).auth(base_url=server.base_url)
        assert run(client)(auth, "GET", server.base_url + "/portfolio/balance").status_code == 200
        assert [seen.verified for seen in server.requests] == [True]


@each_client
def test_a_body_and_headers_of_the_caller_go_along(public: Ed25519PublicKey, key: PemKey, client: Any) -> None:
    with Stub((201, {})) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        run(client)(
            auth, "POST", stub.base_url + "/portfolio/events/orders", json={"count": 1}, headers={"X-Mine": "yes"}
        )
        (seen,) = stub.arrived
        assert seen.is_signed_by(public)
        assert b"count" in seen.body
        assert {name.lower(): value for name, value in seen.headers.items()}["x-mine"] == "yes"


@each_client
@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/trade-api/v2/portfolio/balance",
        "http://127.0.0.1:1/trade-api/v2/portfolio/balance",
        "https://external-api.demo.kalshi.co/trade-api/v2/portfolio/balance",
        "http://external-api.kalshi.com/trade-api/v2/portfolio/balance",
    ],
)
def test_another_origin_is_refused_before_anything_is_signed(client: Any, url: str) -> None:
    class Never:
        name, api_key_id = "prod", "id"

        def sign(self, message: bytes, /) -> bytes:
            raise AssertionError("signed")

    auth = RequestSigner(Never()).auth(environment="prod")
    with pytest.raises(UsageError, match=r"may only go to https://external-api\.kalshi\.com,"):
        run(client)(auth, "GET", url)


def redirect(location: str, status: int = 307) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, status, {}, {"Location": location})


def strict(public: Ed25519PublicKey) -> Callable[[Stub], Callable[[BaseHTTPRequestHandler], None]]:
    """Answer 200 to what is signed over the path that arrived, else 401, as Kalshi does."""

    def of(stub: Stub) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            seen = stub.arrived[-1]
            good = SIGNATURE_HEADER in seen.headers and seen.is_signed_by(public)
            send(handler, 200 if good else 401, {})

        return answer

    return of


@each_client
@pytest.mark.parametrize("wanted", [("GET", 302), ("GET", 307), ("POST", 307), ("POST", 303)])
def test_a_redirect_to_the_same_origin_is_signed_anew(
    public: Ed25519PublicKey, key: PemKey, client: Any, wanted: tuple[str, int]
) -> None:
    method, status = wanted
    with Stub(redirect("/trade-api/v2/elsewhere?x=1", status), hang_up) as stub:
        stub.answers[1] = strict(public)(stub)
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        body = {"content": b"{}"} if "httpx" in client.__name__ else {"data": b"{}"}
        answer = run(client)(auth, method, stub.base_url + "/portfolio/balance", **(body if method == "POST" else {}))
        assert answer.status_code == 200
        last = stub.arrived[-1]
        assert last.target == "/trade-api/v2/elsewhere?x=1"
        assert last.is_signed_by(public)
        assert last.method == ("GET" if status == 303 else method)
        assert last.body == (b"{}" if (method, status) == ("POST", 307) else b"")


@each_client
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_to_another_origin_carries_no_signed_headers(key: PemKey, client: Any, status: int) -> None:
    with Stub((200, {})) as foreign, Stub(redirect(f"{foreign.base_url}/portfolio/balance", status)) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        run(client)(auth, "GET", stub.base_url + "/portfolio/balance")
        (seen,) = foreign.arrived
        assert not {name.lower() for name in seen.headers} & {name.lower() for name in HEADERS}
        assert SIGNATURE_HEADER in stub.arrived[0].headers


@each_client
def test_a_foreign_server_that_refuses_gets_nothing_more(key: PemKey, client: Any) -> None:
    with Stub((401, {})) as foreign, Stub(redirect(f"{foreign.base_url}/portfolio/balance")) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        assert run(client)(auth, "GET", stub.base_url + "/portfolio/balance").status_code == 401
        (seen,) = foreign.arrived
        assert SIGNATURE_HEADER not in seen.headers


@each_client
def test_a_refusal_that_nothing_explains_stands(key: PemKey, client: Any) -> None:
    with Stub((401, {})) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        assert run(client)(auth, "POST", stub.base_url + "/portfolio/events/orders").status_code == 401
        assert len(stub.arrived) == 1


@each_client
def test_a_rotation_is_followed(sandbox: SandboxServer, key: PemKey, client: Any) -> None:
    dead = PemKey("0f8fad5b-d9cb-469f-a165-70867728950e", sandbox.bootstrap_pem)
    signer = RequestSigner(dead, follow=lambda: key)
    answer = run(client)(signer.auth(base_url=sandbox.base_url), "POST", sandbox.base_url + "/portfolio/events/orders")
    assert answer.status_code == 400  # an order without fields, signed by the new key
    assert [request.api_key_id for request in sandbox.requests] == [dead.api_key_id, key.api_key_id]


@each_client
def test_headers_that_grew_old_on_their_way_are_made_anew(
    key: PemKey, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        def __init__(self) -> None:
            self.now = 0.0

        def monotonic(self) -> float:
            self.now += 3.0  # the connection took so long
            return self.now

    monkeypatch.setattr("hsm_keys.signing.flow.time", Late())
    with Stub((401, {}), (200, {})) as stub:
        later_each_time = count(1_700_000_000_000).__next__  # Ed25519 signs the same millisecond in the same way
        auth = RequestSigner(key, clock=later_each_time).auth(base_url=stub.base_url)
        assert run(client)(auth, "POST", stub.base_url + "/portfolio/events/orders").status_code == 200
        first, second = stub.arrived
        assert first.headers[SIGNATURE_HEADER] != second.headers[SIGNATURE_HEADER]


def ticking() -> Callable[[], int]:
    now = [time.time_ns() // 1_000_000]

    def clock() -> int:
        now[0] += 7
        return now[0]

    return clock


@pytest.mark.parametrize(
    "library", [requests, *([niquests] if HAS_NIQUESTS else [])], ids=lambda module: module.__name__
)
def test_a_retry_of_the_transport_is_signed_anew(public: Ed25519PublicKey, key: PemKey, library: Any) -> None:
    with Stub((503, {}), hang_up, (200, {})) as stub:
        auth = RequestSigner(key, clock=ticking()).auth(base_url=stub.base_url)
        adapter: Any = library.adapters.HTTPAdapter(
            max_retries=Retry(total=4, status_forcelist=[503], backoff_factor=0)
        )
        with library.Session() as session:
            session.mount("http://", adapter)
            session.auth = auth
            assert session.get(stub.base_url + "/portfolio/balance", timeout=10).status_code == 200
        assert len(stub.arrived) == 3
        assert len({seen.timestamp for seen in stub.arrived}) == 3
        assert all(seen.is_signed_by(public) for seen in stub.arrived)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_transport_of_httpx_that_sends_again_sends_fresh_headers(
    public: Ed25519PublicKey, key: PemKey, library: Any
) -> None:
    class Twice(library.HTTPTransport):  # type: ignore[misc]  # one of two libraries
        def handle_request(self, request: Any) -> Any:
            super().handle_request(request).read()
            return super().handle_request(request)

    with Stub((503, {}), (200, {})) as stub:
        auth = RequestSigner(key, clock=ticking()).auth(base_url=stub.base_url)
        with library.Client(auth=auth, transport=Twice()) as client:
            assert client.get(stub.base_url + "/portfolio/balance").status_code == 200
        assert len({seen.timestamp for seen in stub.arrived}) == 2
        assert all(seen.is_signed_by(public) for seen in stub.arrived)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_stand_in_for_the_transport_sees_the_headers(key: PemKey, library: Any) -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(dict(request.headers))
        assert KEY_HEADER in request.headers
        return library.Response(200)

    auth = RequestSigner(key).auth(environment="prod")
    with library.Client(auth=auth, transport=library.MockTransport(answer)) as client:
        answered = client.get("https://external-api.kalshi.com/trade-api/v2/portfolio/balance")
    assert seen[0]["kalshi-access-key"] == key.api_key_id
    assert answered.request.headers[KEY_HEADER] == key.api_key_id


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_streamed_body_is_sent_once(sandbox: SandboxServer, key: PemKey, library: Any) -> None:
    with Stub((401, {}), (200, {})) as stub:
        signer = RequestSigner(PemKey("dead", sandbox.bootstrap_pem), follow=lambda: key)
        with library.Client(auth=signer.auth(base_url=stub.base_url)) as client:
            answer = client.post(stub.base_url + "/portfolio/events/orders", content=(part for part in [b"{", b"}"]))
        assert answer.status_code == 401
        assert len(stub.arrived) == 1


class Slow:
    """A token that takes its time, and tells who asked."""

    name, api_key_id = "prod", "id"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.threads: set[int] = set()

    def sign(self, message: bytes, /) -> bytes:
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        return b"signature"


@pytest.mark.parametrize("client", ASYNC, ids=[client.__name__ for client in ASYNC])
def test_no_event_loop_waits_for_the_token(client: Any) -> None:
    slow = Slow(0.0)

    async def use() -> int:
        with Stub((200, {})) as stub:
            auth = RequestSigner(slow).auth(base_url=stub.base_url)
            await client(auth, "GET", stub.base_url + "/portfolio/balance")
        return threading.get_ident()

    loop_thread = asyncio.run(use())
    assert slow.threads
    assert loop_thread not in slow.threads


@each_client
def test_threads_share_one_object(sandbox: SandboxServer, key: PemKey, client: Any) -> None:
    auth = RequestSigner(key).auth(base_url=sandbox.base_url)
    statuses: list[int] = []

    def work() -> None:
        statuses.extend(run(client)(auth, "GET", sandbox.base_url + "/portfolio/balance").status_code for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 12


def test_it_is_what_httpx_takes_for_an_auth_object(key: PemKey) -> None:
    auth: KalshiAuth = RequestSigner(key).auth(environment="demo")
    assert isinstance(auth, httpx.Auth)
    assert isinstance(auth, httpx2.Auth)
    assert "demo" in repr(auth)
    assert "PRIVATE" not in repr(auth)
