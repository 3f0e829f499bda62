"""Answers of whatever stands between here and Kalshi, and of routes that Kalshi has switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import stamina
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsm_keys import KalshiClient, RequestSigner
from hsm_keys.errors import KalshiError, NetworkError, OutcomeUnknownError
from hsm_keys.kalshi import errors
from hsm_keys.kalshi.account import Account
from hsm_keys.proxy.replies import refusal
from hsm_keys.sandbox import SandboxServer
from hsm_keys.signing.algorithms import public_key_pem
from tests.support.kalshi_stub import Stub, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PUBLIC_PEM = public_key_pem(Ed25519PrivateKey.generate().public_key())

# The page that CloudFront sends, shortened; its headers as seen on the wire.
CLOUDFRONT = b"""<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN" "http://www.w3.org/TR/html4/loose.dtd">
<HTML><HEAD><META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=iso-8859-1">
<TITLE>ERROR: The request could not be satisfied</TITLE>
</HEAD><BODY><H1>403 ERROR</H1><H2>The request could not be satisfied.</H2>Request blocked.</BODY></HTML>"""
SQUID = b"<html><head><title>ERROR: Access Denied</title></head><body>denied by corp&amp;co</body></html>"
NGINX = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><hr><center>nginx</center></body></html>"


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=1)
    yield
    stamina.set_testing(False)


def answer(status: int, body: Any, server: str = "nginx", **headers: str) -> Callable[[Any], None]:
    def give(handler: Any) -> None:
        handler.version_string = lambda: server
        send(handler, status, body, headers)

    return give


class _Key:
    name, api_key_id = "k", "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"

    def sign(self, message: bytes, /) -> bytes:
        return b"s"


def client_of(stub: Stub) -> KalshiClient:
    return KalshiClient(RequestSigner(_Key()), base_url=stub.base_url)


OWN = {"api_key_id": _Key.api_key_id, "name": "k", "scopes": ["read"]}
OTHER = {"api_key_id": "9c8e03ca-6a23-40b5-af7d-1179947b96ac", "name": "other", "scopes": ["read"]}


@pytest.mark.parametrize("listed", [{"api_keys": []}, {"api_keys": None}, {}, {"api_keys": [OTHER]}])
def test_a_list_that_leaves_out_the_key_that_signed_for_it_says_nothing(listed: dict[str, Any]) -> None:
    with Stub((200, listed)) as stub, client_of(stub) as client:
        account = Account(client, lambda _signer: client)
        for read in (account.list_now, lambda: account.listed):
            with pytest.raises(errors.ForeignListError, match=_Key.api_key_id) as caught:
                read()
            assert (caught.value.exit_code, caught.value.code) == (7, "not_kalshi")
        known = Account(client, lambda _signer: client, client.api_keys.list())
        with pytest.raises(errors.ForeignListError):
            _ = known.listed


@pytest.mark.parametrize("own", [OWN, OWN | {"api_key_id": _Key.api_key_id.upper()}])
def test_a_list_that_names_it_is_the_accounts(own: dict[str, Any]) -> None:
    with Stub((200, {"api_keys": [OTHER, own]})) as stub, client_of(stub) as client:
        assert [key.name for key in Account(client, lambda _signer: client).listed] == ["other", "k"]


FOREIGN = {
    "CloudFront": answer(403, CLOUDFRONT, "CloudFront"),
    "a proxy": answer(403, SQUID, "squid/5.7"),
    "AWS's API gateway": answer(403, {"message": "Forbidden"}),
    "Google's": answer(403, {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}),
    "FastAPI": answer(401, {"detail": "Not authenticated"}),
    "Spring": answer(404, {"error": "Not Found", "status": 404, "path": "/trade-api/v2/api_keys"}),
    "Go": answer(404, b"404 page not found\n"),
    "nothing": answer(401, b""),
    "an empty object": answer(403, {}),
    "a login page": answer(302, b"", Location="https://portal.example/login"),
    "a JSON string": answer(401, '{"code": "NOT_FOUND", "message": "in a string"}'),
}


@pytest.mark.parametrize("who", FOREIGN)
def test_what_kalshi_did_not_say_is_no_refusal_of_kalshis(who: str) -> None:
    with Stub(FOREIGN[who]) as stub, client_of(stub) as client:
        with pytest.raises(errors.NotKalshiError) as read:
            client.api_keys.list()
        with pytest.raises(errors.NotKalshiOutcomeError) as changed:
            client.api_keys.create(name="n", public_key=PUBLIC_PEM)
        with pytest.raises(errors.NotKalshiOutcomeError):
            client.api_keys.delete("3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d")
    for error in (read.value, changed.value):
        assert not isinstance(error, KalshiError)
        assert (error.exit_code, error.from_kalshi, error.kalshi_code) == (7, False, "")
        assert error.status in {302, 401, 403, 404}
        told = f"{error.message} {error.hint}".lower()
        assert not any(word in told for word in ("scope", "premier", "tier", "subaccount"))
    assert not isinstance(read.value, OutcomeUnknownError)
    assert isinstance(changed.value, OutcomeUnknownError)


def test_the_error_says_who_answered_and_what() -> None:
    with Stub(FOREIGN["CloudFront"]) as stub, client_of(stub) as client, pytest.raises(NetworkError) as caught:
        client.api_keys.create(name="n", public_key=PUBLIC_PEM)
    assert "CloudFront answered with an HTML page, ERROR: The request could not be satisfied" in caught.value.message
    assert "another network" in caught.value.hint
    with Stub(FOREIGN["a proxy"]) as stub, client_of(stub) as client, pytest.raises(NetworkError) as caught:
        client.api_keys.list()
    assert "squid/5.7 answered with an HTML page, ERROR: Access Denied" in caught.value.message
    assert "HTTPS_PROXY" in caught.value.hint
    with Stub(FOREIGN["a login page"]) as stub, client_of(stub) as client, pytest.raises(NetworkError) as caught:
        client.api_keys.list()
    assert "nginx answered with a redirect to https://portal.example/login" in caught.value.message


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_trouble_of_a_gateway_says_who_answered(status: int) -> None:
    with Stub(answer(status, NGINX)) as stub, client_of(stub) as client, pytest.raises(errors.ServerError) as caught:
        client.api_keys.list()
    assert not caught.value.from_kalshi
    assert "nginx answered with an HTML page, 502 Bad Gateway" in caught.value.message


def test_a_page_that_calls_itself_a_success_is_no_answer_of_kalshis() -> None:
    with Stub(answer(200, SQUID, "squid/5.7")) as stub, client_of(stub) as client:
        for call in (client.api_keys.list, lambda: client.get_json("/portfolio/balance")):
            with pytest.raises(errors.NotKalshiError, match=r"200 .* squid/5.7 answered with an HTML page"):
                call()
        with pytest.raises(errors.NotKalshiOutcomeError):
            client.api_keys.generate(name="n")


def test_our_own_proxy_speaks_in_kalshis_form_and_not_for_kalshi() -> None:
    body = refusal(403, "policy", "no transfers").body
    with Stub(answer(403, body)) as stub, client_of(stub) as client, pytest.raises(errors.NotKalshiError) as caught:
        client.api_keys.list()
    assert "hsm-keys proxy answered" in caught.value.message


@pytest.mark.parametrize("key_id", ["3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", None])
def test_the_sandbox_speaks_as_kalshi_does(key_id: str | None) -> None:
    with SandboxServer() as sandbox:
        client = KalshiClient.from_private_key(
            key_id or sandbox.bootstrap_key_id, sandbox.bootstrap_pem, base_url=sandbox.base_url
        )
        with client, pytest.raises(errors.RefusedError) as caught:
            client.get_json("/portfolio/balance" if key_id else "/no/such/route")
    assert caught.value.from_kalshi


@pytest.mark.parametrize(
    ("method", "path", "instead"),
    [
        ("POST", "/portfolio/orders", "POST /trade-api/v2/portfolio/events/orders with ticker, side (bid or ask"),
        ("POST", "/portfolio/orders/batched", "POST /trade-api/v2/portfolio/events/orders/batched"),
        ("DELETE", "/portfolio/orders/o-1", "DELETE /trade-api/v2/portfolio/events/orders/o-1"),
        ("POST", "/portfolio/orders/o-1/amend", "POST /trade-api/v2/portfolio/events/orders/o-1/amend"),
        ("POST", "/portfolio/orderly", "changelog"),
    ],
)
def test_a_route_that_is_gone_has_its_successor_named(method: str, path: str, instead: str) -> None:
    body = {"error": {"code": "deprecated_v1_order_endpoint", "message": "use V2"}}
    with Stub((410, body)) as stub, client_of(stub) as client:
        error = errors.error_of(client.request(method, path))
    assert isinstance(error, errors.GoneError)
    assert (error.exit_code, error.status, error.from_kalshi) == (6, 410, True)
    assert instead in error.hint
