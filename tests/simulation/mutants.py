"""Faults planted in the workflows: a step left out, two swapped, a check inverted, an answer believed."""

from __future__ import annotations

import inspect
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.simulation.doubles import everywhere

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Mutant:
    """A planted fault.

    Args:
        module: Where, below ``hsm_keys``.
        place: The function, or the class and its method.
        right: A piece of its source.
        wrong: What stands there instead.
    """

    module: str
    place: str
    right: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.module}.{self.place}: {self.right.strip()} -> {self.wrong.strip() or 'nothing'}"


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Put the fault in, for as long as lives are lived with it."""
    module = import_module(f"hsm_keys.{mutant.module}")
    *owners, name = mutant.place.split(".")
    owner = getattr(module, owners[0]) if owners else module
    function = inspect.getsource(getattr(owner, name))
    assert mutant.right in function, f"there is no such line any more: {mutant}"
    changed = textwrap.dedent(function.replace(mutant.right, mutant.wrong or "pass"))
    made: dict[str, object] = {}
    code = compile(f"from __future__ import annotations\n{changed}", str(module.__file__), "exec")
    exec(code, vars(module), made)  # noqa: S102 - it is our own source, changed in one place
    with pytest.MonkeyPatch.context() as patch:
        everywhere(patch, name, getattr(owner, name), made[name])
        patch.setattr(owner, name, made[name])
        yield


MUTANTS = (
    Mutant(
        "lifecycle.registering",
        "Registrar.register",
        "None if new else self._picked_up(key, wanted, claimed)",
        "None",
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar._post",
        "self._yield_to_others(key, api_key_id, before)",
        "",
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar.register",
        "prove_registration(self._account.connect, registered, api_key_id)",
        "",
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar._bind",
        "return bind(self._store, key, api_key_id, self._environment, self._report)",
        "return key",
    ),
    Mutant(
        "lifecycle.late_registration",
        "find_late_registration",
        "settle()",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.finish",
        "prove_registration(self._account.connect, rotation.key, id_of(rotation.key))",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.finish",
        "self._ends.end_old(old, keep_old=keep_old, name=name)",
        "self._ends.end_old(rotation.key, keep_old=keep_old, name=name)",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.finish",
        "self._ends.end_old(old, keep_old=keep_old, name=name)",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.abort",
        "self._ends.end_successor(self._condemned(name, new, ABORTING, keeps=old))",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.abort",
        "self._ends.end_successor(self._condemned(name, new, ABORTING, keeps=old))",
        "self._ends.end_successor(old)",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.abort",
        "settle()",
        "",
    ),
    Mutant(
        "lifecycle.rotation_ends",
        "RotationEnds.end_successor",
        "end_api_key(self._account, api_key_id, new, self._report, check=lambda: self._check_named(new))",
        "[]",
    ),
    Mutant(
        "lifecycle.rotation_ends",
        "RotationEnds._last_id",
        "find_last_registration(self._account, key, claimed, self._report)",
        "None",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker.carry_out",
        "key = self._condemned(key)",
        "",
    ),
    Mutant(
        "lifecycle.rotation_ends",
        "RotationEnds.end_old",
        "end_api_key(self._account, api_key_id, old, self._report)",
        "[]",
    ),
    Mutant(
        "lifecycle.rotation_recovery",
        "RotationRecovery._tidy",
        "self._store.mend(label)",
        "",
    ),
    Mutant(
        "lifecycle.late_registration",
        "check_no_other_registration",
        "if other is not None:",
        "if False:",
    ),
    Mutant(
        "lifecycle.revocation_plan",
        "RevocationPlanner._registered",
        "find_late_registration(self._account, key, claimed) if can_sign(key) else None",
        "None",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._private_half",
        "self._store.destroy(key)",
        "",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._private_half",
        "self._store.clear(successor)",
        "",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._private_half",
        "self._store.mend(successor)",
        "",
    ),
    Mutant(
        "lifecycle.successor_rights",
        "wanted_like",
        "scopes=scopes_of(old) or None",
        "scopes=None",
    ),
    Mutant(
        "lifecycle.successor_rights",
        "wanted_like",
        "subaccount=old.subaccount",
        "subaccount=None",
    ),
    Mutant(
        "lifecycle.ending",
        "_End.delete",
        "self._account.client.api_keys.delete(self._api_key_id)",
        "",
    ),
    Mutant(
        "lifecycle.ending",
        "_End.delete",
        "if not lived or self.is_listed():",
        "if False:",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator._conclude",
        "self._imports.end(self._name)",
        "",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator._lost",
        "if api_key.api_key_id not in used",
        "if False",
    ),
    Mutant(
        "lifecycle.repairing",
        "_bound",
        "return bind(store, key, repair.api_key_id, account.environment, report).api_key_id == repair.api_key_id",
        "return True",
    ),
    Mutant(
        "lifecycle.contention",
        "Contention.begin",
        "return self._store.begin_registration(key, environment, claim)",
        "return key",
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar._bind",
        "ending = self._delete(api_key_id)",
        'ending = "was deleted again"',
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar._yield_to_others",
        "ending = self._contention.give_way(key, api_key_id)",
        'ending = "was deleted again"',
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._condemned",
        "if not same(keys.get(name), keeps) or not all(same(each, condemned) for each in others):",
        "if False:",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._condemned",
        "condemned = renamed(self._store, key, name + mark)",
        "condemned = key",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._hand_over",
        "if stage.aborting and not stage.finishing and not self._outlives(stage.successor, old):",
        "if False:",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._hand_over",
        "taken, left = RenamesKeys.of(self._store).hand_over(name, taker=new, leaver=old, mark=mark)",
        "taken, left = RenamesKeys.of(self._store).hand_over(name, taker=old, leaver=new, mark=mark)",
    ),
    Mutant(
        "lifecycle.rotation_ends",
        "RotationEnds.end_old",
        'self.destroy(old, "the old private half")',
        "",
    ),
    Mutant(
        "lifecycle.rotation_ends",
        "RotationEnds.end_old",
        "if api_key_id is not None:",
        "if api_key_id is None:",
    ),
    Mutant(
        "lifecycle.rotation_ends",
        "RotationEnds.end_successor",
        'self.destroy(new, f"the successor {new.name!r}")',
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._successor",
        "bound, _ = self._registrar.register(new, wanted, listed, new=minted is None)",
        "bound, _ = self._registrar.register(new, wanted, listed, new=True)",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._end",
        'if key and own and destroy and target.listing and "+" not in name:',
        "if False:",
    ),
    Mutant(
        "lifecycle.revocation_plan",
        "RevocationPlanner._target",
        "check_environment(key.name, key.environment, self._account.environment)",
        "",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._end",
        "end_api_key(self._account, api_key_id, key, self._report, begun=begun)",
        "[]",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._private_half",
        "if not destroy:",
        "if destroy:",
    ),
    Mutant(
        "lifecycle.ending",
        "end_api_key",
        "end.prove(lived=lived)",
        "",
    ),
    Mutant(
        "lifecycle.ending",
        "end_api_key",
        "lived = begun or bool(listed)",
        "lived = True",
    ),
    Mutant(
        "lifecycle.ending",
        "_End.is_listed",
        "return self._api_key_id in ids",
        "return self._api_key_id not in ids",
    ),
    Mutant(
        "lifecycle.ending",
        "end_api_key",
        "end.prove_by_list(lived=lived)",
        "",
    ),
    Mutant(
        "lifecycle.ending",
        "_End.delete",
        "except NotFoundError:\n            return False",
        "except NotFoundError:\n            return True",
    ),
    Mutant(
        "lifecycle.late_registration",
        "_look",
        "unclaimed(account.list_now(), claimed)",
        "[]",
    ),
    Mutant(
        "inspecting.proof_of_possession",
        "accepts",
        "is Standing.TAKEN",
        "is not Standing.TAKEN",
    ),
    Mutant(
        "inspecting.proof_of_possession",
        "find_registrations",
        "if accepts(connect, key, candidate.api_key_id):",
        "if candidate.name == key.name:",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator.run",
        "self._kalshi.delete_lost(self._lost(self._namesakes(listed)))",
        "",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator.run",
        "self._check_not_stored()",
        "",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator._import",
        "self._undo(pair, error)",
        "",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator._conclude",
        "key = self._bound(key, api_key_id)",
        "",
    ),
    Mutant(
        "lifecycle.made_by_kalshi",
        "KalshiGenerator.make",
        "self.delete_lost(lost)",
        "",
    ),
    Mutant(
        "lifecycle.enroll",
        "_unregistered",
        "if key.state is KeyState.REGISTERED:",
        "if False:",
    ),
    Mutant(
        "lifecycle.rights",
        "scopes_of",
        "*listing.scopes",
        '"write", *listing.scopes',
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker.carry_out",
        "check_none_since(self._account.connect, key, plan.listed, left, target.api_key_id)",
        "",
    ),
    Mutant(
        "lifecycle.enroll",
        "_mint",
        "store.generate(name, key_type or KeyType.RSA_2048, environment)",
        "store.generate(name, key_type or KeyType.RSA_2048)",
    ),
    Mutant(
        "lifecycle.generate",
        "Generator._list_once_late",
        'outwait(f"a `generate` of {self._name!r}", "what it left is looked for", self._report)',
        "",
    ),
    Mutant(
        "lifecycle.made_by_kalshi",
        "KalshiGenerator._post",
        "check_alone()",
        "",
    ),
    Mutant(
        "stores.vault.importing",
        "VaultImports.prepare",
        "set_aside(records, name)",
        "",
    ),
    Mutant(
        "stores.pkcs11.store",
        "Pkcs11Store._handed_over",
        "or old or (self",
        "or retired or (self",
    ),
)
