"""Facts about custody from KMS's metadata of a key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.stores.condition import Condition, Usability
from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["attributes_of", "condition_of", "custody_facts_of"]


def attributes_of(metadata: Mapping[str, Any]) -> dict[str, bool | str | int | None]:
    """Return KMS's metadata under names in snake case; dates in ISO 8601 and UTC, lists joined by commas."""
    regions = metadata.get("MultiRegionConfiguration") or {}
    replicas = [str(replica.get("Region")) for replica in regions.get("ReplicaKeys") or ()]
    return {
        "key_id": metadata.get("KeyId"),
        "arn": metadata.get("Arn"),
        "key_state": metadata.get("KeyState"),
        "origin": metadata.get("Origin"),
        "key_spec": metadata.get("KeySpec"),
        "key_usage": metadata.get("KeyUsage"),
        "key_manager": metadata.get("KeyManager"),
        "signing_algorithms": ",".join(metadata.get("SigningAlgorithms") or ()),
        "creation_date": _iso(metadata.get("CreationDate")),
        "deletion_date": _iso(metadata.get("DeletionDate")),
        "multi_region": bool(metadata.get("MultiRegion")),
        "multi_region_type": regions.get("MultiRegionKeyType"),
        "primary_region": (regions.get("PrimaryKey") or {}).get("Region"),
        "replica_regions": ",".join(sorted(replicas)) or None,
    }


def _iso(moment: Any) -> str | None:
    return moment.astimezone(UTC).isoformat() if isinstance(moment, datetime) else None


def custody_facts_of(metadata: Mapping[str, Any], *, accept_imported: bool) -> list[CustodyFact]:
    """Return what speaks for and against custody.

    Args:
        metadata: ``KeyMetadata`` of DescribeKey.
        accept_imported: Whether the caller asked for a key whose private half was imported.
    """
    return [
        _origin(metadata.get("Origin"), accept_imported=accept_imported),
        _judged(metadata, "key_usage", "KeyUsage", "SIGN_VERIFY", "a key for something else can't sign"),
        _judged(metadata, "key_manager", "KeyManager", "CUSTOMER", "a key that AWS manages isn't yours to control"),
        CustodyFact(
            "private_half_readable", value=False, verdict=CustodyVerdict.GOOD, note="no KMS API returns a private key"
        ),
    ]


def _origin(origin: str | None, *, accept_imported: bool) -> CustodyFact:
    verdict, note = CustodyVerdict.UNKNOWN, "the private half is in a key store outside of KMS"
    if origin == "AWS_KMS":
        verdict, note = CustodyVerdict.GOOD, ""
    elif origin == "EXTERNAL" and accept_imported:
        note = "imported, accepted as asked: copies may exist"
    elif origin == "EXTERNAL":
        verdict, note = (
            CustodyVerdict.BAD,
            "the private half was made elsewhere and imported (imported=accept takes it)",
        )
    return CustodyFact("origin", origin, verdict, note, Topic.MAKING)


def _judged(metadata: Mapping[str, Any], name: str, field: str, good: str, note: str) -> CustodyFact:
    value = metadata.get(field)
    if value == good:
        return CustodyFact(name, value, CustodyVerdict.GOOD)
    return CustodyFact(name, value, CustodyVerdict.UNKNOWN if value is None else CustodyVerdict.BAD, note)


_USABILITY: Final = {
    "Enabled": Usability.USABLE,
    "PendingDeletion": Usability.ENDING,
    "PendingImport": Usability.ARRIVING,
}


def condition_of(metadata: Mapping[str, Any]) -> Condition:
    """Return whether KMS lets a key be used, with its own word for that (KMS developer guide, "Key states")."""
    state = str(metadata.get("KeyState"))
    usability = _USABILITY.get(state, Usability.UNUSABLE)
    return Condition() if usability is Usability.USABLE else Condition(usability, state)
