"""Faults planted in the workflows: a step left out, two swapped, a check inverted, an answer believed."""

from __future__ import annotations

import inspect
import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

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
    changed = textwrap.dedent(function).replace(mutant.right, mutant.wrong or "pass")
    made: dict[str, object] = {}
    code = compile(f"from __future__ import annotations\n{changed}", str(module.__file__), "exec")
    exec(code, vars(module), made)  # noqa: S102 - it is our own source, changed in one place
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, made[name])
        yield


MUTANTS = (
    Mutant(
        "lifecycle.registering",
        "Registrar.register",
        "None if new else find_late_registration(self._management, self._connect, key, claimed)",
        "None",
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar.register",
        "self._yield_to_others(key, api_key_id, listed)",
        "",
    ),
    Mutant(
        "lifecycle.registering",
        "Registrar.register",
        "prove_registration(self._connect, bound, api_key_id)",
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
        "prove_registration(self._connect, done.key, _id_of(done.key))",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.finish",
        "self._end(done.retired, keep_old=keep_old, name=name)",
        "self._end(done.key, keep_old=keep_old, name=name)",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.finish",
        "self._end(done.retired, keep_old=keep_old, name=name)",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.abort",
        "self._end_successor(new)",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.abort",
        "self._end_successor(new)",
        "self._end_successor(old)",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator.abort",
        "settle()",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._end_successor",
        "end_api_key(self._management, self._connect, api_key_id, new, self._report)",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._end_successor",
        "find_late_registration(self._management, self._connect, new, claimed)",
        "None",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._end",
        "end_api_key(self._management, self._connect, old.api_key_id, old, self._report)",
        "",
    ),
    Mutant(
        "lifecycle.rotate",
        "Rotator._stage",
        "self._store.mend(name + mark)",
        "",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._check_no_other_registration",
        "if other is not None:",
        "if False:",
    ),
    Mutant(
        "lifecycle.revoke",
        "Revoker._registered",
        "find_late_registration(self._management, self._connect, key, claimed) if can_sign(key) else None",
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
        "self._management.api_keys.delete(self._api_key_id)",
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
        "return bind(store, key, repair.api_key_id, environment, report).api_key_id == repair.api_key_id",
        "return True",
    ),
)
