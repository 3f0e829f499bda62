"""What the tests of AWS KMS share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import ministack
from tests.support.kms_faults import FaultyKms

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyKms]:
    """A KMS with one key, that fails as it is told and shows what was sent."""
    with FaultyKms() as server:
        ministack.credentials(monkeypatch, server.url)
        yield server


@pytest.fixture
def real_kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyKms]:
    """A fresh account of a KMS server, behind a network that fails as it is told and shows what was sent."""
    with FaultyKms(ministack.endpoint()) as server:
        ministack.credentials(monkeypatch, server.url)
        yield server
