"""Finds at which step a rotation stopped, and first repairs what crashes and other machines have left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hsm_keys.errors import KeyProblemError
from hsm_keys.inspecting.proof_of_possession import accepts, can_sign, find_registration, is_going
from hsm_keys.lifecycle.late_registration import find_late_registration
from hsm_keys.lifecycle.rotation_marks import (
    Stage,
    finish_renames,
    forsaken,
    id_of,
    in_hand,
    is_stray,
    is_surplus,
    overtaken,
    parts,
    renamed,
)
from hsm_keys.signing.environments import check_environment
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.key_names import ABORTING, ENDING, FINISHING, rotation_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle.registering import Registrar
    from hsm_keys.lifecycle.rotation_ends import RotationEnds
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["RotationRecovery"]


class RotationRecovery:
    """Puts right what interrupted rotations have left in one store.

    Args:
        store: Where the private halves are.
        account: Where the API keys are.
        report: Called with a line for people after each step.
        registrar: Binds API key ids.
        ends: Ends keys.
    """

    def __init__(
        self,
        store: KeyStore,
        account: Account,
        report: Callable[[str], None],
        *,
        registrar: Registrar,
        ends: RotationEnds,
    ) -> None:
        self._store = store
        self._account = account
        self._report = report
        self._registrar = registrar
        self._ends = ends

    def stage(self, name: str) -> Stage:
        """Return how far the rotation of a name has come; hold the lock on the name.

        Raises:
            WrongEnvironmentError: If one of its keys belongs to another environment; nothing was done.
            KeyNotFoundError: If there is no such key.
            ForeignKeyError: If a key that isn't ours has a name that the rotation goes by.
            KeyProblemError: If the store holds what no rotation leaves, or what a person has to decide.
            KeyBusyError: If another machine is working on it.
            KalshiError: If Kalshi refuses.
        """
        self._check_environments(name)
        self._tidy(name)
        stage = self._without_twin(name)
        if self._marked_late(stage):
            stage = replace(stage, current=stage.retired)
        if stage.current is None or stage.current.name == name:
            return stage
        self._give_back(name, stage.current)
        return Stage.read(self._store, name)

    def _check_environments(self, name: str) -> None:
        """Refuse keys of another environment, but for a pair that another machine made there and never registered."""
        members = {key.name: key for key in in_hand(self._store, name)}
        current, successor, retired = parts(members, name)
        if current is not None and not current.registering and is_stray(current, successor, retired):
            del members[name]
        for key in members.values():
            check_environment(key.name, key.environment, self._account.environment)

    def _tidy(self, name: str) -> None:
        """Mend the keys of a rotation, and end those that are of no use any more."""
        for label in rotation_names(name):
            self._store.mend(label)
        finish_renames(self._store, name)
        self._end_forsaken(name)
        keys = {key.name: key for key in self._store.keys()}
        current, successor, retired = parts(keys, name)
        if successor is not None and is_going(successor):  # whoever ended it was killed: all that is left is the name
            self._ends.destroy(successor, f"the successor {successor.name!r}")
        elif successor is not None and is_surplus(current, successor, retired):
            self._ends.end_successor(renamed(self._store, successor, name + ABORTING))
        elif current is not None and is_stray(current, successor, retired):
            self._end_stray(name, current)
        if retired is not None and retired.api_key_id is None and can_sign(retired):  # it was registered
            self._registrar.bind_again(retired)

    def _end_forsaken(self, name: str) -> None:
        """End the successor of an earlier rotation, whose abort was interrupted.

        Raises:
            KeyProblemError: If no other key works.
        """
        keys = {key.name: key for key in self._store.keys()}
        condemned = forsaken(keys, name)
        if condemned is None:
            return
        current, successor, retired = parts(keys, name)
        if self._works(condemned) and not any(map(self._works, (current, successor, retired))):
            raise KeyProblemError(
                f"`rotate {name} --abort` was interrupted before it had ended {condemned.name!r}, and Kalshi takes no "
                f"other key of {name!r}; nothing was done",
                hint=f"see them with `hsm-keys reconcile`; to end this one: hsm-keys revoke {condemned.name} --destroy",
            )
        if current is None and retired is not None and (successor is None or successor.api_key_id is None):
            self._give_back(name, retired)  # else the name would lead to a successor that isn't registered
        self._ends.end_successor(condemned)

    def _works(self, key: StoredKey | None) -> bool:
        if key is None or key.api_key_id is None or not can_sign(key):
            return False
        return accepts(self._account.connect, key, key.api_key_id)

    def _without_twin(self, name: str) -> Stage:
        """Return how far the rotation has come, once each key has one name."""
        stage = Stage.read(self._store, name)
        twin = stage.twin
        if twin is None:
            return stage
        RenamesKeys.of(self._store).rename(twin, name)
        self._report(f"removed the name {twin.name!r}, which meant the key of {name!r} too")
        return Stage.read(self._store, name)

    def _give_back(self, name: str, key: StoredKey) -> None:
        """Give a key its name back: the one that was to get it has ended.

        Raises:
            KeyProblemError: If the end of this one had begun, too, and Kalshi doesn't take it any more.
        """
        # A finish may have marked it while another machine's abort gave the name back to it: then it lives.
        if key.name.endswith(FINISHING) and not accepts(self._account.connect, key, id_of(key)):
            raise KeyProblemError(
                f"all that is left of {name!r} is {key.name!r}, and Kalshi doesn't take it any more",
                hint=f"end it: hsm-keys revoke {key.name} --destroy",
            )
        RenamesKeys.of(self._store).rename(key, name)

    def _end_stray(self, name: str, stray: StoredKey) -> None:
        """End a key that another machine made while the name was handed over.

        Raises:
            KeyProblemError: If Kalshi knows it: somebody may use it.
            KeyBusyError: If another machine has registered it meanwhile.
        """
        claimed = {key.api_key_id for key in self._store.keys()}
        listing = find_late_registration(self._account, stray, claimed)
        if listing is not None:
            raise KeyProblemError(
                f"another key called {name!r} was made while a rotation handed the name over, and Kalshi knows it as "
                f"API key {listing.api_key_id}; nothing was done",
                hint=f"if nobody uses it: hsm-keys revoke {listing.api_key_id}, then the same command again",
            )
        condemned = renamed(self._store, stray, name + ENDING)
        if condemned.api_key_id != stray.api_key_id:
            renamed(self._store, condemned, name)
            raise overtaken(name)
        self._ends.end_successor(condemned)

    def _marked_late(self, stage: Stage) -> bool:
        """Tell whether a finish marked the old key that an abort had given its name back, and another rotation begun.

        The finish itself gives way then. Nobody gives the name to a successor that Kalshi doesn't know.
        """
        old, new = stage.retired, stage.successor
        if old is None or new is None or stage.current is not None or not stage.finishing or new.api_key_id is not None:
            return False
        if not can_sign(old) or not accepts(self._account.connect, old, id_of(old)):
            return False
        return not can_sign(new) or find_registration(self._account.connect, new, self._ends.unclaimed()) is None
