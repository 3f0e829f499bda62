"""The right host for everything: WebSockets, FIX, and the exchange for perpetual futures with keys of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.signing.environments import PERPS, environment_name
from tests.support.cli import ED25519, failed_json, run_cli, run_json

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

API_KEY_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
WS, WS_MARGIN = "/trade-api/ws/v2", "/trade-api/ws/v2/margin"


@pytest.fixture(autouse=True)
def _token(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


def test_a_handshake_for_curl_goes_where_the_websocket_is(sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    for path in (WS, WS_MARGIN):
        done = run_cli("sign", "GET", path, "--name", "prod", "--output", "curl")
        assert f'url = "{sandbox.ws_url.removesuffix(WS)}{path}"' in done.stdout.splitlines(), done.stderr
    named = run_cli("sign", "GET", WS, "--name", "prod", "--output", "curl", "--ws-url", "wss://gateway.example")
    assert f'url = "wss://gateway.example{WS}"' in named.stdout.splitlines()


def test_a_fix_logon_says_where_the_gateway_is(sandbox: SandboxServer) -> None:
    here = environment_name(sandbox.base_url)
    with open_store(os.environ["HSM_KEYS_STORE"], pin_file=Path(os.environ["HSM_KEYS_PIN_FILE"])) as store:
        for environment in ("demo", "prod-perps", here, f"{here}-perps"):
            store.bind(store.generate(environment, KeyType.ED25519), API_KEY_ID, environment)
    logon = ("fix-logon", "--seq", "1", "--target")
    done = run_cli(*logon, "KalshiMD", "--env", "demo", "--name", "demo")
    assert "KalshiMD listens at marketdata.fix.demo.kalshi.co:8233, over TLS" in done.stderr
    fields = run_json(*logon, "KalshiNR", "--env", "prod", "--exchange", "perps", "--name", "prod-perps")
    assert (fields["host"], fields["port"]) == ("margin-fix-api.fix.elections.kalshi.com", 8228)
    assert "host" not in run_json(*logon, "KalshiNR", "--name", here)  # a sandbox has none
    assert (
        "perpetual futures"
        in failed_json(2, *logon, "KalshiRFQ", "--exchange", "perps", "--name", f"{here}-perps")["message"]
    )


def test_doctor_looks_for_the_websocket(sandbox: SandboxServer) -> None:
    def websocket(*arguments: str) -> dict[str, str]:
        checks = run_json("doctor", *arguments)["checks"]
        return next(check for check in checks if check["name"] == "websocket")

    found = websocket()
    assert found["verdict"] == "ok"
    assert f"{sandbox.ws_url} answered an unsigned handshake with 401" in found["message"]
    rest = sandbox.base_url.replace("http:", "ws:").removesuffix("/v2").removesuffix("/trade-api")
    mixed_up = websocket("--ws-url", rest)
    assert (mixed_up["verdict"], "404" in mixed_up["message"]) == ("warning", True)
    assert "--ws-url" in mixed_up["remedy"]
    assert websocket("--ws-url", "ws://127.0.0.1:9")["verdict"] == "warning"


@pytest.fixture
def _perps(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a bootstrap key for perpetual futures alone."""
    for name, value in (("KEY_ID", sandbox.bootstrap_key_id), ("PRIVATE_KEY", sandbox.bootstrap_pem)):
        monkeypatch.setenv(f"KALSHI_PERPS_{name}", value)
        monkeypatch.delenv(f"KALSHI_{name}")


@pytest.mark.usefixtures("_perps")
def test_a_key_for_perpetual_futures_is_enrolled_and_listed(sandbox: SandboxServer) -> None:
    assert "KALSHI_KEY_ID" in failed_json(5, "enroll", "--name", "perps")["hint"]
    enrolled = run_json("enroll", "--name", "perps", *ED25519, "--exchange", "perps")
    assert enrolled["state"] == "registered"
    environment = environment_name(sandbox.base_url, exchange=PERPS)
    assert environment.endswith("-perps")
    assert run_json("show", "perps")["environment"] == environment
    proofs = [seen for seen in sandbox.requests if seen.api_key_id == enrolled["api_key_id"]]
    assert [(seen.path, seen.verified) for seen in proofs] == [("/trade-api/v2/margin/balance", True)]
    listed = {key["name"]: key for key in run_json("list", "--exchange", "perps")["keys"]}
    assert listed["perps"]["environment"] == environment
    done = run_cli("request", "GET", "/margin/balance", "--name", "perps", "--exchange", "perps")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("_perps")
def test_for_perpetual_futures_doctor_looks_at_their_own_keys(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checks() -> dict[str, Any]:
        return {check["name"]: check for check in run_json("doctor", "--exchange", "perps")["checks"]}

    assert checks()["bootstrap"]["verdict"] == "ok"
    assert [seen.path for seen in sandbox.requests if "balance" in seen.path] == ["/trade-api/v2/margin/balance"]
    enrolled = run_json("enroll", "--name", "perps", *ED25519, "--exchange", "perps")
    for name in ("KEY_ID", "PRIVATE_KEY"):
        monkeypatch.delenv(f"KALSHI_PERPS_{name}")
        monkeypatch.setenv(f"KALSHI_{name}", "of another exchange")
    said = checks()
    assert said["bootstrap"]["message"] == "there is no bootstrap key (KALSHI_PERPS_KEY_ID)"
    assert said["credentials"]["verdict"] == "ok"
    assert [seen.api_key_id for seen in sandbox.requests if "balance" in seen.path][-1] == enrolled["api_key_id"]


@pytest.mark.usefixtures("_perps")
def test_what_is_missing_is_named_as_that_exchange_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY_ID", "PRIVATE_KEY"):
        monkeypatch.delenv(f"KALSHI_PERPS_{name}")
    own = "KALSHI_PERPS_KEY_ID and KALSHI_PERPS_PRIVATE_KEY_PATH"
    for command in (("enroll", "--name", "perps"), ("revoke", "perps", "--yes"), ("reconcile",)):
        assert own in failed_json(5, *command, "--exchange", "perps")["hint"]
    assert own in failed_json(2, "migrate", "perps", "--yes", "--exchange", "perps")["hint"]
    assert "(set KALSHI_PERPS_KEY_ID, or enroll a key)" in run_cli("list", "--exchange", "perps").stderr


@pytest.mark.usefixtures("_perps")
def test_one_that_kalshi_makes_or_that_is_pasted_is_marked_too(sandbox: SandboxServer) -> None:
    environment = environment_name(sandbox.base_url, exchange=PERPS)
    run_json("generate", "made", "--exchange", "perps")
    minted = run_cli("enroll", "--name", "pasted", *ED25519, "--offline", "--exchange", "perps")
    registered = sandbox.add_key("pasted", minted.stdout)
    run_json("adopt", "pasted", "--api-key-id", registered.api_key_id, "--exchange", "perps")
    assert {run_json("show", name)["environment"] for name in ("made", "pasted")} == {environment}
    rotated = run_json("rotate", "made", "--yes", "--exchange", "perps")
    assert run_json("show", "made")["environment"] == environment
    assert rotated["api_key_id"] == run_json("show", "made")["api_key_id"]
