"""``hsm-keys doctor``: what it finds, how it ends, and what it never does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pkcs11.constants import TokenFlag

from hsm_keys.errors import KalshiError
from hsm_keys.inspecting.doctor import _clock, check_clock, check_variables, outcome
from hsm_keys.stores.checks import Check, checked
from hsm_keys.stores.pkcs11.checks import _pin
from hsm_keys.stores.pkcs11.probing import _pin_state
from tests.support.cli import run_cli
from tests.support.kalshi_stub import Stub
from tests.support.ministack import REGION, account

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.program


def doctor(*arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the command, and return its exit code and its checks by name."""
    done = run_cli("doctor", *arguments, "--output", "json", **environment)
    assert "Traceback" not in done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert set(told) == {"checks", "verdict"}
    assert (told["verdict"] == "problem") is (done.returncode != 0)
    assert all(set(check) == {"name", "verdict", "message", "remedy"} for check in told["checks"])
    return done.returncode, {check["name"]: check for check in told["checks"]}


@pytest.fixture
def _token(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_all_is_well(sandbox: SandboxServer) -> None:
    code, checks = doctor()
    assert code == 0
    for name in ("versions", "kalshi", "clock", "bootstrap", "module", "token", "pin", "mechanisms", "store"):
        assert checks[name]["verdict"] == "ok", checks[name]
    assert "SoftHSM" in checks["module"]["message"]
    assert "RSA and Ed25519" in checks["mechanisms"]["message"]
    assert {(seen.method, seen.path) for seen in sandbox.requests} == {
        ("GET", "/trade-api/v2/exchange/status"),
        ("GET", "/trade-api/v2/portfolio/balance"),
        ("GET", "/trade-api/ws/v2"),
        ("GET", "/trade-api/v2/api_keys"),
    }
    assert [seen.api_key_id for seen in sandbox.requests if "ws" in seen.path] == [None]  # unsigned
    assert "all is well" in run_cli("doctor").stdout


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_one_failure_hides_no_other_and_the_first_gives_the_exit_code(token: TestToken) -> None:
    code, checks = doctor(
        KALSHI_API_BASE_URL="http://127.0.0.1:9/trade-api/v2",
        KALSHI_KEY_ID="x",
        HSM_KEYS_PIN_FILE="",
        HSM_KEYS_PIN="0000",
    )
    assert code == 7
    assert checks["kalshi"]["verdict"] == checks["bootstrap"]["verdict"] == checks["login"]["verdict"] == "problem"
    assert checks["kalshi"]["message"].endswith("can't be reached: connection refused")
    assert checks["websocket"]["message"].endswith("can't be reached: connection refused")
    assert "refused the PIN" in checks["login"]["message"]
    assert checks["mechanisms"]["verdict"] == "ok"
    assert "0000" not in json.dumps(checks)


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_without_a_pin_nobody_logs_in(sandbox: SandboxServer) -> None:
    code, checks = doctor(HSM_KEYS_PIN_FILE="")
    assert (code, checks["login"]["verdict"]) == (0, "skipped")


@pytest.mark.usefixtures("sandbox")
def test_a_module_that_is_not_there(sandbox: SandboxServer) -> None:
    code, checks = doctor("--token", "kalshi", "--module", "/nowhere/module.so")
    assert code == 3
    assert "no PKCS#11 module at" in json.dumps(checks)


@pytest.mark.softhsm
@pytest.mark.usefixtures("token")
def test_a_token_that_is_not_there(sandbox: SandboxServer) -> None:
    code, checks = doctor("--token", "nowhere")
    assert (code, checks["token"]["verdict"]) == (3, "problem")
    assert checks["login"]["message"] == "there is no token to log in to"


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_a_pin_file_that_others_can_read(sandbox: SandboxServer, token: TestToken) -> None:
    token.pin_file.chmod(0o644)
    code, checks = doctor()
    assert (code, checks["pin-file"]["verdict"]) == (0, "warning")
    assert "chmod 600" in checks["pin-file"]["remedy"]


@pytest.mark.kms
def test_kms(sandbox: SandboxServer, account: str) -> None:
    store = f"awskms:///?region={REGION}"
    assert run_cli("enroll", "--name", "prod", "--store", store).returncode == 0
    code, checks = doctor("--store", store)
    assert code == 0, checks
    assert checks["permission to sign with prod"]["verdict"] == "ok"
    code, checks = doctor("--store", store, AWS_ENDPOINT_URL_KMS="http://127.0.0.1:9")
    assert code == 7
    assert checks["clock"]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("flag", "state", "verdict"),
    [
        (TokenFlag.USER_PIN_LOCKED, "locked", "problem"),
        (TokenFlag.USER_PIN_FINAL_TRY, "final", "problem"),
        (TokenFlag.USER_PIN_COUNT_LOW, "low", "warning"),
        (TokenFlag(0x80000), "change", "warning"),  # CKF_USER_PIN_TO_BE_CHANGED
        (TokenFlag(0), "ok", "ok"),
    ],
)
def test_the_pins_state_is_read_off_the_flags(flag: TokenFlag, state: str, verdict: str) -> None:
    assert _pin_state(flag | TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_INITIALIZED) == state
    assert _pin(state).verdict == verdict
    assert _pin_state(TokenFlag.LOGIN_REQUIRED) == "unset"
    assert _pin_state(TokenFlag(0)) == "none"


@given(st.floats(-100, 100), st.floats(0, 3), st.floats(0, 0.999), st.floats(0, 1))
def test_a_clock_is_blamed_only_for_what_its_date_proves(off: float, trip: float, part: float, moment: float) -> None:
    """Kalshi's clock shows 1000 + part when it answers; its Date leaves the part out."""
    true_asked = 1000 + part - trip * moment
    check = _clock(true_asked + off, true_asked + trip + off, 1000)
    if abs(off) <= 2:
        assert check.verdict == "ok"
    if abs(off) > 5 + trip + 1:
        assert check.verdict == "problem"
    if check.verdict == "problem":
        assert abs(off) > 5


def test_a_server_without_a_date_is_mentioned() -> None:
    from tests.support.kalshi_stub import send

    def no_date(handler: Any) -> None:
        handler.date_time_string = lambda: "soon"
        send(handler, 200, {"exchange_active": True})

    with Stub(no_date) as stub:
        assert [check.verdict for check in check_clock(stub.base_url)] == ["ok", "warning"]


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (404, {"message": "no"}, "problem"),
        (302, {}, "problem"),
        (200, "<html>log in to this network</html>", "problem"),
        (200, {"balance": 1}, "problem"),
        (503, {}, "warning"),
        (429, {"error": "too many requests"}, "warning"),
    ],
)
def test_what_answers_in_kalshis_place_is_no_kalshi_and_no_clock(status: int, body: Any, verdict: str) -> None:
    with Stub((status, body)) as stub:
        (check,) = check_clock(stub.base_url)
    assert (check.name, check.verdict) == ("kalshi", verdict)
    assert str(status) in check.message
    assert check.remedy


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_without_a_bootstrap_key_the_key_of_the_store_is_tried(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("enroll", "--name", "prod", "--scope", "write::trade").returncode == 0
    monkeypatch.delenv("KALSHI_KEY_ID")
    monkeypatch.delenv("KALSHI_PRIVATE_KEY")
    code, checks = doctor()
    assert (code, checks["credentials"]["verdict"]) == (0, "warning")
    assert "'prod'" in checks["credentials"]["message"]
    (api_key_id,) = set(sandbox.state.keys) - {sandbox.bootstrap_key_id}
    sandbox.state.delete_key(api_key_id)
    code, checks = doctor()
    assert (code, checks["credentials"]["verdict"]) == (6, "problem")


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("HSM_KEYS_PIN", "HSM_KEYS_PIN_FILE", "HSM_KEYS_PIN_FILE and HSM_KEYS_PIN are both set, the first is read"),
        ("KALSHI_DEMO", "KALSHI_API_BASE_URL", "KALSHI_API_BASE_URL and KALSHI_DEMO are both set, the first is read"),
        (
            "KALSHI_PERPS_PRIVATE_KEY",
            "KALSHI_PERPS_PRIVATE_KEY_PATH",
            "KALSHI_PERPS_PRIVATE_KEY and KALSHI_PERPS_PRIVATE_KEY_PATH are both set, both are refused",
        ),
    ],
)
def test_of_two_variables_the_one_that_counts_is_named(one: str, other: str, together: str) -> None:
    (warning,) = [check for check in check_variables({one: "x", other: "y"}) if check.verdict == "warning"]
    assert f"{warning.message}, {warning.remedy.removeprefix('unset one; ')}" == together


def test_variables_that_contradict_each_other() -> None:
    env = {"KALSHI_PRIVATE_KEY": "secret-canary", "KALSHI_PRIVATE_KEY_PATH": "x"}
    (warning,) = [check for check in check_variables(env) if check.verdict == "warning"]
    assert "KALSHI_PRIVATE_KEY_PATH" in warning.message
    assert "canary" not in str(warning)


def test_what_nobody_foresaw_is_a_finding_without_its_words() -> None:
    def fails() -> Check:
        raise RuntimeError("secret-canary")

    (found,) = checked("x", fails)
    assert (found.verdict, found.exit_code) == ("problem", 1)
    assert "canary" not in str(found)
    assert outcome([found, Check("y", "problem", "", "", KalshiError.exit_code)]) == ("problem", 1)
