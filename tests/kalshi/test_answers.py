"""Answers that are no success, or none that was promised: what is made of them, and what isn't shown."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import stamina
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import KalshiClient, RequestSigner
from hsm_keys.errors import KalshiError, NetworkError, OutcomeUnknownError, UsageError
from hsm_keys.kalshi import bodies, errors
from hsm_keys.signing.algorithms import public_key_pem
from hsm_keys.signing.pem import PemKey
from tests.support.kalshi_stub import Stub, send

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC_PEM = public_key_pem(KEY.public_key())
DEEP = b"[" * 200_000  # deeper than any JSON parser recurses


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def client_of(stub: Stub) -> KalshiClient:
    return KalshiClient(RequestSigner(PemKey("id", PEM)), base_url=stub.base_url)


def test_an_error_carries_what_kalshi_sent() -> None:
    body = {"error": {"code": "invalid_parameter", "message": "bad\x1b[2J name", "details": "name", "service": "s"}}
    with Stub((400, body)) as stub, client_of(stub) as client, pytest.raises(errors.RefusedError) as caught:
        client.api_keys.list()
    error = caught.value
    assert (error.status, error.kalshi_code, error.details) == (400, "invalid_parameter", "name")
    assert "bad [2J name" in error.message
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - what a process pool does
    assert (copied.status, copied.hint, copied.message) == (400, error.hint, error.message)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda client: client.api_keys.list(), errors.ServerError),
        (lambda client: client.api_keys.create(name="x", public_key=PUBLIC_PEM), errors.ServerOutcomeError),
        (lambda client: client.api_keys.generate(name="x"), errors.ServerOutcomeError),
        (lambda client: client.api_keys.delete("x"), errors.ServerOutcomeError),
    ],
    ids=["list", "create", "generate", "delete"],
)
def test_trouble_at_kalshi_is_no_refusal(call: Any, kind: type[NetworkError]) -> None:
    with Stub((502, {"code": "bad_gateway"})) as stub, client_of(stub) as client, pytest.raises(kind) as caught:
        call(client)
    assert (getattr(caught.value, "status", 0), getattr(caught.value, "kalshi_code", "")) == (502, "bad_gateway")
    assert caught.value.exit_code == 7
    assert not isinstance(caught.value, KalshiError)
    assert isinstance(caught.value, OutcomeUnknownError) == (kind is errors.ServerOutcomeError)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
@pytest.mark.parametrize(
    "shape",
    [
        lambda secret: {"error": {"code": "c", "message": f"made {secret}", "details": {"key": secret}}},
        lambda secret: {"msg": secret},
        lambda secret: {"code": secret, "message": secret},
        lambda secret: [secret],
        lambda secret: f"<pre>{secret}</pre>".encode(),
    ],
    ids=["nested", "msg", "flat", "list", "text"],
)
def test_a_private_key_in_an_error_is_not_shown(shape: Any, status: int) -> None:
    refused = pytest.raises((KalshiError, OutcomeUnknownError))
    with Stub((status, shape(PEM))) as stub, client_of(stub) as client, refused as caught:
        client.api_keys.generate(name="x")
    shown = f"{caught.value}{caught.value!r}{vars(caught.value)}"
    assert PEM.splitlines()[1][:16] not in shown
    assert "[hidden]" in shown


def test_ids_tickers_and_codes_are_shown() -> None:
    said = "key 3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d, KXHIGHNY-26NOV23-T55, /trade-api/v2/portfolio/orders: nope"
    assert bodies.clean(said) == said


@given(st.text())
def test_whatever_a_server_says_is_one_short_printable_line(text: str) -> None:
    shown = bodies.clean(text)
    assert shown.isprintable()
    assert len(shown) <= 303


@pytest.mark.parametrize("charset", ["hex", "rot13", "idna", "undefined", "utf-16", "no-such-charset"])
def test_a_charset_of_the_servers_choosing_does_no_harm(charset: str) -> None:
    def odd(handler: Any) -> None:
        send(handler, 400, b"<h1>zz \xff", {"Content-Type": f"text/html; charset={charset}"})

    with Stub(odd) as stub, client_of(stub) as client, pytest.raises(errors.NotKalshiError, match="HTML page, zz"):
        client.api_keys.list()


def test_json_too_deep_to_read_is_no_crash() -> None:
    with Stub((400, DEEP)) as stub, client_of(stub) as client, pytest.raises(errors.NotKalshiError):
        client.api_keys.list()
    with Stub((200, DEEP)) as stub, client_of(stub) as client:
        with pytest.raises(NetworkError, match="no JSON"):
            client.get_json("/portfolio/balance")
        with pytest.raises(OutcomeUnknownError):
            client.api_keys.create(name="x", public_key=PUBLIC_PEM)


def test_a_body_that_cannot_be_unpacked_leaves_the_outcome_unknown() -> None:
    def broken(handler: Any) -> None:
        send(handler, 201, b"not gzip", {"Content-Encoding": "gzip"})

    with Stub(broken) as stub, client_of(stub) as client, pytest.raises(OutcomeUnknownError):
        client.api_keys.generate(name="x")
    assert len(stub.arrived) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"api_key_id": "new-1"},
        {"api_key": "new-1", "warning": None},
        {"api_key": {"api_key_id": "new-1"}},
        {"api_key": {"api_key": "new-1", "more": []}},
        {"api_key_id": None, "api_key": "new-1"},
    ],
)
def test_a_new_key_is_read_from_either_form(answer: dict[str, Any]) -> None:
    with Stub((201, answer)) as stub, client_of(stub) as client:
        created = client.api_keys.create(name="n", public_key=PUBLIC_PEM, scopes=["read"], subaccount=0)
    assert (created.api_key_id, created.api_key.api_key, created.warning) == ("new-1", "new-1", None)
    assert (created.api_key.name, created.api_key.scopes, created.api_key.subaccount) == ("n", ["read"], 0)


@pytest.mark.parametrize("answer", [{"api_key_id": ""}, {"api_key": {}}, {"api_key_id": None}, {"api_key": []}])
def test_a_new_key_without_an_id_is_an_unknown_outcome(answer: dict[str, Any]) -> None:
    with Stub((201, answer)) as stub, client_of(stub) as client, pytest.raises(OutcomeUnknownError):
        client.api_keys.create(name="n", public_key=PUBLIC_PEM)


def test_a_list_survives_what_nobody_promised() -> None:
    keys = [{"api_key_id": "1", "name": None}, {"api_key_id": "2", "created_ts": 1.5, "subaccount": None}]
    with Stub((200, {"api_keys": keys, "api_key_region_expiration_ts": 5})) as stub, client_of(stub) as client:
        listed = client.api_keys.list()
    assert [(key.api_key, key.name, key.created_ts) for key in listed.api_keys] == [("1", "", None), ("2", "", 1.5)]
    assert listed.api_key_region_expiration_ts == 5


@pytest.mark.parametrize("subaccount", ["3", 3.0, False])
def test_a_subaccount_is_a_number(subaccount: Any) -> None:
    with Stub((201, {})) as stub, client_of(stub) as client, pytest.raises(UsageError, match="subaccount"):
        client.api_keys.create(name="n", public_key=PUBLIC_PEM, subaccount=subaccount)
    assert stub.arrived == []


# secp112r1: OpenSSL reads it, cryptography has no such curve.
ODD_CURVE = """-----BEGIN PUBLIC KEY-----
MDIwEAYHKoZIzj0CAQYFK4EEAAYDHgAEtqkBUu8iA6tv6+LKIdNFwsx/cGmTyG0w
6xZRlQ==
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize(
    "public_key",
    [
        ODD_CURVE,
        public_key_pem(ec.generate_private_key(ec.SECP256R1()).public_key()),  # type: ignore[arg-type]  # refused
        "\ud800",
        KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    ],
    ids=["odd-curve", "p256", "surrogate", "openssh"],
)
def test_public_keys_that_kalshi_takes_not_are_refused_before_sending(public_key: str | bytes) -> None:
    with Stub((201, {"api_key_id": "x"})) as stub, client_of(stub) as client:
        with pytest.raises(UsageError):
            client.api_keys.create(name="n", public_key=public_key)
        assert stub.arrived == []
