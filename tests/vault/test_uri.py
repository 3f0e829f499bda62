"""``vault:`` URIs and the variables that complete them: what is taken, and what is refused without repeating it."""

from __future__ import annotations

import os

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.stores.vault.environment import with_environment
from hsm_keys.stores.vault.uri import VaultUri

DEFAULT = "https://127.0.0.1:8200"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("BAO_", "VAULT_")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("vault:///", VaultUri()),
        ("VAULT:///transit/", VaultUri()),
        ("vault:///team/transit?kv=team/kv", VaultUri("team/transit", "team/kv")),
        (
            "vault:///transit?address=https://a:8200,https://b:8200/",
            VaultUri(addresses=("https://a:8200", "https://b:8200")),
        ),
        ("vault:///transit?address=http://[::1]:8200", VaultUri(addresses=("http://[::1]:8200",))),
        ("vault:///transit?namespace=a/b/&key=prod%2Bnext", VaultUri(namespace="a/b", key="prod+next")),
    ],
)
def test_a_uri_is_read_and_written(text: str, uri: VaultUri) -> None:
    assert VaultUri.parse(text) == uri
    assert VaultUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "text",
    [
        "vault:transit",
        "vault://host/transit",
        "vault:///transit?",
        "vault:///transit?addres=https://a",
        "vault:///transit?address=https://a&address=https://b",
        "vault:///transit?address=",
        "vault:///transit?address=https://a,https://a",
        "vault:///transit?address=http://vault.example:8200",
        "vault:///transit?address=https://u:p@a:8200",
        "vault:///transit?address=https://a:8200/v1",
        "vault:///transit?address=https://a:port",
        "vault:///transit?address=ftp://a",
        "vault:///../sys",
        "vault:///transit?kv=a//b",
        "vault:///transit?namespace=../x",
        "vault:///transit?key=%ff",
        "vault:///trans it",
        f"vault:///{'a' * 2100}",
    ],
)
def test_what_is_no_uri_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        VaultUri.parse(text)


def test_variables_are_read_as_openbaos_and_hashicorps_tools_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_environment(VaultUri()).addresses == (DEFAULT,)
    monkeypatch.setenv("VAULT_ADDR", "https://hashicorp:8200/")
    monkeypatch.setenv("VAULT_NAMESPACE", "theirs/")
    assert with_environment(VaultUri()) == VaultUri(addresses=("https://hashicorp:8200",), namespace="theirs")
    monkeypatch.setenv("BAO_ADDR", "https://openbao:8200")
    monkeypatch.setenv("BAO_NAMESPACE", "ours")
    assert with_environment(VaultUri()) == VaultUri(addresses=("https://openbao:8200",), namespace="ours")
    named = VaultUri(addresses=("https://named",), namespace="named")
    assert with_environment(named) == named


@pytest.mark.parametrize(
    ("name", "value"),
    [("BAO_ADDR", "http://10.0.0.1:8200"), ("VAULT_ADDR", "s.secret"), ("BAO_NAMESPACE", "our secrets")],
)
def test_a_bad_variable_is_named_and_not_repeated(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught:
        with_environment(VaultUri())
    assert value not in str(caught.value)
