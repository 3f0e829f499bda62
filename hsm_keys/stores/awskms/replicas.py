"""Multi-Region keys: replicas with their alias and tags; and the end of a key in all its Regions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_keys.errors import KeyExistsError
from hsm_keys.stores.awskms.creation import aliases, give_alias, give_back, read_tags
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import (
    KmsKeyNotFoundError,
    KmsKeyPendingDeletionError,
    KmsKeyStateError,
    KmsKeyUnsuitableError,
)
from hsm_keys.stores.awskms.response_fields import field
from hsm_keys.stores.awskms.tags import ALIAS_PREFIX, TAGS, alias_of, name_of_alias
from hsm_keys.stores.awskms.uri import check_region, in_region, region_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    ClientOf = Callable[[str], Any]

__all__ = ["DELETION_DAYS", "destroy", "regions_of", "replicate", "settled"]

_T = TypeVar("_T")

_SETTLE_S: Final = 15.0
"""A new key or alias can be unknown to some of KMS's servers for a few seconds."""

_REPLICA_S: Final = 120.0
"""A replica is in the state Creating for up to a minute."""

DELETION_DAYS: Final = 7
"""Days until KMS deletes a key: the shortest that it allows."""


def settled(call: Callable[[], _T]) -> _T:
    """Return what the call gives, patient with a key that was made a moment ago."""
    import stamina

    for attempt in stamina.retry_context(on=KmsKeyNotFoundError, attempts=None, timeout=_SETTLE_S, wait_max=2.0):
        with attempt:
            return call()
    raise AssertionError("stamina gives an attempt or raises")


def regions_of(metadata: Mapping[str, Any]) -> list[str]:
    """Return the Regions that a key is in, its primary one first."""
    topology = metadata.get("MultiRegionConfiguration") or {}
    primary = str((topology.get("PrimaryKey") or {}).get("Region") or region_of(str(metadata["Arn"])))
    return [primary, *(str(replica["Region"]) for replica in topology.get("ReplicaKeys") or ())]


def replicate(client_of: ClientOf, metadata: Mapping[str, Any], name: str, region: str) -> None:
    """Make a replica of a multi-Region key, and give it the key's tags and alias.

    Args:
        client_of: Gives the client of a Region.
        metadata: ``KeyMetadata`` of the key, from any of its Regions.
        name: The key's name.
        region: Where to.

    Raises:
        UsageError: If that is no Region.
        KmsKeyUnsuitableError: If it isn't a multi-Region key.
        KeyExistsError: If the alias belongs to another key there.
    """
    check_region(region)
    if not metadata.get("MultiRegion") or not metadata.get("MultiRegionConfiguration"):
        raise KmsKeyUnsuitableError(
            f"the key {name!r} can't be replicated: it was made for one Region, which can't be changed",
            hint="make a new one: hsm-keys --kms enroll --multi-region",
        )
    members = regions_of(metadata)
    primary = members[0]
    arn = in_region(str(metadata["Arn"]), primary)
    there = client_of(region)
    if aliases(there, region).get(alias_of(name), metadata["KeyId"]) != metadata["KeyId"]:
        raise KeyExistsError(
            f"the alias {alias_of(name)} in {region} belongs to another key; nothing was changed",
            hint="replicate to another Region, or give that key another alias",
        )
    home = client_of(primary)
    tags = _tags_of_ours(home, primary, name, arn)
    if region not in members:
        _make_replica(home, name, arn, region, tags)
    replica = in_region(arn, region)
    _wait_until_ready(there, region, name, replica)
    if tags:
        ask(KmsCall("TagResource", name, region), there.tag_resource, KeyId=replica, Tags=tags)
    give_alias(there, region, name, replica)


def _tags_of_ours(client: Any, region: str, name: str, arn: str) -> list[dict[str, str]]:
    tags = read_tags(client, KmsCall("ListResourceTags", name, region), arn)
    return [{"TagKey": tag, "TagValue": tags[tag]} for tag in TAGS if tag in tags]


def _make_replica(client: Any, name: str, arn: str, region: str, tags: list[dict[str, str]]) -> None:
    # A replica made without a policy gets KMS's default, which may allow more than the key's own.
    primary = str(region_of(arn))
    call = KmsCall("GetKeyPolicy", name, primary)
    policy = field(ask(call, client.get_key_policy, KeyId=arn, PolicyName="default"), "Policy", str, call)
    ask(
        KmsCall("ReplicateKey", name, primary),
        client.replicate_key,
        KeyId=arn,
        ReplicaRegion=region,
        Policy=policy,
        Description=f"Kalshi API key {name}, replica made by hsm-keys",
        Tags=tags,
    )


def _wait_until_ready(client: Any, region: str, name: str, arn: str) -> None:
    import stamina

    call = KmsCall("DescribeKey", name, region)
    for attempt in stamina.retry_context(
        on=(KmsKeyNotFoundError, KmsKeyStateError), attempts=None, timeout=_REPLICA_S, wait_max=5.0
    ):
        with attempt:
            metadata = field(ask(call, client.describe_key, KeyId=arn), "KeyMetadata", dict, call)
            if metadata.get("KeyState") == "Creating":
                raise KmsKeyStateError(
                    f"the replica of {name!r} in {region} isn't ready yet", hint="run the same command again"
                )


def destroy(client_of: ClientOf, metadata: Mapping[str, Any], name: str) -> None:
    """Schedule a key's deletion in all its Regions, replicas first; then remove its aliases of hsm-keys there.

    Killed half way, it can be run again: the aliases stay until the deletion is scheduled, and that of its name goes
    last. A run that was killed between two names has left two. DeleteAlias takes no condition: a key that has got the
    alias from another machine since it was looked gets it back.
    """
    arn, key_id = str(metadata["Arn"]), str(metadata["KeyId"])
    for region in reversed(regions_of(metadata)):
        client = client_of(region)
        with suppress(KmsKeyPendingDeletionError):
            ask(
                KmsCall("ScheduleKeyDeletion", name, region),
                client.schedule_key_deletion,
                KeyId=in_region(arn, region),
                PendingWindowInDays=DELETION_DAYS,
            )
        ours = [
            alias
            for alias, target in aliases(client, region).items()
            if target == key_id and alias.startswith(ALIAS_PREFIX)
        ]
        for alias in sorted(ours, key=alias_of(name).__eq__):
            ask(KmsCall("DeleteAlias", name_of_alias(alias), region), client.delete_alias, AliasName=alias)
            give_back(client, region, name_of_alias(alias), key_id)
