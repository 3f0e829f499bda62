"""The clients over real HTTP: what reaches the server, what is tried again, what is made of odd answers."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import stamina
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsm_keys import AsyncKalshiClient, KalshiClient, RequestSigner
from hsm_keys.errors import KalshiError, NetworkError, OutcomeUnknownError, UsageError
from hsm_keys.kalshi import errors
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.signing.algorithms import public_key_pem
from tests.support.kalshi_stub import Stub, hang_up, send

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC_PEM = public_key_pem(Ed25519PrivateKey.generate().public_key())
CANARY = "-----BEGIN RSA PRIVATE KEY----- canary-private-key"


class FakeKey:
    """Signs with nothing: the stub doesn't verify."""

    name, api_key_id = "fake", "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"

    def sign(self, message: bytes, /) -> bytes:
        return b"signature of " + message


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def client_of(server: Stub | SandboxServer) -> KalshiClient:
    if isinstance(server, SandboxServer):
        return KalshiClient.from_private_key(server.bootstrap_key_id, server.bootstrap_pem, base_url=server.base_url)
    return KalshiClient(RequestSigner(FakeKey()), base_url=server.base_url)


def test_the_examples_run_word_for_word(sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]) -> None:
    public_pem = PUBLIC_PEM
    with client_of(sandbox) as client:
        resp = client.api_keys.list()
        for key in resp.api_keys:
            print(key.api_key, key.name, key.scopes, key.created_ts)  # noqa: T201 - the example
        generated = client.api_keys.generate(name="ci-bot-2026", scopes=["read", "write"])
        private_pem = generated.private_key.get_secret_value()
        print(generated.api_key.api_key)  # noqa: T201 - the example
        created = client.api_keys.create(name="self-minted", public_key=public_pem)
        print(created.api_key.api_key)  # noqa: T201 - the example
        client.api_keys.delete(created.api_key.api_key)
        print(generated.private_key, repr(generated), generated.model_dump())  # noqa: T201 - must show asterisks
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{sandbox.bootstrap_key_id} bootstrap ['read', 'write'] None"
    assert lines[1] == generated.api_key_id
    assert lines[2] not in sandbox.state.keys
    assert "**********" in lines[3]
    assert private_pem.splitlines()[1] not in "\n".join(lines)
    assert created.api_key.name == "self-minted"
    with KalshiClient.from_private_key(generated.api_key_id, private_pem, base_url=sandbox.base_url) as minted:
        assert minted.get_json("/portfolio/balance")["balance"] > 0


def test_an_ed25519_bootstrap_key_works_as_well() -> None:
    with SandboxServer(key_type="ed25519") as sandbox, client_of(sandbox) as client:
        generated = client.api_keys.generate(name="x", key_type="ed25519")
        assert generated.key_type == "ed25519"
        assert len(client.api_keys.list().api_keys) == 2


def test_the_async_client_has_the_same_resource(sandbox: SandboxServer) -> None:
    async def run() -> None:
        async with AsyncKalshiClient.from_private_key(
            sandbox.bootstrap_key_id, sandbox.bootstrap_pem, base_url=sandbox.base_url
        ) as client:
            created = await client.api_keys.create(name="a", public_key=PUBLIC_PEM, subaccount=3)
            generated = await client.api_keys.generate(name="b")
            listed = await client.api_keys.list()
            assert {key.api_key for key in listed.api_keys} == set(sandbox.state.keys)
            assert sandbox.state.keys[created.api_key_id].subaccount == 3
            await client.api_keys.delete(generated.api_key_id)
            with pytest.raises(errors.NotFoundError):
                await client.api_keys.delete(generated.api_key_id)

    asyncio.run(run())


def test_a_slow_token_never_blocks_the_event_loop(sandbox: SandboxServer) -> None:
    signs, goes_on = threading.Event(), threading.Event()

    class SlowKey(FakeKey):
        def sign(self, message: bytes, /) -> bytes:
            signs.set()
            assert goes_on.wait(30), "the event loop stands still while a key signs"
            return super().sign(message)

    async def run() -> None:
        async with AsyncKalshiClient(RequestSigner(SlowKey()), base_url=sandbox.base_url) as client:
            request = asyncio.create_task(client.request("GET", "/portfolio/balance"))
            await asyncio.to_thread(signs.wait, 30)
            goes_on.set()  # nobody but the event loop lets the key go on
            assert (await request).status_code == 401

    asyncio.run(run())


@pytest.mark.parametrize("prefix", ["", "/trade-api/v2"])
def test_what_is_signed_is_what_goes_over_the_wire(prefix: str) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with Stub((200, {})) as stub, KalshiClient.from_private_key("id", pem, base_url=stub.base_url) as client:
        for path in ("/orders?limit=5&cursor=a%2fb", "/orders/", "/markets/A%2fB", "/a'(x)*;=:@"):
            client.request("GET", prefix + path, params={"more": "a b"} if "?" in path else None)
        targets = [seen.target.removeprefix("/trade-api/v2") for seen in stub.arrived]
        for seen in stub.arrived:
            assert seen.is_signed_by(private.public_key())
    assert targets[0].lower().startswith("/orders?limit=5&cursor=a%2fb&more=a")
    assert targets[1:3] == ["/orders", "/markets/A%2FB"]


@pytest.mark.parametrize(
    "path",
    [
        "https://elsewhere.example/x",
        "//elsewhere.example/x/../y",
        "x",
        "/a b",
        "/a/../api_keys",
        "/x#y",
        "/x?a#b",
        "/x?a\nb",
    ],
)
def test_a_path_that_would_change_on_its_way_is_refused_before_signing(path: str) -> None:
    with Stub((200, {})) as stub, client_of(stub) as client:
        with pytest.raises(UsageError):
            client.request("GET", path)
        assert stub.arrived == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_get_is_tried_again(sandbox: SandboxServer, status: int) -> None:
    sandbox.faults.add(parse_fault(f"GET /api_keys:status={status}:2"))
    with client_of(sandbox) as client:
        assert len(client.api_keys.list().api_keys) == 1
    assert [seen.status for seen in sandbox.requests] == [status, status, 200]


def test_a_get_gives_up_and_says_why(sandbox: SandboxServer) -> None:
    sandbox.faults.add(parse_fault("GET /api_keys:status=429"))
    with client_of(sandbox) as client, pytest.raises(errors.RateLimitError, match="too many requests"):
        client.api_keys.list()
    sandbox.faults.clear()
    sandbox.faults.add(parse_fault("GET /api_keys:drop-before"))
    with client_of(sandbox) as client, pytest.raises(NetworkError) as caught:
        client.api_keys.list()
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert len(sandbox.requests) == 6


LOST = [
    (method, fault)
    for method in ("create", "generate", "delete")
    for fault in ("drop-before", "drop-after", "truncate", "status=500", "status=503")
    if (method, fault) != ("delete", "truncate")  # 204 has no body to cut
]


@pytest.mark.parametrize(("method", "fault"), LOST)
def test_what_changes_something_is_sent_once_and_its_outcome_unknown(
    sandbox: SandboxServer, fault: str, method: str
) -> None:
    endpoint = {
        "create": "POST /api_keys",
        "generate": "POST /api_keys/generate",
        "delete": "DELETE /api_keys/{api_key}",
    }
    sandbox.faults.add(parse_fault(f"{endpoint[method]}:{fault}"))
    calls: dict[str, Any] = {
        "create": lambda client: client.api_keys.create(name="x", public_key=PUBLIC_PEM),
        "generate": lambda client: client.api_keys.generate(name="x"),
        "delete": lambda client: client.api_keys.delete(sandbox.bootstrap_key_id),
    }
    with client_of(sandbox) as client, pytest.raises(OutcomeUnknownError):
        calls[method](client)
    assert len(sandbox.requests) == 1


def test_nothing_was_sent_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    client = KalshiClient(RequestSigner(FakeKey()), base_url="http://127.0.0.1:9")
    for call in (client.api_keys.list, lambda: client.api_keys.delete("x")):
        with pytest.raises(NetworkError, match=r"refused\); nothing was sent") as caught:
            call()
        assert not isinstance(caught.value, OutcomeUnknownError)
    client.close()


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ({"error": {"code": "c1", "message": "m1", "details": "d1", "service": "s"}}, ["c1", "m1", "d1"]),
        ({"code": "c2", "message": "m2"}, ["c2", "m2"]),
        ({"msg": "m3"}, ["m3"]),
        ({"error": "too many requests"}, ["too many requests"]),
        ({"error": {"code": None, "message": "m4", "details": {"field": "name"}}}, ["m4", "field"]),
    ],
)
def test_every_shape_of_error_is_read(body: Any, parts: list[str]) -> None:
    with Stub((400, body)) as stub, client_of(stub) as client, pytest.raises(errors.BadRequestError) as caught:
        client.api_keys.list()
    for part in parts:
        assert part in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("status", "body", "kind", "hint"),
    [
        (
            401,
            {"error": {"code": "authentication_error", "details": "NOT_FOUND"}},
            errors.UnauthorizedError,
            "environment",
        ),
        (
            401,
            {"error": {"code": "authentication_error", "details": "INCORRECT_API_KEY_SIGNATURE"}},
            errors.UnauthorizedError,
            "signature",
        ),
        (401, {"error": {"code": "header_timestamp_expired"}}, errors.ClockError, "clock"),
        (401, {"error": {"code": "signature_is_missing_from_headers"}}, errors.UnauthorizedError, "proxy"),
        (403, {"code": "forbidden", "message": "insufficient API usage level"}, errors.TierError, "Premier"),
        (
            403,
            {"code": "forbidden", "message": "fcm_subtrader_id from a non-FCM caller"},
            errors.ForbiddenError,
            "scope",
        ),
        (409, {"msg": "not visible"}, errors.ConflictError, "again"),
        (429, {"error": "too many requests"}, errors.RateLimitError, "wait"),
        (401, {"msg": "unauthorized"}, errors.UnauthorizedError, "doesn't say"),
        (418, {"code": "teapot"}, errors.RefusedError, "status"),
        (410, {"code": "gone"}, errors.GoneError, "changelog"),
    ],
)
def test_each_refusal_says_which_part_is_wrong(status: int, body: Any, kind: type[KalshiError], hint: str) -> None:
    with Stub((status, body)) as stub, client_of(stub) as client, pytest.raises(kind) as caught:
        client.api_keys.create(name="x", public_key=PUBLIC_PEM)
    assert hint in caught.value.hint
    assert type(caught.value) is kind
    assert caught.value.exit_code == 6


def test_a_wrong_clock_is_measured_against_the_answer() -> None:
    def late(handler: Any) -> None:
        handler.date_time_string = lambda: "Mon, 01 Jan 2035 00:00:00 GMT"
        send(handler, 401, {"error": {"code": "header_timestamp_expired"}})

    with Stub(late) as stub, client_of(stub) as client, pytest.raises(errors.ClockError, match="s behind Kalshi's"):
        client.api_keys.list()


def test_null_lists_and_unknown_fields_are_no_errors() -> None:
    keys = [
        {"api_key_id": "1", "name": "n", "scopes": None, "new": 1},
        {"api_key": "2", "scopes": ["x::y"], "created_ts": 5},
    ]
    with (
        Stub((200, {"api_keys": None}), (200, {}), (200, {"api_keys": keys, "more": {}})) as stub,
        client_of(stub) as client,
    ):
        assert client.api_keys.list().api_keys == []
        assert client.api_keys.list().api_keys == []
        first, second = client.api_keys.list(fcm_subtrader_id="a_b").api_keys
        assert (first.scopes, first.created_ts, first.api_key) == ([], None, "1")
        assert (second.api_key_id, second.scopes, second.created_ts) == ("2", ["x::y"], 5)
        assert stub.arrived[-1].target.endswith("?fcm_subtrader_id=a_b")


@pytest.mark.parametrize("answer", [b"", b"{", [], {"private_key": CANARY}, {"api_key_id": 5, "private_key": CANARY}])
def test_a_success_that_is_none_never_shows_what_came(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Stub((201, answer)) as stub, client_of(stub) as client, pytest.raises(OutcomeUnknownError) as caught:
        client.api_keys.generate(name="x")
    assert "canary" not in "".join(traceback.format_exception(caught.value)) + caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x", "scopes": ["write"]},
        {"name": "x", "scopes": ["all"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": "read"},
        {"name": "x", "subaccount": 64},
        {"name": "x", "subaccount": -1},
        {"name": "x", "subaccount": True},
        {"name": "x", "subaccount": 1, "fcm_subtrader_id": "a_b"},
        {"name": "x", "public_key": "rubbish"},
        {"name": "x", "public_key": f"{CANARY}"},
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(arguments: dict[str, Any]) -> None:
    with Stub((201, {"api_key_id": "x"})) as stub, client_of(stub) as client:
        with pytest.raises(UsageError) as caught:
            client.api_keys.create(**{"public_key": PUBLIC_PEM, **arguments})
        assert stub.arrived == []
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    with Stub((204, b"")) as stub, client_of(stub) as client:
        client.api_keys.delete("a/../b c?d#e")
        for none in ("", ".", "..", " ", "a\n"):
            with pytest.raises(UsageError):
                client.api_keys.delete(none)
    assert [seen.target for seen in stub.arrived] == ["/trade-api/v2/api_keys/a%2F..%2Fb%20c%3Fd%23e"]


def test_redirects_are_not_followed() -> None:
    def away(handler: Any) -> None:
        send(handler, 302, {}, {"Location": "/elsewhere"})

    with Stub(away) as stub, client_of(stub) as client:
        assert client.request("GET", "/portfolio/balance").status_code == 302
        assert len(stub.arrived) == 1


def test_a_server_that_hangs_up_is_a_network_error() -> None:
    with Stub(hang_up) as stub, client_of(stub) as client:
        with pytest.raises(NetworkError):
            client.request("GET", "/x")
        with pytest.raises(OutcomeUnknownError):
            client.request("POST", "/x", json={})
        assert [seen.method for seen in stub.arrived] == ["GET", "GET", "GET", "POST"]
