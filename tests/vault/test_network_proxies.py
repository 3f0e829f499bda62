"""The way to a server of Vault's leads through the network's proxies as the way to Kalshi does."""

from __future__ import annotations

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.network_proxies import network_proxy
from hsm_keys.stores.vault.connection import _Server

SERVER = "https://vault.example:8200"
PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("variables", "address", "goes_through"),
    [
        ({}, SERVER, False),
        ({"HTTPS_PROXY": PROXY}, SERVER, True),
        ({"ALL_PROXY": "proxy.example:3128"}, SERVER, True),
        ({"HTTPS_PROXY": PROXY}, "http://127.0.0.1:8200", False),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}, SERVER, False),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "vault.example:8200"}, SERVER, False),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "a, *.example"}, SERVER, False),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "vault.example:443"}, SERVER, True),
    ],
)
def test_a_server_is_reached_through_the_proxy_of_the_variables(
    variables: dict[str, str], address: str, goes_through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server = _Server(address, authorities=True)
    try:
        assert (type(server.transport._pool).__name__ == "HTTPProxy") is goes_through
        assert (network_proxy(address) is not None) is goes_through
    finally:
        server.client.close()


@pytest.mark.parametrize("value", ["socks4://canary@x", "http://:canary@/"])
def test_a_variable_that_names_no_proxy_is_a_usage_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(UsageError, match="HTTPS_PROXY") as error:
        _Server(SERVER, authorities=True)
    assert "canary" not in str(error.value)
