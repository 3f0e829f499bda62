"""What the tests of the sandbox share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    """A sandbox whose bootstrap key is an Ed25519 key."""
    with SandboxServer(key_type="ed25519") as running:
        yield running


@pytest.fixture
def boss(server: SandboxServer) -> Caller:
    """Whoever has its bootstrap key."""
    return Caller.bootstrap(server)
