"""Ending an API key at Kalshi: delete it, even if the answer gets lost, and prove that it is dead.

A status proves nothing: a CDN, a gateway or a server of another environment sends the same 401, 403 and 404, and so
does Kalshi if this clock is wrong. An end is proved by three things together, in the environment of the key's mark:

1. Kalshi's list of the account's API keys doesn't have the API key. A list counts only if it has the API key that
   signed the request for it: then it is this account's list, and not another successful answer.
2. Kalshi refuses a request signed with the key's own private half with the error for an unknown API key id
   (401, ``authentication_error``, ``NOT_FOUND``). After any other 401, such as for a wrong signature, it may be alive.
3. Kalshi knew the API key there: it listed it before it was asked to delete it, or confirmed the deletion (204).
   If it wasn't listed, as after a run that was killed, (1) and (2) are checked twice with some time between, because a
   key that was registered a moment ago isn't known everywhere yet. So also if the deletion was confirmed: that may be
   carried out a moment later.

If one of them isn't available:

* The list can't be read, because the key that signs the request for it is the one that ended. Then only (2) is left,
  and Kalshi gives the same answer for a key that isn't known yet (and a restarted sandbox for any key). So (2) counts
  only if Kalshi listed the key before: in this run, or in an earlier one, which left the mark ``NAME+ending`` before it
  sent the DELETE.
* The key can't sign any more (disabled in KMS, or its deletion is scheduled). Then (1) and (3) have to do, and the
  command doesn't say "proved". If the deletion is scheduled already, (3) isn't needed: nothing more is destroyed.
* The private half isn't in the store. Then the API key's own environment isn't known, and Kalshi's 404 may mean that it
  belongs to another one: without (3) nothing is proved.
* Somebody other than Kalshi answers, or nobody, or the clock is wrong: nothing is proved.

If an end isn't proved, the command exits with 7, says what answered, and destroys nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import stamina

from hsm_keys.errors import EndNotProvedError, KalshiError, NetworkError, OutcomeUnknownError
from hsm_keys.inspecting.proof_of_possession import Standing, can_sign, is_going, says_unknown, standing_of
from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables
from hsm_keys.kalshi.errors import ForeignListError, NotFoundError, RefusedError, UnauthorizedError
from hsm_keys.signing.environments import check_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.account import Account
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["LATE_S", "SETTLE_S", "end_api_key", "end_unused", "outwait", "settle"]

_ATTEMPTS: Final = 4  # a key that was deleted a moment ago may still be known somewhere
_PATIENCE_S: Final = 10.0
SETTLE_S: Final = 2.0
"""Seconds between two looks, where Kalshi may not have carried out yet what it was asked for."""
LATE_S: Final = 60.0
"""Seconds after which Kalshi carries out no request any more: it refuses one whose time is off by that much (401,
``header_timestamp_expired``). How much less is too much isn't documented."""


class _StillThere(Exception):  # noqa: N818 - a state, not an error
    """Kalshi still lists the key, or takes its signature."""


def settle() -> None:
    """Wait until Kalshi has carried out the latest requests, and the result is visible everywhere."""
    time.sleep(SETTLE_S)


def outwait(what: str, before: str, report: Callable[[str], None]) -> None:
    """Wait until Kalshi would refuse every request that was signed before now, even if it is still on the way.

    Args:
        what: What it was asked for.
        before: What happens then.
        report: Called with a line for people.
    """
    report(f"{what} was begun, and Kalshi may still carry it out: waiting {LATE_S:.0f} s before {before}")
    time.sleep(LATE_S)


def end_api_key(
    account: Account,
    api_key_id: str,
    key: StoredKey | None,
    report: Callable[[str], None],
    *,
    begun: bool = False,
    check: Callable[[], None] | None = None,
) -> list[ApiKey]:
    """Delete an API key, and prove that it is dead. It is no error if it was deleted before and that can be proved.

    Returns the last list that Kalshi gave: the one that leaves it out, unless the same key signs for the list.

    Args:
        account: Where the API key is; what signs for it may be that very key.
        api_key_id: What to delete.
        key: Its private half, which signs the proof; None if it isn't at hand.
        report: Called with a line for people.
        begun: Whether an earlier run marked the key when Kalshi listed it, and was about to delete it.
        check: Called once the deletion is signed, and before it is sent; raises if the API key must stay. A deletion
            that is delayed from then on is too old for Kalshi after ``LATE_S`` seconds.

    Raises:
        WrongEnvironmentError: If the key belongs to another environment; nothing was sent.
        RefusedError: If Kalshi refuses to list or to delete API keys: nothing was deleted.
        KalshiError: If Kalshi still takes the key afterwards.
        OutcomeUnknownError: If it isn't known whether the key was deleted; run again, it is looked up.
        EndNotProvedError: If nothing proves that it is dead.
    """
    if key is not None:
        check_environment(key.name, key.environment, account.environment)
    end = _End(account, api_key_id, key)
    listed = end.is_listed()
    if listed is None and not begun:
        raise end.unproved(
            "Kalshi doesn't know it, and its list can't be read, since the same key signs for that: it may not be "
            "known yet, or this is a sandbox that was started anew",
            f"let another API key sign: {bootstrap_variables(account.environment).id}, or --auth NAME; Kalshi's "
            "account page makes one",
        )
    lived = begun or bool(listed)
    deleted = end.delete(lived=lived, check=check)
    report(f"deleted API key {api_key_id} at Kalshi" if deleted else f"Kalshi doesn't know API key {api_key_id}")
    if key is not None and can_sign(key):
        end.prove(lived=lived)
        report("proved it: Kalshi refuses its signature as of an unknown API key (401), and doesn't list it any more")
        return end.left
    if not (lived or deleted) and (key is None or not is_going(key)):
        raise end.unproved(
            f"Kalshi doesn't know it in the environment {account.environment}: it was deleted there, "
            "or belongs to another environment or account",
            "see what there is with `hsm-keys list`, and choose the environment with --env or --base-url"
            if key is None
            else f"enable {key.name!r} in its store, so that it can sign the proof",
        )
    end.prove_by_list(lived=lived)
    if key is not None:
        report(f"{key.name!r} can't sign any more, so only Kalshi's answers say that its API key has ended")
    return end.left


def end_unused(account: Account, api_key_id: str, report: Callable[[str], None]) -> None:
    """Delete an API key that Kalshi has just made or listed, and nobody uses; that it is gone already is as good.

    Args:
        account: Where the API key is.
        api_key_id: What to delete.
        report: Called with a line for people.

    Raises:
        KalshiError: If Kalshi refuses, or lists it still.
        OutcomeUnknownError: If the answer was lost and Kalshi lists it still.
    """
    try:
        end_api_key(account, api_key_id, None, report)
    except EndNotProvedError:
        settle()  # another run has deleted it, or it is so new that it isn't known everywhere
        end_api_key(account, api_key_id, None, report, begun=True)


class _End:
    """The end of one API key: deleting it, and looking whether it is dead."""

    def __init__(self, account: Account, api_key_id: str, key: StoredKey | None) -> None:
        self._account = account
        self._api_key_id = api_key_id
        self._key = key
        self.left: list[ApiKey] = []
        """What Kalshi listed when it was asked last."""

    def unproved(self, why: str, hint: str) -> EndNotProvedError:
        """Return the error that says why."""
        return EndNotProvedError(
            f"it isn't proved that API key {self._api_key_id} is dead: {why}. Nothing was destroyed", hint=hint
        )

    def is_listed(self) -> bool | None:
        """Tell whether Kalshi lists it; None if the list can't be read, since the same key signs for it.

        Raises:
            KalshiError: If Kalshi refuses the list.
            NetworkError: If there is no answer.
            EndNotProvedError: If what came isn't the account's list.
        """
        try:
            self.left = list(self._account.list_now())
        except UnauthorizedError as error:
            if not self._signs_itself():
                raise
            if says_unknown(error):
                return None
            raise self.unproved(error.message, error.hint) from None
        except ForeignListError as error:
            raise self.unproved(error.message, error.hint) from None
        ids = {listing.api_key_id for listing in self.left}
        return self._api_key_id in ids

    def _signs_itself(self) -> bool:
        return self._account.manager_id == self._api_key_id

    def delete(self, *, lived: bool, check: Callable[[], None] | None = None) -> bool:
        """Delete, and tell whether it was there; an answer that was lost is settled by looking."""
        try:
            if check is None:
                self._account.client.api_keys.delete(self._api_key_id)
            else:
                send = self._account.client.api_keys.prepare_delete(self._api_key_id)
                check()
                send()
        except NotFoundError:
            return False
        except UnauthorizedError as error:
            if not (self._signs_itself() and says_unknown(error)):
                raise
            return False  # an earlier run has deleted the key that signs this
        except OutcomeUnknownError:
            if not lived or self.is_listed():
                raise
        return True

    def prove_by_list(self, *, lived: bool) -> None:
        """Prove that it is dead by the list alone; see ``prove``."""
        for number in range(1 if lived else 2):
            if number:
                settle()
            self._wait_for_list()

    def _wait_for_list(self) -> None:
        """Wait until Kalshi doesn't list it any more.

        Raises:
            KalshiError: If it still does after some seconds.
            EndNotProvedError: If something else than Kalshi answers, or Kalshi says something else.
        """
        try:
            self._look(lambda: bool(self.is_listed()), "lists it")
        except EndNotProvedError:
            raise
        except (NetworkError, RefusedError) as error:
            raise self.unproved(error.message, error.hint) from None

    def prove(self, *, lived: bool) -> None:
        """Prove that it is dead, by the list and by its own signature.

        Args:
            lived: Whether Kalshi listed it before it was deleted; else the looks are repeated.

        Raises:
            KalshiError: If Kalshi lists it or takes its signature, still after some seconds.
            EndNotProvedError: If something else than Kalshi answers, or Kalshi says something else.
        """
        for number in range(1 if lived else 2):
            if number:
                settle()
            self._wait_for_list()
            try:
                self._look(self._is_taken, "takes its signature")
            except EndNotProvedError:
                raise
            except (NetworkError, RefusedError) as error:
                raise self.unproved(error.message, error.hint) from None

    def _is_taken(self) -> bool:
        if self._key is None:
            return False
        standing = standing_of(self._account.connect, self._key, self._api_key_id)
        if standing is Standing.REFUSED:
            raise self.unproved(
                "Kalshi refuses its signature (401), and doesn't say that it doesn't know the key",
                "it may belong to another pair: see `hsm-keys reconcile`, and Kalshi's account page",
            )
        return standing is Standing.TAKEN

    def _look(self, there: Callable[[], bool], what: str) -> None:
        try:
            for attempt in stamina.retry_context(on=_StillThere, attempts=_ATTEMPTS, timeout=_PATIENCE_S, wait_max=2.0):
                with attempt:
                    if there():
                        raise _StillThere
        except _StillThere:
            raise KalshiError(
                f"API key {self._api_key_id} isn't dead: Kalshi still {what}",
                hint="it may belong to another account than the key that signs this call (--auth); look at Kalshi's "
                "account page, and run the same command again",
            ) from None
