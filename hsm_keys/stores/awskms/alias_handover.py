"""Aliases in a rotation: moved from one key to another, so that the name means a key at every moment."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import KeyBusyError
from hsm_keys.stores.awskms.creation import aliases, give_alias, give_back, left_over, read_tags
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import KmsKeyPendingDeletionError, KmsKeyStateError
from hsm_keys.stores.awskms.replicas import regions_of, replicate
from hsm_keys.stores.awskms.response_fields import field
from hsm_keys.stores.awskms.succession import voucher_tags
from hsm_keys.stores.awskms.tags import ALIAS_PREFIX, NAME_TAG, KeyCreation, alias_of, name_of_alias
from hsm_keys.stores.awskms.uri import in_region, key_id_of, region_of
from hsm_keys.stores.key_names import ABORTING, ENDING
from hsm_keys.stores.ownership import renamed_meanwhile
from hsm_keys.stores.succession import statement_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hsm_keys.stores.awskms.key import AwsKmsKey

    ClientOf = Callable[[str], Any]

__all__ = ["check_not_ending", "creation_like", "hand_over", "keep_name", "rename", "vouch"]


class _Elsewhere(Exception):  # noqa: N818 - a state, not an error
    """A name leads to another key (still)."""


_DEFAULT_POLICY: Final = "default"  # the only name that a key policy can have


def creation_like(client_of: ClientOf, metadata: Mapping[str, Any], name: str) -> KeyCreation:
    """Return how to make a key like another one: with its key policy, and multi-Region if it is.

    Args:
        client_of: Gives the client of a Region.
        metadata: ``KeyMetadata`` of the model.
        name: The model's name.
    """
    region = str(region_of(metadata["Arn"]))
    call = KmsCall("GetKeyPolicy", name, region)
    answer = ask(call, client_of(region).get_key_policy, KeyId=metadata["Arn"], PolicyName=_DEFAULT_POLICY)
    return KeyCreation(multi_region=bool(metadata.get("MultiRegion")), policy=field(answer, "Policy", str, call))


def rename(client_of: ClientOf, metadata: Mapping[str, Any], old: str, new: str) -> None:
    """Give a key another alias and name tag in all its Regions, then remove the old alias.

    Raises:
        KeyBusyError: If the old alias doesn't lead to it any more.
        KeyExistsError: If the new alias belongs to another key.
    """
    arn = str(metadata["Arn"])
    _check_called(client_of, old, new, arn)
    for region in regions_of(metadata):
        give_alias(client_of(region), region, new, in_region(arn, region))
        _tag(client_of(region), region, new, arn)
        _remove_alias(client_of(region), region, old, arn)


def check_not_ending(client: Any, region: str, key: AwsKmsKey) -> None:
    """Make sure that no alias says that somebody is ending a key: whoever does that gives it the alias first.

    Raises:
        KeyBusyError: If one does.
    """
    name = key.name.partition("+")[0]
    known = aliases(client, region)
    if key_id_of(key.arn) in {known.get(alias_of(name + mark)) for mark in (ABORTING, ENDING)}:
        raise renamed_meanwhile(key.name, f"AWS KMS in {region}")


def vouch(client_of: ClientOf, leaver: AwsKmsKey, taker: AwsKmsKey, regions: Iterable[str]) -> None:
    """Let the key that leaves a name sign for the one that takes it. Safe to repeat.

    Args:
        client_of: Gives the client of a Region.
        leaver: The key that has the name.
        taker: The key that gets it.
        regions: Where the taker is.

    Raises:
        AwsError: If AWS or KMS refuses.
        NetworkError: If KMS doesn't answer.
    """
    try:
        signature = leaver.sign(statement_about(taker.public_key()))
    except KmsKeyStateError:
        return  # a disabled key can't sign, neither here nor in running programs
    for region in regions:
        ask(
            KmsCall("TagResource", taker.name, region),
            client_of(region).tag_resource,
            KeyId=in_region(taker.arn, region),
            Tags=voucher_tags(signature),
        )


def hand_over(
    client_of: ClientOf, name: str, *, taker: Mapping[str, Any], leaver: Mapping[str, Any], left: str, taken: str
) -> None:
    """Point a name to another key in all Regions. Killed anywhere, it can be called again.

    The Regions are gone through in turn for each step, the key's first Region last: it is the one that a
    state is read from, and it shows the last step as undone until it is done everywhere.

    Args:
        client_of: Gives the client of a Region.
        name: The name to hand over.
        taker: ``KeyMetadata`` of the key that gets the name; it is replicated to the leaver's Regions first.
        leaver: ``KeyMetadata`` of the key that has it.
        left: The name that the leaver keeps.
        taken: The name that the taker had until now.

    Whoever aborts gives the taker an alias that says so, and looks then where the name leads. So of two that do both at
    the same moment at least one sees the other one.

    Raises:
        KeyBusyError: If somebody else has renamed one of the two, or ended the leaver and made another key of the name;
            then the name stays where it was.
    """
    regions = regions_of(leaver)
    for region in regions:
        if region not in regions_of(taker):
            replicate(client_of, taker, taken, region)
    for region in reversed(regions):
        give_alias(client_of(region), region, left, in_region(str(leaver["Arn"]), region))
    try:
        _check_called(client_of, taken, name, str(taker["Arn"]))
    except KeyBusyError:
        _take_back(client_of, None, left, leaver)
        raise
    for region in reversed(regions):
        _point(client_of(region), region, name, str(taker["Arn"]))
    if taken != name + ABORTING and _has_alias(client_of, name + ABORTING, arn=str(taker["Arn"])):
        _take_back(client_of, name, left, leaver)
        raise renamed_meanwhile(taken, f"AWS KMS in {region_of(str(taker['Arn']))}")
    for region in reversed(regions):
        _tag_leaver(client_of, region, name, left, leaver)
        _tag(client_of(region), region, name, str(taker["Arn"]))
        if taken != name:  # an earlier call gave it the name
            _remove_alias(client_of(region), region, taken, str(taker["Arn"]))
    region = str(region_of(str(taker["Arn"])))
    if not _leads(client_of(region), region, name, str(taker["Arn"])):
        _keep_findable(client_of, taken, taker)
        raise renamed_meanwhile(name, f"AWS KMS in {region}")
    # Another machine may have handed the name back meanwhile, and taken the alias that was left to this key.
    _keep_findable(client_of, left, leaver)


def _tag_leaver(client_of: ClientOf, region: str, name: str, left: str, leaver: Mapping[str, Any]) -> None:
    """Tag the key that has left a name with the one that it keeps.

    UpdateAlias takes no condition: since it was looked where the name leads, another machine may have ended this key
    and made another one of the name. So if this one has ended, that one gets its name back.

    Raises:
        KeyBusyError: If there is such a key.
        KmsKeyPendingDeletionError: If there is none, and the key has ended.
    """
    try:
        _tag(client_of(region), region, left, str(leaver["Arn"]))
    except KmsKeyPendingDeletionError:
        if any([_give_to_newcomer(client_of(each), each, name) for each in regions_of(leaver)]):  # noqa: C419 - in each
            raise renamed_meanwhile(name, f"AWS KMS in {region}") from None
        raise
    _tag_as_called(client_of(region), region, left, str(leaver["Arn"]))


def _tag_as_called(client: Any, region: str, name: str, arn: str) -> None:
    """Tag a key with the name that leads to it, if another machine has renamed it since it was tagged with this one."""
    if _leads(client, region, name, arn):
        return
    for alias, key_id in aliases(client, region).items():
        if key_id == key_id_of(arn) and alias.startswith(ALIAS_PREFIX):
            _tag(client, region, name_of_alias(alias), arn)


def _give_to_newcomer(client: Any, region: str, name: str) -> bool:
    newcomer = left_over(client, region, name, set(aliases(client, region).values()), registered=True)
    if newcomer is not None:
        _point(client, region, name, str(newcomer["Arn"]))
    return newcomer is not None


def _leads(client: Any, region: str, name: str, arn: str) -> bool:
    """Tell whether a name leads to a key; patient, because a change of an alias isn't known everywhere at once."""
    import stamina

    try:
        for attempt in stamina.retry_context(on=_Elsewhere, attempts=4, timeout=10.0, wait_max=2.0):
            with attempt:
                if aliases(client, region).get(alias_of(name)) != key_id_of(arn):
                    raise _Elsewhere
    except _Elsewhere:
        return False
    return True


def _keep_findable(client_of: ClientOf, name: str, metadata: Mapping[str, Any]) -> None:
    """Give a key its former name back, if another machine has taken the new one and no name is left."""
    arn = str(metadata["Arn"])
    for region in regions_of(metadata):
        if key_id_of(arn) not in aliases(client_of(region), region).values():
            with suppress(KmsKeyPendingDeletionError):  # the other machine has ended it
                give_alias(client_of(region), region, name, in_region(arn, region))


def keep_name(client_of: ClientOf, metadata: Mapping[str, Any], name: str) -> None:
    """Give a key its name again, alias and tag, if another machine has taken it meanwhile; else nothing is written.

    Raises:
        KeyExistsError: If the alias leads to another key.
    """
    arn = str(metadata["Arn"])
    for region in regions_of(metadata):
        client = client_of(region)
        if not _leads(client, region, name, arn):
            give_alias(client, region, name, in_region(arn, region))
        call = KmsCall("ListResourceTags", name, region)
        if read_tags(client, call, in_region(arn, region)).get(NAME_TAG) != name:
            _tag(client, region, name, arn)


def _take_back(client_of: ClientOf, name: str | None, left: str, leaver: Mapping[str, Any]) -> None:
    """Give a name back to the key that was to leave it, if it has it no more, and take away the name that this kept."""
    for region in regions_of(leaver):
        if name is not None:
            _point(client_of(region), region, name, str(leaver["Arn"]))
        _remove_alias(client_of(region), region, left, str(leaver["Arn"]))


def _check_called(client_of: ClientOf, name: str, other: str, arn: str) -> None:
    """Make sure that a key has one of two names, in its first Region."""
    if not _has_alias(client_of, name, other, arn=arn):
        raise renamed_meanwhile(name, f"AWS KMS in {region_of(arn)}")


def _has_alias(client_of: ClientOf, *names: str, arn: str) -> bool:
    region = str(region_of(arn))
    known = aliases(client_of(region), region)
    return key_id_of(arn) in {known.get(alias_of(name)) for name in names}


def _point(client: Any, region: str, name: str, arn: str) -> None:
    ask(
        KmsCall("UpdateAlias", name, region),
        client.update_alias,
        AliasName=alias_of(name),
        TargetKeyId=key_id_of(arn),
    )


def _tag(client: Any, region: str, name: str, arn: str) -> None:
    ask(
        KmsCall("TagResource", name, region),
        client.tag_resource,
        KeyId=in_region(arn, region),
        Tags=[{"TagKey": NAME_TAG, "TagValue": name}],
    )


def _remove_alias(client: Any, region: str, name: str, arn: str) -> None:
    """Remove an alias, if it leads to that key.

    DeleteAlias takes no condition: since it was looked, another machine may have given the alias to another key, which
    gets it back then. That shows in the other aliases of the name, which have changed.
    """
    before = aliases(client, region)
    if before.get(alias_of(name)) != key_id_of(arn):
        return
    ask(KmsCall("DeleteAlias", name, region), client.delete_alias, AliasName=alias_of(name))
    if _beside(name, before) != _beside(name, aliases(client, region)):
        give_back(client, region, name, key_id_of(arn))


def _beside(name: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return the other aliases of a name and its marks."""
    base = name.partition("+")[0]
    return {
        alias: key_id
        for alias, key_id in known.items()
        if name_of_alias(alias).partition("+")[0] == base and alias != alias_of(name)
    }
