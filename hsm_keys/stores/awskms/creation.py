"""Making keys in KMS, and finding one that an interrupted enroll left without its alias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys.errors import KeyBusyError, KeyExistsError, KeyProblemError
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import AwsAccessDeniedError, KmsKeyNotFoundError
from hsm_keys.stores.awskms.response_fields import SPECS, field
from hsm_keys.stores.awskms.tags import CLEARING_TAG, ID_TAG, NAME_TAG, REGISTERING_TAG, alias_of
from hsm_keys.stores.marks import UNBEGUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hsm_keys.signing.algorithms import KeyType
    from hsm_keys.stores.awskms.tags import KeyCreation

__all__ = ["aliases", "create", "give_alias", "give_back", "is_set_aside", "left_over", "read_tags", "set_aside"]


def pages(call: KmsCall, function: Callable[..., Any], items: str, **parameters: Any) -> Iterator[Any]:
    """Give the items of all pages of a listing."""
    while True:
        answer = ask(call, function, **parameters)
        yield from field(answer, items, list, call)
        if not answer.get("Truncated"):
            return
        parameters["Marker"] = field(answer, "NextMarker", str, call)


def aliases(client: Any, region: str) -> dict[str, str]:
    """Return every alias of the account and Region that points to a key, with that key's id."""
    listed = pages(KmsCall("ListAliases", "", region), client.list_aliases, "Aliases")
    return {entry["AliasName"]: entry["TargetKeyId"] for entry in listed if entry.get("TargetKeyId")}


def read_tags(client: Any, call: KmsCall, arn: str) -> dict[str, str]:
    """Return a key's tags."""
    tags = pages(call, client.list_resource_tags, "Tags", KeyId=arn)
    return {tag["TagKey"]: tag["TagValue"] for tag in tags}


def left_over(
    client: Any,
    region: str,
    name: str,
    aliased: set[str],
    state: str = "Enabled",
    *,
    set_aside: bool = False,
    registered: bool = False,
) -> Any | None:
    """Return the metadata of a key in that state that carries the name as its tag, and has no alias and no API key id.

    With ``set_aside`` it may also be one that a run was killed over which was about to let it go.

    One that has an API key id was in use, and somebody took its alias away: it may live, and is left alone, unless
    ``registered`` asks for it.

    Costs one ListKeys a thousand keys of the account and Region, and one ListResourceTags for each key that no
    alias points to; in most accounts that is none.
    """
    for listed in pages(KmsCall("ListKeys", "", region), client.list_keys, "Keys", Limit=1000):
        key_id = listed["KeyId"]
        if key_id in aliased:
            continue
        try:
            tags = read_tags(client, KmsCall("ListResourceTags", key_id, region), key_id)
        except (AwsAccessDeniedError, KmsKeyNotFoundError):
            continue  # a key that this caller made, this caller could read
        unused = ID_TAG not in tags or registered
        if tags.get(NAME_TAG) == name and unused and (set_aside or not is_set_aside(tags)):
            call = KmsCall("DescribeKey", key_id, region)
            metadata = field(ask(call, client.describe_key, KeyId=key_id), "KeyMetadata", dict, call)
            if metadata.get("KeyState") == state:
                return metadata
    return None


def give_back(client: Any, region: str, name: str, taken_from: str) -> None:
    """Give an alias that was removed to another key that is tagged with its name, if there is one without an alias.

    Args:
        client: KMS's client for the Region.
        region: The Region.
        name: The name that the alias stands for.
        taken_from: Id of the key that was to lose it.
    """
    others = {*aliases(client, region).values(), taken_from}
    bereft = left_over(client, region, name, others, registered=True)
    if bereft is not None:
        give_alias(client, region, name, str(bereft["Arn"]))


def set_aside(client: Any, region: str, name: str, key_id: str) -> None:
    """Say in a key's tag that it is about to be let go, and make sure then that it still has no alias.

    Whoever makes the key gives it its alias, and looks at the tag then. So at least one of the two sees the other one,
    and gives way.

    Raises:
        KeyBusyError: If it has got an alias meanwhile; it keeps its name.
    """
    _set_clearing(client, region, name, key_id, "yes")
    if key_id in aliases(client, region).values():
        _set_clearing(client, region, name, key_id, "no")
        raise KeyBusyError(
            f"somebody else is making the key {name!r} in KMS at this moment; nothing was ended",
            hint="look with `hsm-keys list`, then run the same command again",
        )


def is_set_aside(tags: Mapping[str, str]) -> bool:
    """Tell whether a key's tags say that it is about to be let go."""
    return tags.get(CLEARING_TAG) == "yes"


def _set_clearing(client: Any, region: str, name: str, key_id: str, value: str) -> None:
    call = KmsCall("TagResource", name, region)
    ask(call, client.tag_resource, KeyId=key_id, Tags=[{"TagKey": CLEARING_TAG, "TagValue": value}])


def create(client: Any, region: str, name: str, key_type: KeyType, wanted: KeyCreation) -> str:
    """Make a key, or find the one that an interrupted run made, and return its ARN. It has no alias yet.

    Raises:
        KeyExistsError: If the name is taken.
        KeyProblemError: If what an interrupted run left is of another type.
        OutcomeUnknownError: If the answer to CreateKey was lost; the next run finds the key by its tag.
    """
    arns = aliases(client, region)
    if alias_of(name) in arns:
        raise KeyExistsError(
            f"KMS in {region} already has the alias {alias_of(name)}",
            hint=f"choose another name, or see it: hsm-keys show {name}",
        )
    leftover = left_over(client, region, name, set(arns.values()))
    if leftover is not None:
        _check_left_over(leftover, name, key_type, wanted)
        return str(leftover["Arn"])
    call = KmsCall("CreateKey", name, region)
    tags = {NAME_TAG: name}
    if wanted.environment is not None:
        tags[REGISTERING_TAG] = f"{wanted.environment}:{UNBEGUN}"
    options: dict[str, Any] = {"MultiRegion": True} if wanted.multi_region else {}
    if wanted.policy is not None:
        options["Policy"] = wanted.policy
    answer = ask(
        call,
        client.create_key,
        KeySpec=SPECS[key_type],
        KeyUsage="SIGN_VERIFY",
        Description=f"Kalshi API key {name}, made by hsm-keys",
        Tags=[{"TagKey": tag, "TagValue": value} for tag, value in tags.items()],
        **options,
    )
    return str(field(field(answer, "KeyMetadata", dict, call), "Arn", str, call))


def _check_left_over(leftover: dict[str, Any], name: str, key_type: KeyType, wanted: KeyCreation) -> None:
    spec, multi_region = leftover.get("KeySpec"), bool(leftover.get("MultiRegion"))
    if spec == SPECS[key_type] and multi_region == wanted.multi_region:
        return
    raise KeyProblemError(
        f"an interrupted run left the key {leftover.get('KeyId')} for {name!r}: {spec}, "
        f"{'multi-Region' if multi_region else 'in one Region'}; this command asks for another kind",
        hint="give the same options as before, or delete that key: aws kms schedule-key-deletion --key-id "
        f"{leftover.get('KeyId')}",
    )


def give_alias(client: Any, region: str, name: str, arn: str) -> None:
    """Point the name's alias to the key; nothing happens if it points there already.

    Raises:
        KeyExistsError: If it points to another key.
    """
    call = KmsCall("CreateAlias", name, region)
    key_id = arn.rpartition("/")[2]
    if not ask(call, _alias_made, client=client, alias=alias_of(name), key_id=key_id):
        if aliases(client, region).get(alias_of(name)) == key_id:
            return
        raise KeyExistsError(
            f"the alias {alias_of(name)} in {region} was given to another key meanwhile",
            hint=f"choose another name, or see the key: hsm-keys show {name}",
        )


def _alias_made(client: Any, alias: str, key_id: str) -> bool:
    try:
        client.create_alias(AliasName=alias, TargetKeyId=key_id)
    except client.exceptions.AlreadyExistsException:
        return False
    return True
