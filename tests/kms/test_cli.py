"""The command line on KMS: every key command, its exit codes, and what only KMS has."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import failed_json, run_json
from tests.support.kms_faults import FaultyKms, Hang, Refuse
from tests.support.ministack import OTHER_REGION, REGION, account
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import TestToken

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.program

HERE = ("--kms", "--region", REGION)
API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"
PATH = "/trade-api/v2/portfolio/balance"


def sign(*arguments: str) -> dict[str, str]:
    signed: dict[str, str] = run_json(
        "sign", "GET", PATH, "--name", "prod", "--timestamp-ms", "1703123456789", *arguments
    )
    return signed


@pytest.mark.kms
@pytest.mark.parametrize("key_type", ["rsa-2048", "ed25519"])
def test_a_key_is_made_shown_and_signs(account: str, key_type: str, tmp_path: Path) -> None:
    made = run_json("enroll", "--offline", "--name", "prod", "--key-type", key_type, *HERE)
    assert (made["state"], made["key_type"], made["custody"]["verdict"]) == ("minted", key_type, "in custody")
    assert made["uri"] == f"awskms:///alias/hsm-keys/prod?region={REGION}"
    again = run_json("enroll", "--offline", "--name", "prod", *HERE)
    assert again["public_key_pem"] == made["public_key_pem"]
    headers = sign("--api-key-id", API_KEY_ID, *HERE)
    signature = b64decode(headers["KALSHI-ACCESS-SIGNATURE"])
    assert openssl_verifies(tmp_path, made["public_key_pem"], b"1703123456789GET" + PATH.encode(), signature)
    shown = run_json("show", "prod", *HERE)
    assert shown["public_key_pem"] == made["public_key_pem"]
    assert {
        name: shown["custody"]["attributes"][name] for name in ("key_state", "origin", "multi_region", "deletion_date")
    } == {
        "key_state": "Enabled",
        "origin": "AWS_KMS",
        "multi_region": False,
        "deletion_date": None,
    }
    assert run_json("public-key", "prod", "--store", made["uri"])["public_key_pem"] == made["public_key_pem"]
    listed = run_json("list", *HERE)["keys"]
    assert [(entry["name"], entry["state"], entry["location"]) for entry in listed] == [
        ("prod", "minted", f"AWS KMS in {REGION}")
    ]


@pytest.mark.kms
def test_replicate_makes_a_key_usable_in_another_region(account: str) -> None:
    run_json("enroll", "--offline", "--name", "prod", "--multi-region", *HERE)
    assert run_json("replicate", "prod", "--to", OTHER_REGION, *HERE) == {
        "name": "prod",
        "uri": f"awskms:///alias/hsm-keys/prod?region={REGION}",
        "primary_region": REGION,
        "replica_regions": OTHER_REGION,
    }
    assert sign("--api-key-id", API_KEY_ID, "--kms", "--region", f"{OTHER_REGION},{REGION}")


@pytest.mark.kms
def test_an_unknown_name_and_no_region_exit_with_8(account: str) -> None:
    assert failed_json(8, "show", "nope", *HERE)["code"] == "kms_key_not_found"
    assert failed_json(8, "show", "nope", "--kms")["code"] == "aws_region"


def test_a_key_in_kms_that_is_registered_signs_without_its_id_being_given(kms: FaultyKms) -> None:
    assert sign(*HERE)["KALSHI-ACCESS-KEY"] == kms.tags["hsm-keys:api-key-id"]
    assert [seen.operation for seen in kms.seen] == ["GetPublicKey", "ListResourceTags", "Sign"]


def test_a_refusal_exits_with_8_and_no_answer_with_7(kms: FaultyKms) -> None:
    arguments = ("sign", "GET", PATH, "--name", "prod", *HERE)
    kms.always("Sign", Refuse("DisabledException", "arn is disabled."))
    assert failed_json(8, *arguments)["code"] == "kms_key_disabled"
    kms.always("*", Hang())
    kms.always("Sign", None)
    assert failed_json(7, *arguments)["code"] == "network"


@pytest.mark.softhsm
def test_replicate_refuses_a_token(token: TestToken) -> None:
    error = failed_json(2, "replicate", "prod", "--to", OTHER_REGION, "--store", token.uri)
    assert "AWS KMS" in error["message"]
