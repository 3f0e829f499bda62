"""Keys in AWS KMS: a store over one account and one or several Regions.

Least privilege for signing: ``kms:GetPublicKey``, ``kms:ListResourceTags`` and ``kms:Sign``; ``hsm-keys kms
policy`` prints the policies.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hsm_keys.arguments import takes_no_private_key
from hsm_keys.errors import KeyBusyError, KeyExistsError, StoreError, StoreUnavailableError, UsageError
from hsm_keys.forks import ProcessLock, fork_generation
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.signing.api_key_ids import check_api_key_id
from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys, ReplicatesKeys
from hsm_keys.stores.awskms import alias_handover, creation, replicas
from hsm_keys.stores.awskms.calls import RegionalCaller
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import (
    AwsAccessDeniedError,
    KmsKeyNotFoundError,
    KmsKeyNotPinnedError,
    KmsKeyPendingDeletionError,
    KmsKeyStateError,
    KmsKeyUnsuitableError,
)
from hsm_keys.stores.awskms.key import AwsKmsKey, Found
from hsm_keys.stores.awskms.response_fields import field, key_type_of_spec, public_key_in
from hsm_keys.stores.awskms.succession import fingerprint
from hsm_keys.stores.awskms.tags import (
    ALIAS_PREFIX,
    ENVIRONMENT_TAG,
    ID_TAG,
    NAME_TAG,
    REGISTERING_TAG,
    KeyCreation,
    alias_of,
    mark_of,
    name_of_alias,
)
from hsm_keys.stores.awskms.uri import AwsKmsUri, in_region, is_key_reference, key_id_of, region_of
from hsm_keys.stores.base import KeyStore, StoredKey
from hsm_keys.stores.key_names import check_label
from hsm_keys.stores.marks import Mark
from hsm_keys.stores.ownership import check_not_registered_since, check_ours
from hsm_keys.values import describe, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hsm_keys.signing.algorithms import PublicKey
    from hsm_keys.stores.awskms.importing import AwsKmsImports
    from hsm_keys.stores.checks import Check
    from hsm_keys.stores.marks import Claim

__all__ = ["AwsKmsKey", "AwsKmsStore"]

_reopening = ProcessLock()

_ALIAS_NAME = re.compile(r"[A-Za-z0-9/_+-]{1,200}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9 _.:/=+@-]{1,256}")


class AwsKmsStore(KeyStore, RenamesKeys, ImportsKeys, ReplicatesKeys):
    """The keys of an account, in one or several Regions.

    Args:
        uri: Says which.
        wanted: How ``generate`` makes keys.

    Raises:
        AwsError: If there is no Region, or there are no credentials.
    """

    deletion_days = replicas.DELETION_DAYS
    cancels_deletion = "aws kms cancel-key-deletion"

    def __init__(self, uri: AwsKmsUri, wanted: KeyCreation | None = None) -> None:
        self._wanted = wanted or KeyCreation()
        self._closed = False
        self._caller = RegionalCaller(uri)
        self._uri = replace(uri, regions=self._caller.regions)
        self.accept_imported: Final = uri.accept_imported
        self.uri = str(self._uri)

    def caller(self) -> RegionalCaller:
        """Return this process's clients; in a forked child they are made anew."""
        if self._closed:
            raise StoreUnavailableError("the store is closed", hint="open it again")
        if self._caller.generation != fork_generation():
            with _reopening:
                if self._caller.generation != fork_generation():
                    self._caller = RegionalCaller(self._uri)
        return self._caller

    def describe(self) -> str:
        """Return what people call this store."""
        return f"AWS KMS in {', '.join(self._uri.regions)}"

    def keys(self) -> list[StoredKey]:
        """Return every key with an alias under ``alias/hsm-keys/``, sorted by name; or the one that the URI names."""
        if self._uri.key:
            return [self.key("")]
        listed = self.caller().look(creation.aliases, "")
        keys: list[StoredKey] = []
        for alias, key_id in sorted(listed.items()):
            if alias.startswith(ALIAS_PREFIX):
                try:
                    keys.append(self._look_up(key_id, name_of_alias(alias)))
                except (KmsKeyNotFoundError, KmsKeyUnsuitableError):
                    continue  # deleted meanwhile, or not a key for Kalshi
        return keys

    @takes_no_private_key
    def key(self, name: str) -> AwsKmsKey:
        """Return a key.

        Args:
            name: What stands behind ``alias/hsm-keys/``; or, for a key made elsewhere, its own alias
                (``alias/...``), key id or ARN. If the store's URI names a key, then that one's name, or nothing.

        Raises:
            KmsKeyNotFoundError: If there is none.
            KmsKeyUnsuitableError: If it can't sign Kalshi requests, or isn't in all Regions of the store.
        """
        if self._uri.key:
            return self._key_of_uri(name)
        if is_key_reference(name):
            key = self._look_up(name, name_of_alias(name) if name.startswith(ALIAS_PREFIX) else None)
        elif _ALIAS_NAME.fullmatch(name):
            key = self._look_up(alias_of(name), name)
        else:
            raise KmsKeyNotFoundError(
                f"KMS can't have a key with the name that was given, {describe(name)}",
                hint="names on KMS hold letters, digits, '/', '-' and '_'",
            )
        self._check_regions(key)
        return key

    def holds(self, name: str) -> bool:
        """Tell whether the name's alias points to any key."""
        return alias_of(name) in self.caller().look(creation.aliases, "")

    def tags_of(self, key: AwsKmsKey) -> dict[str, str]:
        """Return a key's tags."""
        return self._tags(key.arn, key.name, foreign=False)

    def _key_of_uri(self, name: str) -> AwsKmsKey:
        own = self._uri.key
        key = self._look_up(own, name_of_alias(own) if own.startswith(ALIAS_PREFIX) else None)
        if name not in {"", own, key.name}:
            raise KmsKeyNotFoundError(
                f"the store's URI names the key {key.name!r}, not {shown(name)}", hint="leave the key out of the URI"
            )
        self._check_regions(key)
        self._check_pins(key)
        return key

    def _check_pins(self, key: AwsKmsKey) -> None:
        pinned = self._uri
        if pinned.api_key_id not in {"", key.api_key_id}:
            raise KmsKeyNotPinnedError(
                f"the key {key.name!r} is API key {key.api_key_id}, and the store's URI pins {pinned.api_key_id}",
                hint="if the key was rotated, change api-key-id in the URI; else find out who changed the alias",
            )
        if pinned.public_key_sha256 and fingerprint(key.public_key()) != pinned.public_key_sha256:
            raise KmsKeyNotPinnedError(
                f"the key {key.name!r} has another public half than the one that the store's URI pins",
                hint=f"if the key was rotated, change the URI to public-key-sha256={fingerprint(key.public_key())}; "
                "else find out who changed the alias",
            )

    def _check_regions(self, key: AwsKmsKey) -> None:
        if len(self._uri.regions) > 1 and not key_id_of(key.arn).startswith("mrk-"):
            raise KmsKeyUnsuitableError(
                f"the key {key.name!r} is only in {region_of(key.arn)}, and the store names several Regions",
                hint="name only that Region; only a key made with --multi-region can be in others too",
            )

    def _look_up(self, reference: str, name: str | None) -> AwsKmsKey:
        """Return the key that a reference leads to; without a name it gets its tag's, else the reference itself."""
        label = name or reference
        try:
            key = self._fetch(reference, label)
        except KmsKeyStateError:
            key = self._found_by_description(reference, label)
        tags = self._tags(key.arn, label, foreign=name is None and region_of(reference) is not None)
        return AwsKmsKey(
            self,
            name or tags.get(NAME_TAG) or reference,
            mark_of(tags),
            str(replace(self._uri, key=alias_of(name) if name else reference)),
            key,
        )

    def _fetch(self, reference: str, label: str) -> Found:
        def attempt(client: Any, region: str) -> Found:
            call = KmsCall("GetPublicKey", label, region)
            answer = ask(call, client.get_public_key, KeyId=in_region(reference, region))
            spec, usage = field(answer, "KeySpec", str, call), field(answer, "KeyUsage", str, call)
            key_type = key_type_of_spec(spec, usage, label)
            return Found(field(answer, "KeyId", str, call), key_type, public_key_in(answer, key_type, call))

        return self.caller().look(attempt, reference)

    def _found_by_description(self, reference: str, label: str) -> Found:
        metadata = self._describe(reference, label)
        key_type = key_type_of_spec(str(metadata.get("KeySpec")), str(metadata.get("KeyUsage")), label)
        return Found(str(metadata.get("Arn")), key_type, None)

    def _tags(self, arn: str, label: str, *, foreign: bool) -> dict[str, str]:
        def attempt(client: Any, region: str) -> dict[str, str]:
            return creation.read_tags(client, KmsCall("ListResourceTags", label, region), in_region(arn, region))

        try:
            return self.caller().look(attempt, arn)
        except (AwsAccessDeniedError, KmsKeyNotFoundError):
            if foreign:  # no other account may read a key's tags, whatever the key policy says
                return {}
            raise

    def fetch_public_key(self, key: AwsKmsKey) -> PublicKey:
        """Return the public half of a key that was found without."""
        public_key = self._fetch(key.arn, key.name).public_key
        if public_key is None:
            raise KmsKeyStateError(
                f"KMS doesn't show the public half of {key.name!r}", hint=f"see its state: hsm-keys show {key.name}"
            )
        return public_key

    def describe_key(self, key: AwsKmsKey) -> dict[str, Any]:
        """Return KMS's metadata of a key (``KeyMetadata`` of DescribeKey)."""
        return self._describe(key.arn, key.name)

    def _describe(self, reference: str, label: str) -> dict[str, Any]:
        def attempt(client: Any, region: str) -> dict[str, Any]:
            call = KmsCall("DescribeKey", label, region)
            answer = ask(call, client.describe_key, KeyId=in_region(reference, region))
            metadata: dict[str, Any] = field(answer, "KeyMetadata", dict, call)
            return metadata

        return self.caller().look(attempt, reference)

    @takes_no_private_key
    def generate(self, name: str, key_type: KeyType = KeyType.RSA_2048, environment: str | None = None) -> AwsKmsKey:
        """Make a pair in KMS; see ``generate_as``."""
        return self.generate_as(name, key_type, replace(self._wanted, environment=environment))

    def generate_like(self, model: StoredKey, name: str) -> AwsKmsKey:
        """Make a pair of the model's type, for its environment, with its key policy, and multi-Region if it is."""
        wanted = alias_handover.creation_like(self.caller().manage, self.describe_key(_kms_key(model)), model.name)
        return self.generate_as(name, model.key_type, replace(wanted, environment=model.environment))

    def generate_as(self, name: str, key_type: KeyType, wanted: KeyCreation) -> AwsKmsKey:
        """Make a pair in KMS, in the store's first Region, and give it its alias.

        A key that an interrupted run made and gave no alias is taken instead of making another.

        Raises:
            UsageError: If KMS can't have such a name; nothing was made.
            KeyExistsError: If the name is taken.
            KeyProblemError: If an interrupted run left a key of another type.
            OutcomeUnknownError: If KMS's answer was lost; the next run picks the key up.
        """
        check_label(name)
        if not _ALIAS_NAME.fullmatch(name) or self._uri.key:
            raise UsageError(
                f"{describe(name)} can't name a new key in {self.describe()}",
                hint="leave the key out of the store's URI" if self._uri.key else "KMS allows no '.' in an alias",
            )
        region = self._uri.regions[0]
        client = self.caller().manage(region)
        arn = creation.create(client, region, name, key_type, wanted)
        try:
            replicas.settled(lambda: creation.give_alias(client, region, name, arn))
        except KeyExistsError:
            self._give_way(name, arn)
        # By its ARN: an alias can take seconds to be known everywhere.
        key = replicas.settled(lambda: self._look_up(arn, name))
        if creation.is_set_aside(self.tags_of(key)):
            raise KeyBusyError(
                f"somebody else is ending the key {name!r} in {self.describe()} at this moment",
                hint="run the same command again in a while: it goes on from what is there",
            )
        return key

    def _give_way(self, name: str, arn: str) -> NoReturn:
        """Let go of a key whose name somebody else took: an alias leads to one key, so this one is of no use."""
        key_id = key_id_of(arn)
        ending, hint = "this one's deletion is scheduled", ""
        try:
            region = self._uri.regions[0]
            if key_id in creation.aliases(self.caller().manage(region), region).values():
                ending = "it is theirs now"  # they took the key for a leftover of an interrupted run
            else:
                replicas.destroy(self.caller().manage, self._describe(arn, name), name)
        except AwsAccessDeniedError:
            ending, hint = "this one is of no use", f"; let it go: aws kms schedule-key-deletion --key-id {key_id}"
        raise KeyBusyError(
            f"somebody else made a key {name!r} in {self.describe()} at the same moment; {ending}",
            hint=f"run the same command again in a while: it goes on from what is there{hint}",
        )

    def diagnose(self, keys: Sequence[StoredKey]) -> list[Check]:
        """Ask with dry runs whether KMS would let this caller sign."""
        from hsm_keys.stores.awskms.permission import permissions

        return permissions(self, keys)

    def imports(self) -> AwsKmsImports:
        """Return what imports keys into KMS.

        Raises:
            UsageError: If the store's URI names a key, or several Regions.
        """
        from hsm_keys.stores.awskms.importing import AwsKmsImports

        if self._uri.key or len(self._uri.regions) > 1:
            raise UsageError(
                f"keys that were made elsewhere can't be put into {self.describe()}",
                hint="leave the key out of the store's URI" if self._uri.key else "name one Region alone",
            )
        region = self._uri.regions[0]
        return AwsKmsImports(lambda: self.caller().manage(region), region, self._look_up)

    @takes_no_private_key
    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> AwsKmsKey:
        """Write API key id and environment as tags, in one call for each Region of the store that has the key.

        A key that was made elsewhere gets the name's tag, too: it is ours from then on.

        Raises:
            StoreError: If a tag can't hold such an id; nothing was sent.
            KmsKeyNotFoundError: If its deletion is scheduled, or somebody has bound it to another id since it was seen
                minted: it may be ending by now.
            AwsError: If AWS or KMS refuses.
        """
        if not _TAG_VALUE.fullmatch(api_key_id):
            raise StoreError(
                "KMS can't keep this API key id as a tag",
                hint="give --api-key-id to every command that uses the key",
            )
        kms_key = _kms_key(key)
        tags = {NAME_TAG: key.name, ID_TAG: check_api_key_id(api_key_id), ENVIRONMENT_TAG: environment}
        if key.ours:
            del tags[NAME_TAG]  # during a handover the tag may name another key than the alias
        if key.ours and key.api_key_id is None and self.tags_of(kms_key).get(ID_TAG) not in {None, tags[ID_TAG]}:
            raise KmsKeyNotFoundError(f"somebody else has registered the key {key.name!r}, and may have ended it")
        self._tag(kms_key, tags)
        mark = Mark(ours=True, api_key_id=tags[ID_TAG], environment=environment)
        return self._marked(kms_key, mark)

    def begin_registration(self, key: StoredKey, environment: str, claim: Claim | None = None) -> AwsKmsKey:
        """Write the environment and the claim as a tag, as ``bind`` does; it says nothing once the key is bound.

        Raises:
            KmsKeyNotFoundError: If its deletion is scheduled.
            KeyBusyError: If somebody has bound it, or an alias says that somebody is ending it.
        """
        kms_key = self._changeable(key)
        tags = {REGISTERING_TAG: f"{environment}:{claim}" if claim else environment}
        self._tag(kms_key, tags)
        region = self._uri.regions[0]
        alias_handover.check_not_ending(self.caller().manage(region), region, kms_key)
        now = self.tags_of(kms_key)
        if ID_TAG in now:
            raise KeyBusyError(f"somebody else registered {key.name!r} meanwhile", hint="run it again")
        return self._marked(kms_key, mark_of(now))

    def _marked(self, key: AwsKmsKey, mark: Mark) -> AwsKmsKey:
        return AwsKmsKey(self, key.name, mark, key.uri, Found(key.arn, key.key_type, key.public_key()))

    def _tag(self, kms_key: AwsKmsKey, tags: Mapping[str, str]) -> None:
        for region in self._regions_of(kms_key):
            call = KmsCall("TagResource", kms_key.name, region)
            try:
                ask(
                    call,
                    self.caller().manage(region).tag_resource,
                    KeyId=in_region(kms_key.arn, region),
                    Tags=[{"TagKey": tag, "TagValue": value} for tag, value in tags.items()],
                )
            except KmsKeyPendingDeletionError as error:
                raise KmsKeyNotFoundError(f"somebody else has destroyed it: {error.message}", hint=error.hint) from None
            except KmsKeyNotFoundError:
                if region == region_of(kms_key.arn):
                    raise  # elsewhere it hasn't been replicated yet; a replica is given the tags

    def _regions_of(self, key: AwsKmsKey) -> tuple[str, ...]:
        own = region_of(key.arn) or self._uri.regions[0]
        return self._uri.regions if key_id_of(key.arn).startswith("mrk-") else (own,)

    def replicate(self, name: str, region: str) -> AwsKmsKey:
        """Make the multi-Region key of that name usable in another Region too: replica, tags, alias.

        Safe to repeat: what is there already is left as it is.

        Raises:
            ForeignKeyError: If it isn't ours.
            KmsKeyUnsuitableError: If the key wasn't made as a multi-Region key.
            AwsError: If AWS or KMS refuses.
        """
        key = self._changeable(self.key(name))
        replicas.replicate(self.caller().manage, self.describe_key(key), name, region)
        return key

    def rename(self, key: StoredKey, name: str) -> AwsKmsKey:
        """Give the key another alias and name tag in every Region."""
        check_label(name)
        kms_key = self._changeable(key)
        alias_handover.rename(self.caller().manage, self.describe_key(kms_key), key.name, name)
        return self._look_up(kms_key.arn, name)

    def hand_over(self, name: str, taker: StoredKey, leaver: StoredKey, mark: str) -> tuple[AwsKmsKey, AwsKmsKey]:
        """Point the name's alias from one key to another, in every Region, after the old key signed for the new one."""
        taking, leaving = self._changeable(taker), self._changeable(leaver)
        described = self.describe_key(taking)
        alias_handover.vouch(self.caller().manage, leaving, taking, replicas.regions_of(described))
        alias_handover.hand_over(
            self.caller().manage,
            name,
            taker=described,
            leaver=self.describe_key(leaving),
            left=name + mark,
            taken=taker.name,
        )
        return self._look_up(taking.arn, name), self._look_up(leaving.arn, name + mark)

    def keep_name(self, key: StoredKey) -> None:
        """Give the key its alias and its name tag again, if another machine has taken them."""
        alias_handover.keep_name(self.caller().manage, self.describe_key(self._changeable(key)), key.name)

    def destroy(self, key: StoredKey) -> None:
        """Schedule the deletion of the key in every Region, and remove its aliases of hsm-keys.

        KMS deletes after 7 days, the shortest it allows; from now on the key signs nothing, and until then
        ``aws kms cancel-key-deletion`` saves it.
        """
        kms_key = self._changeable(key)
        check_not_registered_since(key, mark_of(self.tags_of(kms_key)), self.describe())
        replicas.destroy(self.caller().manage, self.describe_key(kms_key), key.name)

    def _changeable(self, key: StoredKey) -> AwsKmsKey:
        """Return the key, if it may be changed.

        Raises:
            ForeignKeyError: If it isn't ours: an alias of ours can lead to any key.
        """
        check_ours(key, self.describe())
        return _kms_key(key)

    def mend(self, name: str) -> None:
        """Let go of a key that was made for that name by a run that was killed, while another run's key got it."""
        region = self._uri.regions[0]
        if alias_of(name) in creation.aliases(self.caller().manage(region), region):
            for state in ("Enabled", "PendingImport"):
                self._let_go(name, state)

    def clear(self, name: str) -> bool:
        """Schedule the deletion of a key that was made for that name, and never got its alias."""
        return self._let_go(name, "Enabled")

    def _let_go(self, name: str, state: str) -> bool:
        region = self._uri.regions[0]
        client = self.caller().manage(region)
        aliased = set(creation.aliases(client, region).values())
        leftovers = creation.left_over(client, region, name, aliased, state, set_aside=True)
        if leftovers is not None:
            creation.set_aside(client, region, name, leftovers["KeyId"])
            replicas.destroy(self.caller().manage, leftovers, name)
        return leftovers is not None

    def close(self) -> None:
        """Let go of the clients. Signing with the store's keys ends here."""
        if not self._closed:
            self._closed = True
            self._caller.close()


def _kms_key(key: StoredKey) -> AwsKmsKey:
    if not isinstance(key, AwsKmsKey):
        raise UsageError(f"the key {key.name!r} is not in AWS KMS")
    return key
