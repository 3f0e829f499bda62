"""The account at Kalshi as one command sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.kalshi.errors import ForeignListError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.kalshi.models import ApiKey, ListApiKeysResponse
    from hsm_keys.signing.signer import RequestSigner

__all__ = ["Account", "unclaimed"]


class Account:
    """An account, whose list of API keys is read once: what only looks judges by one list.

    What changes keys reads the list again where it has to be true at that moment: under the lock on the key's name, and
    after each request that changes the list.

    Args:
        client: Signs the management calls.
        connect: Makes a client of the same environment for another signer.
        answer: Kalshi's list, if somebody has read it with the same signer.
    """

    def __init__(
        self,
        client: KalshiClient,
        connect: Callable[[RequestSigner], KalshiClient],
        answer: ListApiKeysResponse | None = None,
    ) -> None:
        self.client = client
        self.connect = connect
        self._known = answer

    @property
    def environment(self) -> str:
        """The name of the account's environment, as stores keep it beside a key."""
        return self.client.environment

    @property
    def manager_id(self) -> str:
        """The id of the API key that signs the management calls."""
        return self.client.signer.api_key_id

    def list_now(self) -> list[ApiKey]:
        """Ask for the list again, and return the account's API keys; raises as ``answer`` does."""
        return self._checked(self.client.api_keys.list()).api_keys

    @property  # up to Python 3.11 cached_property would hold one lock for all accounts while Kalshi answers
    def answer(self) -> ListApiKeysResponse:
        """Kalshi's list, with what comes beside it.

        Raises:
            KalshiError: If Kalshi refuses it.
            NetworkError: If there is no answer, or what came can't be this account's list.
        """
        if self._known is None:
            self._known = self.client.api_keys.list()
        return self._checked(self._known)

    def _checked(self, answer: ListApiKeysResponse) -> ListApiKeysResponse:
        """Refuse a list that leaves out the API key that signed for it: what else it leaves out may live."""
        own = self.manager_id.casefold()
        if all(listing.api_key_id.casefold() != own for listing in answer.api_keys):
            raise ForeignListError(
                f"the list of API keys doesn't have {self.manager_id}, which signed the request for it: the list is "
                "another account's, or not complete, so it proves nothing",
                hint="check the base URL, and a proxy on the way; a key that is seconds old may not be listed yet: "
                "run the same command again, or let another API key sign (--auth NAME)",
            )
        return answer

    @property
    def listed(self) -> list[ApiKey]:
        """The account's API keys; raises as ``answer`` does."""
        return self.answer.api_keys


def unclaimed(listed: Iterable[ApiKey], claimed: Iterable[str | None]) -> list[ApiKey]:
    """Return those API keys that none of the ids names: no key that is at hand is known to sign for them.

    Args:
        listed: What Kalshi lists.
        claimed: The ids that keys at hand are bound to; None for a key that is bound to none.
    """
    claims = set(claimed)
    return [api_key for api_key in listed if api_key.api_key_id not in claims]
