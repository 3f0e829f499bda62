"""Ending an API key at Kalshi for certain: deleted, whatever became of the answer, and proved dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import stamina

from hsm_keys.errors import KalshiError, OutcomeUnknownError
from hsm_keys.kalshi.errors import NotFoundError, UnauthorizedError
from hsm_keys.lifecycle.possession import accepts, can_sign

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.lifecycle.possession import Connect
    from hsm_keys.stores.base import StoredKey

__all__ = ["end_api_key", "says_unknown"]

_ATTEMPTS: Final = 4  # a key that was deleted a moment ago may still be known somewhere
_PATIENCE_S: Final = 10.0
_UNKNOWN_ID: Final = "NOT_FOUND"
"""What Kalshi's 401 gives as details for an API key id that it doesn't know."""


class _StillTaken(Exception):  # noqa: N818 - a state, not an error
    """Kalshi still takes the key's signature."""


def end_api_key(
    management: KalshiClient, connect: Connect, api_key_id: str, key: StoredKey | None, report: Callable[[str], None]
) -> None:
    """Delete an API key, and prove that Kalshi takes its signature no more. One that is gone already is fine.

    Args:
        management: Signs the deletion; may be the very key that is deleted.
        connect: Makes a client of the same environment for another signer.
        api_key_id: What to delete.
        key: Its private half, which signs the proof; None if it isn't at hand: then Kalshi's word must do, as it must
            where the key is disabled or its deletion is scheduled already.
        report: Called with a line for people.

    Raises:
        KalshiError: If Kalshi refuses, or still takes the key afterwards.
        OutcomeUnknownError: If it isn't known whether the key was deleted; run again, it is looked up.
    """
    try:
        deleted = _delete(management, api_key_id)
    except UnauthorizedError as error:
        # The key that signs the deletion may be the one that is deleted, by this request or by an earlier run.
        if management.signer.api_key_id != api_key_id or not says_unknown(error):
            raise
        deleted = False
    report(f"deleted API key {api_key_id} at Kalshi" if deleted else f"API key {api_key_id} was gone at Kalshi already")
    if key is None:
        return
    if not can_sign(key):
        report(f"{key.name!r} signs nothing any more, so there is no proof but Kalshi's word")
        return
    _prove_dead(connect, key, api_key_id)
    report("proved it: Kalshi refuses its signature (401)")


def says_unknown(error: UnauthorizedError) -> bool:
    """Tell whether a 401 means that there is no such API key, rather than that signature or clock are wrong."""
    return error.details == _UNKNOWN_ID


def _delete(management: KalshiClient, api_key_id: str) -> bool:
    """Delete, and tell whether it was there; an answer that was lost is settled by looking."""
    try:
        management.api_keys.delete(api_key_id)
    except NotFoundError:
        return False
    except OutcomeUnknownError:
        if any(listed.api_key_id == api_key_id for listed in management.api_keys.list().api_keys):
            raise
    return True


def _prove_dead(connect: Connect, key: StoredKey, api_key_id: str) -> None:
    try:
        for attempt in stamina.retry_context(on=_StillTaken, attempts=_ATTEMPTS, timeout=_PATIENCE_S, wait_max=2.0):
            with attempt:
                if accepts(connect, key, api_key_id):
                    raise _StillTaken
    except _StillTaken:
        raise KalshiError(
            f"Kalshi says that API key {api_key_id} is deleted, and still takes its signature",
            hint="look at Kalshi's account page, and run the same command again",
        ) from None
