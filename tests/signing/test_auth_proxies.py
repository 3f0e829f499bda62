"""No signature goes over plain HTTP through somebody else's hands, whatever the proxy variables say."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from hsm_keys import RequestSigner
from hsm_keys.errors import UsageError
from hsm_keys.signing.pem import PemKey
from tests.support.http_clients import HAS_NIQUESTS, each_client, niquests, run
from tests.support.kalshi_stub import Stub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.sandbox import SandboxServer

PATH = "/portfolio/balance"


@pytest.fixture
def key(sandbox: SandboxServer) -> PemKey:
    return PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem)


class Proxy:
    """Takes what comes, and hangs up."""

    def __init__(self) -> None:
        self.heard = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.heard += connection.recv(65536)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    proxy = Proxy()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    yield proxy
    proxy.close()
    forget_variables()


@pytest.fixture
def set_variable(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    def set_one(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        forget_variables()

    return set_one


def forget_variables() -> None:
    """Have niquests read the variables again: it does so once in a process."""
    if HAS_NIQUESTS:
        niquests.utils.getproxies.cache_clear()
        niquests.utils.getproxies_environment.cache_clear()


@each_client
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_http_through_a_proxy_is_refused(
    proxy: Proxy, key: PemKey, client: Any, variable: str, set_variable: Callable[[str, str], None]
) -> None:
    set_variable(variable, proxy.url)
    with Stub((200, {})) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        with pytest.raises(UsageError, match="could read its signature") as caught:
            run(client)(auth, "GET", stub.base_url + PATH)
        assert "NO_PROXY" in caught.value.hint
        set_variable("NO_PROXY", "127.0.0.1,localhost")
        assert run(client)(auth, "GET", stub.base_url + PATH).status_code == 200
    assert b"KALSHI" not in proxy.heard.upper()


@each_client
def test_https_goes_through_a_tunnel_that_shows_no_signature(
    proxy: Proxy, key: PemKey, client: Any, set_variable: Callable[[str, str], None]
) -> None:
    set_variable("HTTPS_PROXY", proxy.url)
    auth = RequestSigner(key).auth(environment="demo")
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever each library says when the tunnel isn't opened
        run(client)(auth, "GET", auth.base_url + PATH)
    assert proxy.heard.startswith(b"CONNECT external-api.demo.kalshi.co:443 ")
    assert b"KALSHI-ACCESS" not in proxy.heard.upper()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_proxy_that_the_program_names_gets_no_signature_either(proxy: Proxy, key: PemKey, library: Any) -> None:
    with Stub((200, {})) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        with library.Client(auth=auth, proxy=proxy.url) as client, pytest.raises(UsageError, match="signature"):
            client.get(stub.base_url + PATH)

        async def use() -> None:
            async with library.AsyncClient(auth=auth, proxy=proxy.url) as client:
                await client.get(stub.base_url + PATH)

        with pytest.raises(UsageError, match="signature"):
            asyncio.run(use())
    assert b"KALSHI" not in proxy.heard.upper()


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_client_that_ignores_the_variables_is_served(
    proxy: Proxy, key: PemKey, library: Any, set_variable: Callable[[str, str], None]
) -> None:
    set_variable("HTTP_PROXY", proxy.url)
    with Stub((200, {})) as stub:
        auth = RequestSigner(key).auth(base_url=stub.base_url)
        with library.Client(auth=auth, trust_env=False) as client:
            assert client.get(stub.base_url + PATH).status_code == 200
    assert proxy.heard == b""
