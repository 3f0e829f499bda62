"""Which key of a store signs management calls: a key of this environment that Kalshi lists with the rights for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import HsmKeysError, KeyProblemError, KeyUnusableError, SigningError
from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables
from hsm_keys.kalshi.errors import ClockError, ForbiddenError, UnauthorizedError
from hsm_keys.lifecycle.rights import manages_keys, may_manage
from hsm_keys.stores.condition import Usability
from hsm_keys.stores.key_names import ENDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.inspecting.proof_of_possession import Connect
    from hsm_keys.kalshi.models import ListApiKeysResponse
    from hsm_keys.stores.base import StoredKey

__all__ = ["Manager", "find_manager"]


def _hint(environment: str) -> str:
    variables = bootstrap_variables(environment).to_set
    return f"choose the key that signs management calls: --auth NAME, or {variables}"


@dataclass(frozen=True, slots=True)
class Manager:
    """What signs management calls.

    Args:
        key: The key.
        answer: Kalshi's list, if it was read with this very key and is for looking alone.
    """

    key: StoredKey
    answer: ListApiKeysResponse | None = None


def find_manager(
    keys: Sequence[StoredKey],
    connect: Connect,
    environment: str,
    *,
    changes: bool,
    prefer: str | None = None,
    avoid: str | None = None,
) -> Manager | None:
    """Return the key that signs management calls; nothing is changed. One GET request, where the first key can ask.

    Args:
        keys: The store's keys.
        connect: Makes a client of the environment for a signer.
        environment: The environment, as ``environment_name`` gives it.
        changes: Whether the calls make or delete API keys; else they list them.
        prefer: The name of the key to take before others.
        avoid: The name or API key id of the key to take after all others, since it is about to end.

    Returns:
        The key; None if none of this environment is registered, or the store is about to delete all that are.

    Raises:
        KeyProblemError: If none can do it.
        KalshiError: If Kalshi lets none of them list the account's keys.
        NetworkError: If there is no answer.
    """
    candidates = [key for key in keys if key.api_key_id is not None and key.environment in {None, environment}]

    def ends(key: StoredKey) -> bool:
        return avoid in {key.name, key.name.removesuffix(ENDING), key.api_key_id}

    candidates.sort(key=lambda key: (ends(key), key.name != prefer, "+" in key.name, key.name))
    if not candidates:
        return None
    try:
        asked = _list_with_any(candidates, connect, _hint(environment))
    except UnauthorizedError:
        if not ends(candidates[-1]):
            raise
        return Manager(candidates[-1])  # an earlier run may have ended it: the caller checks Kalshi's answer for it
    if asked is None:
        return None
    client, answer = asked
    if not changes:
        return Manager(client, answer)
    rights = {listing.api_key_id: listing for listing in answer.api_keys}
    for can in (manages_keys, may_manage):
        for key in candidates:
            listing = rights.get(str(key.api_key_id))
            if listing is not None and can(listing):
                return Manager(key)
    names = ", ".join(repr(key.name) for key in candidates)
    raise KeyProblemError(
        f"no key of the store can manage API keys ({names}): that needs the scope write and no subaccount; "
        "nothing was done",
        hint=_hint(environment),
    )


def _list_with_any(
    candidates: Sequence[StoredKey], connect: Connect, hint: str
) -> tuple[StoredKey, ListApiKeysResponse] | None:
    """Return the first key that may list the account's keys, and what Kalshi lists; None if all are being deleted."""
    refusal: HsmKeysError | None = None
    for key in candidates:
        try:
            with connect(key.signer()) as client:
                return key, client.api_keys.list()
        except ClockError:
            raise
        except (UnauthorizedError, ForbiddenError, SigningError, KeyUnusableError) as error:
            if not (isinstance(error, KeyUnusableError) and key.condition().usability is Usability.ENDING):
                refusal = refusal or error
    if refusal is None:
        return None
    raise refusal.amend(further_hint=hint)
