"""What the environment says of the way to Kalshi, where it can't be used: the variable is named, and not its value."""

from __future__ import annotations

import os
import ssl
from importlib import util
from typing import TYPE_CHECKING, Any

import pytest
import stamina

from hsm_keys import AsyncKalshiClient, KalshiClient
from hsm_keys.errors import NetworkError, UsageError
from hsm_keys.kalshi import surroundings
from hsm_keys.lifecycle.doctor import check_clock
from hsm_keys.signing.signer import RequestSigner
from tests.support.certificates import self_signed
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BASE_URL = "https://127.0.0.1:1"


class Key:
    name, api_key_id = "prod", "id"

    def sign(self, _message: bytes) -> bytes:
        return b"signature"


WAYS: dict[str, Callable[[], object]] = {
    "sync": lambda: KalshiClient(RequestSigner(Key()), base_url=BASE_URL),
    "async": lambda: AsyncKalshiClient(RequestSigner(Key()), base_url=BASE_URL),
    "doctor": lambda: check_clock(f"{BASE_URL}/trade-api/v2"),
}


@pytest.fixture(autouse=True)
def _nobodys_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE") or name.startswith("SSL_"):
            monkeypatch.delenv(name)
    stamina.set_testing(True, attempts=1)
    yield
    stamina.set_testing(False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "socks5h://u:canary@127.0.0.1:1080", "SOCKS"),
        ("all_proxy", "socks5://127.0.0.1:1080", "SOCKS"),
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1080", "SOCKS"),
        ("HTTPS_PROXY", "socks4://127.0.0.1:1080", "text of"),
        ("HTTPS_PROXY", "ftp://u:canary@127.0.0.1:1", "text of"),
        ("ALL_PROXY", "http://canary:canary", "a URL"),
        ("SSL_CERT_FILE", "/no/such.pem", "No such file"),
        ("SSL_CERT_FILE", "/etc/hostname", "no certificate"),
        ("SSL_CERT_DIR", "/no/such", "no such folder"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    way: str, variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = util.find_spec
    monkeypatch.setattr(surroundings, "find_spec", lambda name: None if name == "socksio" else find_spec(name))
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=says) as caught:
        WAYS[way]()
    assert variable in caught.value.message
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", ["proxy.example:3128", "http://proxy.example", "https://u:p@proxy.example:443"])
def test_a_proxy_that_can_be_used_is_let_through(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    KalshiClient(RequestSigner(Key())).close()


def test_plain_http_to_loopback_uses_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    with Stub((200, {"ok": True})) as stub, KalshiClient(RequestSigner(Key()), base_url=stub.base_url) as client:
        assert client.get_json("/x") == {"ok": True}


@pytest.mark.parametrize(
    ("set_as_well", "hint"),
    [({}, "goes into SSL_CERT_FILE"), ({"REQUESTS_CA_BUNDLE": "/x"}, "REQUESTS_CA_BUNDLE isn't")],
)
def test_a_certificate_that_is_not_trusted_says_where_to_name_its_authority(
    set_as_well: dict[str, Any], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for name, value in set_as_well.items():
        monkeypatch.setenv(name, value)
    with (
        Stub((200, {}), tls=context) as stub,
        KalshiClient(RequestSigner(Key()), base_url=stub.base_url) as client,
        pytest.raises(NetworkError) as caught,
    ):
        client.request("POST", "/portfolio/events/orders")
    assert hint in caught.value.hint


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with KalshiClient(RequestSigner(Key())) as client, pytest.raises(NetworkError) as caught:
        client.request("GET", "/portfolio/balance")
    assert "HTTPS_PROXY" in caught.value.hint
