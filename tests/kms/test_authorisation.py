"""Real refusals: ministack with authentication, and IAM users that may do what a policy's actions say.

It knows neither the condition keys of KMS nor that a call by alias is authorised on the key: those are left to
`test_policy.py`. What it shows is that the actions are enough, and how a denial looks.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session  # type: ignore[import-untyped]  # botocore has no annotations
import pytest

from hsm_keys import KeyType
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import AwsAccessDeniedError, AwsCredentialsError
from hsm_keys.stores.awskms.policy import Scope, iam_policy
from hsm_keys.stores.policies import PURPOSES
from tests.support import ministack
from tests.support.ministack import REGION

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kms

URI = f"awskms:///?region={REGION}"
ROOT_ACCOUNT = "000000000000"


@cache
def guarded() -> str:
    assert ministack.endpoint()  # skips, or fails in CI, where ministack isn't there
    return ministack.start(AUTH="true")


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, str]]:
    """Make an IAM user with the actions of a policy, and point AWS's variables to it."""
    session = botocore.session.Session()
    ministack.credentials(monkeypatch, guarded(), access_key="test")
    iam = session.create_client("iam", region_name=REGION, endpoint_url=guarded())

    def user(purpose: str) -> dict[str, str]:
        name = f"{purpose}-{id(session)}"
        iam.create_user(UserName=name)
        policy: dict[str, Any] = iam_policy(purpose, Scope((REGION,), ROOT_ACCOUNT))
        statements = [
            {"Effect": "Allow", "Action": statement["Action"], "Resource": "*"} for statement in policy["Statement"]
        ]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
        pair: dict[str, str] = iam.create_access_key(UserName=name)["AccessKey"]
        ministack.credentials(monkeypatch, guarded(), access_key=pair["AccessKeyId"], secret=pair["SecretAccessKey"])
        return pair

    return user


def test_the_actions_of_the_policies_are_enough(become: Callable[[str], dict[str, str]]) -> None:
    become("enroll")
    with open_kms(URI) as store:
        store.bind(store.generate("enough", KeyType.ED25519), "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "prod")
        assert store.key("enough").custody_facts()
    become("sign")
    with open_kms(URI) as store:
        assert store.key("enough").signer().headers("GET", "/trade-api/v2/portfolio/balance")


def test_a_denial_names_action_and_caller(become: Callable[[str], dict[str, str]]) -> None:
    become("sign")
    with open_kms(URI) as store, pytest.raises(AwsAccessDeniedError) as caught:
        store.generate("denied", KeyType.ED25519)
    assert caught.value.exit_code == 8
    assert "kms:ListAliases" in caught.value.message
    assert "user/sign-" in caught.value.message
    assert "--for enroll" in caught.value.hint


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_wrong_secret_is_told_without_it(
    become: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch, purpose: str
) -> None:
    pair = become(purpose)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary" + pair["SecretAccessKey"][6:])
    with open_kms(URI) as store, pytest.raises(AwsCredentialsError) as caught:
        store.key("any")
    assert "canary" not in str(caught.value)
    assert pair["AccessKeyId"] not in str(caught.value)


def test_an_unknown_access_key_is_told(become: object, monkeypatch: pytest.MonkeyPatch) -> None:
    ministack.credentials(monkeypatch, guarded(), access_key="AKIAUNKNOWN000000000", secret="s")
    with open_kms(URI) as store, pytest.raises(AwsCredentialsError, match="doesn't accept these credentials"):
        store.key("any")
