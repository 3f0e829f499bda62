"""Least privilege for each workflow: an IAM policy with the calls it makes and no other, and a key policy.

The actions are those of the KMS developer guide, "AWS KMS permissions". Sign is bound to the two algorithms and
the message type that Kalshi's signatures use: a stolen signing role can't sign digests of its choice, nor
certificates (RSASSA_PKCS1_V1_5), and can't reach a key under another alias.

The policy for signing holds the caller to the key's alias. That for enrolling can't: a new alias or tag counts in
authorisation only after up to five minutes, and the new key must sign its proof at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from hsm_keys.errors import UsageError
from hsm_keys.stores.awskms.answers import SPECS
from hsm_keys.stores.awskms.layout import (
    ALIAS_PREFIX,
    ID_TAG,
    NAME_TAG,
    WRAPPING_ALGORITHM,
    WRAPPING_KEY_SPEC,
    alias_of,
)
from hsm_keys.stores.awskms.uri import check_region
from hsm_keys.stores.base import RETIRED, SUCCESSOR

__all__ = ["PURPOSES", "Scope", "iam_policy", "key_policy"]

PURPOSES: Final = ("sign", "enroll", "generate", "rotate")

_ROLE = re.compile(r"arn:(aws[a-z-]{0,20}):(?:iam|sts)::([0-9]{12}):(?:role|user|assumed-role)/[\w+=,.@/-]{1,600}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_NAME = re.compile(r"[A-Za-z0-9/_+-]{1,200}")

_SIGNATURES: Final = {
    "kms:MessageType": "RAW",
    "kms:SigningAlgorithm": ["RSASSA_PSS_SHA_256", "ED25519_SHA_512"],
}

# What looks after a key and can't sign with it. PutKeyPolicy is among it: without, KMS refuses the policy.
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
_ENDING: Final = [f"{ALIAS_PREFIX}*/retired", f"{ALIAS_PREFIX}*/next"]


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
                    f"{role!r} is not the ARN of a role", hint="it looks like arn:aws:iam::111122223333:role/trader"
                )
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UsageError(f"{self.name!r} can't be a key's name on KMS")
        if not self.account and not self.roles:
            raise UsageError("a policy needs the account's number", hint="give --account, or --role with its ARN")
        if self.account and not _ACCOUNT.fullmatch(self.account):
            raise UsageError(f"{self.account!r} is not an account", hint="it has 12 digits")

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
    def aliases(self) -> list[str]:
        """The aliases that the key and its successor have in the course of a rotation."""
        return [alias_of(self.name + mark) for mark in ("", SUCCESSOR, RETIRED)] if self.name else [self.alias]

    def arns(self, resource: str) -> list[str]:
        """Return the ARNs of a resource in every Region."""
        return [f"arn:{self.partition}:kms:{region}:{self.owner}:{resource}" for region in self.regions]


def iam_policy(purpose: str, scope: Scope) -> dict[str, Any]:
    """Return the identity policy for the role that does it.

    Args:
        purpose: ``sign`` (``sign``, ``request``, the library's signers), ``enroll``, ``generate`` or ``rotate``.
        scope: Which keys, where.
    """
    statements = {"sign": _to_sign, "enroll": _to_enroll, "generate": _to_generate, "rotate": _to_rotate}[purpose](
        scope
    )
    return {"Version": "2012-10-17", "Statement": statements}


def _to_sign(scope: Scope) -> list[dict[str, Any]]:
    match = "ForAnyValue:StringEquals" if scope.name else "ForAnyValue:StringLike"
    # A successor is signed with as soon as it has the name, and an alias counts in authorisation only after minutes.
    by_alias = {match: {"kms:ResourceAliases": scope.aliases}}
    keys = scope.arns("key/*")
    return [
        _allow("ReadPublicHalf", ["kms:GetPublicKey", "kms:ListResourceTags"], keys, by_alias),
        _allow("SignRequests", ["kms:Sign"], keys, {**by_alias, "StringEquals": _SIGNATURES}),
    ]


def _to_enroll(scope: Scope, origin: str = "AWS_KMS") -> list[dict[str, Any]]:
    keys = scope.arns("key/*")
    made: dict[str, Any] = {
        "kms:KeySpec": list(SPECS.values()),
        "kms:KeyUsage": "SIGN_VERIFY",
        "kms:KeyOrigin": origin,
    }
    create = {"StringEquals": made}
    if scope.name:
        made[f"aws:RequestTag/{NAME_TAG}"] = scope.name
    else:
        create["Null"] = {f"aws:RequestTag/{NAME_TAG}": "false"}
    own_tags = {"ForAllValues:StringEquals": {"aws:TagKeys": [NAME_TAG, ID_TAG]}, "Null": {"aws:TagKeys": "false"}}
    return [
        _allow("FindKeys", ["kms:ListAliases", "kms:ListKeys"], ["*"], {}),
        _allow("MakeKey", ["kms:CreateKey"], ["*"], create),
        _allow("TagKey", ["kms:TagResource"], keys, own_tags),
        _allow("NameKey", ["kms:CreateAlias"], [*scope.arns(scope.alias), *keys], {}),
        _allow("ReadKey", ["kms:DescribeKey", "kms:GetPublicKey", "kms:ListResourceTags"], keys, {}),
        _allow("ProveKey", ["kms:Sign"], keys, {"StringEquals": _SIGNATURES}),
    ]


def _to_generate(scope: Scope) -> list[dict[str, Any]]:
    """As for enrolling, with keys whose material is imported; one that never got any is let go again."""
    keys = scope.arns("key/*")
    external = {"StringEquals": {"kms:KeyOrigin": "EXTERNAL"}}
    return [
        *_to_enroll(scope, "EXTERNAL"),
        _allow(
            "PrepareImport",
            ["kms:GetParametersForImport"],
            keys,
            {"StringEquals": {"kms:WrappingAlgorithm": WRAPPING_ALGORITHM, "kms:WrappingKeySpec": WRAPPING_KEY_SPEC}},
        ),
        _allow(
            "ImportKey",
            ["kms:ImportKeyMaterial"],
            keys,
            {"StringEquals": {"kms:ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}},
        ),
        _allow("LetGo", ["kms:ScheduleKeyDeletion"], keys, external),
        _allow("LetNameGo", ["kms:DeleteAlias"], [*scope.arns(scope.alias), *keys], {}),
    ]


def _to_rotate(scope: Scope) -> list[dict[str, Any]]:
    """As for enrolling the successor; then names change hands, and the old key is let go."""
    keys = scope.arns("key/*")
    ending = {"ForAnyValue:StringLike": {"kms:ResourceAliases": _ENDING}}
    named = [arn for alias in scope.aliases for arn in scope.arns(alias)]
    enrolling = [
        statement
        for statement in _to_enroll(replace(scope, name=scope.name and scope.name + SUCCESSOR))
        if statement["Sid"] != "NameKey"
    ]
    return [
        *enrolling,
        _allow("CopyPolicy", ["kms:GetKeyPolicy"], keys, {}),
        _allow("HandNameOver", ["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"], [*named, *keys], {}),
        _allow("LetGo", ["kms:ScheduleKeyDeletion"], keys, ending),
    ]


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
