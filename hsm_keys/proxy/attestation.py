"""The end of the account's location attestation; Kalshi is asked when somebody reads the metrics or the status."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import aiohttp
from pydantic import ValidationError

from hsm_keys.errors import HsmKeysError
from hsm_keys.kalshi.attestation import attestation_of
from hsm_keys.kalshi.models import ListApiKeysResponse

if TYPE_CHECKING:
    from hsm_keys.kalshi.attestation import Attestation
    from hsm_keys.proxy.asking import OwnRequests
    from hsm_keys.proxy.metrics import Metrics

__all__ = ["AttestationWatch"]

_PATH: Final = "/api_keys"
_KNOWN_FOR_S: Final = 3600.0
_TRIED_AGAIN_S: Final = 300.0
_PATIENCE_S: Final = 2.0

_log: Final = logging.getLogger(__name__)


class AttestationWatch:
    """Asks Kalshi for the account's API keys, once an hour at most: the end of the attestation comes with them.

    Args:
        own: Asks Kalshi.
        metrics: Shows what is known.
    """

    def __init__(self, own: OwnRequests, metrics: Metrics) -> None:
        self._own = own
        self._metrics = metrics
        self._ask_at = float("-inf")
        self._asking = asyncio.Lock()

    async def look(self) -> None:
        """Ask Kalshi if the end isn't known. The caller waits at most 2 seconds; without an answer it stays unknown."""
        async with self._asking:
            if time.monotonic() < self._ask_at:
                return
            self._ask_at = time.monotonic() + _TRIED_AGAIN_S
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    known = await self._asked()
            except (HsmKeysError, aiohttp.ClientError, TimeoutError, ValidationError) as error:
                _log.debug("the end of the location attestation isn't known: %s", type(error).__name__)
                return
            if known is None:
                return
            self._ask_at = time.monotonic() + _KNOWN_FOR_S
            self._metrics.attestation.set(known.expires_ts)
            if known.is_due:
                _log.warning("%s; %s", known.message, known.remedy)

    async def _asked(self) -> Attestation | None:
        status, body = await self._own.get(_PATH)
        if status != HTTPStatus.OK:  # a key with few scopes may not list API keys
            return None
        return attestation_of(ListApiKeysResponse.model_validate_json(body))
