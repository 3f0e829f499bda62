"""What is left of the caps of proxies that don't run, from the journals in their state folders."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.proxy.journal import JournalError, read_journal
from hsm_keys.proxy.locations import states_folder
from hsm_keys.proxy.remaining import remaining
from hsm_keys.proxy.reservations import Reservations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hsm_keys.proxy.policy import Policy

__all__ = ["Ledger", "ledgers"]

_log: Final = logging.getLogger(__name__)


class Ledger:
    """A proxy's journal of the caps, which is only read.

    Args:
        name: The name of the proxy's key.
        reservations: What the journal says is held.
    """

    def __init__(self, name: str, reservations: Reservations) -> None:
        self.name: Final = name
        self._reservations = reservations

    def left(self, policy: Policy, client: str) -> list[dict[str, Any]]:
        """Return what a client, and all together, have left of a policy's caps; see ``remaining``."""
        self._reservations.account(client)  # a client that hasn't traded has everything left
        return [row for row in remaining(policy, self._reservations) if row["client"] in {client, None}]


def ledgers(*, without: Collection[str]) -> Iterator[Ledger]:
    """Give the ledgers that lie in this user's state folder; what can't be read is logged and left out.

    Args:
        without: Names of proxies whose ledgers aren't wanted.
    """
    for path in sorted(states_folder().glob("*/caps/journal")):
        name = path.parent.parent.name
        if name in without:
            continue
        try:
            yield Ledger(name, Reservations.replayed(read_journal(path)))
        except (OSError, JournalError) as error:
            _log.warning("the ledger %s can't be read: %s", path, error)
