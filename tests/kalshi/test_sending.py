"""What goes over the wire, how often, and by which way; what shows of it in logs and tracebacks."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import stamina
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from hsm_keys import AsyncKalshiClient, KalshiClient, RequestSigner, __version__
from hsm_keys.errors import HsmKeysError, NetworkError, OutcomeUnknownError, UsageError
from hsm_keys.kalshi import client as client_module
from hsm_keys.signing.pem import PemKey
from tests.support.kalshi_stub import Stub, hang_up, send

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSPHRASE = "passphrase-canary-31"
RSA = rsa.generate_private_key(65537, 2048)
ED25519 = Ed25519PrivateKey.generate()
KEYS = [pytest.param(RSA, id="rsa"), pytest.param(ED25519, id="ed25519")]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def pem_of(key: rsa.RSAPrivateKey | Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode())).decode()


def signer_of(key: rsa.RSAPrivateKey | Ed25519PrivateKey = ED25519) -> RequestSigner:
    """Sign with a clock that never shows the same time twice."""
    return RequestSigner(
        PemKey("id", pem_of(key), lambda: PASSPHRASE), clock=itertools.count(1_700_000_000_000).__next__
    )


def request(stub: Stub, method: str, path: str, key: rsa.RSAPrivateKey | Ed25519PrivateKey, *, use_async: bool) -> int:
    async def run() -> int:
        async with AsyncKalshiClient(signer_of(key), base_url=stub.base_url) as client:
            return (await client.request(method, path)).status_code

    if use_async:
        return asyncio.run(run())
    with KalshiClient(signer_of(key), base_url=stub.base_url) as client:
        return client.request(method, path).status_code


BOTH = pytest.mark.parametrize("use_async", [False, True], ids=["sync", "async"])


@BOTH
@pytest.mark.parametrize("key", KEYS)
def test_each_attempt_at_a_get_is_signed_anew(key: rsa.RSAPrivateKey | Ed25519PrivateKey, use_async: bool) -> None:
    with Stub(hang_up, (503, {}), (200, {})) as stub:
        assert request(stub, "GET", "/markets?limit=1", key, use_async=use_async) == 200
    stamps = [seen.timestamp for seen in stub.arrived]
    assert len(stamps) == 3
    assert stamps == sorted(set(stamps))
    assert all(seen.is_signed_by(key.public_key()) for seen in stub.arrived)


@BOTH
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_nothing_but_a_get_is_sent_twice(method: str, status: int, use_async: bool) -> None:
    with Stub((status, {})) as stub:
        assert request(stub, method, "/portfolio/events/orders", ED25519, use_async=use_async) == status
    assert len(stub.arrived) == 1
    assert stub.arrived[0].is_signed_by(ED25519.public_key())


@BOTH
def test_a_change_whose_answer_never_came_is_sent_once(use_async: bool) -> None:
    with Stub(hang_up) as stub, pytest.raises(OutcomeUnknownError):
        request(stub, "DELETE", "/api_keys/x", ED25519, use_async=use_async)
    assert len(stub.arrived) == 1


def test_no_further_attempt_begins_when_the_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    stamina.set_testing(False)
    monkeypatch.setattr(client_module, "_BUDGET", 0.01)

    def slow(handler: Any) -> None:
        time.sleep(0.02)
        send(handler, 500, {})

    with Stub(slow) as stub:
        assert request(stub, "GET", "/x", ED25519, use_async=False) == 500
    assert len(stub.arrived) == 1


@pytest.mark.parametrize(("method", "times"), [("GET", 3), ("POST", 1)])
def test_an_answer_is_not_waited_for_longer_than_the_timeout(method: str, times: int) -> None:
    over = threading.Event()

    def silent(handler: Any) -> None:
        handler.close_connection = True
        over.wait(30)

    with Stub(silent) as stub, KalshiClient(signer_of(), base_url=stub.base_url, timeout=0.5) as client:
        with pytest.raises(NetworkError, match="ReadTimeout") as caught:
            client.request(method, "/x")
        over.set()
    assert isinstance(caught.value, OutcomeUnknownError) == (method == "POST")
    assert len(stub.arrived) == times


def test_there_is_a_timeout_for_everything_by_default() -> None:
    with KalshiClient(signer_of()) as client:
        waits = client._http.timeout.as_dict()
    assert set(waits) == {"connect", "read", "write", "pool"}
    assert all(wait is not None and 0 < wait <= 10 for wait in waits.values())


@pytest.mark.parametrize("query", ["", "?", "?a=%2fb&c", "?flag", "?a=b+c", "?a=b%20c&a=d", "?x='\"|"])
def test_a_query_goes_out_as_it_was_given(query: str) -> None:
    with Stub((200, {})) as stub:
        request(stub, "GET", f"/markets{query}", ED25519, use_async=False)
    (seen,) = stub.arrived
    assert seen.target == "/trade-api/v2/markets" + query.replace('"', "%22")
    assert seen.is_signed_by(ED25519.public_key())


def test_params_and_headers_arrive_beside_ours() -> None:
    with Stub((200, {})) as stub, KalshiClient(signer_of(), base_url=stub.base_url) as client:
        client.request("POST", "/x", params={"a": "b c"}, content=b"body", headers={"X-Note": "two words"})
    (seen,) = stub.arrived
    assert seen.target.partition("?")[2] in {"a=b+c", "a=b%20c"}
    assert (seen.body, seen.headers["X-Note"]) == (b"body", "two words")
    assert seen.headers["User-Agent"] == f"hsm-keys/{__version__}"
    assert seen.is_signed_by(ED25519.public_key())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nKALSHI-ACCESS-KEY: other"),
        ("X", "é"),
        ("X y", "a"),
        ("X:", "a"),
        ("X", ""),
        ("Kalshi-Access-Key", "other"),
        ("kalshi-access-signature", "other"),
        ("host", "elsewhere.example"),
    ],
)
def test_a_header_that_breaks_or_replaces_ours_is_refused(name: str, value: str) -> None:
    with Stub((200, {})) as stub, KalshiClient(signer_of(), base_url=stub.base_url) as client:
        with pytest.raises(UsageError):
            client.request("POST", "/x", headers={name: value})
        assert stub.arrived == []


@BOTH
def test_plain_http_stays_on_the_machine_whatever_the_proxy_variables_say(
    monkeypatch: pytest.MonkeyPatch, use_async: bool
) -> None:
    with Stub((200, {"from": "a proxy"})) as proxy, Stub((200, {})) as stub:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url.removesuffix("/trade-api/v2"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert request(stub, "GET", "/x", ED25519, use_async=use_async) == 200
        assert (len(proxy.arrived), len(stub.arrived)) == (0, 1)


def test_a_proxy_that_lets_nothing_through_means_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub((200, {})) as proxy:  # answers CONNECT with 501
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url.removesuffix("/trade-api/v2"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with (
            KalshiClient(signer_of(), base_url="https://kalshi.invalid") as client,
            pytest.raises(NetworkError, match="nothing was sent") as caught,
        ):
            client.request("DELETE", "/api_keys/x")
    assert not isinstance(caught.value, OutcomeUnknownError)


@pytest.mark.parametrize("key", KEYS)
def test_no_log_traceback_or_repr_shows_a_secret(
    key: rsa.RSAPrivateKey | Ed25519PrivateKey, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(1)
    sealed = pem_of(key)
    bare = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def echo_headers(handler: Any) -> None:
        send(handler, 500, f"You sent {handler.headers['KALSHI-ACCESS-SIGNATURE']}".encode())

    def echo_key(handler: Any) -> None:
        send(handler, 500, {"error": {"message": bare, "details": sealed}})

    shown = ""
    with (
        Stub((200, {}), echo_headers, echo_headers, echo_headers, echo_key, hang_up) as stub,
        KalshiClient.from_private_key("id", sealed, passphrase=PASSPHRASE, base_url=stub.base_url) as client,
    ):
        client.request("GET", "/x")
        for method in ("GET", "DELETE", "DELETE"):
            with pytest.raises(HsmKeysError) as caught:
                client.api_keys.list() if method == "GET" else client.api_keys.delete("x")
            shown += "".join(traceback.format_exception(caught.value)) + f"{caught.value!r}{vars(caught.value)}"
        shown += f"{client!r}{client.signer!r}{vars(client)!r}"
    shown += "".join(f"{record.getMessage()}{vars(record)}" for record in caplog.records) + "".join(capfd.readouterr())
    assert len(stub.arrived) == 6
    assert "[hidden]" in shown
    assert any(record.name.startswith("httpcore2") for record in caplog.records), "the transport logs, and was heard"
    secrets = [PASSPHRASE, *sealed.splitlines()[1:-1], *bare.splitlines()[1:-1]]
    secrets += [seen.headers["KALSHI-ACCESS-SIGNATURE"][:30] for seen in stub.arrived]
    assert [secret for secret in secrets if secret in shown] == []


def test_what_was_signed_before_it_is_sent_goes_as_it_is_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stub((401, "{}")) as stub, KalshiClient(signer_of(), base_url=stub.base_url) as client:
        send_it = client.prepare("DELETE", "/api_keys/id")
        assert stub.arrived == []
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
        assert send_it().status_code == 401
        (arrived,) = stub.arrived
        assert arrived.headers["KALSHI-ACCESS-TIMESTAMP"] == "1700000000000"
