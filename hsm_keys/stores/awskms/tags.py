"""Aliases and tags that mark a key of hsm-keys in KMS, and the options of its creation."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import UsageError
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.signing.environments import is_environment
from hsm_keys.stores.key_names import MARKS
from hsm_keys.stores.marks import FOREIGN, MINTED, OFFERED, UNBEGUN, UNNAMED, Claim, Mark

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ALIAS_PREFIX",
    "CLEARING_TAG",
    "ENVIRONMENT_TAG",
    "ID_TAG",
    "IMPORT_TAG",
    "NAME_TAG",
    "REGISTERING_TAG",
    "TAGS",
    "VOUCHER_TAGS",
    "WRAPPING_ALGORITHM",
    "WRAPPING_KEY_SPEC",
    "KeyCreation",
    "alias_of",
    "mark_of",
    "name_of_alias",
]

ALIAS_PREFIX: Final = "alias/hsm-keys/"
NAME_TAG: Final = "hsm-keys:name"
ID_TAG: Final = "hsm-keys:api-key-id"
ENVIRONMENT_TAG: Final = "hsm-keys:environment"
REGISTERING_TAG: Final = "hsm-keys:registering"
"""The environment in which a minted key is about to be registered, ``unnamed`` where nobody said it; after a colon what
a run was about to do with an API key of it: ``taking:ID`` or ``leaving:ID``."""

IMPORT_TAG: Final = "hsm-keys:import"
"""The run that is to import the key's material; a random number."""

CLEARING_TAG: Final = "hsm-keys:clearing"
"""``yes`` once a key that never got an alias is about to be let go; ``no`` where it has got one meanwhile."""

VOUCHER_TAGS: Final = tuple(f"hsm-keys:vouched-{number}" for number in (1, 2, 3))
"""What the key before this one signed about it, in base64 and in pieces."""

TAGS: Final = (NAME_TAG, ID_TAG, ENVIRONMENT_TAG, REGISTERING_TAG, IMPORT_TAG, CLEARING_TAG, *VOUCHER_TAGS)
"""Every tag that hsm-keys writes."""

# RSA private keys are taken under RSA_AES_KEY_WRAP alone; the longest wrapping key is what KMS recommends.
WRAPPING_ALGORITHM: Final = "RSA_AES_KEY_WRAP_SHA_256"
WRAPPING_KEY_SPEC: Final = "RSA_4096"

_MARKED = re.compile(rf"^(.+)/({MARKS})$")
_MAX_POLICY: Final = 32 * 1024  # bytes: KMS's limit on a key policy


def alias_of(name: str) -> str:
    """Return the alias of a key: KMS has no ``+`` in aliases, so ``prod+next`` is ``alias/hsm-keys/prod/next``."""
    return ALIAS_PREFIX + name.replace("+", "/")


def name_of_alias(alias: str) -> str:
    """Return the key's name that an alias of hsm-keys stands for."""
    return _MARKED.sub(r"\1+\2", alias.removeprefix(ALIAS_PREFIX))


def mark_of(tags: Mapping[str, str]) -> Mark:
    """Return what a key's tags say of it; without the name's tag, or with values that we never write, it isn't ours."""
    api_key_id, environment = tags.get(ID_TAG), tags.get(ENVIRONMENT_TAG)
    if NAME_TAG not in tags:
        return FOREIGN
    if api_key_id is None and environment is not None and is_environment(environment):
        return Mark(ours=True, environment=environment, importing=True)
    if api_key_id is None:
        return _minted(tags.get(REGISTERING_TAG))
    if environment is None:
        return MINTED
    try:
        known = check_api_key_id(api_key_id)
    except UsageError:
        return FOREIGN
    return Mark(ours=True, api_key_id=known, environment=environment) if is_environment(environment) else FOREIGN


def _minted(registering: str | None) -> Mark:
    environment, _, claim = (registering or "").partition(":")
    if environment == UNNAMED:
        return OFFERED
    if not is_environment(environment):
        return MINTED
    return Mark(ours=True, environment=environment, registering=claim != UNBEGUN, claim=Claim.parse(claim))


@dataclass(frozen=True, slots=True)
class KeyCreation:
    """How KMS is to make keys.

    Args:
        multi_region: Whether the key can be replicated to other Regions; it can't be changed later.
        policy: The key policy, as JSON, or what ``kms policy`` prints, which holds one; None for KMS's default, which
            leaves all to the account's IAM policies.
        environment: For which environment of Kalshi's; None if nobody has said so.

    Raises:
        UsageError: If the policy isn't a JSON object of at most 32 KiB.
    """

    multi_region: bool = False
    policy: str | None = None
    environment: str | None = None

    def __post_init__(self) -> None:
        if self.policy is None:
            return
        try:
            parsed = json.loads(self.policy)
        except ValueError:
            parsed = None
        if isinstance(parsed, dict) and isinstance(parsed.get("key_policy"), dict):  # as `kms policy` prints it
            parsed = parsed["key_policy"]
            object.__setattr__(self, "policy", json.dumps(parsed))
        if not isinstance(parsed, dict) or "Statement" not in parsed or len(self.policy.encode()) > _MAX_POLICY:
            raise UsageError(
                "that is no key policy: it isn't a JSON object with a Statement, or longer than 32 KiB",
                hint="give what `hsm-keys kms policy --role ARN --for sign` prints, or a policy of your own",
            )
