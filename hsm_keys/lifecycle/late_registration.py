"""The API key that an interrupted run may have registered for a minted key, if its answer was lost or is still to come.

Kalshi may carry a request out, or make its result visible everywhere, a moment after the run that sent it was killed.
So one look that finds nothing proves nothing: a pair that is destroyed too early leaves an API key that nobody can sign
for, and a pair that is registered again has two API keys.

Two looks with two seconds between don't prove it either: the network may delay a request for longer. A pair that is
registered twice can be repaired, but a destroyed one can't. So if the pair's mark says that a registration was begun,
a run waits until Kalshi would refuse the request as too old, before it destroys the pair. Two more steps make sure that
no other run begins a registration meanwhile: a run that destroys a pair first gives the pair a name that says so, and
then reads the mark; a run that registers a pair first writes the mark, and then reads the name
(``KeyStore.begin_registration``). So of two runs that do this at the same moment, at least one sees the other.

A second API key of a registered pair may be missing in a list, too. But a list that no longer has the API key that
was ended is newer than that end, so it has everything that was registered before. So a pair is destroyed only if
that list has no other API key of the pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import KeyProblemError
from hsm_keys.inspecting.proof_of_possession import can_sign, find_registration
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.lifecycle.ending import outwait, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["check_no_other_registration", "check_none_since", "find_last_registration", "find_late_registration"]


def find_late_registration(account: Account, key: StoredKey, claimed: Collection[str | None]) -> ApiKey | None:
    """Return what Kalshi lists for a minted key; None if two looks, with some time between, find nothing.

    Args:
        account: Where the API keys are.
        key: The key.
        claimed: The API keys that the store's keys are bound to: it is none of them.

    Raises:
        KalshiError: If Kalshi refuses the listing, or its answers say nothing about the key.
        NetworkError: If there is no answer.
    """
    listing = _look(account, key, claimed)
    if listing is None:
        settle()
        listing = _look(account, key, claimed)
    return listing


def find_last_registration(
    account: Account,
    key: StoredKey,
    claimed: Collection[str | None],
    report: Callable[[str], None],
) -> ApiKey | None:
    """Return the API key that Kalshi lists for a pair that is to be destroyed; None if there is none, nor can be later.

    Args:
        account: Where the API keys are.
        key: The pair, read after it got the name that says that it is to end.
        claimed: The API keys that the store's keys are bound to: it is none of them.
        report: Called with a line for people.

    Raises:
        KalshiError: If Kalshi refuses the listing, or its answers say nothing about the key.
        NetworkError: If there is no answer.
    """
    listing = find_late_registration(account, key, claimed)
    if listing is None and key.registering:
        outwait(f"a registration of {key.name!r}", "anything is destroyed", report)
        listing = find_late_registration(account, key, claimed)
    return listing


def _look(account: Account, key: StoredKey, claimed: Collection[str | None]) -> ApiKey | None:
    candidates = unclaimed(account.list_now(), claimed)
    api_key_id = find_registration(account.connect, key, candidates)
    return next((listing for listing in candidates if listing.api_key_id == api_key_id), None)


def check_no_other_registration(connect: Connect, key: StoredKey, listed: Sequence[ApiKey], known: str | None) -> None:
    """Check that a pair that is to end has no other API key: that one would stay, and nobody could tell whose it is.

    Kalshi may have carried a registration out twice, or somebody has registered the public half again.

    Args:
        connect: Makes a client of the same environment for another signer.
        key: The pair.
        listed: Kalshi's list, without the API keys that other keys of the store are bound to.
        known: The API key that ends with the pair; None if there is none.

    Raises:
        KeyProblemError: If there is another one.
        KalshiError: If Kalshi's answers say nothing about the key.
        NetworkError: If there is no answer.
    """
    other = find_registration(connect, key, unclaimed(listed, [known])) if can_sign(key) else None
    if other is not None:
        raise KeyProblemError(
            f"the pair of {key.name!r} is registered twice at Kalshi, also as API key {other}; nothing was destroyed",
            hint=f"run `hsm-keys revoke {other}` first, then the same command again",
        )


def check_none_since(
    connect: Connect, key: StoredKey, listed: Sequence[ApiKey], left: Sequence[ApiKey], known: str | None
) -> None:
    """Make sure that a pair's further API keys weren't missing in the list in which they were looked for.

    Args:
        connect: Makes a client of the same environment for another signer.
        key: The pair.
        listed: That list.
        left: The list that leaves out the API key that has ended.
        known: That API key.

    Raises:
        KeyProblemError: If there is another one.
        KalshiError: If Kalshi's answers say nothing about the key.
        NetworkError: If there is no answer.
    """
    newer = unclaimed(left, (entry.api_key_id for entry in listed))
    check_no_other_registration(connect, key, newer, known)
