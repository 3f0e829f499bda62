"""A token that other programs use too, as the commands show it."""

from __future__ import annotations

import sys
from base64 import b64decode
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import failed_json, run_cli, run_json
from tests.support.foreign import make_pair
from tests.support.running_proxy import RunningProxy, program
from tests.support.seen import latest
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

API_KEY_ID = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"
BALANCE = "/trade-api/v2/portfolio/balance"
ASK = """
import os, urllib.request
url = os.environ["KALSHI_API_BASE_URL"] + "/portfolio/balance"
asked = urllib.request.Request(url, headers={"KALSHI-ACCESS-KEY": os.environ["KALSHI_KEY_ID"]})
print(urllib.request.urlopen(asked, timeout=30).status)
"""


@pytest.fixture(autouse=True)
def _pin(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


@pytest.fixture
def foreign(token: TestToken) -> None:
    for label in ("alpha", "beta"):
        make_pair(token, label)


@pytest.mark.usefixtures("foreign")
def test_two_pairs_of_one_id_are_listed_shown_and_sign_apart(sandbox: SandboxServer, tmp_path: Path) -> None:
    listed = [key for key in run_json("list")["keys"] if key["api_key_id"] != sandbox.bootstrap_key_id]
    assert [(key["name"], key["state"], key["api_key_id"]) for key in listed] == [
        ("alpha", "not ours", None),
        ("beta", "not ours", None),
    ]
    pems = [run_json("public-key", name)["public_key_pem"] for name in ("alpha", "beta")]
    assert pems[0] != pems[1]
    for name, pem in zip(("alpha", "beta"), pems, strict=True):
        shown = run_json("show", name)
        assert (shown["state"], shown["api_key_id"], shown["public_key_pem"]) == ("not ours", None, pem)
        at = ("--timestamp-ms", "1703123456789")
        signed = run_json("sign", "GET", BALANCE, "--name", name, "--api-key-id", API_KEY_ID, *at)
        signature = b64decode(signed["KALSHI-ACCESS-SIGNATURE"])
        assert openssl_verifies(tmp_path, pem, b"1703123456789GET" + BALANCE.encode(), signature)


@pytest.mark.usefixtures("foreign", "sandbox")
def test_what_would_change_one_exits_with_5_and_says_what_to_do() -> None:
    error = failed_json(5, "sign", "GET", BALANCE, "--name", "alpha")
    assert (error["code"], "--api-key-id" in error["hint"]) == ("key_not_registered", True)
    done = run_cli("proxy", "--name", "alpha")
    assert (done.returncode, "isn't ours" in done.stderr) == (5, True), done.stderr
    for command in (
        ("enroll", "--name", "alpha"),
        ("enroll", "--name", "alpha", "--offline"),
        ("generate", "alpha"),
        ("rotate", "alpha"),
        ("revoke", "alpha", "--destroy", "--yes"),
    ):
        error = failed_json(5, *command)
        assert error["code"] == "foreign_key"
        assert "alpha" in error["message"]
        assert error["hint"]


@pytest.mark.usefixtures("foreign")
def test_a_proxy_and_a_run_sign_with_one_for_the_id_that_is_given(sandbox: SandboxServer, tmp_path: Path) -> None:
    registered = sandbox.add_key("alpha", run_json("public-key", "alpha")["public_key_pem"])
    named = ("--name", "alpha", "--api-key-id", registered.api_key_id)
    with RunningProxy(tmp_path, program([sys.executable, "-m", "hsm_keys", "proxy", *named]), name="alpha") as proxy:
        assert proxy.request("GET", BALANCE)[0] == 200
        assert latest(sandbox).api_key_id == registered.api_key_id
        joined = run_cli("run", *named, "--", "true", **proxy.environment)
        assert (joined.returncode, "leave out --api-key-id" in joined.stderr) == (2, True), joined.stderr
    done = run_cli("run", *named, "--", sys.executable, "-c", ASK)
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
    assert latest(sandbox).api_key_id == registered.api_key_id


@pytest.mark.usefixtures("foreign", "sandbox")
def test_one_that_auth_names_has_to_be_adopted_first() -> None:
    """No option of these commands says its API key id."""
    for command in (("list",), ("enroll", "--name", "new"), ("custody",), ("reconcile",)):
        error = failed_json(5, *command, "--auth", "alpha")
        assert error["hint"] == "bind the id to it: hsm-keys adopt alpha --api-key-id ID"


@pytest.mark.usefixtures("foreign")
def test_reconcile_and_custody_judge_ours_alone(sandbox: SandboxServer) -> None:
    accepted = ("--accept", sandbox.bootstrap_key_id)
    for command in ("reconcile", "custody"):
        assert run_cli(command, *accepted).returncode == 0
    assert "not ours" in run_cli("doctor").stdout
