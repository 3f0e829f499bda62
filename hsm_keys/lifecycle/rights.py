"""What an API key may do, as Kalshi lists it: compared with what another one may do, or with what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import KeyProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.models import ApiKey

__all__ = ["check_asked", "describe_rights", "rights_of", "scopes_of"]


def scopes_of(listing: ApiKey) -> list[str]:
    """Return the scopes; ``write`` comes with ``read``, whether Kalshi lists that or not."""
    extra = ["read"] if "write" in listing.scopes else []
    return list(dict.fromkeys([*extra, *listing.scopes]))


def rights_of(listing: ApiKey) -> tuple[frozenset[str], int | None, str | None]:
    """Return what is equal for API keys that may do the same."""
    return frozenset(scopes_of(listing)), listing.subaccount, listing.fcm_subtrader_id


def describe_rights(listing: ApiKey) -> str:
    """Return it in words."""
    bound = "all subaccounts" if listing.subaccount is None else f"subaccount {listing.subaccount}"
    if listing.fcm_subtrader_id is not None:
        bound = f"FCM subtrader {listing.fcm_subtrader_id}"
    return f"the scopes {', '.join(listing.scopes) or '(none listed)'} on {bound}"


def check_asked(name: str, listing: ApiKey, scopes: Sequence[str] | None, subaccount: int | None) -> None:
    """Make sure that an API key that an earlier run had made is what this run asks for; what it leaves open, is open.

    Args:
        name: The key's name.
        listing: What Kalshi lists.
        scopes: What was asked for; None if nothing was said.
        subaccount: What was asked for; None if nothing was said.

    Raises:
        KeyProblemError: If it may do something else.
    """
    other = scopes is not None and frozenset(scopes) != frozenset(scopes_of(listing))
    if other or (subaccount is not None and subaccount != listing.subaccount):
        raise KeyProblemError(
            f"an earlier run had {name!r} registered, as API key {listing.api_key_id}, with "
            f"{describe_rights(listing)}: that isn't what was asked for now; nothing was changed",
            hint="leave --scope and --subaccount out, to take it as it is; to begin anew, after that run "
            f"`hsm-keys revoke {name} --destroy`",
        )
