"""Facts about custody: the engine's settings of a key, and what the current token may do with it.

The engine doesn't give a private half out as long as ``exportable`` and ``allow_plaintext_backup`` are off. Whoever may
write the key's configuration can switch them on later, and they can't be switched off again. So custody here is as
strong as the server's policies, and the report says so for every key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hsm_keys.stores.vault.transit import TransitKey

__all__ = ["attributes_of", "custody_facts_of", "watched_paths"]

_SAID: Final = (
    "type",
    "exportable",
    "allow_plaintext_backup",
    "deletion_allowed",
    "imported_key",
    "latest_version",
    "auto_rotate_period",
    "supports_signing",
)
_WRITING: Final = frozenset({"root", "sudo", "update", "create", "patch"})
_READING: Final = frozenset({"root", "sudo", "read"})


def attributes_of(key: TransitKey) -> dict[str, bool | str | int | None]:
    """Return what the engine says of a key; dates in ISO 8601."""
    attributes = {name: key.said.get(name) for name in _SAID}
    facts = {name: value if isinstance(value, bool | str | int) else None for name, value in attributes.items()}
    return {"transit_key": key.name, "key_version": key.version, "creation_date": key.created, **facts}


def watched_paths(mount: str, transit_key: str) -> tuple[str, str, str]:
    """Return the paths that let a private half out: configuration, export, backup."""
    return (
        f"{mount}/keys/{transit_key}/config",
        f"{mount}/export/signing-key/{transit_key}",
        f"{mount}/backup/{transit_key}",
    )


def custody_facts_of(
    key: TransitKey, capabilities: Mapping[str, Sequence[str]] | None, mount: str
) -> list[CustodyFact]:
    """Return what speaks for and against custody.

    Args:
        key: The key.
        capabilities: What the token may do, by path; None where the server doesn't say.
        mount: Where the engine is mounted.
    """
    config, export, backup = watched_paths(mount, key.name)
    return [
        _origin(key.said.get("imported_key")),
        _off(key, "exportable", "whoever may read the engine's export paths can take the private half out"),
        _off(key, "allow_plaintext_backup", "whoever may read the engine's backup paths can take the private half out"),
        _deletion(key.said.get("deletion_allowed")),
        _may(
            "token_may_write_config",
            capabilities,
            {config: _WRITING},
            "this token may write the key's configuration, and the server doesn't tell what of it: unless the policy "
            "lists the parameters, as those of `hsm-keys vault policy` do, it can switch exportable on",
        ),
        _may(
            "token_may_export",
            capabilities,
            {export: _READING, backup: _READING},
            "this token may read the export or backup paths: once exportable is on, it can take the private half out",
        ),
        CustodyFact(
            "as_strong_as",
            "the server's policies",
            CustodyVerdict.UNKNOWN,
            f"whoever may write {config} and read {export} can take the private half out",
            Topic.KEEPER,
        ),
    ]


def _origin(imported: object) -> CustodyFact:
    if imported is True:
        note = "the private half was made elsewhere and imported: copies may exist"
        return CustodyFact("origin", "imported", CustodyVerdict.BAD, note, Topic.MAKING)
    if imported is False:
        return CustodyFact("origin", "transit", CustodyVerdict.GOOD, topic=Topic.MAKING)
    note = "the engine doesn't say whether the key was imported"
    return CustodyFact("origin", None, CustodyVerdict.UNKNOWN, note, Topic.MAKING)


def _off(key: TransitKey, name: str, note: str) -> CustodyFact:
    value = key.said.get(name)
    if value is False:
        return CustodyFact(name, value, CustodyVerdict.GOOD)
    if value is True:
        return CustodyFact(name, value, CustodyVerdict.BAD, f"{note}, and it can't be switched off again")
    return CustodyFact(name, None, CustodyVerdict.UNKNOWN, "the engine doesn't say")


def _deletion(allowed: object) -> CustodyFact:
    if allowed is False:
        return CustodyFact("deletion_allowed", allowed, CustodyVerdict.GOOD)
    value = allowed if isinstance(allowed, bool) else None
    return CustodyFact("deletion_allowed", value, CustodyVerdict.UNKNOWN, "whoever may delete keys can delete this one")


def _may(
    name: str, capabilities: Mapping[str, Sequence[str]] | None, paths: Mapping[str, frozenset[str]], note: str
) -> CustodyFact:
    if capabilities is None:
        return CustodyFact(name, None, CustodyVerdict.UNKNOWN, "the server doesn't say what this token may do")
    value = any(wanted & set(capabilities.get(path, ())) for path, wanted in paths.items())
    return CustodyFact(name, value, CustodyVerdict.UNKNOWN if value else CustodyVerdict.GOOD, note if value else "")
