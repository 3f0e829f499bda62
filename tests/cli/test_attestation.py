"""When the account's location attestation ends: shown by what lists API keys, and warned of 14 days ahead."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.kalshi.attestation import attestation_of
from hsm_keys.kalshi.models import ListApiKeysResponse
from tests.support.cli import run_cli

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

DAY = 86400


@pytest.mark.parametrize(
    ("days", "is_due", "said"),
    [
        (-1, True, "ended on 1999-12-31"),
        (0.5, True, "in 0 days"),
        (13.9, True, "in 13 days"),
        (14.1, False, "in 14 days"),
        (400, False, "ends on 2001-02-04"),
    ],
)
def test_it_is_due_within_14_days(days: float, said: str, *, is_due: bool) -> None:
    now = 946684800  # 2000-01-01 00:00 UTC
    found = attestation_of(ListApiKeysResponse(api_keys=[], api_key_region_expiration_ts=int(now + days * DAY)), now)
    assert found is not None
    assert said in found.message
    assert (found.is_due, bool(found.remedy), "403" in found.message) == (is_due, is_due, is_due)


@pytest.mark.parametrize(
    ("sent", "read"),
    [(None, None), (1800000000, 1800000000), ("1800000000", 1800000000), (1800000000000, 1800000000), (0, None)],
)
def test_kalshis_time_is_read_in_any_form(sent: Any, read: int | None) -> None:
    answer = ListApiKeysResponse.model_validate({"api_keys": None, "api_key_region_expiration_ts": sent})
    assert answer.api_key_region_expiration_ts == read
    assert (attestation_of(answer) is None) is (read is None)


@pytest.mark.parametrize("sent", ["soon", [], {}, "nan", 1e400])
def test_what_is_no_time_hides_no_list(sent: Any) -> None:
    answer = ListApiKeysResponse.model_validate(
        {"api_keys": [{"api_key_id": "A"}], "api_key_region_expiration_ts": sent}
    )
    assert answer.api_key_region_expiration_ts is None
    assert [key.api_key_id for key in answer.api_keys] == ["A"]


@pytest.mark.softhsm
@pytest.mark.program
def test_what_lists_api_keys_shows_it(
    token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    assert "attestation" not in run_cli("list").stderr + run_cli("doctor").stdout
    sandbox.state.region_expiration_ts = ends = int(time.time()) + 3 * DAY + 60
    for command in ("list", "custody"):
        done = run_cli(command, "--output", "json")
        assert json.loads(done.stdout)["api_key_region_expiration_ts"] == ends
        assert "WARNING: the account's location attestation ends on " in run_cli(command).stderr
    shown = run_cli("doctor")
    assert (shown.returncode, "warning  attestation: " in shown.stdout) == (0, True)
    assert "in 3 days" in shown.stdout
    sandbox.state.region_expiration_ts = ends + 20 * DAY
    assert "WARNING" not in run_cli("list").stderr
    assert "in 23 days" in run_cli("list").stderr
    assert "ok       attestation: " in run_cli("doctor").stdout
