"""Least privilege for each workflow: a policy with the paths that it calls and no other, as HCL.

``bao policy write NAME -`` and ``vault policy write NAME -`` take it as it is. A policy allows only the keys of one
name: the prefix of their Transit keys belongs to no other name (``entries.prefix_of``), and all labels share one KV
entry.

No policy gives a private half out: none allows the paths ``export`` and ``backup``, nor the parameter ``exportable``.
For the server, making a key and writing its configuration are both an ``update``, so only parameters tell them apart:
``deletion_allowed`` is only in the policies that delete. A policy can't tell a key that a rotation has retired from the
key that has the name: whoever may rotate may delete both. Whoever may make keys may also give a key a new version,
which has no effect: the entry names the version to use.
"""

from __future__ import annotations

from typing import Any, Final

from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.key_names import check_new_name
from hsm_keys.stores.vault.entries import FOLDER, KEY_PREFIX, prefix_of

__all__ = ["policy"]

_TYPES: Final[dict[str, list[Any]]] = {"type": [str(key_type) for key_type in KeyType]}
_IMPORT: Final[dict[str, list[Any]]] = {"ciphertext": [], "hash_function": ["SHA256"]}
_DELETION: Final[dict[str, list[Any]]] = {"deletion_allowed": [True]}
_SIGNATURES: Final[dict[str, list[Any]]] = {
    "input": [],
    "key_version": [],
    "hash_algorithm": ["sha2-256"],
    "signature_algorithm": ["pss"],
    "salt_length": ["hash"],
}
"""Kalshi's signatures alone: no digests made elsewhere (``prehashed``), and no PKCS#1 v1.5."""

_ON_KEYS: Final[dict[str, tuple[tuple[str, ...], dict[str, list[Any]]]]] = {
    "sign": (("read",), {}),
    "enroll": (("create", "read", "update"), _TYPES),
    "generate": (("create", "read", "update"), {**_TYPES, **_IMPORT}),
    "rotate": (("create", "read", "update", "delete"), {**_TYPES, **_DELETION}),
    "revoke": (("read", "update", "delete"), _DELETION),
}
"""What each purpose may do with Transit keys, and with which parameters."""


def policy(purpose: str, name: str | None, *, mount: str, kv: str) -> str:
    """Return the policy for a workflow.

    Args:
        purpose: One of ``hsm_keys.stores.backend.PURPOSES``.
        name: The key's name; None for every key of hsm-keys.
        mount: Where the Transit engine is mounted.
        kv: Where the KV v2 engine is mounted.

    Raises:
        UsageError: If that can't be a key's name.
    """
    keys = f"{KEY_PREFIX}*" if name is None else f"{prefix_of(check_new_name(name))}*"
    entry = f"{kv}/data/{FOLDER}/{name or '*'}"
    capabilities, parameters = _ON_KEYS[purpose]
    changes = ("create", "read", "update")
    rules = [
        _rule("what belongs to a key", entry, ("read",) if purpose == "sign" else changes),
        _rule("the keys", f"{mount}/keys/{keys}", capabilities, parameters),
        _rule("signatures", f"{mount}/sign/{keys}", ("update",), _SIGNATURES),
        _rule("what this token is, and may do", "auth/token/lookup-self", ("read",)),
        _rule("", "sys/capabilities-self", ("update",)),
        _rule("a longer life for this token", "auth/token/renew-self", ("update",)),
    ]
    if purpose != "sign":
        rules.insert(0, _rule("the names of keys", f"{kv}/metadata/{FOLDER}/", ("list",)))
    if purpose == "generate":
        rules.append(_rule("what an imported key is wrapped with", f"{mount}/wrapping_key", ("read",)))
    return "\n".join(rules)


def _rule(why: str, path: str, capabilities: tuple[str, ...], parameters: dict[str, list[Any]] | None = None) -> str:
    lines = [f"# {why}"] if why else []
    lines += [f'path "{path}" {{', f"  capabilities = {_listed(capabilities)}"]
    if parameters:
        lines += ["  allowed_parameters = {"]
        lines += [f'    "{name}" = {_listed(values)}' for name, values in parameters.items()]
        lines += ["  }"]
    return "\n".join([*lines, "}", ""])


def _listed(values: tuple[Any, ...] | list[Any]) -> str:
    return "[" + ", ".join("true" if value is True else f'"{value}"' for value in values) + "]"
