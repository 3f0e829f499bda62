"""What the tests of the command line share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken


@pytest.fixture
def pin(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> str:
    """The PIN of the one token, where the commands find it."""
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    return token.pin
