"""Least privilege: each policy is held against the calls that its workflow makes on the wire."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.errors import KalshiError, KeyNotFoundError, UsageError
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle.enroll import enroll
from hsm_keys.lifecycle.generate import Generator
from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
from hsm_keys.lifecycle.revoke import Revoker
from hsm_keys.lifecycle.rotate import Rotator
from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.signing.algorithms import KeyType
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.policy import Scope, iam_policy, key_policy
from hsm_keys.stores.awskms.tags import KeyCreation
from hsm_keys.stores.policies import PURPOSES
from tests.lifecycle.person import Person
from tests.support import ministack
from tests.support.iam import ACCOUNT, allows
from tests.support.kms_faults import FaultyKms, Seen
from tests.support.ministack import OTHER_REGION, REGION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.awskms.store import AwsKmsStore

ID = "0f5a2e6c-3a1d-4f6e-9a41-6d2f0d8c1b7e"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/trader"
URI = f"awskms:///?region={REGION}"
API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"
NEXT_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
PATH = "/trade-api/v2/portfolio/balance"


@dataclass
class Wire:
    """The server between, and the account behind it."""

    server: FaultyKms
    account: str


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with FaultyKms(ministack.endpoint()) as server:
        yield Wire(server, ministack.credentials(monkeypatch, server.url))


@pytest.fixture
def person(sandbox: SandboxServer) -> Person:
    """Somebody with the bootstrap key of an account at Kalshi."""
    return Person(sandbox)


def run_enroll(person: Person, creation: KeyCreation | None = None) -> None:
    with open_kms(URI, creation=creation) as store, person.management() as management:
        done = enroll(
            store,
            "prod",
            key_type=None,
            scopes=None,
            subaccount=None,
            account=Account(management, person.connect),
            report=lambda _: None,
        )
        assert done.key.api_key_id in person.registered("prod")


def run_generate(person: Person) -> None:
    """Generate twice: Kalshi refuses at first, so that the key without material is let go."""
    with open_kms(URI) as store, person.management() as management:
        maker = KalshiGenerator(
            ApiKeyRequest("prod"), KeyType.ED25519, Account(management, person.connect), lambda _: None
        )
        person.sandbox.faults.add(parse_fault("POST /api_keys/generate:status=400:1"))
        with pytest.raises(KalshiError):
            Generator(store, maker).run()
        assert Generator(store, maker).run().key.api_key_id in person.registered("prod")


def run_rotate(person: Person) -> None:
    with open_kms(URI) as store, person.management() as management:
        rotator = Rotator(store, Account(management, person.connect), lambda _: None)
        rotator.advance("prod")
        assert [rotator.finish("prod", keep_old=False).key.api_key_id] == person.registered("prod")


def run_revoke(person: Person) -> None:
    """Have a key end itself, as it must where no other one can: under another name meanwhile. Then let a rest go."""
    with open_kms(URI) as store:
        key = store.key("prod")
        with person.connect(key.signer()) as management:
            parts = store, Account(management, person.connect), person.said.append
            plan = RevocationPlanner(*parts).plan("prod", destroy=True, force=True)
            done = Revoker(*parts).carry_out(plan)
        assert (done.name, done.private_half) == ("prod", "deletion scheduled")
        make_left_over(store)
        with person.management() as management:
            planner = RevocationPlanner(store, Account(management, person.connect), person.said.append)
            with pytest.raises(KeyNotFoundError):
                planner.plan("prod", destroy=True, force=False)


def run_sign() -> None:
    with open_kms(URI) as store:
        store.key("prod").signer().headers("GET", PATH)


def left_over(wire: Wire) -> None:
    """Leave what an interrupted enroll leaves, so that the next one also reads tags and descriptions."""
    with open_kms(URI) as store:
        make_left_over(store)
    wire.server.seen.clear()


def make_left_over(store: AwsKmsStore) -> None:
    tag = {"TagKey": "hsm-keys:name", "TagValue": "prod"}
    store.caller().manage(REGION).create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY", Tags=[tag])


def calls_of(wire: Wire, person: Person, purpose: str) -> list[Seen]:
    """Run a workflow and return the calls that reached the server."""
    if purpose == "generate":
        run_generate(person)
    else:
        run_enroll(person)
    if purpose in {"sign", "rotate", "revoke"}:
        wire.server.seen.clear()
    if purpose == "sign":
        run_sign()
    elif purpose == "rotate":
        run_rotate(person)
    elif purpose == "revoke":
        run_revoke(person)
        return [seen for seen in wire.server.seen if seen.operation != "CreateKey"]  # of the rest, which we made
    return list(wire.server.seen)


def granted(policy: dict[str, Any]) -> set[str]:
    return {action.partition(":")[2] for statement in policy["Statement"] for action in statement["Action"]}


def permissions_of(seen: Seen) -> list[str]:
    """Return what AWS asks for: a key that is made with tags needs TagResource as well."""
    with_tags = seen.operation == "CreateKey" and "Tags" in seen.parameters
    return ["CreateKey", "TagResource"] if with_tags else [seen.operation]


def context_of(seen: Seen, action: str, label: str, aliases: list[str]) -> dict[str, Any]:
    """Return the condition keys of a request, as the service authorisation reference of KMS lists them for it.

    Args:
        seen: The request.
        action: The permission that AWS asks for.
        label: The name that the key carries as its tag.
        aliases: The key's aliases.
    """
    parameters = seen.parameters
    context: dict[str, Any] = {}
    if action == "Sign":
        context["kms:MessageType"] = parameters["MessageType"]
        context["kms:SigningAlgorithm"] = parameters["SigningAlgorithm"]
    if action == "CreateKey":
        context["kms:KeySpec"] = parameters["KeySpec"]
        context["kms:KeyUsage"] = parameters["KeyUsage"]
        context["kms:KeyOrigin"] = parameters.get("Origin", "AWS_KMS")
    if action == "GetParametersForImport":
        context["kms:WrappingAlgorithm"] = parameters["WrappingAlgorithm"]
        context["kms:WrappingKeySpec"] = parameters["WrappingKeySpec"]
    if action == "ImportKeyMaterial":
        context["kms:ExpirationModel"] = parameters["ExpirationModel"]
    if action == "ScheduleKeyDeletion":
        context["kms:KeyOrigin"] = "EXTERNAL"
    for tag in parameters.get("Tags", []):
        context[f"aws:RequestTag/{tag['TagKey']}"] = tag["TagValue"]
        context.setdefault("aws:TagKeys", []).append(tag["TagKey"])
    if action not in {"CreateKey", "ListAliases", "ListKeys"}:
        # A request that makes a key with tags counts them as the key's own (IAM User Guide, aws:ResourceTag).
        context["aws:ResourceTag/hsm-keys:name"] = label
        context["kms:ResourceAliases"] = aliases
    return context


def resources_of(seen: Seen, account: str) -> list[str]:
    base = f"arn:aws:kms:{seen.region}:{account}:"
    if "AliasName" in seen.parameters:
        return [base + seen.parameters["AliasName"], base + "key/" + seen.parameters.get("TargetKeyId", ID)]
    if seen.parameters.get("KeyId", "").startswith("alias/"):
        return [base + f"key/{ID}"]  # AWS looks at the key that the alias leads to
    if "KeyId" in seen.parameters:
        return [f"arn:aws:kms:{seen.region}:{account}:key/{seen.parameters['KeyId'].rpartition('/')[2]}"]
    return ["*"]


@pytest.mark.kms
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("name", ["prod", None])
def test_a_policy_grants_every_call_of_its_workflow_and_no_other(
    wire: Wire, person: Person, purpose: str, name: str | None
) -> None:
    policy = iam_policy(purpose, Scope((REGION,), wire.account, name))
    calls = calls_of(wire, person, purpose)
    assert granted(policy) == {action for seen in calls for action in permissions_of(seen)}
    for seen in calls:
        for action in permissions_of(seen):
            context = context_of(seen, action, "prod", ["alias/hsm-keys/prod", "alias/hsm-keys/prod/retired"])
            new_key = f"arn:aws:kms:{REGION}:{wire.account}:key/{ID}"
            tags_new_key = (seen.operation, action) == ("CreateKey", "TagResource")
            for arn in [new_key] if tags_new_key else resources_of(seen, wire.account):
                at_hand = context if ":key/" in arn or arn == "*" else {}
                assert allows(policy, f"kms:{action}", arn, at_hand, wire.account), (action, arn, context)


@pytest.mark.kms
@pytest.mark.parametrize("creation", [KeyCreation(multi_region=True), None])
def test_an_enroll_that_picks_a_key_up_needs_no_more(wire: Wire, person: Person, creation: KeyCreation | None) -> None:
    if creation is None:
        left_over(wire)
    run_enroll(person, creation)
    assert {seen.operation for seen in wire.server.seen} <= granted(iam_policy("enroll", Scope((REGION,), ACCOUNT)))


@pytest.mark.kms
def test_a_failover_needs_no_more(wire: Wire, person: Person) -> None:
    run_enroll(person, KeyCreation(multi_region=True))
    with open_kms(URI) as store:
        store.replicate("prod", OTHER_REGION)
    wire.server.seen.clear()
    with open_kms(f"awskms:///?region={REGION},{OTHER_REGION}") as store:
        store.key("prod").sign(b"m")
        store.caller()._probe(REGION, store.key("prod").arn)
    policy = iam_policy("sign", Scope((REGION, OTHER_REGION), wire.account, "prod"))
    assert {seen.operation for seen in wire.server.seen} == granted(policy)


KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{ID}"
OURS = {"kms:ResourceAliases": ["alias/hsm-keys/prod"], "aws:ResourceTag/hsm-keys:name": "prod"}
PSS = {"kms:MessageType": "RAW", "kms:SigningAlgorithm": "RSASSA_PSS_SHA_256"}

DENIED: list[tuple[str, str, dict[str, Any]]] = [
    ("kms:Sign", KEY, {**OURS, **PSS, "kms:MessageType": "DIGEST"}),
    ("kms:Sign", KEY, {**OURS, **PSS, "kms:SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}),
    ("kms:Sign", KEY, {**OURS, **PSS, "kms:SigningAlgorithm": "ED25519_PH_SHA_512"}),
    ("kms:Sign", KEY, {**PSS, "kms:ResourceAliases": ["alias/hsm-keys/staging"]}),
    ("kms:Sign", KEY, PSS),
    ("kms:Sign", KEY.replace(REGION, "eu-west-1"), {**OURS, **PSS}),
    ("kms:Sign", KEY.replace(ACCOUNT, "999988887777"), {**OURS, **PSS}),
    ("kms:GetPublicKey", KEY, {"kms:ResourceAliases": ["alias/payments"]}),
    ("kms:CreateKey", "*", {}),
    ("kms:Decrypt", KEY, OURS),
]


def test_the_signing_policy_allows_a_signature_for_kalshi() -> None:
    policy = iam_policy("sign", Scope((REGION,), ACCOUNT, "prod"))
    assert allows(policy, "kms:Sign", KEY, {**OURS, **PSS})
    assert allows(policy, "kms:Sign", KEY, {**OURS, **PSS, "kms:SigningAlgorithm": "ED25519_SHA_512"})


@pytest.mark.parametrize(("action", "arn", "context"), DENIED)
def test_the_signing_policy_denies_all_else(action: str, arn: str, context: dict[str, Any]) -> None:
    assert not allows(iam_policy("sign", Scope((REGION,), ACCOUNT, "prod")), action, arn, context)


NEW = {
    "kms:KeySpec": "RSA_2048",
    "kms:KeyUsage": "SIGN_VERIFY",
    "kms:KeyOrigin": "AWS_KMS",
    "aws:RequestTag/hsm-keys:name": "prod",
    "aws:TagKeys": ["hsm-keys:name"],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kms:KeySpec", "SYMMETRIC_DEFAULT"),
        ("kms:KeyUsage", "ENCRYPT_DECRYPT"),
        ("kms:KeyOrigin", "EXTERNAL"),
        ("aws:RequestTag/hsm-keys:name", "staging"),
        ("aws:RequestTag/hsm-keys:name", None),
    ],
)
def test_the_enrolling_policy_makes_no_other_kind_of_key(key: str, value: str | None) -> None:
    policy = iam_policy("enroll", Scope((REGION,), ACCOUNT, "prod"))
    assert allows(policy, "kms:CreateKey", "*", NEW)
    changed = {**NEW, key: value}
    assert not allows(policy, "kms:CreateKey", "*", {name: said for name, said in changed.items() if said is not None})


def test_the_generating_policy_imports_for_good_and_lets_no_key_go_that_kms_made() -> None:
    policy = iam_policy("generate", Scope((REGION,), ACCOUNT, "prod"))
    for_good = {"kms:ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
    assert allows(policy, "kms:CreateKey", "*", {**NEW, "kms:KeyOrigin": "EXTERNAL"})
    assert not allows(policy, "kms:CreateKey", "*", NEW)
    assert allows(policy, "kms:ImportKeyMaterial", KEY, {**OURS, **for_good})
    assert not allows(policy, "kms:ImportKeyMaterial", KEY, {**OURS, "kms:ExpirationModel": "KEY_MATERIAL_EXPIRES"})
    wrapping = {"kms:WrappingAlgorithm": "RSAES_OAEP_SHA_1", "kms:WrappingKeySpec": "RSA_2048"}
    assert not allows(policy, "kms:GetParametersForImport", KEY, {**OURS, **wrapping})
    assert not allows(policy, "kms:ScheduleKeyDeletion", KEY, {**OURS, "kms:KeyOrigin": "AWS_KMS"})
    assert not allows(policy, "kms:DeleteAlias", f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/payments", {})


def test_the_enrolling_policy_writes_no_other_tags_and_aliases() -> None:
    policy = iam_policy("enroll", Scope((REGION,), ACCOUNT, "prod"))
    assert allows(policy, "kms:TagResource", KEY, {**OURS, "aws:TagKeys": ["hsm-keys:api-key-id"]})
    assert not allows(policy, "kms:TagResource", KEY, {**OURS, "aws:TagKeys": ["hsm-keys:name", "team"]})
    assert not allows(policy, "kms:TagResource", KEY, OURS)
    assert not allows(policy, "kms:CreateAlias", f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/payments", {})
    assert not allows(policy, "kms:Sign", KEY, {**OURS, **PSS, "kms:MessageType": "DIGEST"})


# Keys of an account that a policy for the name "prod" is not about; the last carries the alias that a rotation ends by.
OTHERS: dict[str, dict[str, Any]] = {
    "without tags": {},
    "of another program": {"aws:ResourceTag/team": "payments", "kms:ResourceAliases": ["alias/payments"]},
    "of another name": {"aws:ResourceTag/hsm-keys:name": "staging", "kms:ResourceAliases": ["alias/hsm-keys/staging"]},
    "called retired": {"kms:ResourceAliases": ["alias/hsm-keys/prod/retired"]},
}

# What would hurt: each with the context in which the policy would allow it for a key of its own.
HARM: list[tuple[str, dict[str, Any]]] = [
    ("kms:Sign", PSS),
    ("kms:TagResource", {"aws:TagKeys": ["hsm-keys:name"], "aws:RequestTag/hsm-keys:name": "prod"}),
    ("kms:TagResource", {"aws:TagKeys": ["hsm-keys:api-key-id"]}),
    ("kms:UntagResource", {"aws:TagKeys": ["hsm-keys:name"]}),
    ("kms:CreateAlias", {}),
    ("kms:UpdateAlias", {}),
    ("kms:DeleteAlias", {}),
    ("kms:ScheduleKeyDeletion", {"kms:KeyOrigin": "EXTERNAL"}),
    ("kms:ScheduleKeyDeletion", {"kms:KeyOrigin": "AWS_KMS"}),
    ("kms:ImportKeyMaterial", {"kms:ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}),
    ("kms:PutKeyPolicy", {}),
    ("kms:DisableKey", {}),
    ("kms:CreateGrant", {}),
    ("kms:ReplicateKey", {}),
]


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(("action", "context"), HARM)
def test_no_policy_reaches_keys_that_are_not_its_own(
    purpose: str, other: str, action: str, context: dict[str, Any]
) -> None:
    policy = iam_policy(purpose, Scope((REGION,), ACCOUNT, "prod"))
    assert not allows(policy, action, KEY, {**OTHERS[other], **context})


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(("action", "context"), HARM)
def test_without_a_name_a_policy_reaches_no_key_without_the_tag(
    purpose: str, action: str, context: dict[str, Any]
) -> None:
    policy = iam_policy(purpose, Scope((REGION,), ACCOUNT))
    for other in ("without tags", "of another program"):
        assert not allows(policy, action, KEY, {**OTHERS[other], **context})


@pytest.mark.parametrize("purpose", ["enroll", "generate", "rotate", "revoke"])
def test_a_key_is_given_no_name_of_another(purpose: str) -> None:
    policy = iam_policy(purpose, Scope((REGION,), ACCOUNT, "prod"))
    renaming = {**OURS, "aws:TagKeys": ["hsm-keys:name"], "aws:RequestTag/hsm-keys:name": "staging"}
    assert not allows(policy, "kms:TagResource", KEY, renaming)
    assert allows(policy, "kms:TagResource", KEY, {**renaming, "aws:RequestTag/hsm-keys:name": "prod"})


def test_a_rotation_ends_its_own_old_key_alone() -> None:
    policy = iam_policy("rotate", Scope((REGION,), ACCOUNT, "prod"))
    retired = {"kms:ResourceAliases": ["alias/hsm-keys/prod/retired"], "aws:ResourceTag/hsm-keys:name": "prod+retired"}
    assert allows(policy, "kms:ScheduleKeyDeletion", KEY, retired)
    assert not allows(policy, "kms:ScheduleKeyDeletion", KEY, OURS)


ENDING = {"kms:ResourceAliases": ["alias/hsm-keys/prod/ending"], "aws:ResourceTag/hsm-keys:name": "prod+ending"}


def test_a_revocation_ends_the_key_under_the_name_that_it_has_then() -> None:
    policy = iam_policy("revoke", Scope((REGION,), ACCOUNT, "prod"))
    aliases = f"arn:aws:kms:{REGION}:{ACCOUNT}:alias"
    renaming = {"aws:TagKeys": ["hsm-keys:name"], "aws:RequestTag/hsm-keys:name": "prod+ending"}
    for own in (OURS, ENDING):
        assert allows(policy, "kms:ScheduleKeyDeletion", KEY, own)
        assert allows(policy, "kms:Sign", KEY, {**own, **PSS})
    assert allows(policy, "kms:TagResource", KEY, {**OURS, **renaming})
    for action in ("kms:CreateAlias", "kms:DeleteAlias"):
        assert allows(policy, action, f"{aliases}/hsm-keys/prod/ending", {})
        assert not allows(policy, action, f"{aliases}/hsm-keys/staging", {})
    assert not allows(policy, "kms:TagResource", KEY, {**OURS, "aws:TagKeys": ["hsm-keys:api-key-id"]})
    assert not allows(policy, "kms:TagResource", KEY, {**OURS, **renaming, "aws:RequestTag/hsm-keys:name": "staging"})
    assert not allows(policy, "kms:CreateKey", "*", NEW)
    for other in ("sign", "enroll", "rotate"):
        assert not allows(iam_policy(other, Scope((REGION,), ACCOUNT, "prod")), "kms:ScheduleKeyDeletion", KEY, ENDING)


def test_the_key_policy_lets_the_account_administer_and_only_the_roles_sign() -> None:
    administer, read, sign = key_policy(Scope((REGION,), roles=(ROLE,)))["Statement"]
    assert administer["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert "kms:PutKeyPolicy" in administer["Action"]
    assert "kms:Sign" not in administer["Action"]
    assert all("*" not in action for action in administer["Action"])
    assert read["Principal"] == sign["Principal"] == {"AWS": [ROLE]}
    assert sign["Condition"] == {
        "StringEquals": {"kms:MessageType": "RAW", "kms:SigningAlgorithm": ["RSASSA_PSS_SHA_256", "ED25519_SHA_512"]}
    }


def test_without_a_role_the_accounts_iam_policies_say_who_signs() -> None:
    statements = key_policy(Scope(("us-gov-west-1",), ACCOUNT))["Statement"]
    assert {statement["Principal"]["AWS"] for statement in statements} == {f"arn:aws-us-gov:iam::{ACCOUNT}:root"}


@pytest.mark.kms
def test_kms_takes_the_key_policy_and_the_key_signs(wire: Wire) -> None:
    policy = json.dumps(key_policy(Scope((REGION,), roles=(ROLE,))))
    with open_kms(URI, creation=KeyCreation(policy=policy)) as store:
        assert len(store.generate("prod").sign(b"m")) == 256


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"regions": ()}, "Region"),
        ({"regions": ("mars",)}, "Region"),
        ({"account": ""}, "account"),
        ({"account": "1234"}, "12 digits"),
        ({"roles": ("trader",)}, "ARN of a role"),
        ({"roles": ("arn:aws:iam::111122223333:root",)}, "ARN of a role"),
        ({"name": "a.b"}, "name"),
        ({"name": "*"}, "name"),
    ],
)
def test_a_scope_that_cannot_be_is_a_usage_error(scope: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Scope(**{"regions": (REGION,), "account": ACCOUNT, **scope})


def test_the_command_prints_both_policies_without_asking_aws() -> None:
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "from hsm_keys.cli import main\n"
        f"main(['kms', 'policy', '--for', 'sign', '--name', 'prod', '--role', '{ROLE}'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"AWS_REGION": REGION}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "iam_policy": iam_policy("sign", Scope((REGION,), name="prod", roles=(ROLE,))),
        "key_policy": key_policy(Scope((REGION,), name="prod", roles=(ROLE,))),
    }


def test_what_kms_policy_prints_can_be_given_back() -> None:
    wanted = key_policy(Scope(regions=("us-east-1",), account="111122223333"))
    printed = json.dumps({"iam_policy": {}, "key_policy": wanted}, indent=2)
    assert json.loads(KeyCreation(policy=printed).policy or "") == wanted
    assert json.loads(KeyCreation(policy=json.dumps(wanted)).policy or "") == wanted
