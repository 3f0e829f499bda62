"""What the environment says of the way to Kalshi, where it can't be used: the variable is named, and not its value."""

from __future__ import annotations

import os
import ssl
from importlib import util
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import stamina
from yarl import URL

from hsm_keys import AsyncKalshiClient, KalshiClient, network_proxies
from hsm_keys.errors import NetworkError, UsageError
from hsm_keys.inspecting.doctor import check_clock, check_network
from hsm_keys.kalshi import surroundings
from hsm_keys.proxy.reaching import network_proxy
from hsm_keys.signing.signer import RequestSigner
from tests.support.certificates import self_signed
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KALSHI = "https://external-api.kalshi.com/trade-api/v2"
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
    monkeypatch.setattr(network_proxies, "find_spec", lambda name: None if name == "socksio" else find_spec(name))
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=says) as caught:
        WAYS[way]()
    assert variable in caught.value.message
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", ["proxy.example:3128", "http://proxy.example", "https://u:p@proxy.example:443"])
def test_a_proxy_that_can_be_used_is_let_through(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    KalshiClient(RequestSigner(Key())).close()


PROXY = "http://proxy.example:3128"
DIRECT = ""


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY}, KALSHI, "HTTPS_PROXY proxy.example:3128"),
        ({"https_proxy": PROXY}, KALSHI, "https_proxy proxy.example:3128"),
        ({"HTTPS_PROXY": "http://other", "https_proxy": PROXY}, KALSHI, "https_proxy proxy.example:3128"),
        ({"ALL_PROXY": "http://other", "HTTPS_PROXY": PROXY}, KALSHI, "HTTPS_PROXY proxy.example:3128"),
        ({"ALL_PROXY": "proxy.example"}, KALSHI, "ALL_PROXY proxy.example"),
        ({"ALL_PROXY": "http://user:canary@proxy.example:1"}, KALSHI, "ALL_PROXY proxy.example:1"),
        ({"HTTP_PROXY": PROXY}, KALSHI, DIRECT),
        ({"HTTP_PROXY": "nonsense://"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "ALL_PROXY": PROXY}, "http://127.0.0.1:8960", DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost, *"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "kalshi.com"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".kalshi.com"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*.KALSHI.com"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "a,external-api.kalshi.com"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "external-api.kalshi.com:443"}, KALSHI, DIRECT),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "kalshi.co,ishi.com,,"}, KALSHI, "HTTPS_PROXY proxy.example:3128"),
        ({"HTTPS_PROXY": "socks4://x", "NO_PROXY": "kalshi.com"}, KALSHI, DIRECT),
    ],
)
def test_clients_the_signing_proxy_and_doctor_read_the_variables_alike(
    variables: dict[str, str], url: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    read = network_proxies.network_proxy(url)
    assert (f"{read.variable} {read.place}" if read else DIRECT) == expected
    options = surroundings.client_options(url)
    assert ("proxy" in options) is bool(expected)
    through = network_proxy(url)
    assert (through is not None) is bool(expected)
    if through is not None:
        assert through == URL(str(options["proxy"].url)).with_user(through.user).with_password(through.password)
    (check,) = check_network([url])
    assert (expected.partition(" ")[2] in check.message) if expected else ("no proxy" in check.message)
    assert "canary" not in str(check) + str(read)


@pytest.mark.parametrize("no_proxy", ["", "kalshi.com", ".kalshi.com", "*.kalshi.com", "a, *", "kalshi.co", "com"])
def test_a_host_is_left_out_where_httpx2_would_leave_it_out(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with httpx2.Client() as client:
        theirs = client._transport_for_url(httpx2.URL(KALSHI))
        goes_through = theirs is not client._transport
    assert (network_proxies.network_proxy(KALSHI) is not None) is goes_through


def test_doctor_names_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://user:canary@proxy.example:1080")
    monkeypatch.setenv("NO_PROXY", "external-api-ws.kalshi.com")
    first, second = check_network([KALSHI, "wss://external-api-ws.kalshi.com/trade-api/ws/v2"])
    assert first.message == (
        "on the way to external-api.kalshi.com there is the socks5h proxy proxy.example:1080, which HTTPS_PROXY names"
    )
    assert "takes no SOCKS proxy" in first.remedy
    assert second.message == "no proxy on the way to external-api-ws.kalshi.com"
    monkeypatch.delenv("HTTPS_PROXY")
    (both,) = check_network([KALSHI, "wss://external-api-ws.kalshi.com/trade-api/ws/v2"])
    assert both.message == "no proxy on the way to external-api.kalshi.com and external-api-ws.kalshi.com"


def test_a_transport_of_the_callers_is_used_whatever_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"ok": True}))
    with KalshiClient(RequestSigner(Key()), base_url=KALSHI, transport=transport) as client:
        assert client.get_json("/x") == {"ok": True}


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
