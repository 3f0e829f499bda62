"""What a policy would make of requests: of a file of them, and why."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.policy import ClientPolicy
from hsm_keys.proxy.whatif import SupposedRequest, explain, verdict_of
from tests.support.cli import run_cli
from tests.support.judging import NOON, ORDER, ORDERS, V2, judge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.running_proxy import RunningProxy

BALANCE = f"{V2}/portfolio/balance"
POLICY = """version = 1
[clients.maker]
max_count = 5
orders_per_minute = 2
deny = ["GET /portfolio/fills"]
[clients.default]
read_only = true
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "what-if.toml"
    path.write_text(POLICY)
    return path


def denied_json(*arguments: str, **environment: str) -> Any:
    done = run_cli(*arguments, "--output", "json", **environment)
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)


def lines_of(folder: Path, *requests: dict[str, Any]) -> str:
    path = folder / "requests.jsonl"
    path.write_text("\n".join(json.dumps(request) for request in requests) + "\n\n")
    return str(path)


def test_a_verdict_for_each_line(policy: Path, tmp_path: Path) -> None:
    order: dict[str, Any] = {"method": "POST", "path": ORDERS, "client": "maker", "body": ORDER}
    asked: list[dict[str, Any]] = [
        {"method": "GET", "path": "/portfolio/balance"},
        {"method": "POST", "path": "/portfolio/events/orders", "body": ORDER},
        order,
        {**order, "body": {**ORDER, "count": "5.01"}},
        {**order, "body": json.dumps(ORDER)},
        order,  # the third within a minute
        {**order, "at": "2199-01-01T00:00:00Z"},
        {**order, "body": {**ORDER, "secret": 1}},
        {"method": "GET", "path": "/portfolio/a%3Ab"},
        {**order, "body": " " * 33_000},
        {**order, "path": f"{ORDERS}?price=0.01"},
    ]
    said = denied_json("proxy", "check", str(policy), "--requests", lines_of(tmp_path, *asked))
    rules = [(verdict["line"], verdict["allowed"], verdict["rule"]) for verdict in said["verdicts"]]
    assert rules == [
        (1, True, "allowed"),
        (2, False, "read_only"),
        (3, True, "allowed"),
        (4, False, "max_count"),
        (5, True, "allowed"),
        (6, False, "orders_per_minute"),
        (7, True, "allowed"),
        (8, False, "body"),
        (9, False, "path"),
        (10, False, "body"),
        (11, False, "body"),
    ]
    assert (said["allowed"], said["denied"]) == (4, 7)
    done = run_cli("proxy", "check", str(policy), "--requests", lines_of(tmp_path, *asked[1:3]))
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        ["1: denied (403), by read_only: the client may only read", "2: allowed: nothing denies it"],
    )
    assert run_cli("proxy", "check", str(policy), "--requests", lines_of(tmp_path, asked[0])).returncode == 0


@pytest.mark.parametrize(
    "line",
    [
        '{"method": "GET"}',
        '{"method": "get", "path": "/x"}',
        '{"method": "GET", "path": "/x", "clients": "a"}',
        '{"method": "GET", "path": "/x", "at": "2026-11-24T12:00:00"}',
        '{"method": "GET", "path": "/x", "body": 5}',
        "[]",
        "secret-4711",
    ],
)
def test_a_line_that_is_no_request(policy: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"method": "GET", "path": "/x"}\n' + line)
    done = run_cli("proxy", "check", str(policy), "--requests", str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 2 isn't a request" in done.stderr
    assert "4711" not in done.stderr


def test_one_request_or_a_file_of_them(policy: Path, tmp_path: Path) -> None:
    requests = lines_of(tmp_path, {"method": "GET", "path": "/x"})
    for arguments in (
        (),
        ("GET",),
        ("GET", "/x", "--requests", requests),
        ("--requests", requests, "--client", "maker"),
        ("--requests", str(tmp_path)),
        ("--requests", str(tmp_path / "none")),
    ):
        assert run_cli("proxy", "check", str(policy), *arguments).returncode == 2, arguments


def test_a_file_is_judged_as_the_proxy_judges(start: Callable[..., RunningProxy], tmp_path: Path) -> None:
    """Each verdict is what a proxy with that policy answers."""
    proxy = start("[clients.default]\nmax_count = 5\norders_per_minute = 1\ndeny = ['GET /portfolio/fills']")
    asked: list[dict[str, Any]] = [
        {"method": "GET", "path": BALANCE},
        {"method": "GET", "path": f"{V2}/portfolio/fills"},
        {"method": "POST", "path": ORDERS, "body": {**ORDER, "count": "6"}},
        {"method": "POST", "path": ORDERS, "body": ORDER},
        {"method": "POST", "path": ORDERS, "body": ORDER},
        {"method": "GET", "path": f"{V2}/portfolio/a%3Ab"},
        {"method": "POST", "path": f"{V2}/api_keys", "body": {}},
    ]
    policy = str(proxy.folder / "policy.toml")
    said = denied_json("proxy", "check", policy, "--requests", lines_of(tmp_path, *asked))
    for request, verdict in zip(asked, said["verdicts"], strict=True):
        body = json.dumps(request["body"]) if "body" in request else None
        headers = {"Content-Type": "application/json"} if body else {}
        status, answer = proxy.request(request["method"], request["path"], body, headers)
        if verdict["allowed"]:
            assert status < 300
        else:
            assert (status, answer["error"]["code"]) == (verdict["status"], verdict["rule"])


SETTINGS = {
    "read_only = true": ("POST", ORDERS, None),
    'deny = ["POST /portfolio/**"]': ("POST", ORDERS, None),
    'allow = ["GET /**"]': ("POST", ORDERS, None),
    'hours = ["Sun 00:00-01:00 UTC"]': ("GET", BALANCE, None),
    "max_count = 1": ("POST", ORDERS, ORDER),
    "max_price_cents = 1": ("POST", ORDERS, ORDER),
    'markets = ["NONE"]': ("POST", ORDERS, ORDER),
    "orders_per_minute = 1": ("POST", f"{ORDERS}/batched", {"orders": [ORDER, ORDER]}),
    "allow_key_management = false": ("GET", f"{V2}/api_keys", None),
    "allow_transfers = false": ("POST", f"{V2}/portfolio/subaccounts/transfer", None),
    "allow_account_changes = false": ("POST", f"{V2}/portfolio/subaccounts", None),
    "allow_unjudged = []\nmax_count = 1": ("POST", f"{V2}/communications/quotes", None),
}


@pytest.mark.parametrize("written", SETTINGS)
def test_the_setting_that_decides_is_named(written: str) -> None:
    method, path, body = SETTINGS[written]
    asked = SupposedRequest("default", method, path, None if body is None else json.dumps(body).encode())
    verdict = verdict_of(judge(written), asked, at=NOON)
    assert not verdict.allowed
    reasons = explain(tomllib.loads(f"[clients.default]\n{written}"), asked, verdict)
    assert f"{reasons['setting']} =" == written.partition("=")[0] + "="
    assert reasons["value"] == tomllib.loads(written)[reasons["setting"]]
    assert reasons["setting"] in ClientPolicy.model_fields


@pytest.mark.parametrize("written", [written for written in SETTINGS if written.startswith("max_")])
def test_a_limit_of_an_order_denies_by_its_own_name(written: str) -> None:
    method, path, body = SETTINGS[written]
    asked = SupposedRequest("default", method, path, json.dumps(body).encode())
    assert verdict_of(judge(written), asked, at=NOON).rule == written.partition(" =")[0]


def test_reasons_without_a_setting() -> None:
    asked = SupposedRequest("maker", "GET", BALANCE)
    verdict = verdict_of(Judge(), asked, at=NOON)
    reasons = explain({"clients": {"default": {}}}, asked, verdict)
    assert reasons == {
        "operation": "GET /portfolio/balance",
        "kind": "read",
        "rules_of": "clients.default",
        "setting": None,
        "value": None,
    }
    assert explain({"clients": {"other": {}}}, asked, verdict)["rules_of"] is None


def test_what_a_proxy_that_runs_has_left(start: Callable[..., RunningProxy]) -> None:
    rules = "max_count = 5\norders_per_minute = 7\nread_tokens_per_second = 100\nmax_dollars_a_day = 50"
    proxy = start(f"[clients.default]\n{rules}\n[all]\nmax_open_dollars = 40")
    for number in range(2):
        order = json.dumps({**ORDER, "client_order_id": f"n{number}"})
        assert proxy.request("POST", ORDERS, order, {"Content-Type": "application/json"})[0] == 201
    policy = str(proxy.folder / "policy.toml")
    order = json.dumps({**ORDER, "count": "6", "client_order_id": "last"})
    given = ("proxy", "check", policy, "POST", ORDERS, "--body", order, "--explain")
    done = run_cli(*given, **proxy.environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "denied (403), by max_count: the order is for more than 5 contracts",
        "operation: POST /portfolio/events/orders (trade)",
        "rules: clients.default",
        "decided by: max_count = 5",
        "left in proxy prod: read_tokens_per_second 100 of 100",
        "left in proxy prod: orders_per_minute 5 of 7",
        "left in proxy prod: max_dollars_a_day 46.0000 of 50.0000",
        "left in proxy prod: max_open_dollars of all 36.0000 of 40.0000",
    ]
    said = denied_json(*given, **proxy.environment)
    assert said["left"]["prod"]["rates"]["orders_per_minute"] == {"limit": 7, "left": 5}
    assert said["left"]["prod"]["from"] == "proxy"
    proxy.stop()
    journal = proxy.state / "caps" / "journal"
    kept = journal.read_bytes() + b'["torn'
    journal.write_bytes(kept)
    done = run_cli(*given, **proxy.environment)
    assert [line.strip() for line in done.stdout.splitlines() if "left" in line] == [
        "left by the ledger of prod, which doesn't run: max_dollars_a_day 46.0000 of 50.0000",
        "left by the ledger of prod, which doesn't run: max_open_dollars of all 36.0000 of 40.0000",
    ]
    other = denied_json(*given, "--client", "another", **proxy.environment)["left"]["prod"]
    assert (other["from"], [row["left"] for row in other["caps"]]) == ("ledger", ["50.0000", "36.0000"])
    assert journal.read_bytes() == kept
    elsewhere = {"XDG_RUNTIME_DIR": str(proxy.folder / "none"), "XDG_STATE_HOME": str(proxy.folder / "none")}
    assert denied_json(*given, **elsewhere)["left"] == {}
    assert "left: not known" in run_cli(*given, **elsewhere).stdout
