"""The account's location attestation: when it ends, Kalshi refuses every request (403) until it is renewed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hsm_keys.kalshi.models import ListApiKeysResponse

__all__ = ["Attestation", "attestation_of"]

_WARNED_DAYS: Final = 14
_DAY_S: Final = 86400


@dataclass(frozen=True, slots=True)
class Attestation:
    """An attestation, looked at.

    Args:
        expires_ts: When it ends, Unix time in seconds.
        left_s: How many seconds are left; negative after it.
    """

    expires_ts: int
    left_s: float

    @property
    def is_due(self) -> bool:
        """Whether it ends within 14 days, or has ended."""
        return self.left_s < _WARNED_DAYS * _DAY_S

    @property
    def message(self) -> str:
        """A sentence for people."""
        day = datetime.fromtimestamp(self.expires_ts, UTC).strftime("%Y-%m-%d %H:%M UTC")
        if self.left_s <= 0:
            return f"the account's location attestation ended on {day}: Kalshi refuses requests (403)"
        whole = f"the account's location attestation ends on {day}, in {int(self.left_s // _DAY_S)} days"
        return f"{whole}: then Kalshi refuses requests (403)" if self.is_due else whole

    @property
    def remedy(self) -> str:
        """What to do about it; empty if it isn't due."""
        return "renew it on Kalshi's website" if self.is_due else ""


def attestation_of(answer: ListApiKeysResponse, now: float | None = None) -> Attestation | None:
    """Return the attestation that Kalshi sends with the list of API keys; None for an account that has none.

    Args:
        answer: The list.
        now: Unix time in seconds; by default the clock's.
    """
    expires = answer.api_key_region_expiration_ts
    if expires is None:
        return None
    return Attestation(expires, expires - (time.time() if now is None else now))
