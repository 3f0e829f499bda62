"""What a rotation carries over: the successor may do what the old API key may do, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import KalshiError, KeyProblemError
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.lifecycle.rights import describe_rights, rights_of, scopes_of
from hsm_keys.stores.key_names import SUCCESSOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["check_same_rights", "listing_of", "wanted_like"]


def listing_of(old: StoredKey, listed: Sequence[ApiKey]) -> ApiKey:
    """Return what Kalshi lists of the old key.

    Raises:
        KeyProblemError: If Kalshi doesn't list it.
    """
    listing = _find(old, listed)
    if listing is None:
        raise KeyProblemError(
            f"Kalshi doesn't list API key {old.api_key_id} of {old.name!r}: it was deleted, or belongs to another "
            "account than the key that signs this call; there is nothing to rotate",
            hint="see what Kalshi makes of its signature: hsm-keys reconcile; if it is dead, enroll anew under another "
            "name",
        )
    return listing


def wanted_like(name: str, old: ApiKey, listed: Sequence[ApiKey]) -> ApiKeyRequest:
    """Return what the old API key has. Its name is taken at Kalshi, which may or may not matter there."""
    names = {listing.name for listing in listed}
    spare = next(f"{name}-{number}" for number in range(2, len(names) + 3) if f"{name}-{number}" not in names)
    return ApiKeyRequest(
        name=name,
        scopes=scopes_of(old) or None,
        subaccount=old.subaccount,
        fcm_subtrader_id=old.fcm_subtrader_id,
        spare_name=spare,
        by_hand=f"this account may not register keys by API (below Premier): paste the PEM of "
        f"`hsm-keys public-key {name}{SUCCESSOR}` on Kalshi's account page, run `hsm-keys adopt {name}{SUCCESSOR} "
        f"--api-key-id ID` with the id that it shows, then `hsm-keys rotate {name}` again",
        as_listed=True,
    )


def check_same_rights(name: str, old: StoredKey, new: StoredKey, listed: Sequence[ApiKey]) -> None:
    """Make sure that the successor may do what the old key may, as far as Kalshi lists it.

    A listing without scopes, or a choice on the account page, could have given it more, or less.

    Raises:
        KeyProblemError: If it may do something else.
        KalshiError: If Kalshi doesn't list the successor (yet).
    """
    before, after = _find(old, listed), _find(new, listed)
    if before is None:
        return  # it was ended meanwhile: there is nothing to compare with, and nothing to go back to
    if after is None:
        raise KalshiError(
            f"Kalshi doesn't list API key {new.api_key_id} of {new.name!r} yet; {name!r} is as it was",
            hint="run the same command again",
        )
    if rights_of(before) != rights_of(after):
        raise KeyProblemError(
            f"API key {new.api_key_id}, which is to replace {name!r}, has {describe_rights(after)}, and the old one "
            f"has {describe_rights(before)}; {name!r} is as it was",
            hint=f"end the new one with `hsm-keys rotate {name} --abort`; then rotate again, or enroll a key under "
            "another name with the --scope and --subaccount that it needs",
        )


def _find(key: StoredKey, listed: Sequence[ApiKey]) -> ApiKey | None:
    return next((listing for listing in listed if listing.api_key_id == key.api_key_id), None)
