"""Worlds for the workflows that are interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.crash.worlds import KmsWorld, TokenWorld, VaultWorld
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.crash.worlds import World


@pytest.fixture
def kalshi(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """A sandbox whose bootstrap key is quick to sign with."""
    with SandboxServer(tier="premier", key_type="ed25519", port=free_port(), ws_port=free_port()) as server:
        monkeypatch.setenv("KALSHI_API_BASE_URL", server.base_url)
        monkeypatch.setenv("KALSHI_KEY_ID", server.bootstrap_key_id)
        monkeypatch.setenv("KALSHI_PRIVATE_KEY", server.bootstrap_pem)
        yield server


@pytest.fixture(
    params=[
        pytest.param("token", marks=pytest.mark.softhsm),
        pytest.param("kms", marks=pytest.mark.kms),
        pytest.param("vault", marks=pytest.mark.vault),
    ]
)
def store(request: pytest.FixtureRequest) -> str:
    """Which store."""
    return str(request.param)


@pytest.fixture
def make_world(
    store: str, kalshi: SandboxServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., World]]:
    """Makes a world on that store; see ``World`` for the arguments."""
    made: list[World] = []

    def make(stage: int, *, alone: bool = False) -> World:
        if store == "kms":
            made.append(KmsWorld(kalshi, stage, alone=alone, monkeypatch=monkeypatch))
        elif store == "vault":
            made.append(VaultWorld(kalshi, stage, alone=alone, monkeypatch=monkeypatch))
        else:
            parts = {name: request.getfixturevalue(name) for name in ("softhsm", "token")}
            made.append(TokenWorld(kalshi, stage, alone=alone, monkeypatch=monkeypatch, **parts))
        return made[-1]

    yield make
    for world in made:
        world.close()
