"""What calls cost and what the account's limits are: asked of Kalshi, and held against what its clients read."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest

from hsm_keys.kalshi.client import KalshiClient
from hsm_keys.kalshi.operations import OPERATIONS
from hsm_keys.proxy.allowance import AllowanceWatch
from hsm_keys.proxy.costs import Costs, EndpointCosts
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.metrics import Metrics
from hsm_keys.proxy.tiers import AccountLimits
from hsm_keys.sandbox.faults import parse_fault
from tests.support.cli import run_cli, run_json
from tests.support.judging import NOON, ORDER, ORDERS, V2, ask, judge
from tests.support.orders import order_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.proxy.asking import OwnRequests
    from hsm_keys.sandbox import SandboxServer
    from tests.support.running_proxy import RunningProxy

    Start = Callable[..., RunningProxy]

JSON = {"Content-Type": "application/json"}
COSTS, LIMITS = "/account/endpoint_costs", "/account/limits"
BASIC = {
    "usage_tier": "basic",
    "read": {"refill_rate": 200, "bucket_capacity": 200},
    "write": {"refill_rate": 100, "bucket_capacity": 100},
    "grants": [],
}
PREMIER = BASIC | {"usage_tier": "premier", "write": {"refill_rate": 1000, "bucket_capacity": 2000}}
LISTED = {"default_cost": 10, "endpoint_costs": [{"method": "DELETE", "path": f"{ORDERS}/:order_id", "cost": 3}]}


class Kalshi:
    """Answers a proxy's own requests."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {COSTS: LISTED, LIMITS: BASIC} | answers
        self.asked: list[str] = []

    async def get(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return answer, b"{}"
        return 200, answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def watch(kalshi: Kalshi, judged: Judge, environment: str | None = "prod") -> AllowanceWatch:
    return AllowanceWatch(cast("OwnRequests", kalshi), judged, Metrics(), environment=environment)


def writes(judged: Judge, now: float = 0.0, path: str = ORDERS, method: str = "POST") -> int:
    """Return how many orders are allowed at one time."""
    count = 0
    while count < 5000 and ask(judged, method, path, ORDER, now=now).allowed:
        count += 1
    return count


def test_the_tiers_buckets_hold_below_a_policys_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = judge("write_tokens_per_second = 5000")
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    asyncio.run(watch(Kalshi(), judged).ask())
    assert writes(judged) == 10
    refused = ask(judged, "POST", ORDERS, ORDER)
    assert (refused.status, refused.rule, refused.retry_after) == (429, "tier", 1)
    assert "Kalshi's limit for the account" in refused.message
    assert writes(judged, 0.5) == 5
    assert writes(judged, 60) == 10  # it never holds more


def test_a_limit_in_numbers_holds_alone_until_kalshi_has_said_its_own() -> None:
    judged = judge("write_tokens_per_second = 500")
    assert writes(judged) == 50


def test_a_policys_limit_holds_below_the_tiers(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = judge("write_tokens_per_second = 30")
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    asyncio.run(watch(Kalshi(**{LIMITS: PREMIER}), judged).ask())
    assert writes(judged) == 3
    assert ask(judged, "POST", ORDERS, ORDER).rule == "tokens per second"


def test_another_level_gives_no_tokens_at_once() -> None:
    """The proxy may have been asking for less than a second, and Kalshi's bucket may be as empty as this one."""
    judged = judge('write_tokens_per_second = "tier"')
    assert writes(judged) == 10  # the lowest level's, until Kalshi has said another
    judged.tier.follow(AccountLimits.model_validate(PREMIER), 0.5)
    assert writes(judged, 0.5) == 5  # what came back at the lowest level's rate
    assert writes(judged, 1.0) == 50
    assert writes(judged, 60) == 200
    judged.tier.follow(AccountLimits.model_validate(BASIC), 70)
    assert writes(judged, 70) == 10
    assert writes(judged, 71) == 10


def test_all_clients_share_the_accounts_buckets() -> None:
    judged = judge('write_tokens_per_second = "tier"\n[clients.other]\nread_only = false')
    judged.tier.follow(AccountLimits.model_validate(BASIC), 0.0)
    body = json.dumps(ORDER).encode()
    other = [judged.judge("other", "POST", ORDERS, body, at=NOON, now=0.0).allowed for _ in range(7)]
    assert all(other)  # Kalshi itself refuses what is too much for a client without a limit
    assert writes(judged) == 3
    assert all(judged.judge("other", "POST", ORDERS, body, at=NOON, now=0.0).allowed for _ in range(100))
    assert writes(judged, 1.0) == 10  # what Kalshi refused is owed by nobody


def test_what_no_bucket_ever_holds_is_denied() -> None:
    judged = judge('write_tokens_per_second = "tier"')
    batch = {"orders": [ORDER] * 11}
    judged.tier.follow(AccountLimits.model_validate(BASIC), 0.0)
    refused = ask(judged, "POST", f"{ORDERS}/batched", batch)
    assert (refused.status, refused.rule) == (403, "tier")


def test_reading_and_writing_have_buckets_of_their_own() -> None:
    judged = judge('read_tokens_per_second = "tier"')
    judged.tier.follow(AccountLimits.model_validate(BASIC), 0.0)
    assert writes(judged, method="GET") == 20
    assert writes(judged) == 5000  # no limit on writing


def test_kalshis_costs_take_the_tables_place() -> None:
    judged = judge("write_tokens_per_second = 30")
    asyncio.run(watch(Kalshi(), judged).ask())
    assert writes(judged, path=f"{ORDERS}/x", method="DELETE") == 10


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (COSTS, b"<html>"),
        (COSTS, b"\xff"),
        (COSTS, b""),
        (COSTS, []),
        (COSTS, {"default_cost": -10, "endpoint_costs": []}),
        (COSTS, {"default_cost": 10**9, "endpoint_costs": []}),
        (COSTS, {"default_cost": 10.5, "endpoint_costs": []}),
        (COSTS, {"default_cost": "10", "endpoint_costs": []}),
        (COSTS, {"default_cost": 10}),
        (COSTS, {"default_cost": 10, "endpoint_costs": None}),
        (COSTS, {"default_cost": 10, "endpoint_costs": [{"method": "GET", "path": "/x", "cost": -1}]}),
        (COSTS, 500),
        (COSTS, aiohttp.ClientPayloadError("the answer is too long")),
        (LIMITS, b"<html>"),
        (LIMITS, BASIC | {"usage_tier": "platinum"}),
        (LIMITS, BASIC | {"usage_tier": None}),
        (LIMITS, BASIC | {"write": {"refill_rate": -100, "bucket_capacity": 100}}),
        (LIMITS, BASIC | {"write": {"refill_rate": 0, "bucket_capacity": 0}}),
        (LIMITS, BASIC | {"write": {"refill_rate": 10**12, "bucket_capacity": 10**12}}),
        (LIMITS, BASIC | {"write": {"refill_rate": True, "bucket_capacity": 100}}),
        (LIMITS, BASIC | {"write": 100}),
        (LIMITS, b'{"usage_tier": "basic", "read": NaN}'),
        (LIMITS, 401),
        (LIMITS, 429),
        (LIMITS, TimeoutError()),
        (LIMITS, ConnectionResetError(104, "reset")),
    ],
)
def test_an_odd_answer_changes_nothing_and_is_said_once(
    path: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    judged = judge('write_tokens_per_second = "tier"')
    kalshi = Kalshi(**{path: answer})
    asks = watch(kalshi, judged)
    other = "limits" if path == COSTS else "costs"
    before = judged.costs, judged.tier.limits, judged.tier.is_known
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            asyncio.run(asks.ask())
            summary = asks.summary()
            asks.tell()
    after = judged.costs, judged.tier.limits, judged.tier.is_known
    assert (before[0] is after[0]) if path == COSTS else (before[1:] == after[1:])
    (message,) = [record.getMessage() for record in caplog.records]
    assert f" aren't to be had by GET {path}: " in message
    assert message.endswith("; the program's own hold")
    assert f"{other} are Kalshi's own (" in summary
    assert summary.count("the program's own") == 1
    assert asks.status()["costs" if path == COSTS else "limits"] == {"from": "table"}
    kalshi.answers |= {COSTS: LISTED, LIMITS: BASIC}
    asyncio.run(asks.ask())
    with caplog.at_level(logging.WARNING):
        asks.tell()
    assert f"{'costs' if path == COSTS else 'limits'} are Kalshi's own from now on (" in caplog.text
    assert judged.tier.is_known
    kalshi.answers[path] = answer
    with caplog.at_level(logging.WARNING):
        asyncio.run(asks.ask())
        asks.tell()
    assert "Kalshi's last ones hold" in caplog.text  # it is said again after a good one
    assert asks.status()["costs" if path == COSTS else "limits"]["from"] == "kalshi"


def test_a_key_of_the_other_exchange_asks_for_its_limits() -> None:
    kalshi = Kalshi(**{"/account/limits/perps": BASIC})
    asyncio.run(watch(kalshi, Judge(), "demo-perps").ask())
    assert kalshi.asked == [COSTS, "/account/limits/perps"]


def test_it_asks_again_after_an_hour_or_sooner_where_there_was_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise asyncio.CancelledError
        kalshi.answers[COSTS] = LISTED

    async def keep() -> None:
        asked, serving = asyncio.Event(), asyncio.Event()
        serving.set()
        with pytest.raises(asyncio.CancelledError):
            await watch(kalshi, Judge()).keep(asked, serving)
        assert asked.is_set()

    kalshi = Kalshi(**{COSTS: 503})
    monkeypatch.setattr("hsm_keys.proxy.allowance.asyncio.sleep", sleep)
    asyncio.run(keep())
    assert slept == [300, 3600]


@pytest.mark.sdks
@pytest.mark.skipif(sys.version_info < (3, 13), reason="the newest clients run on Python 3.13")
def test_what_two_clients_read_is_what_is_read_here() -> None:
    """An answer that the models of kalshi-sdk and kalshi-python-sync take is taken, and says the same."""
    account = import_module("kalshi.models.account")
    generated = import_module("kalshi_python_sync.models")
    limits = PREMIER | {"grants": [{"exchange_instance": "event_contract", "level": "premier", "source": "volume"}]}
    ours = AccountLimits.model_validate_json(json.dumps(limits))
    for model in (account.AccountApiLimits, generated.GetAccountApiLimitsResponse):
        theirs = model.model_validate(limits)
        assert theirs.usage_tier == ours.usage_tier
        for name in ("read", "write"):
            ours_of, theirs_of = getattr(ours, name), getattr(theirs, name)
            assert (theirs_of.refill_rate, theirs_of.bucket_capacity) == (
                ours_of.refill_rate,
                ours_of.bucket_capacity,
            )
    costs = EndpointCosts.model_validate_json(json.dumps(LISTED))
    for model in (account.AccountEndpointCosts, generated.GetAccountEndpointCostsResponse):
        listed = model.model_validate(LISTED)
        assert listed.default_cost == costs.default_cost
        assert [(one.method, one.path, one.cost) for one in listed.endpoint_costs] == [
            (one.method, one.path, one.cost) for one in costs.endpoint_costs
        ]
    assert set(AccountLimits.model_fields) <= set(generated.GetAccountApiLimitsResponse.model_fields)
    assert set(EndpointCosts.model_fields) <= set(generated.GetAccountEndpointCostsResponse.model_fields)


def test_a_proxy_asks_the_sandbox_with_its_own_key(start: Start, sandbox: SandboxServer) -> None:
    sandbox.state.tier = "basic"
    proxy = start("[clients.default]\nwrite_tokens_per_second = 1000")
    asked = [seen for seen in sandbox.requests if "/account/" in seen.path]
    assert [(seen.path, seen.status) for seen in asked] == [(f"{V2}{COSTS}", 200), (f"{V2}{LIMITS}", 200)]
    assert all(seen.api_key_id for seen in asked)  # signed, though the first one is public
    assert asked[1].verified
    assert proxy.request("POST", ORDERS, json.dumps(order_body()), JSON)[0] == 201
    assert proxy.request("POST", f"{ORDERS}/batched", json.dumps({"orders": [ORDER] * 11}))[0] == 403
    told = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert told["costs"]["from"] == "kalshi"
    assert {name: told["limits"][name] for name in ("from", "usage_tier", "write")} == {
        "from": "kalshi",
        "usage_tier": "basic",
        "write": BASIC["write"],
    }
    assert told["denied_by"] == {"tier": 1}
    assert "usage_tier: basic" in run_cli("proxy", "status", "--name", "prod", **proxy.environment).stdout
    proxy.stop()
    said = "".join(proxy.said)
    assert "; costs are Kalshi's own (10, " in said
    assert "limits are Kalshi's own (tier basic; read: 200 a second, 200 at once; write: 100 a second, " in said
    assert "from now on" not in said  # it isn't said twice


@pytest.mark.usefixtures("sandbox")
def test_the_sandboxs_costs_are_the_tables() -> None:
    with KalshiClient.from_env() as client:
        said = EndpointCosts.model_validate(client.get_json(COSTS))
    table, asked = Costs(), Costs(said)
    for operation in OPERATIONS:
        if operation.instead is None:
            assert asked.of(operation, 3) == table.of(operation, 3), operation.name


def test_a_proxy_that_cant_ask_serves_all_the_same(start: Start, sandbox: SandboxServer) -> None:
    for path in (COSTS, LIMITS):
        sandbox.faults.add(parse_fault(f"GET {path}:status=503"))
    proxy = start()
    assert proxy.request("GET", f"{V2}/portfolio/balance")[0] == 200
    told = run_json("proxy", "status", "--name", "prod", **proxy.environment)
    assert (told["costs"], told["limits"]) == ({"from": "table"}, {"from": "table"})
    proxy.stop()
    log = "".join(proxy.said)
    assert f"GET {COSTS}: Kalshi answers 503; the program's own hold" in log
    assert f"GET {LIMITS}: Kalshi answers 503; the program's own hold" in log
    assert "serving" in proxy.said[0]
