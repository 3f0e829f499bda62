"""Rotating: a new key takes the name, the old one dies; killed anywhere, the same command goes on.

What the store holds says how far it has come (``rotation_marks``).

The old API key is deleted only after Kalshi has answered a request signed by the new one. Whichever of the two is to
end loses its name first, and then it is looked whether the other one still has its own: so where one machine finishes
and another one aborts, at most one goes on, and neither ends what the other one keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsm_keys.errors import (
    KeyExistsError,
    KeyNotFoundError,
    KeyNotRegisteredError,
    KeyProblemError,
)
from hsm_keys.inspecting.custody import CustodyReport, examine_custody, prove_custody
from hsm_keys.inspecting.proof_of_possession import (
    Standing,
    accepts,
    can_sign,
    is_arriving,
    is_going,
    prove_registration,
    standing_of,
)
from hsm_keys.lifecycle.ending import outwait, settle
from hsm_keys.lifecycle.late_registration import (
    check_no_other_registration,
)
from hsm_keys.lifecycle.locking import exclusive
from hsm_keys.lifecycle.registering import Registrar
from hsm_keys.lifecycle.rights import check_manages
from hsm_keys.lifecycle.rotation_ends import RotationEnds
from hsm_keys.lifecycle.rotation_marks import Stage, id_of, is_surplus, overtaken, parts, renamed, same
from hsm_keys.lifecycle.rotation_recovery import RotationRecovery
from hsm_keys.lifecycle.successor_rights import check_same_rights, listing_of, wanted_like
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.key_names import ABORTING, FINISHING, RETIRED, ROTATION, SUCCESSOR, check_new_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.account import Account
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["Rotation", "Rotator"]


@dataclass(frozen=True, slots=True)
class Rotation:
    """How a call ended.

    Args:
        key: The key that has the name now.
        custody: What speaks for its custody.
        retired: The old key, while it is still usable; None after it was ended.
        stage: ``grace``: both work; ``done``: the old one is dead; ``aborted``: the old one has its name back.
    """

    key: StoredKey
    custody: CustodyReport
    retired: StoredKey | None
    stage: str


class Rotator:
    """Rotates keys of one store.

    Args:
        store: Where the private halves are.
        account: Where the API keys are.
        report: Called with a line for people after each step.
    """

    def __init__(self, store: KeyStore, account: Account, report: Callable[[str], None]) -> None:
        self._store = store
        self._account = account
        self._report = report
        self._registrar = Registrar(store, account, report)
        self._ends = RotationEnds(store, account, report)
        self._recovery = RotationRecovery(store, account, report, registrar=self._registrar, ends=self._ends)

    def advance(self, name: str) -> Rotation:
        """Take a rotation from nothing, or from where it stopped, to where the successor has the name.

        Raises:
            KeyNotFoundError: If there is no such key.
            KeyNotRegisteredError: If it isn't bound to an API key.
            WrongEnvironmentError: If a key of that name belongs to another environment; so for all three.
            ForeignKeyError: If a key that isn't ours has a name that the rotation goes by; so for all three.
            KeyBusyError: If another run is working on it.
            KeyProblemError: If Kalshi doesn't give the successor what the old key may do; the old one keeps its name.
            KalshiError: If Kalshi refuses; the old key keeps its name and works.
        """
        with exclusive(self._store, check_new_name(name)):
            stage = self._recovery.stage(name)
            if not stage.handed_over:
                stage = self._hand_over(name, stage)
            return self._in_grace(stage)

    def finish(self, name: str, *, keep_old: bool) -> Rotation:
        """End the old key: delete its API key, prove that it is dead, destroy its private half.

        Args:
            name: The name.
            keep_old: Keep the private half, as ``NAME+kept-XXXXXXXX``.

        Raises:
            KeyProblemError: If there is no rotation of that name to finish.
        """
        with exclusive(self._store, check_new_name(name)):
            stage = self._recovery.stage(name)
            if not stage.under_way:
                raise KeyProblemError(
                    f"no rotation of {name!r} is under way", hint=f"begin one: hsm-keys rotate {name}"
                )
            if not stage.handed_over:
                stage = self._hand_over(name, stage)
            else:
                self._clear_surplus(name)
            rotation = self._in_grace(stage)
            if rotation.retired is not None:
                prove_registration(self._account.connect, rotation.key, id_of(rotation.key))
                old = self._condemned(name, rotation.retired, FINISHING, keeps=rotation.key)
                self._ends.end_old(old, keep_old=keep_old, name=name)
        return Rotation(rotation.key, rotation.custody, None, "done")

    def _clear_surplus(self, name: str) -> None:
        if self._store.clear(name + SUCCESSOR):
            self._report(f"ended a successor of {name!r} that another machine had begun to make")

    def _condemned(self, name: str, key: StoredKey, mark: str, *, keeps: StoredKey) -> StoredKey:
        """Begin a key's end, so that no other machine gives it the name any more.

        Args:
            name: The name.
            key: The key that is to end.
            mark: What its name ends in from now on.
            keeps: The key that has the name, and keeps it.

        Raises:
            KeyBusyError: If another machine is about to give the name away. The mark stays: by now a third run may rely
                on it.
        """
        if is_going(key):
            return key  # it signs nothing any more, and KMS gives it no other name
        condemned = renamed(self._store, key, name + mark)
        keys = {each.name: each for each in self._store.keys()}
        others = [each for other in ROTATION if other != mark and (each := keys.get(name + other)) is not None]
        # A store may still show the key under the name that it had: another run was killed before it took that away.
        if not same(keys.get(name), keeps) or not all(same(each, condemned) for each in others):
            raise overtaken(name)
        return condemned

    def abort(self, name: str) -> Rotation:
        """Go back: the old key has its name again, the successor is ended at Kalshi and destroyed.

        Raises:
            KeyProblemError: If there is nothing to go back from, or the old key doesn't work any more.
        """
        with exclusive(self._store, check_new_name(name)):
            stage = self._recovery.stage(name)
            if stage.current is not None and not stage.under_way and self._store.clear(name + SUCCESSOR):
                self._report(f"ended a successor of {name!r} that had not got its name yet")
                settle()  # somebody may have begun to end the key: a deletion is carried out, or known, a moment later
                prove_registration(self._account.connect, stage.current, id_of(stage.current))
                return Rotation(stage.current, examine_custody(stage.current), None, "aborted")
            if stage.finishing and not self._outlives(stage.retired, stage.successor or stage.current):
                raise KeyProblemError(
                    f"`hsm-keys rotate {name} --finish` has begun to end the old key: there is nothing to go back to",
                    hint=f"run it again: hsm-keys rotate {name} --finish",
                )
            old, new = self._ends_of(name, stage)
            if stage.handed_over:
                self._clear_surplus(name)
            prove_registration(self._account.connect, old, id_of(old))  # else nothing would be left that works
            settle()  # somebody may have begun to end it: a deletion is carried out, or known, a moment later
            prove_registration(self._account.connect, old, id_of(old))
            if stage.retired is not None:
                old, new = RenamesKeys.of(self._store).hand_over(name, taker=old, leaver=new, mark=ABORTING)
                self._report(f"gave {name!r} back to API key {old.api_key_id}")
            self._ends.end_successor(self._condemned(name, new, ABORTING, keeps=old))
            RenamesKeys.of(self._store).keep_name(old)
            return Rotation(old, examine_custody(old), None, "aborted")

    def _outlives(self, condemned: StoredKey | None, other: StoredKey | None) -> bool:
        """Tell whether the other key's API key has ended since this one's end began, and this one's lives.

        Another machine has ended it, right before this one got its mark; or somebody did at Kalshi.
        """
        if condemned is None or other is None or not can_sign(condemned) or not can_sign(other):
            return False
        if same(condemned, other) or condemned.api_key_id is None or other.api_key_id is None:
            return False
        dead = standing_of(self._account.connect, other, other.api_key_id) is Standing.UNKNOWN
        return dead and accepts(self._account.connect, condemned, condemned.api_key_id)

    def _ends_of(self, name: str, stage: Stage) -> tuple[StoredKey, StoredKey]:
        """Return the old and the new key of a rotation under way."""
        old = stage.retired or stage.current
        new = stage.current if stage.handed_over else stage.successor
        if old is None or new is None:
            raise KeyProblemError(f"no rotation of {name!r} is under way: there is nothing to go back from")
        return old, new

    def _hand_over(self, name: str, stage: Stage) -> Stage:
        old = stage.retired or stage.current
        if old is None:  # Stage.read doesn't give this
            raise KeyNotFoundError(f"there is no key {name!r} to rotate")
        if stage.aborting and not stage.finishing and not self._outlives(stage.successor, old):
            raise KeyProblemError(
                f"`hsm-keys rotate {name} --abort` has begun to end the successor; nothing was done",
                hint=f"run it again: hsm-keys rotate {name} --abort",
            )
        if stage.aborting and stage.finishing:
            outwait(f"`rotate --abort` of {name!r}", "the successor is proved", self._report)
        self._check_names_free(name, stage)
        if old.api_key_id is None and stage.retired is None:
            raise KeyNotRegisteredError(
                f"the key {name!r} isn't bound to an API key: there is nothing to rotate",
                hint=f"a `generate` of it was begun: hsm-keys generate {name}"
                if is_arriving(old)
                else f"`hsm-keys enroll --name {name}` registers it, or binds the API key that it has",
            )
        check_no_other_registration(self._account.connect, old, self._ends.unclaimed(), old.api_key_id)
        new = stage.successor
        if new is not None and new.api_key_id is None and stage.retired is not None:
            new = self._registered_again(name, new, old)
        elif new is None or new.api_key_id is None:
            new = self._successor(name, old, new)
        else:
            prove_registration(self._account.connect, new, id_of(new))
        check_same_rights(name, old, new, self._account.list_now())
        mark = FINISHING if stage.finishing else RETIRED
        taken, left = RenamesKeys.of(self._store).hand_over(name, taker=new, leaver=old, mark=mark)
        self._report(f"{name!r} is now API key {taken.api_key_id}; the old one, {left.api_key_id}, still works")
        return Stage(taken, None, left)

    def _check_names_free(self, name: str, stage: Stage) -> None:
        """Make sure, before anything is made, that the keys can get their names: something else may have them."""
        for key, mark in ((stage.successor, SUCCESSOR), (stage.retired, RETIRED)):
            if key is None and self._store.holds(name + mark):
                raise KeyExistsError(
                    f"something else in {self._store.describe()} is called {name + mark!r}, a name that a rotation of "
                    f"{name!r} takes; nothing was done",
                    hint="give it another label with the vendor's tool, or enroll a key under another name",
                )

    def _successor(self, name: str, old: StoredKey, minted: StoredKey | None) -> StoredKey:
        """Make or pick up the successor, and register it with what the old API key has."""
        listed = self._account.list_now()
        check_manages(self._account.manager_id, listed)
        wanted = wanted_like(name, listing_of(old, listed), listed)
        new = minted or self._store.generate_like(old, name + SUCCESSOR)
        self._report(f"{'picked up' if minted else 'made'} the {new.key_type} key {new.name!r}")
        if minted is None:
            self._store.confirm(new)
        custody = prove_custody(new)
        self._report(f"proved custody: {custody.verdict}, and it signs (verified here)")
        self._check_alone(name, old, new, made=minted is None)
        bound, _ = self._registrar.register(new, wanted, listed, new=minted is None)
        if bound.api_key_id is None:
            raise KeyProblemError(
                f"this store can't hold API key ids, so {name!r} can't be rotated in place",
                hint="enroll a key under another name, point the bot at it, then revoke the old one",
            )
        return bound

    def _registered_again(self, name: str, key: StoredKey, old: StoredKey) -> StoredKey:
        """Bind the id that the successor has at Kalshi already, where another machine's bookkeeping wrote over it."""
        listed = self._account.list_now()
        wanted = wanted_like(name, listing_of(old, listed), listed)
        return self._registrar.register(key, wanted, listed, new=False)[0]

    def _check_alone(self, name: str, old: StoredKey, new: StoredKey, *, made: bool) -> None:
        """Give way to a rotation of another machine that came past this one: its keys must not be mixed with ours."""
        keys = {key.name: key for key in self._store.keys()}
        current, successor, retired = parts(keys, name)
        if retired is None and same(current, old) and same(successor, new):
            return
        if made and successor is not None and same(successor, new) and is_surplus(current, successor, retired):
            self._store.destroy(new)
        raise overtaken(name)

    def _in_grace(self, stage: Stage) -> Rotation:
        current = stage.current
        if current is None:  # handed over: it is there
            raise KeyProblemError("the rotation was changed by somebody else meanwhile", hint="run it again")
        if current.api_key_id is None and stage.retired is not None:
            current = self._registered_again(current.name, current, stage.retired)
        return Rotation(current, prove_custody(current), stage.retired, "grace")
