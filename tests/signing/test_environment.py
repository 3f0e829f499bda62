"""Base URLs and the bootstrap key, from arguments and the environment."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import traceback
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import KalshiClient
from hsm_keys.errors import UsageError
from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
from hsm_keys.signing.environments import environment_name, resolve, websocket_url

if TYPE_CHECKING:
    from pathlib import Path

PROD = "https://external-api.kalshi.com/trade-api/v2"
DEMO = "https://external-api.demo.kalshi.co/trade-api/v2"
PASSPHRASE = "passphrase-canary-5"
KEY = Ed25519PrivateKey.generate()


def pem(passphrase: str | None = None) -> str:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def test_the_order_in_which_an_environment_is_chosen() -> None:
    env = {"KALSHI_API_BASE_URL": "https://proxy.example/trade-api/v2", "KALSHI_DEMO": "true"}
    assert resolve(base_url="https://a.example", environment="demo", env=env) == "https://a.example/trade-api/v2"
    assert resolve(environment="prod", env=env) == PROD
    assert resolve(env=env) == "https://proxy.example/trade-api/v2"
    assert resolve(env={"KALSHI_DEMO": "TRUE"}) == DEMO
    assert resolve(env={"KALSHI_DEMO": "0", "KALSHI_API_BASE_URL": ""}) == PROD
    assert resolve(env={}) == PROD


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (PROD, "prod"),
        (DEMO, "demo"),
        ("https://api.elections.kalshi.com/trade-api/v2", "prod"),
        ("https://demo-api.kalshi.co/trade-api/v2", "demo"),
        ("https://EXTERNAL-API.kalshi.com:443", "prod"),
        ("https://proxy.example:8443/trade-api/v2", "d3fe0a94"),  # printf %s https://proxy.example:8443 | sha256sum
        ("HTTPS://Proxy.Example:8443", "d3fe0a94"),
    ],
)
def test_an_environment_is_named_by_its_hosts_or_else_by_its_origin(base_url: str, name: str) -> None:
    assert environment_name(base_url) == name
    assert environment_name(base_url, exchange="perps") == f"{name}-perps"


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("https://external-api.kalshi.com:8443", "https://external-api.kalshi.com:8443"),
        ("http://external-api.kalshi.com", "http://external-api.kalshi.com"),
    ],
)
def test_what_is_not_quite_kalshi_is_another_environment(base_url: str, origin: str) -> None:
    assert environment_name(base_url) == hashlib.sha256(origin.encode()).hexdigest()[:8]


def test_an_exchange_that_there_is_not() -> None:
    with pytest.raises(UsageError):
        environment_name(PROD, exchange="futures")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/trade-api/v2",
        "http://127.9.9.9/trade-api/v2",
        "http://localhost:1",
        "http://[::1]:80/trade-api/v2/",
        "https://x.example:8443",
    ],
)
def test_https_anywhere_and_http_to_loopback(url: str) -> None:
    assert resolve(base_url=url).endswith("/trade-api/v2")


@pytest.mark.parametrize(
    "url",
    [
        "http://kalshi.com/trade-api/v2",
        "http://127.0.0.1.evil.example/trade-api/v2",
        "http://localhost.evil.example",
        "ftp://127.0.0.1",
        "https://user:secret-canary@kalshi.com",
        "https://kalshi.com/trade-api/v3",
        "https://kalshi.com/trade-api/v2?x=1",
        "https://kalshi.com/#x",
        "kalshi.com",
        "https://",
        "https://x:port",
        "",
        "https://a b",
        "https://[::1",
    ],
)
def test_other_base_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(base_url=url)
    assert "secret-canary" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_base_url_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert resolve(base_url=text).endswith("/trade-api/v2")


def test_an_unknown_environment() -> None:
    with pytest.raises(UsageError):
        resolve(environment="staging")
    with pytest.raises(UsageError, match="KALSHI_DEMO"):
        resolve(env={"KALSHI_DEMO": "perhaps"})


def test_the_bootstrap_key_by_value_and_by_path(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    path.write_text(pem())
    for source in (
        {"KALSHI_PRIVATE_KEY": pem()},
        {"KALSHI_PRIVATE_KEY": pem().replace("\n", "\\n")},
        {"KALSHI_PRIVATE_KEY_PATH": str(path)},
    ):
        key = bootstrap_key_from_env({"KALSHI_KEY_ID": "id", **source})
        assert key is not None
        assert key.api_key_id == "id"
        KEY.public_key().verify(key.sign(b"m"), b"m")
    assert bootstrap_key_from_env({"KALSHI_KEY_ID": "", "KALSHI_PRIVATE_KEY": ""}) is None


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"KALSHI_KEY_ID": "id"}, "KALSHI_PRIVATE_KEY_PATH"),
        ({"KALSHI_PRIVATE_KEY": "x"}, "KALSHI_KEY_ID"),
        ({"KALSHI_KEY_ID": "id", "KALSHI_PRIVATE_KEY": "x", "KALSHI_PRIVATE_KEY_PATH": "y"}, "both"),
        ({"KALSHI_KEY_ID": "id", "KALSHI_PRIVATE_KEY_PATH": "/nope.pem"}, "/nope.pem"),
        ({"KALSHI_KEY_ID": "id", "KALSHI_PRIVATE_KEY": "x"}, "can't be read"),
    ],
)
def test_half_a_bootstrap_key_names_what_is_missing(env: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        bootstrap_key_from_env(env)
    assert said in caught.value.message
    with pytest.raises(UsageError):
        KalshiClient.from_env(env)


def test_without_a_bootstrap_key_from_env_says_what_to_set() -> None:
    with pytest.raises(UsageError) as caught:
        KalshiClient.from_env({})
    assert "KALSHI_KEY_ID" in caught.value.hint


def test_white_space_around_the_variables_is_dropped() -> None:
    key = bootstrap_key_from_env({"KALSHI_KEY_ID": " id\r\n", "KALSHI_PRIVATE_KEY": f"\n{pem()} "})
    assert key is not None
    assert key.api_key_id == "id"


@pytest.mark.parametrize("key_id", ["idé", "a b", "a\x01b"])
def test_a_key_id_that_cannot_go_into_a_header_is_refused(key_id: str) -> None:
    with pytest.raises(UsageError, match="no API key id"):
        bootstrap_key_from_env({"KALSHI_KEY_ID": key_id, "KALSHI_PRIVATE_KEY": pem()})


def test_the_home_of_nobody_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="~no-such-user/key"):
        bootstrap_key_from_env({"KALSHI_KEY_ID": "id", "KALSHI_PRIVATE_KEY_PATH": "~no-such-user/key"})


def test_bytes_that_are_no_utf8_come_back_as_they_were_given() -> None:
    """The environment hands over such bytes as surrogates."""
    passphrase = b"latin-1-canary-\xe9"
    sealed = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(passphrase)
    ).decode()
    env = {
        "KALSHI_KEY_ID": "id",
        "KALSHI_PRIVATE_KEY": f"{sealed}\udcff",
        "KALSHI_PRIVATE_KEY_PASSPHRASE": passphrase.decode(errors="surrogateescape"),
    }
    assert bootstrap_key_from_env(env)


def test_the_passphrase_of_an_encrypted_key() -> None:
    env = {"KALSHI_KEY_ID": "id", "KALSHI_PRIVATE_KEY": pem(PASSPHRASE)}
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return PASSPHRASE

    assert bootstrap_key_from_env({**env, "KALSHI_PRIVATE_KEY_PASSPHRASE": PASSPHRASE}, ask_passphrase=ask)
    assert asked == []
    assert bootstrap_key_from_env(env, ask_passphrase=ask)
    assert len(asked) == 1
    with pytest.raises(UsageError, match="encrypted"):
        bootstrap_key_from_env(env)
    with pytest.raises(UsageError) as caught:
        bootstrap_key_from_env({**env, "KALSHI_PRIVATE_KEY_PASSPHRASE": PASSPHRASE + "x"})
    assert PASSPHRASE not in "".join(traceback.format_exception(caught.value))


def test_a_key_file_that_others_can_read_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key.pem"
    path.write_text(pem())
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING, "hsm_keys"):
        bootstrap_key_from_env({"KALSHI_KEY_ID": "id", "KALSHI_PRIVATE_KEY_PATH": str(path)})
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize("host", ["external-api.kalshi.com", "api.elections.kalshi.com"])
def test_demo_beside_a_base_url_of_production_is_refused(host: str) -> None:
    env = {"KALSHI_DEMO": "true", "KALSHI_API_BASE_URL": f"https://{host}/trade-api/v2"}
    with pytest.raises(UsageError, match=r"KALSHI_DEMO .* KALSHI_API_BASE_URL"):
        resolve(env=env)
    assert resolve(env=env, environment="prod") == PROD  # who says which has said it
    assert resolve(env=env, environment="demo") == DEMO
    assert resolve(env={**env, "KALSHI_DEMO": "false"}).startswith(f"https://{host}")


@pytest.mark.parametrize("demo", ['"true"', "ture", "demo"])
def test_what_is_neither_true_nor_false_is_refused_beside_a_base_url_too(demo: str) -> None:
    for url in (PROD, "http://127.0.0.1:8087"):
        with pytest.raises(UsageError, match="KALSHI_DEMO is neither"):
            resolve(env={"KALSHI_DEMO": demo, "KALSHI_API_BASE_URL": url})


@pytest.mark.parametrize(("around", "said"), [("{} ", "white space"), ("{}\n", "white space"), ("'{}'", "quotes")])
def test_what_is_round_a_url_is_said(around: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"base URL has {said} around it"):
        resolve(env={"KALSHI_API_BASE_URL": around.format(PROD)})
    with pytest.raises(UsageError, match=f"WebSocket URL has {said} around it"):
        websocket_url(base_url="http://127.0.0.1:8087", ws_url=around.format("ws://127.0.0.1:8088"), env={})
