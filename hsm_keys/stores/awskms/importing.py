"""Putting a private key that was made elsewhere into KMS: a key without material, then its material, wrapped.

The mark of an import under way is that key itself: Origin EXTERNAL, with the tags of its name and of the environment
that it comes from, and not yet with an API key id. KMS takes one material a key and never another, so nothing can be
tried with it beforehand. Another tag says which run is to import it. A run that takes the mark over first writes this
tag, and then checks whether the material has arrived; a run that imports reads the tag afterwards. So of two runs at
least one sees the other, and gives way.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_keys.errors import KeyExistsError, NetworkError, UsageError
from hsm_keys.signing.wrapping import wrap
from hsm_keys.stores.awskms import creation, replicas, response_fields
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import (
    AwsThrottledError,
    AwsUnavailableError,
    KmsGarbledAnswerError,
    KmsKeyNotFoundError,
    KmsKeyStateError,
)
from hsm_keys.stores.awskms.response_fields import SPECS, key_type_of_spec
from hsm_keys.stores.awskms.tags import (
    ENVIRONMENT_TAG,
    ID_TAG,
    IMPORT_TAG,
    NAME_TAG,
    WRAPPING_ALGORITHM,
    WRAPPING_KEY_SPEC,
    alias_of,
    mark_of,
)
from hsm_keys.stores.key_imports import KeyImports, PendingImport, taken_over
from hsm_keys.stores.key_names import check_new_name
from hsm_keys.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from hsm_keys.signing.algorithms import KeyType, PrivateKey
    from hsm_keys.stores.base import StoredKey

__all__ = ["AwsKmsImports"]

_PENDING: Final = "PendingImport"
_WITHOUT_MATERIAL: Final = frozenset({_PENDING, "PendingDeletion"})
"""The states of a mark that never got its material: waiting for it, or let go."""

_WRAPPING_BITS: Final = 4096
_ATTEMPTS: Final = 5
_PATIENCE_S: Final = 45.0
_PASSING: Final = (NetworkError, AwsThrottledError, AwsUnavailableError, KmsGarbledAnswerError)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key is to be imported.

    Args:
        client: The patient client of the Region.
        region: The Region.
        name: The key's name.
    """

    client: Any = field(repr=False)
    region: str
    name: str

    def call(self, operation: str) -> KmsCall:
        """Return the call for the words of an error."""
        return KmsCall(operation, self.name, self.region)

    def describe(self, key_id: str) -> dict[str, Any]:
        """Return KMS's metadata of a key."""
        call = self.call("DescribeKey")
        metadata: dict[str, Any] = response_fields.field(
            ask(call, self.client.describe_key, KeyId=key_id), "KeyMetadata", dict, call
        )
        return metadata

    def mark(self) -> tuple[dict[str, Any], dict[str, str]] | None:
        """Return metadata and tags of the key that marks an import; None if the name leads to no such key."""
        try:
            metadata = self.describe(alias_of(self.name))
        except KmsKeyNotFoundError:
            return None
        tags = self.tags(str(metadata.get("Arn")))
        return (metadata, tags) if _is_mark(metadata, tags, self.name) else None

    def tags(self, key_id: str) -> dict[str, str]:
        """Return the tags of a key."""
        return creation.read_tags(self.client, self.call("ListResourceTags"), key_id)

    def give_tags(self, key_id: str, tags: Mapping[str, str]) -> None:
        """Give tags to a key, or change them."""
        ask(
            self.call("TagResource"),
            self.client.tag_resource,
            KeyId=key_id,
            Tags=[{"TagKey": tag, "TagValue": value} for tag, value in tags.items()],
        )


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What KMS gives for one import, for 24 hours.

    Args:
        arn: The key's.
        wrapping_key: What the material is wrapped with.
        token: Belongs to that wrapping key.
        run: The run that is to import, as the key's tag says it.
    """

    arn: str
    wrapping_key: RSAPublicKey = field(repr=False)
    token: bytes = field(repr=False)
    run: str


class AwsKmsImports(KeyImports):
    """Imports into one Region of KMS.

    Args:
        client: Gives the patient client of the Region.
        region: The Region.
        look_up: Gives the key that an ARN leads to, under a name.
    """

    def __init__(self, client: Callable[[], Any], region: str, look_up: Callable[[str, str], StoredKey]) -> None:
        self._client = client
        self._region = region
        self._look_up = look_up
        self._seen: dict[str, set[str | None]] = {}
        """Name to what the tag of its mark said when it was looked at; to nothing if there was no mark."""
        self._prepared: dict[str, _Parameters] = {}
        self._to_withdraw: dict[str, str] = {}
        """Name to ARN of a key with this run's material, which another run had taken over."""

    def _place(self, name: str) -> _Place:
        check_new_name(name)
        if "." in name:
            raise UsageError(f"{shown(name)} can't name a new key in KMS", hint="KMS allows no '.' in an alias")
        return _Place(self._client(), self._region, name)

    def pending(self, name: str) -> PendingImport | None:
        """Return what an interrupted import left: a key without an API key id, with its material or without."""
        place = self._place(name)
        mark, seen = place.mark(), self._seen.setdefault(name, set())
        if mark is None:
            return None
        metadata, tags = mark
        seen.add(tags.get(IMPORT_TAG))
        key_type = key_type_of_spec(str(metadata.get("KeySpec")), str(metadata.get("KeyUsage")), name)
        without = metadata.get("KeyState") in _WITHOUT_MATERIAL
        key = None if without else self._look_up(str(metadata["Arn"]), name)
        return PendingImport(key_type, key, mark_of(tags).environment)

    def prepare(self, name: str, key_type: KeyType, environment: str) -> None:
        """Make a key without material, with its alias, and get what the import needs, so that it takes one call."""
        place, run = self._place(name), secrets.token_hex(8)
        tags = {ENVIRONMENT_TAG: environment, IMPORT_TAG: run}
        arn = _waiting(place, key_type, tags, self._seen.get(name)) or _create(place, key_type, tags)
        replicas.settled(lambda: creation.give_alias(place.client, place.region, place.name, arn))
        self._prepared[name] = replicas.settled(lambda: _parameters(place, arn, run))

    def is_taken_over(self, name: str) -> bool:
        """Tell whether the key's tag names another run."""
        prepared = self._prepared[name]
        return self._place(name).tags(prepared.arn).get(IMPORT_TAG) != prepared.run

    def put(  # the tags bind it afterwards
        self,
        name: str,
        private_key: PrivateKey,
        api_key_id: str,  # noqa: ARG002
        environment: str,  # noqa: ARG002
    ) -> StoredKey:
        """Give the key its material, wrapped with RSA_AES_KEY_WRAP_SHA_256; it isn't bound yet."""
        prepared, place = self._prepared[name], self._place(name)
        if self.is_taken_over(name):
            raise taken_over(name, f"KMS in {self._region}")
        _import_material(place, prepared, private_key)
        if self.is_taken_over(name):
            if self._look_up(prepared.arn, name).public_key() == private_key.public_key():
                self._to_withdraw[name] = prepared.arn
            raise taken_over(name, f"KMS in {self._region}")
        return replicas.settled(lambda: self._look_up(prepared.arn, name))

    def withdraw(self, name: str) -> None:
        """Schedule the deletion of the key, if the material in it is this run's; another one is the other run's mark.

        That run may have been killed: then its mark is all that tells the next one of an API key that got lost.
        """
        place, arn = self._place(name), self._to_withdraw.pop(name, None)
        if arn is None:
            return
        metadata, tags = place.describe(arn), place.tags(arn)
        key_type = key_type_of_spec(str(metadata.get("KeySpec")), str(metadata.get("KeyUsage")), name)
        mark = _create(place, key_type, {tag: tags[tag] for tag in (ENVIRONMENT_TAG, IMPORT_TAG) if tag in tags})
        replicas.destroy(lambda _: place.client, metadata, name)
        replicas.settled(lambda: creation.give_alias(place.client, place.region, place.name, mark))

    def end(self, name: str) -> None:
        """Let go of a key that never got its material. One that has got an API key id is no mark any more."""
        place = self._place(name)
        mark = place.mark()
        prepared = self._prepared.get(name)
        own = mark is not None and (prepared is None or mark[1].get(IMPORT_TAG) == prepared.run)
        if mark is not None and own and mark[0].get("KeyState") in _WITHOUT_MATERIAL:
            replicas.destroy(lambda _: place.client, mark[0], name)


def _is_mark(metadata: Mapping[str, Any], tags: Mapping[str, str], name: str) -> bool:
    """Tell whether a key was made for an import under that name which hasn't ended."""
    return metadata.get("Origin") == "EXTERNAL" and tags.get(NAME_TAG) == name and ID_TAG not in tags


def _waiting(
    place: _Place, key_type: KeyType, tags: Mapping[str, str], seen: Collection[str | None] | None
) -> str | None:
    """Take over a key that waits for an import, and return its ARN; one that can't serve any more is let go.

    Args:
        place: Where.
        key_type: What is to be imported.
        tags: What the key is to say from now on.
        seen: The runs of which it may be waiting for one; None for any.

    Raises:
        KeyExistsError: If the name is taken.
        KeyBusyError: If it waits for another run than was seen, or that has imported its key meanwhile, or gives way.
    """
    known = creation.aliases(place.client, place.region)
    key_id = known.get(alias_of(place.name))
    if key_id is None:
        metadata = creation.left_over(place.client, place.region, place.name, set(known.values()), _PENDING)
    else:
        metadata = place.describe(key_id)
        if not _is_mark(metadata, place.tags(key_id), place.name) or metadata.get("KeyState") not in _WITHOUT_MATERIAL:
            raise KeyExistsError(
                f"KMS in {place.region} already has the alias {alias_of(place.name)}",
                hint=f"choose another name, or see it: hsm-keys show {place.name}",
            )
    if metadata is None:
        return None
    if metadata.get("KeyState") == _PENDING:
        arn = str(metadata["Arn"])
        run = place.tags(arn).get(IMPORT_TAG) if key_id and seen is not None else None
        if run is not None and run not in (seen or ()):
            raise taken_over(place.name, f"KMS in {place.region}")
        place.give_tags(arn, tags)
        if place.describe(arn).get("KeyState") != _PENDING:
            raise taken_over(place.name, f"KMS in {place.region}")
        if metadata.get("KeySpec") == SPECS[key_type]:
            return arn
    replicas.destroy(lambda _: place.client, metadata, place.name)
    return None


def _create(place: _Place, key_type: KeyType, tags: Mapping[str, str]) -> str:
    call = place.call("CreateKey")
    answer = ask(
        call,
        place.client.create_key,
        KeySpec=SPECS[key_type],
        KeyUsage="SIGN_VERIFY",
        Origin="EXTERNAL",
        Description=f"Kalshi API key {place.name}, made by Kalshi, imported by hsm-keys",
        Tags=[{"TagKey": tag, "TagValue": value} for tag, value in {NAME_TAG: place.name, **tags}.items()],
    )
    return str(response_fields.field(response_fields.field(answer, "KeyMetadata", dict, call), "Arn", str, call))


def _parameters(place: _Place, arn: str, run: str) -> _Parameters:
    call = place.call("GetParametersForImport")
    answer = ask(
        call,
        place.client.get_parameters_for_import,
        KeyId=arn,
        WrappingAlgorithm=WRAPPING_ALGORITHM,
        WrappingKeySpec=WRAPPING_KEY_SPEC,
    )
    token = response_fields.field(answer, "ImportToken", bytes, call)
    try:
        wrapping_key = load_der_public_key(response_fields.field(answer, "PublicKey", bytes, call))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        wrapping_key = None
    if not isinstance(wrapping_key, RSAPublicKey) or wrapping_key.key_size != _WRAPPING_BITS:
        raise KmsGarbledAnswerError(
            f"the answer to {call} holds no RSA key of {_WRAPPING_BITS} bits",
            hint="nothing was sent; check that the endpoint (AWS_ENDPOINT_URL_KMS, a proxy) is really KMS",
        )
    return _Parameters(arn, wrapping_key, token, run)


def _import_material(place: _Place, parameters: _Parameters, private_key: PrivateKey) -> None:
    """Give the key its material, for good, and wait until it is enabled.

    What fails in passing is tried again: the same material may come twice, and Kalshi gives it only once.

    Raises:
        AwsError: If AWS or KMS refuses.
        NetworkError: If KMS doesn't answer; the material may be there.
    """
    import stamina

    for attempt in stamina.retry_context(on=_PASSING, attempts=_ATTEMPTS, timeout=_PATIENCE_S, wait_max=5.0):
        with attempt:
            if attempt.num > 1:
                if place.describe(parameters.arn).get("KeyState") != _PENDING:
                    break  # an earlier answer was lost, and the work was done
                parameters = _parameters(place, parameters.arn, parameters.run)
            _send(place, parameters, private_key)
    _wait_until_enabled(place, parameters.arn)


def _send(place: _Place, parameters: _Parameters, private_key: PrivateKey) -> None:
    wrapped = wrap(private_key, parameters.wrapping_key, hashes.SHA256())
    ask(
        place.call("ImportKeyMaterial"),
        place.client.import_key_material,
        KeyId=parameters.arn,
        ImportToken=parameters.token,
        EncryptedKeyMaterial=wrapped.aes_key + wrapped.private_key,
        ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE",
    )


def _wait_until_enabled(place: _Place, arn: str) -> None:
    import stamina

    for attempt in stamina.retry_context(on=KmsKeyStateError, attempts=None, timeout=_PATIENCE_S, wait_max=2.0):
        with attempt:
            if place.describe(arn).get("KeyState") == _PENDING:
                raise KmsKeyStateError(
                    f"KMS hasn't made the imported key {place.name!r} ready yet", hint="run the same command again"
                )
