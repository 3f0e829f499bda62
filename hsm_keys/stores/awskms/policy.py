"""Least privilege for each workflow: an IAM policy with the calls it makes and no other, and a key policy.

The actions are those of the KMS developer guide, "AWS KMS permissions". Sign is bound to the two algorithms and
the message type that Kalshi's signatures use: a stolen signing role can't sign digests of its choice, nor
certificates (RSASSA_PKCS1_V1_5), and can't reach a key under another alias.

Except for reading, each policy allows only keys that have the name as their tag; the policy for signing also wants
their alias. Otherwise somebody who may give any key an alias or a tag could do with the key whatever aliases and tags
allow. For a request that makes a key with tags, these tags are the key's own (IAM User Guide, ``aws:ResourceTag``). A
change of tags or aliases takes effect after up to five minutes (KMS developer guide, "ABAC for AWS KMS").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.errors import UsageError
from hsm_keys.stores.awskms.response_fields import SPECS
from hsm_keys.stores.awskms.tags import (
    ALIAS_PREFIX,
    CLEARING_TAG,
    NAME_TAG,
    TAGS,
    WRAPPING_ALGORITHM,
    WRAPPING_KEY_SPEC,
    alias_of,
)
from hsm_keys.stores.awskms.uri import check_region
from hsm_keys.stores.key_names import ENDING, ROTATION, rotation_names
from hsm_keys.values import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Scope", "iam_policy", "key_policy"]

_ROLE = re.compile(r"arn:(aws[a-z-]{0,20}):(?:iam|sts)::([0-9]{12}):(?:role|user|assumed-role)/[\w+=,.@/-]{1,600}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_NAME = re.compile(r"[A-Za-z0-9/_+-]{1,200}")

_SIGNATURES: Final = {
    "kms:MessageType": "RAW",
    "kms:SigningAlgorithm": ["RSASSA_PSS_SHA_256", "ED25519_SHA_512"],
}

# Actions that administer a key but can't sign with it. Without PutKeyPolicy KMS refuses the policy.
_ADMINISTRATION: Final = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:GetKeyPolicy",
    "kms:GetPublicKey",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ReplicateKey",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
)


# Only what a rotation has retired, or made and given up again.
_TO_LET_GO: Final = [f"{ALIAS_PREFIX}*{mark.replace('+', '/')}" for mark in ROTATION]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a policy is about.

    Args:
        regions: The Regions where the key is.
        account: The account that owns the key, 12 digits; by default that of the first role.
        name: The key's name; None for every key of hsm-keys.
        roles: ARNs of the IAM roles or users that sign; none leaves that to the account's IAM policies.

    Raises:
        UsageError: If one of them can't be, or the account isn't known.
    """

    regions: tuple[str, ...]
    account: str = ""
    name: str | None = None
    roles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for region in self.regions:
            check_region(region)
        if not self.regions:
            raise UsageError("a policy needs a Region", hint="give --region, or set AWS_REGION")
        for role in self.roles:
            if not _ROLE.fullmatch(role):
                raise UsageError(
                    f"{describe(role)} is not the ARN of a role",
                    hint="it looks like arn:aws:iam::111122223333:role/trader",
                )
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{describe(self.name)} can't be a key's name on KMS", hint="use letters, digits, '/', '-' and '_'"
            )
        if not self.account and not self.roles:
            raise UsageError("a policy needs the account's number", hint="give --account, or --role with its ARN")
        if self.account and not _ACCOUNT.fullmatch(self.account):
            raise UsageError(f"{describe(self.account)} is not an account", hint="it has 12 digits")

    @property
    def partition(self) -> str:
        """The first part of ARNs: AWS proper, China, GovCloud."""
        if self.regions[0].startswith("cn-"):
            return "aws-cn"
        return "aws-us-gov" if self.regions[0].startswith("us-gov-") else "aws"

    @property
    def owner(self) -> str:
        """The account that owns the key."""
        return self.account or self.roles[0].split(":")[4]

    @property
    def alias(self) -> str:
        """The key's alias, or the pattern of all of them."""
        return ALIAS_PREFIX + (self.name or "*")

    @property
    def labels(self) -> list[str]:
        """The names that the key and its successor have in the course of a rotation; none stands for every key."""
        return [*rotation_names(self.name), self.name + ENDING] if self.name else []

    def aliases(self, labels: list[str]) -> list[str]:
        """Return the aliases of these names, or the pattern of all aliases where there are none."""
        return [alias_of(label) for label in labels] or [self.alias]

    def arns(self, resource: str) -> list[str]:
        """Return the ARNs of a resource in every Region."""
        return [f"arn:{self.partition}:kms:{region}:{self.owner}:{resource}" for region in self.regions]


def iam_policy(purpose: str, scope: Scope) -> dict[str, Any]:
    """Return the identity policy for the role that does it.

    Args:
        purpose: ``sign`` (``sign``, ``request``, the library's signers), ``enroll``, ``generate``, ``rotate`` or
            ``revoke``.
        scope: Which keys, where.
    """
    statements = {
        "sign": _to_sign,
        "enroll": _to_enroll,
        "generate": _to_generate,
        "rotate": _to_rotate,
        "revoke": _to_revoke,
    }
    return {"Version": "2012-10-17", "Statement": statements[purpose](scope)}


def _to_sign(scope: Scope) -> list[dict[str, Any]]:
    match = "ForAnyValue:StringEquals" if scope.name else "ForAnyValue:StringLike"
    # A successor signs as soon as it has the name, but its alias takes effect in authorisation only after minutes.
    by_name = _all_of({match: {"kms:ResourceAliases": scope.aliases(scope.labels)}}, _held(scope.labels))
    keys = scope.arns("key/*")
    return [
        _allow("ReadPublicHalf", ["kms:GetPublicKey", "kms:ListResourceTags"], keys, by_name),
        _allow("SignRequests", ["kms:Sign"], keys, _all_of(by_name, {"StringEquals": _SIGNATURES})),
    ]


def _to_enroll(scope: Scope, origin: str = "AWS_KMS") -> list[dict[str, Any]]:
    labels = [scope.name] if scope.name else []
    return [*_to_make(scope, labels, origin), _allow("NameKey", ["kms:CreateAlias"], scope.arns(scope.alias), {})]


def _to_make(scope: Scope, labels: list[str], origin: str) -> list[dict[str, Any]]:
    """Return what makes a key and proves it, held to keys with one of these names; none is every key of hsm-keys."""
    keys, held = scope.arns("key/*"), _held(labels)
    conditions: dict[str, Any] = {
        "kms:KeySpec": list(SPECS.values()),
        "kms:KeyUsage": "SIGN_VERIFY",
        "kms:KeyOrigin": origin,
    }
    return [
        *_to_find(keys),
        _allow(
            "MakeKey", ["kms:CreateKey"], ["*"], _all_of(_named("aws:RequestTag", labels), {"StringEquals": conditions})
        ),
        _allow("TagKey", ["kms:TagResource"], keys, _all_of(held, *_writing(TAGS, labels))),
        _allow("GiveKeyItsName", ["kms:CreateAlias"], keys, held),
        _allow("ProveKey", ["kms:Sign"], keys, _all_of(held, {"StringEquals": _SIGNATURES})),
    ]


def _to_generate(scope: Scope) -> list[dict[str, Any]]:
    """As for enrolling, with keys whose material is imported; one that never got any is let go again."""
    keys, held = scope.arns("key/*"), _held([scope.name] if scope.name else [])
    wrapping = {"kms:WrappingAlgorithm": WRAPPING_ALGORITHM, "kms:WrappingKeySpec": WRAPPING_KEY_SPEC}
    for_good = {"kms:ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
    external = {"kms:KeyOrigin": "EXTERNAL"}
    return [
        *_to_enroll(scope, "EXTERNAL"),
        _allow("PrepareImport", ["kms:GetParametersForImport"], keys, _all_of(held, {"StringEquals": wrapping})),
        _allow("ImportKey", ["kms:ImportKeyMaterial"], keys, _all_of(held, {"StringEquals": for_good})),
        _allow("LetGo", ["kms:ScheduleKeyDeletion"], keys, _all_of(held, {"StringEquals": external})),
        _allow("TakeNameFromKey", ["kms:DeleteAlias"], keys, held),
        _allow("LetNameGo", ["kms:DeleteAlias"], scope.arns(scope.alias), {}),
    ]


def _to_rotate(scope: Scope) -> list[dict[str, Any]]:
    """As for enrolling the successor; then names change hands, and the old key is let go."""
    keys, held = scope.arns("key/*"), _held(scope.labels)
    ending = {"ForAnyValue:StringLike": {"kms:ResourceAliases": _TO_LET_GO}}
    named = [arn for alias in scope.aliases(scope.labels) for arn in scope.arns(alias)]
    hand_over = ["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"]
    making = [it for it in _to_make(scope, scope.labels, "AWS_KMS") if it["Sid"] != "GiveKeyItsName"]
    return [
        *making,
        _allow("CopyPolicy", ["kms:GetKeyPolicy"], keys, held),
        _allow("HandNameOver", hand_over, named, {}),
        _allow("HandNameFromKeyToKey", hand_over, keys, held),
        _allow("LetGo", ["kms:ScheduleKeyDeletion"], keys, _all_of(held, ending)),
    ]


def _to_revoke(scope: Scope) -> list[dict[str, Any]]:
    """What ends a key, under the name too that it has while it deletes its own API key."""
    labels = scope.labels
    keys, held = scope.arns("key/*"), _held(labels)
    named = [arn for alias in scope.aliases(labels) for arn in scope.arns(alias)]
    return [
        *_to_find(keys),
        _allow("ProveKey", ["kms:Sign"], keys, _all_of(held, {"StringEquals": _SIGNATURES})),
        _allow("TagKey", ["kms:TagResource"], keys, _all_of(held, *_writing((NAME_TAG, CLEARING_TAG), labels))),
        _allow("ChangeName", ["kms:CreateAlias", "kms:DeleteAlias"], named, {}),
        _allow("ChangeNameOfKey", ["kms:CreateAlias", "kms:DeleteAlias"], keys, held),
        _allow("LetGo", ["kms:ScheduleKeyDeletion"], keys, held),
    ]


def _to_find(keys: list[str]) -> list[dict[str, Any]]:
    return [
        _allow("FindKeys", ["kms:ListAliases", "kms:ListKeys"], ["*"], {}),
        # Without a condition on tags: a key of an interrupted run has to be found before AWS applies its tags.
        _allow("ReadKey", ["kms:DescribeKey", "kms:GetPublicKey", "kms:ListResourceTags"], keys, {}),
    ]


def _held(labels: list[str]) -> dict[str, Any]:
    """Return the condition that a key carries one of these names as its tag, or any where there are none."""
    return _named("aws:ResourceTag", labels)


def _writing(tags: Sequence[str], labels: list[str]) -> list[dict[str, Any]]:
    """Return the conditions that only these tags are written, and that of the name, if it is, one of these names."""
    own_tags = {"ForAllValues:StringEquals": {"aws:TagKeys": list(tags)}, "Null": {"aws:TagKeys": "false"}}
    renamed = {"StringEqualsIfExists": {f"aws:RequestTag/{NAME_TAG}": labels}} if labels else {}
    return [own_tags, renamed]


def _named(condition_key: str, labels: list[str]) -> dict[str, Any]:
    tag = f"{condition_key}/{NAME_TAG}"
    return {"StringEquals": {tag: labels}} if labels else {"StringLike": {tag: "?*"}}


def _all_of(*conditions: dict[str, Any]) -> dict[str, Any]:
    """Return one condition that holds where all of them do."""
    merged: dict[str, Any] = {}
    for condition in conditions:
        for operator, keys in condition.items():
            merged.setdefault(operator, {}).update(keys)
    return merged


def key_policy(scope: Scope) -> dict[str, Any]:
    """Return the key policy: the account looks after the key, and only the roles sign with it.

    Without roles the account's IAM policies say who signs. The role that enrolls signs the proof: name it too.
    """
    root = {"AWS": f"arn:{scope.partition}:iam::{scope.owner}:root"}
    signers = {"AWS": list(scope.roles)} if scope.roles else root
    by_principal = [
        (root, _allow("AccountAdministers", list(_ADMINISTRATION), ["*"], {})),
        (signers, _allow("ReadPublicHalf", ["kms:GetPublicKey", "kms:ListResourceTags"], ["*"], {})),
        (signers, _allow("SignRequests", ["kms:Sign"], ["*"], {"StringEquals": _SIGNATURES})),
    ]
    statements = [{**statement, "Principal": principal} for principal, statement in by_principal]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(sid: str, actions: list[str], resources: list[str], condition: dict[str, Any]) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**statement, "Condition": condition} if condition else statement
