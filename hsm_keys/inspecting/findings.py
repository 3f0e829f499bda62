"""Findings of ``reconcile``: what is not as it should be, what to do about it, and what ``--fix`` may do by itself."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsm_keys.inspecting.snapshot import Seen

__all__ = ["Bind", "Finding", "about_key", "command_for"]


@dataclass(frozen=True, slots=True)
class Bind:
    """The one repair that is safe: write an API key id beside the pair that was proved to sign for it.

    Args:
        key: The key as it was seen.
        api_key_id: The id.
    """

    key: Seen
    api_key_id: str

    def __str__(self) -> str:
        return f"bind API key {self.api_key_id} to {self.key.name!r} in {self.key.store}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: something that is not as it should be.

    Args:
        code: A stable word for programs.
        name: The name of the key, in the store or else at Kalshi.
        api_key_id: The API key's id, if one is meant.
        store: What people call the store; None if it is about Kalshi alone.
        message: A sentence.
        repair: What ``--fix`` may do about it; None where only a person can decide.
        command: The command that goes on; None where none helps.
    """

    code: str
    name: str
    api_key_id: str | None
    store: str | None
    message: str
    repair: Bind | None = None
    command: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as it goes into JSON output."""
        shown = {field: getattr(self, field) for field in self.__slots__}
        return {**shown, "repair": str(self.repair) if self.repair else None}


def command_for(store_uri: str, *words: str) -> str:
    """Return a command for the shell, on a store."""
    return shlex.join(["hsm-keys", *words, "--store", store_uri])


def about_key(code: str, key: Seen, message: str, *command: str, api_key_id: str | None = None) -> Finding:
    """Return a finding about a key of a store, with the words of the command that goes on."""
    shown = api_key_id or key.api_key_id
    return Finding(
        code, key.name, shown, key.store, message, None, command_for(key.store_uri, *command) if command else None
    )
