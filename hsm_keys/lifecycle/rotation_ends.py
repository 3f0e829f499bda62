"""Ending the keys of a rotation: first the API key, with a proof of its end, then the private half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.inspecting.proof_of_possession import can_sign, find_registration, is_going
from hsm_keys.kalshi.account import unclaimed
from hsm_keys.lifecycle.ending import end_api_key
from hsm_keys.lifecycle.late_registration import check_no_other_registration, check_none_since, find_last_registration
from hsm_keys.lifecycle.rotation_marks import overtaken, same
from hsm_keys.stores.abilities import RenamesKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["RotationEnds"]

_KEPT_ID_LENGTH: Final = 8


class RotationEnds:
    """Ends keys of one store.

    Args:
        store: Where the private halves are.
        account: Where the API keys are.
        report: Called with a line for people after each step.
    """

    def __init__(self, store: KeyStore, account: Account, report: Callable[[str], None]) -> None:
        self._store = store
        self._account = account
        self._report = report

    def end_old(self, old: StoredKey, *, keep_old: bool, name: str) -> None:
        """End the old key, whose name says that its end has begun.

        Args:
            old: The key.
            keep_old: Keep the private half, as ``NAME+kept-XXXXXXXX``.
            name: The name that it had.

        Raises:
            KeyProblemError: If its pair has a further API key; nothing is destroyed.
            EndNotProvedError: If it isn't certain that the API key is dead; nothing is destroyed.
            KalshiError: If Kalshi refuses.
        """
        api_key_id = self._last_id(old)
        listed = self._account.list_now()
        if not keep_old:
            check_no_other_registration(self._account.connect, old, self.unclaimed(listed), api_key_id)
        if api_key_id is not None:
            left = end_api_key(self._account, api_key_id, old, self._report)
            if not keep_old:
                check_none_since(self._account.connect, old, listed, left, old.api_key_id)
        if keep_old:
            name_of_kept = f"{name}+kept-{(api_key_id or 'unknown')[:_KEPT_ID_LENGTH]}"
            old_kept = RenamesKeys.of(self._store).rename(old, name_of_kept)
            self._report(f"kept the old private half as {old_kept.name!r}")
        else:
            self.destroy(old, "the old private half")

    def end_successor(self, new: StoredKey) -> None:
        """End a successor whose name says so: nobody registers it any more, or gives it the name.

        Raises:
            KeyBusyError: If another machine has given it the name after all; nothing is deleted.
        """
        api_key_id = self._last_id(new)
        listed = self._account.list_now()
        # Kalshi may have carried the registration out twice: first the API key whose id no store holds.
        if can_sign(new):
            connect = self._account.connect
            while other := find_registration(connect, new, unclaimed(self.unclaimed(listed), [api_key_id])):
                listed = end_api_key(self._account, other, new, self._report)
        if api_key_id is not None:
            left = end_api_key(self._account, api_key_id, new, self._report, check=lambda: self._check_named(new))
            check_none_since(self._account.connect, new, listed, left, new.api_key_id)
        self.destroy(new, f"the successor {new.name!r}")

    def _check_named(self, key: StoredKey) -> None:
        """Check that a key that is about to end is called what it was: a `--finish` may have begun to keep it."""
        if not any(each.name == key.name and same(each, key) for each in self._store.keys()):
            raise overtaken(key.name.partition("+")[0])

    def destroy(self, key: StoredKey, what: str) -> None:
        """Destroy a private half; ``what`` is what people are told that it is."""
        self._store.destroy(key)
        days = self._store.deletion_days
        self._report(f"scheduled the deletion of {what}, in {days} days" if days else f"destroyed {what}")

    def unclaimed(self, listed: Sequence[ApiKey] | None = None) -> list[ApiKey]:
        """Return Kalshi's list without the API keys that the store's keys are bound to."""
        listed = self._account.list_now() if listed is None else listed
        return unclaimed(listed, (key.api_key_id for key in self._store.keys()))

    def _last_id(self, key: StoredKey) -> str | None:
        """Return the API key id of a pair that is to end; its registration may have been on its way."""
        if key.api_key_id is not None or is_going(key):
            return key.api_key_id
        claimed = {kept.api_key_id for kept in self._store.keys()}
        listing = find_last_registration(self._account, key, claimed, self._report)
        return listing.api_key_id if listing else None
