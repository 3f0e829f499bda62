"""What an API key may do, as Kalshi lists it: compared with what another one may do, or with what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.errors import KeyProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.models import ApiKey

__all__ = [
    "MOVES_MONEY",
    "check_asked",
    "check_manages",
    "describe_rights",
    "manages_keys",
    "may_manage",
    "rights_of",
    "scopes_of",
]

MOVES_MONEY: Final = (
    "no --scope was given, so this key will be able to move money and to make API keys: for a narrower one, "
    "--scope read --scope write::trade"
)
"""The note for an API key that is requested without scopes: Kalshi grants read and write."""

_MANAGING_SCOPE: Final = "write"


def manages_keys(listing: ApiKey) -> bool:
    """Tell whether an API key can manage API keys, as far as that is known.

    Which scope that needs isn't documented. A key with ``write`` that is bound to nothing has all there is.
    """
    return _MANAGING_SCOPE in listing.scopes and listing.subaccount is None and listing.fcm_subtrader_id is None


def may_manage(listing: ApiKey) -> bool:
    """Tell whether an API key might manage API keys; a listing without scopes doesn't say."""
    return manages_keys(listing) or not listing.scopes


def check_manages(api_key_id: str, listed: Sequence[ApiKey]) -> None:
    """Make sure, before anything is made, that the API key which signs management calls can do what they need.

    Args:
        api_key_id: That API key.
        listed: What Kalshi lists; a key that isn't among them is let pass.

    Raises:
        KeyProblemError: If Kalshi lists it without what that takes.
    """
    own = next((listing for listing in listed if listing.api_key_id == api_key_id), None)
    if own is None or may_manage(own):
        return
    others = ", ".join(f"{listing.name} ({listing.api_key_id})" for listing in listed if manages_keys(listing))
    raise KeyProblemError(
        f"API key {api_key_id} ({own.name!r}) can't manage API keys: it has {describe_rights(own)}, and managing needs "
        f"the scope {_MANAGING_SCOPE} and no subaccount; nothing was done",
        hint="let another key sign, by --auth NAME or as the bootstrap key"
        + (f"; keys that can: {others}" if others else "; the account has none: make one on Kalshi's account page"),
    )


def scopes_of(listing: ApiKey) -> list[str]:
    """Return the scopes; ``write`` comes with ``read``, whether Kalshi lists that or not."""
    extra = ["read"] if "write" in listing.scopes else []
    return list(dict.fromkeys([*extra, *listing.scopes]))


def rights_of(listing: ApiKey) -> tuple[frozenset[str], int | None, str | None]:
    """Return what is equal for API keys that may do the same."""
    return frozenset(scopes_of(listing)), listing.subaccount, listing.fcm_subtrader_id


def describe_rights(listing: ApiKey) -> str:
    """Return it in words."""
    restriction = "all subaccounts" if listing.subaccount is None else f"subaccount {listing.subaccount}"
    if listing.fcm_subtrader_id is not None:
        restriction = f"FCM subtrader {listing.fcm_subtrader_id}"
    return f"the scopes {', '.join(listing.scopes) or '(none listed)'} on {restriction}"


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
            f"an earlier run registered {name!r} as API key {listing.api_key_id}, with "
            f"{describe_rights(listing)}: other rights than this command asks for; nothing was changed",
            hint="leave --scope and --subaccount out to keep that key; for a new one, after that run "
            f"`hsm-keys revoke {name} --destroy`",
        )
