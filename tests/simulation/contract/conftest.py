"""Both sides of each contract: a double, and the real part that it stands for."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import boto3  # type: ignore[import-untyped]  # it has no annotations
import pytest

from hsm_keys import open_store
from hsm_keys.kalshi.client import KalshiClient
from hsm_keys.sandbox.server import SandboxServer
from hsm_keys.signing.algorithms import public_key_pem
from hsm_keys.signing.signer import RequestSigner
from tests.simulation import kalshi, kms
from tests.simulation import token as tokens
from tests.simulation import vault as vaults
from tests.simulation.doubles import STAGE, doubles
from tests.simulation.effects import Process
from tests.simulation.pairs import Pair, pair_of
from tests.simulation.world import World
from tests.support import ministack
from tests.support.vault import Vault, surround

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.stores.base import KeyStore
    from hsm_keys.stores.pkcs11.objects import Objects
    from hsm_keys.stores.vault.connection import VaultConnection

_SOFTHSM: Final = pytest.param("softhsm", marks=pytest.mark.softhsm)
_MINISTACK: Final = pytest.param("ministack", marks=pytest.mark.kms)
_BAO: Final = pytest.param("bao", marks=pytest.mark.vault)


@pytest.fixture
def world() -> Iterator[World]:
    """Surroundings in which nothing goes wrong, and the doubles in their places."""
    made = World()
    STAGE.begin(made)
    with doubles():
        yield made


# Stores, through their own code.


@pytest.fixture(params=["token's double", _SOFTHSM, "KMS's double", _MINISTACK, "Vault's double", _BAO])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], KeyStore]:
    """What opens an empty store, as a new process does."""
    part: str = request.param
    if part == "softhsm":
        uri = request.getfixturevalue("token").uri
        return lambda: open_store(uri)
    if part == "ministack":
        ministack.credentials(monkeypatch, ministack.endpoint())
        return lambda: open_store(f"awskms:///?region={ministack.REGION}")
    if part == "bao":
        surround(monkeypatch)
        vault = Vault()
        return lambda: open_store(vault.uri)
    kinds: dict[str, Any] = {"token's double": tokens.Token, "KMS's double": kms.Kms, "Vault's double": vaults.Vault}
    double = kinds[part](request.getfixturevalue("world"))
    return double.open  # type: ignore[no-any-return]


# What the stores call.


@pytest.fixture(params=["double", _SOFTHSM])
def objects(request: pytest.FixtureRequest) -> Iterator[Objects]:
    """The objects of an empty token, in a session that may write."""
    if request.param == "softhsm":
        uri = request.getfixturevalue("token").uri
        with open_store(uri) as store:
            yield store._connection.objects  # type: ignore[attr-defined]
    else:
        yield tokens.Token(request.getfixturevalue("world")).open()._connection.objects


@pytest.fixture(params=["double", _MINISTACK])
def kms_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of KMS in an empty account, as botocore makes it."""
    if request.param == "double":
        return kms.Client(kms.Kms(request.getfixturevalue("world")))
    ministack.credentials(monkeypatch, ministack.endpoint())
    return boto3.Session().client("kms", region_name=ministack.REGION)  # the default one keeps an earlier account


@dataclass
class Engines:
    """Two engines of Vault, and a connection to them.

    Args:
        connection: The connection.
        transit: Where the Transit engine is mounted.
        kv: Where the KV engine is mounted.
    """

    connection: VaultConnection
    transit: str
    kv: str


@pytest.fixture(params=["double", _BAO])
def engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engines]:
    """Two empty engines."""
    if request.param == "double":
        connection: Any = vaults.Connection(vaults.Vault(request.getfixturevalue("world")))
        yield Engines(connection, "transit", "secret")
        return
    surround(monkeypatch)
    vault = Vault()
    with open_store(vault.uri) as store:
        yield Engines(store.connection(), vault.mount, vault.kv)  # type: ignore[attr-defined]


@dataclass
class _Signer:
    """Signs with a pair.

    Args:
        pair: The pair.
        api_key_id: The API key's id.
        really: Whether with Ed25519, as Kalshi wants it.
    """

    pair: Pair
    api_key_id: str
    really: bool
    name: str = "a key"

    def sign(self, message: bytes, /) -> bytes:
        return self.pair.private_key.sign(message) if self.really else self.pair.sign(message)


class Account:
    """An account at Kalshi with a first API key, which may read and write."""

    def __init__(self, pairs: Callable[[], Pair]) -> None:
        self.pair = pairs
        self.first = ""
        self.clients = ExitStack()
        self._pair_of_first = pairs()

    def client(self, pair: Pair | None = None, api_key_id: str = "") -> Any:
        """Return a client that signs with that pair for that id; without, with the first key."""
        raise NotImplementedError

    def pair_of(self, private_key: Any) -> Any:
        """Return the pair of a private half that Kalshi made."""
        raise NotImplementedError

    def add(self, name: str, pair: Pair, **rights: Any) -> str:
        """Register a pair by hand, as on the account page, and return its id."""
        raise NotImplementedError

    def be_late(self, seconds: float) -> None:
        """Let Kalshi's clock be ahead of everybody's."""
        raise NotImplementedError

    def be_basic(self) -> None:
        """Let the account be below Premier."""
        raise NotImplementedError


class _Double(Account):
    def __init__(self, world: World) -> None:
        super().__init__(world.pair)
        self._kalshi = kalshi.Kalshi(world, "prod")
        self.first = self._kalshi.add("first", self._pair_of_first.public).api_key_id

    def client(self, pair: Pair | None = None, api_key_id: str = "") -> Any:
        signer = _Signer(pair or self._pair_of_first, api_key_id or self.first, really=False)
        return kalshi.Client(self._kalshi, RequestSigner(signer))

    def pair_of(self, private_key: Any) -> Any:
        return pair_of(private_key.public_key().public_bytes_raw())

    def add(self, name: str, pair: Pair, *, fcm_subtrader_id: str | None = None, **rights: Any) -> str:
        return self._kalshi.add(name, pair.public, subtrader=fcm_subtrader_id, **rights).api_key_id

    def be_late(self, seconds: float) -> None:
        self._kalshi.world.process = Process("-", "-", "-", (), skew_s=-seconds)

    def be_basic(self) -> None:
        self._kalshi.premier = False


class _Sandbox(Account):
    def __init__(self, server: SandboxServer, pairs: Callable[[], Pair], set_ahead: Callable[[float], None]) -> None:
        super().__init__(pairs)
        self._server = server
        self._set_ahead = set_ahead
        self.first = server.add_key("first", public_key_pem(self._pair_of_first.public_key)).api_key_id
        server.state.delete_key(server.bootstrap_key_id)

    def client(self, pair: Pair | None = None, api_key_id: str = "") -> Any:
        signer = _Signer(pair or self._pair_of_first, api_key_id or self.first, really=True)
        return self.clients.enter_context(KalshiClient(RequestSigner(signer), base_url=self._server.base_url))

    def pair_of(self, private_key: Any) -> Any:
        return SimpleNamespace(private_key=private_key)

    def add(self, name: str, pair: Pair, **rights: Any) -> str:
        return self._server.add_key(name, public_key_pem(pair.public_key), **rights).api_key_id

    def be_late(self, seconds: float) -> None:
        self._set_ahead(seconds)

    def be_basic(self) -> None:
        self._server.state.tier = "basic"


@pytest.fixture(params=["double", "sandbox"])
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    """An account at Kalshi."""
    if request.param == "double":
        yield _Double(request.getfixturevalue("world"))
        return
    ahead = [0.0]
    numbers = iter(range(1, 100))
    with SandboxServer(
        tier="premier", key_type="ed25519", clock_ms=lambda: int((time.time() + ahead[0]) * 1000)
    ) as server:
        sandbox = _Sandbox(server, lambda: Pair(next(numbers)), lambda seconds: ahead.__setitem__(0, seconds))
        with sandbox.clients:
            yield sandbox
