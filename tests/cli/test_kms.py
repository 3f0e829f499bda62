"""The same commands on AWS KMS, over the wire."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from tests.support.cli import failed_json, run_cli, run_json
from tests.support.ministack import REGION, account
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = [pytest.mark.kms, pytest.mark.program]

KMS = ("--kms", "--region", REGION)


def test_the_main_job_on_kms(account: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    given = run_json(*KMS, "enroll", "--name", "prod")
    assert (given["state"], given["key_type"]) == ("registered", "rsa-2048")
    assert given["uri"] == f"awskms:///alias/hsm-keys/prod?region={REGION}"
    assert given["custody"]["origin"] == "AWS_KMS"
    assert given["custody"]["verdict"] == "in custody"
    assert given["custody"]["signature_verified"] is True
    registered = sandbox.state.keys[given["api_key_id"]]
    assert registered.public_pem == given["public_key_pem"] == run_cli(*KMS, "public-key", "prod").stdout

    shown = run_json(*KMS, "show", "prod")
    assert shown["api_key_id"] == given["api_key_id"]
    assert shown["custody"]["attributes"]["key_state"] == "Enabled"
    assert shown["custody"]["attributes"]["creation_date"]

    headers = run_json(
        *KMS, "sign", "GET", "/trade-api/v2/markets", "--name", "prod", "--timestamp-ms", "1700000000000"
    )
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"])
    assert openssl_verifies(tmp_path, given["public_key_pem"], b"1700000000000GET/trade-api/v2/markets", signature)
    assert "balance" in json.loads(run_cli(*KMS, "request", "GET", "/portfolio/balance", "--name", "prod").stdout)
    last = sandbox.requests[-1]
    assert (last.verified, last.api_key_id) == (True, given["api_key_id"])

    keys = {key["name"]: key for key in run_json(*KMS, "list")["keys"]}
    assert keys["prod"]["location"] == f"AWS KMS in {REGION}"
    assert failed_json(5, *KMS, "enroll", "--name", "prod")["code"] == "key_exists"


def test_offline_and_adopt_with_ed25519(account: str, sandbox: SandboxServer) -> None:
    done = run_cli(*KMS, "enroll", "--name", "by-hand", "--key-type", "ed25519", "--offline")
    assert f"--store 'awskms:///?region={REGION}'" in done.stderr
    pasted = sandbox.add_key("by-hand", done.stdout).api_key_id
    adopted = run_json("adopt", "by-hand", "--api-key-id", pasted, "--store", f"awskms:///?region={REGION}")
    assert (adopted["api_key_id"], adopted["key_type"]) == (pasted, "ed25519")


def test_the_store_of_the_environment(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", "awskms:///")
    monkeypatch.setenv("AWS_REGION", REGION)
    assert run_json("list")["keys"] == []
    monkeypatch.delenv("AWS_REGION")
    assert run_json("list", "--region", REGION)["keys"] == []
    assert failed_json(8, "list")["code"] == "aws_region"


def test_a_multi_region_key_with_a_policy_of_its_own(account: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    role = "arn:aws:iam::111122223333:role/trader"
    policies = json.loads(run_cli(*KMS, "kms", "policy", "--for", "sign", "--name", "prod", "--role", role).stdout)
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policies["key_policy"]))
    run_json(*KMS, "enroll", "--name", "prod", "--multi-region", "--key-policy", str(file))
    assert run_json(*KMS, "show", "prod")["custody"]["attributes"]["multi_region"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kms", "--slot", "0", "list"), "--slot and --kms"),
        (("--kms", "--module", "/x.so", "list"), "--module"),
        (("--region", "us-east-1", "list", "--token", "x"), "--region"),
        (("--kms", "--region", "mars", "list"), "not an AWS Region"),
        (("--store", "awskms:///?region=us-east-1", "--region", "us-west-2", "list"), "--region"),
        (("--store", "awskms:///?regoin=us-east-1", "list"), "regoin"),
        (
            ("--store", "pkcs11:token=x", "enroll", "--name", "x", "--offline", "--multi-region"),
            "--multi-region",
        ),
        (("--kms", "enroll", "--name", "x", "--offline", "--key-policy", "/nope.json"), "/nope.json"),
    ],
)
def test_contradictions_are_refused_before_anything_is_asked(arguments: tuple[str, ...], said: str) -> None:
    assert said in failed_json(2, *arguments)["message"]


def test_refusals_of_aws_exit_8(account: str) -> None:
    assert failed_json(8, *KMS, "show", "nope")["code"] == "kms_key_not_found"
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    assert failed_json(8, *KMS, "list", **nobody)["code"] == "aws_credentials"
    closed = failed_json(7, *KMS, "list", AWS_ENDPOINT_URL_KMS="http://127.0.0.1:9")
    assert closed["code"] == "network"


def test_a_key_that_waits_for_its_deletion_is_still_shown(account: str) -> None:
    run_json(*KMS, "enroll", "--name", "old", "--offline")
    with open_store(f"awskms:///?region={REGION}") as store:
        arn = str(store.key("old").attributes()["arn"])
        store.destroy(store.key("old"))
    shown = run_json("show", arn, "--store", f"awskms:///?region={REGION}")
    assert shown["custody"]["attributes"]["key_state"] == "PendingDeletion"
    assert shown["custody"]["attributes"]["deletion_date"]
