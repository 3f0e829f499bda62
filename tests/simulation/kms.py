"""AWS KMS in one Region: keys, tags and aliases, behind a client that answers as botocore's does.

Below the real ``AwsKmsStore``. A key lives on without an alias, an alias leads to one key, and what is destroyed waits
for its deletion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore import exceptions as boto  # type: ignore[import-untyped]  # botocore has no annotations

from hsm_keys.forks import fork_generation
from hsm_keys.stores.awskms.store import AwsKmsStore
from hsm_keys.stores.awskms.tags import KeyCreation
from hsm_keys.stores.awskms.uri import AwsKmsUri
from tests.simulation.effects import Call
from tests.simulation.pairs import Pair, pair_of
from tests.simulation.wrapping import WRAPPING_DER, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.simulation.world import World

_T = TypeVar("_T")

REGION = "us-east-1"
_ARN = f"arn:aws:kms:{REGION}:000000000000:key/"
_PREFIX = "alias/hsm-keys/"
_POLICY = '{"Version":"2012-10-17","Statement":[]}'
_SPEC = "ECC_NIST_EDWARDS25519"


class KmsKey(NamedTuple):
    """A key."""

    key_id: str
    spec: str
    origin: str
    tags: tuple[tuple[str, str], ...]
    state: str
    pair: Pair | None

    @property
    def name(self) -> str | None:
        """The name that its tags give it."""
        return dict(self.tags).get("hsm-keys:name")

    def metadata(self) -> dict[str, Any]:
        return {
            "KeyId": self.key_id,
            "Arn": _ARN + self.key_id,
            "KeyState": self.state,
            "Origin": self.origin,
            "KeySpec": self.spec,
            "KeyUsage": "SIGN_VERIFY",
            "KeyManager": "CUSTOMER",
            "MultiRegion": False,
        }


class _Exceptions:
    class AlreadyExistsException(boto.ClientError):  # type: ignore[misc]
        """The alias is there already."""


def _refusal(code: str, operation: str, message: str = "") -> Exception:
    kind = _Exceptions.AlreadyExistsException if code == "AlreadyExistsException" else boto.ClientError
    error: Exception = kind({"Error": {"Code": code, "Message": message}}, operation)
    return error


@dataclass
class Kms:
    """An account in one Region.

    Args:
        world: Its surroundings.
    """

    world: World
    keys: dict[str, KmsKey] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    on_destroyed: list[Any] = field(default_factory=list)

    def publics(self) -> set[bytes]:
        """Return the public halves of the keys that sign."""
        return {key.pair.public for key in self.keys.values() if key.pair and key.state == "Enabled"}

    def labels(self) -> dict[str, bytes]:
        """Return name and public half of each key with an alias of ours that signs."""
        found = {alias: self.keys[key_id] for alias, key_id in self.aliases.items() if alias.startswith(_PREFIX)}
        return {
            alias.removeprefix(_PREFIX).replace("/", "+"): key.pair.public
            for alias, key in found.items()
            if key.pair and key.state == "Enabled"
        }

    def litter(self) -> list[str]:
        """Return what shouldn't be there: keys of ours without an alias, aliases without a key, names that differ."""
        led_to = {key_id: alias.removeprefix(_PREFIX).replace("/", "+") for alias, key_id in self.aliases.items()}
        found = [f"two aliases of one key: {sorted(self.aliases)}"] if len(led_to) < len(self.aliases) else []
        for key in self.keys.values():
            name = led_to.get(key.key_id)
            if key.state == "PendingDeletion":
                found += [f"alias {name} of a key that goes"] if name else []
            elif name is None:
                found += [f"a key without an alias, tagged {key.tags}"] if key.name is not None else []
            elif key.name not in {None, name}:
                found.append(f"{name} is tagged {key.name}")
            elif key.state != "Enabled":
                found.append(f"{name} is {key.state}")
        return found

    def snapshot(self) -> Any:
        return tuple(self.keys.values()), tuple(self.aliases.items())

    state = snapshot

    def handles(self) -> tuple[int, ...]:
        return ()

    def restore(self, snapshot: Any) -> None:
        self.keys = {key.key_id: key for key in snapshot[0]}
        self.aliases = dict(snapshot[1])

    def open(self) -> AwsKmsStore:
        """Open it, as a new process does."""
        return _Store(self)

    def change(self, key: KmsKey, **fields: Any) -> None:
        self.keys[key.key_id] = key._replace(**fields)

    def find(self, reference: str, operation: str) -> KmsKey:
        """Return the key that a key id, an ARN or an alias leads to."""
        key_id = self.aliases.get(reference, "") if reference.startswith("alias/") else reference.rpartition("/")[2]
        if key_id not in self.keys:
            raise _refusal("NotFoundException", operation)
        return self.keys[key_id]


def _lost(sent: bool) -> Exception:
    if sent:
        return boto.ReadTimeoutError(endpoint_url="kms")  # type: ignore[no-any-return]
    return boto.EndpointConnectionError(endpoint_url="kms")  # type: ignore[no-any-return]


@cache
def _passing(operation: str) -> Call:
    return Call(operation, not operation.startswith(("List", "Describe", "Get", "Sign")), _lost)


class Client:
    """Answers as botocore's client of KMS does."""

    exceptions = _Exceptions

    def __init__(self, kms: Kms) -> None:
        self._kms = kms

    def _call(self, operation: str, act: Callable[[], _T]) -> _T:
        return self._kms.world.effect(_passing(operation), act)

    def _key(self, operation: str, reference: str, *states: str) -> KmsKey:
        """Return a key, if it isn't in a state that forbids the call."""
        key = self._kms.find(reference, operation)
        if key.state == "PendingDeletion" and "PendingDeletion" not in states:
            raise _refusal("KMSInvalidStateException", operation, f"{_ARN}{key.key_id} is pending deletion.")
        if key.state == "PendingImport" and "PendingImport" not in states:
            raise _refusal("KMSInvalidStateException", operation, f"{_ARN}{key.key_id} is pending import.")
        return key

    def list_aliases(self) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            aliases = self._kms.aliases.items()
            return {"Aliases": [{"AliasName": name, "TargetKeyId": key_id} for name, key_id in aliases]}

        return self._call("ListAliases", look)

    def list_keys(self, **_: Any) -> dict[str, Any]:
        return self._call("ListKeys", lambda: {"Keys": [{"KeyId": key_id} for key_id in self._kms.keys]})

    def list_resource_tags(self, KeyId: str) -> dict[str, Any]:  # noqa: N803 - KMS's names
        def look() -> dict[str, Any]:
            tags = self._kms.find(KeyId, "ListResourceTags").tags
            return {"Tags": [{"TagKey": tag, "TagValue": value} for tag, value in tags]}

        return self._call("ListResourceTags", look)

    def describe_key(self, KeyId: str) -> dict[str, Any]:  # noqa: N803
        return self._call("DescribeKey", lambda: {"KeyMetadata": self._kms.find(KeyId, "DescribeKey").metadata()})

    def get_key_policy(self, KeyId: str, PolicyName: str) -> dict[str, Any]:  # noqa: N803
        def look() -> dict[str, Any]:
            self._kms.find(KeyId, "GetKeyPolicy")
            return {"Policy": _POLICY}

        return self._call("GetKeyPolicy", look)

    def get_public_key(self, KeyId: str) -> dict[str, Any]:  # noqa: N803
        def look() -> dict[str, Any]:
            key = self._key("GetPublicKey", KeyId)
            assert key.pair is not None
            return {
                "KeyId": _ARN + key.key_id,
                "KeySpec": key.spec,
                "KeyUsage": "SIGN_VERIFY",
                "PublicKey": key.pair.der,
            }

        return self._call("GetPublicKey", look)

    def sign(self, KeyId: str, Message: bytes, **_: Any) -> dict[str, Any]:  # noqa: N803
        def act() -> dict[str, Any]:
            key = self._key("Sign", KeyId)
            assert key.pair is not None
            return {"Signature": key.pair.sign(Message)}

        return self._call("Sign", act)

    def create_key(
        self,
        KeySpec: str,  # noqa: N803
        KeyUsage: str,  # noqa: N803
        Tags: list[Mapping[str, str]],  # noqa: N803
        Origin: str = "AWS_KMS",  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        assert (KeySpec, KeyUsage) == (_SPEC, "SIGN_VERIFY")

        def act() -> dict[str, Any]:
            kms = self._kms
            inside = Origin == "AWS_KMS"
            key = KmsKey(
                f"key-{len(kms.keys) + 1}",
                KeySpec,
                Origin,
                tuple((tag["TagKey"], tag["TagValue"]) for tag in Tags),
                "Enabled" if inside else "PendingImport",
                kms.world.pair() if inside else None,
            )
            kms.keys[key.key_id] = key
            return {"KeyMetadata": key.metadata()}

        return self._call("CreateKey", act)

    def create_alias(self, AliasName: str, TargetKeyId: str) -> None:  # noqa: N803
        def act() -> None:
            if AliasName in self._kms.aliases:
                raise _refusal("AlreadyExistsException", "CreateAlias")
            key = self._key("CreateAlias", TargetKeyId, "PendingImport")
            self._kms.aliases[AliasName] = key.key_id

        self._call("CreateAlias", act)

    def update_alias(self, AliasName: str, TargetKeyId: str) -> None:  # noqa: N803
        def act() -> None:
            if AliasName not in self._kms.aliases:
                raise _refusal("NotFoundException", "UpdateAlias")
            self._kms.aliases[AliasName] = self._key("UpdateAlias", TargetKeyId, "PendingImport").key_id

        self._call("UpdateAlias", act)

    def delete_alias(self, AliasName: str) -> None:  # noqa: N803
        def act() -> None:
            if self._kms.aliases.pop(AliasName, None) is None:
                raise _refusal("NotFoundException", "DeleteAlias")

        self._call("DeleteAlias", act)

    def tag_resource(self, KeyId: str, Tags: list[Mapping[str, str]]) -> None:  # noqa: N803
        def act() -> None:
            key = self._key("TagResource", KeyId, "PendingImport")
            tags = dict(key.tags) | {tag["TagKey"]: tag["TagValue"] for tag in Tags}
            self._kms.change(key, tags=tuple(tags.items()))

        self._call("TagResource", act)

    def schedule_key_deletion(self, KeyId: str, PendingWindowInDays: int) -> None:  # noqa: N803
        def act() -> None:
            key = self._key("ScheduleKeyDeletion", KeyId, "PendingImport")
            self._kms.change(key, state="PendingDeletion")
            if key.pair is not None:
                for hook in self._kms.on_destroyed:
                    hook(key.pair.public)

        self._call("ScheduleKeyDeletion", act)

    def get_parameters_for_import(self, KeyId: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        def look() -> dict[str, Any]:
            self._key("GetParametersForImport", KeyId, "PendingImport")
            return {"ImportToken": b"token", "PublicKey": WRAPPING_DER}

        return self._call("GetParametersForImport", look)

    def import_key_material(self, KeyId: str, EncryptedKeyMaterial: bytes, **_: Any) -> None:  # noqa: N803
        def act() -> None:
            key = self._key("ImportKeyMaterial", KeyId, "PendingImport")
            pair = pair_of(unwrapped(EncryptedKeyMaterial))
            if key.pair not in {None, pair}:
                raise _refusal("IncorrectKeyMaterialException", "ImportKeyMaterial")
            self._kms.change(key, pair=pair, state="Enabled")

        self._call("ImportKeyMaterial", act)


class _Caller:
    """Stands in for ``Caller``: one attempt at each call."""

    regions = (REGION,)

    def __init__(self, client: Client) -> None:
        self.generation = fork_generation()
        self._client = client

    def manage(self, region: str) -> Client:
        return self._client

    def look(self, call: Callable[[Any, str], _T], reference: str) -> _T:
        return call(self._client, REGION)

    sign = look

    def close(self) -> None:
        """Nothing is open."""


class _Store(AwsKmsStore):
    def __init__(self, kms: Kms) -> None:
        self._wanted = KeyCreation()
        self._closed = False
        self._caller: Any = _Caller(Client(kms))
        self._uri = AwsKmsUri(regions=(REGION,))
        self.accept_imported = False  # type: ignore[misc]
        self.uri = str(self._uri)
