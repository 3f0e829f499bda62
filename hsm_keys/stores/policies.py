"""Back-ends with access policies, which can print the least policy that each workflow needs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hsm_keys.stores.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.stores.backend import Option

__all__ = ["PURPOSES", "PolicyText", "PrintsPolicies"]

PURPOSES: Final = ("sign", "enroll", "generate", "rotate", "revoke")
"""What a policy can be for: the workflows."""


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy, to be given to the administrator of a store.

    Args:
        as_dict: As it goes into JSON output.
        text: In its own syntax; None where that is the JSON output.
    """

    as_dict: Mapping[str, Any]
    text: str | None = None


class PrintsPolicies(Backend):
    """A back-end whose stores are ruled by policies, and that prints the least ones.

    Attributes:
        command: The command group under which ``policy`` stands.
        policy_options: What the command takes beside purpose, name and the shared options.
        policy_help: What the command prints, for its help.
        policy_example: A command line.
    """

    command: ClassVar[str]
    policy_options: ClassVar[tuple[Option, ...]] = ()
    policy_help: ClassVar[str]
    policy_example: ClassVar[str]

    @abstractmethod
    def policy(
        self, purpose: str, name: str | None, uri: str | None, options: Mapping[str, Any], env: Mapping[str, str]
    ) -> PolicyText:
        """Return the policy with what a workflow calls and no more; nothing is sent.

        Args:
            purpose: One of ``PURPOSES``.
            name: The key's name; None for every key of hsm-keys.
            uri: Names the store; None where none was named.
            options: This back-end's options, those for policies among them.
            env: The environment.

        Raises:
            UsageError: If something lacks, or can't be.
        """
