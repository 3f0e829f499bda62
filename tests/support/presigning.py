"""Signing ahead by hand: clocks that a test moves, and a key that remembers when it signed."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.signing import presign
from hsm_keys.signing.presign import PresigningSigner

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERS = ("POST", "/trade-api/v2/portfolio/events/orders")
BALANCE = ("GET", "/trade-api/v2/portfolio/balance")


class Clocks:
    """The wall clock, which can be set, and the time that really goes by."""

    def __init__(self) -> None:
        self.real_ns = 5_000_000_000
        self.wall_ns = 1_800_000_000_000_000_000

    def wall(self) -> int:
        return self.wall_ns // 1_000_000

    def elapsed(self) -> int:
        return self.real_ns

    def go_on(self, seconds: float) -> None:
        self.real_ns += round(seconds * 1e9)
        self.wall_ns += round(seconds * 1e9)

    def set_by(self, seconds: float) -> None:
        self.wall_ns += round(seconds * 1e9)


class CountingKey:
    """Makes a signature at once, and no two alike."""

    def __init__(self, api_key_id: str = "id", *, before: Callable[[], object] = lambda: None) -> None:
        self.name = "prod"
        self.api_key_id: str | None = api_key_id
        self.before = before
        self.messages: list[bytes] = []
        self._numbers = count()

    def sign(self, message: bytes, /) -> bytes:
        self.before()
        self.messages.append(message)
        return b"%d" % next(self._numbers)


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests do its work."""
    monkeypatch.setattr(presign, "_work", lambda *_: None)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def key() -> CountingKey:
    return CountingKey()


@pytest.fixture
def make(clocks: Clocks, key: CountingKey) -> Callable[..., PresigningSigner]:
    def make(*routes: tuple[str, str], **options: Any) -> PresigningSigner:
        return PresigningSigner(
            options.pop("key", key), clock=clocks.wall, elapsed=clocks.elapsed, routes=routes or [ORDERS], **options
        )

    return make


def work(signer: PresigningSigner, clocks: Clocks, seconds: float) -> int:
    """Let the worker do its work for some seconds; return how often it woke."""
    end, wakes = clocks.real_ns + round(seconds * 1e9), 0
    while True:
        wait = signer._work_once()
        wakes += 1
        left = (end - clocks.real_ns) / 1e9
        if wait is None or wait > left:
            clocks.go_on(left)
            return wakes
        clocks.go_on(max(wait, 1e-6))
