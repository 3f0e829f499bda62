"""Two policies: a request that one allows and the other denies is found, at the edge of every setting."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.kalshi.operations import OPERATIONS
from hsm_keys.proxy.differing import compare
from hsm_keys.proxy.edges import bodies
from hsm_keys.proxy.judge import Judge
from hsm_keys.proxy.orders import read_request
from hsm_keys.proxy.policy import ClientPolicy, parse_policy
from hsm_keys.proxy.schemas import SCHEMAS
from hsm_keys.proxy.whatif import verdict_of
from tests.support.cli import run_cli, run_json

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.proxy.policy import Policy

EDGES = {
    "max_count": ("max_count = 5", 'max_count = "5.01"'),
    "max_price_cents": ("max_price_cents = 60", "max_price_cents = 61"),
    "max_price_cents and max_count": ("max_price_cents = 60\nmax_count = 9", "max_price_cents = 59\nmax_count = 9"),
    "markets": ('markets = ["KX*"]', 'markets = ["KXA*"]'),
    "one more market": ('markets = ["KXA-1"]', 'markets = ["KXA-1", "KXB-1"]'),
    "orders_per_minute": ("orders_per_minute = 60", "orders_per_minute = 61"),
    "orders_per_minute without batches": (
        'orders_per_minute = 60\ndeny = ["* /portfolio/events/orders/batched"]',
        'orders_per_minute = 61\ndeny = ["* /portfolio/events/orders/batched"]',
    ),
    "read_tokens_per_second": ("read_tokens_per_second = 100", "read_tokens_per_second = 101"),
    "write_tokens_per_second": ("write_tokens_per_second = 100", "write_tokens_per_second = 102"),
    "hours": ('hours = ["Mon-Fri 09:30-16:00 UTC"]', 'hours = ["Mon-Fri 09:30-16:01 UTC"]'),
    "hours in summer": ('hours = ["Mon 09:30-16:00 America/New_York"]', 'hours = ["Mon 14:30-21:00 UTC"]'),
    "read_only": ("read_only = true", "read_only = false"),
    "deny": ('deny = ["GET /markets/KX-1"]', 'deny = ["GET /markets/KX-2"]'),
    "deny one id": (
        'deny = ["DELETE /portfolio/events/orders/{order_id}"]',
        'deny = ["DELETE /portfolio/events/orders/*"]',
    ),
    "allow": ('allow = ["GET /**"]', 'allow = ["GET /**", "POST /communications/quotes"]'),
    "allow another version": ('allow = ["* /**"]', 'allow = ["* /**", "GET /trade-api/v3/x"]'),
    "allow_unjudged": ("max_count = 5", 'max_count = 5\nallow_unjudged = ["POST /communications/quotes"]'),
    "allow_key_management": ("", "allow_key_management = true"),
    "allow_transfers": ("", "allow_transfers = true"),
    "allow_account_changes": ("", "allow_account_changes = true"),
    "max_order_dollars": ("max_order_dollars = 50", 'max_order_dollars = "50.01"'),
    "max_order_dollars and max_count": (
        'max_order_dollars = "50"\nmax_count = 100',
        'max_order_dollars = "50.01"\nmax_count = 100',
    ),
    "max_dollars_a_day": (
        "max_dollars_a_day = 500\nmax_order_dollars = 20\nmax_open_dollars = 100",
        'max_dollars_a_day = "500.01"\nmax_order_dollars = 20\nmax_open_dollars = 100',
    ),
    "max_open_dollars": ("max_open_dollars = 100\nmax_count = 10", 'max_open_dollars = "100.01"\nmax_count = 10'),
    "max_contracts_a_market": (
        "max_contracts_a_market = 500\nmax_count = 100",
        'max_contracts_a_market = "500.01"\nmax_count = 100',
    ),
    "duplicate_seconds": ("duplicate_seconds = 2", "duplicate_seconds = 3"),
    "cancel_after_silence_seconds": ("", "cancel_after_silence_seconds = 10"),
    "cancel_after_silence_seconds where nothing else is judged": (
        'allow_unjudged = ["* /**"]',
        'allow_unjudged = ["* /**"]\ncancel_after_silence_seconds = 10',
    ),
    "uids": ("[clients.a]\nuids = [5]\nread_only = true", "[clients.a]\nread_only = true"),
}


def policy(rules: str) -> Policy:
    return parse_policy(f"version = 1\n[clients.default]\n{rules}\n")


@pytest.mark.parametrize("name", EDGES)
def test_the_edge_of_a_setting_is_found(name: str) -> None:
    """The request that is found is judged anew by both, and one way round or the other."""
    old, new = map(policy, EDGES[name])
    for one, other in ((old, new), (new, old)):
        found = compare(one, other)
        assert found.differences
        for difference in found.differences:
            assert difference.old.allowed != difference.new.allowed
            if difference.before or difference.asked.client.startswith("uid"):
                continue
            verdicts = [verdict_of(Judge(policy), difference.asked, at=difference.at) for policy in (one, other)]
            assert [one.allowed for one in verdicts] == [difference.old.allowed, difference.new.allowed]


def test_every_setting_has_an_edge_here() -> None:
    named = {name for pair in EDGES for name in pair.replace(" and ", " ").split()}
    assert {*ClientPolicy.model_fields} <= named


@pytest.mark.parametrize("rules", ["", *(pair[0] for pair in EDGES.values())])
def test_a_policy_is_like_itself(rules: str) -> None:
    found = compare(policy(rules), policy(f"# said in another way\n{rules}"))
    assert (found.differences, found.tried > 1000) == ([], True)


SAME = {
    "a rule twice": ('deny = ["GET /portfolio/fills"]', 'deny = ["GET /portfolio/fills", "GET /portfolio/fills"]'),
    "hours in pieces": ('hours = ["Mon 09:00-12:00 UTC"]', 'hours = ["Mon 09:00-10:00 UTC", "Mon 10:00-12:00 UTC"]'),
    "a cap that nothing reaches": ("max_count = 1\nmax_order_dollars = 1", "max_count = 1\nmax_order_dollars = 2"),
    "a market within another": ('markets = ["KX*"]', 'markets = ["KX*", "KXA*"]'),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_said_in_another_way_is_the_same(name: str) -> None:
    assert compare(*map(policy, SAME[name])).differences == []


def test_a_cap_of_all_together_and_a_client_that_only_one_knows() -> None:
    base = "version = 1\n[clients.a]\nmax_count = 10\n"
    capped = parse_policy("version = 1\n[all]\nmax_open_dollars = 100\n[clients.a]\nmax_count = 10\n")
    (found,) = compare(parse_policy(base), capped).differences
    assert (found.old.allowed, found.new.allowed) == (True, False)
    more = parse_policy("version = 1\n[all]\nmax_open_dollars = 101\n[clients.a]\nmax_count = 10\n")
    (found,) = compare(capped, more).differences
    assert (found.old.rule, found.new.allowed) == ("max_open_dollars", True)
    (found,) = compare(parse_policy(base), parse_policy(base + "[clients.b]\n")).differences
    assert (found.asked.client, found.old.rule, found.new.allowed) == ("b", "client", True)


TOGETHER = {
    "caps of each and one of all": (
        "[clients.a]\nmax_dollars_a_day = 100\n[clients.b]\nmax_dollars_a_day = 100",
        "[clients.a]\n[clients.b]\n[all]\nmax_dollars_a_day = 100",
    ),
    "a cap of all that none reaches alone": (
        "[clients.a]\nmax_open_dollars = 60\n[clients.b]\nmax_open_dollars = 60\n[all]\nmax_open_dollars = 110",
        '[clients.a]\nmax_open_dollars = 60\n[clients.b]\nmax_open_dollars = 60\n[all]\nmax_open_dollars = "110.01"',
    ),
    "three, of which two have less": (
        "\n".join(f"[clients.{name}]\nmax_contracts_a_market = 10" for name in "abc"),
        "\n".join(f"[clients.{name}]\nmax_contracts_a_market = 10" for name in "abc")
        + "\n[all]\nmax_contracts_a_market = 29",
    ),
    "the same order of another client": (
        "[clients.a]\nduplicate_seconds = 2\n[clients.b]\nduplicate_seconds = 2",
        "[clients.a]\n[clients.b]\n[all]\nduplicate_seconds = 2",
    ),
    "a cap of two users": (
        "[clients.a]\nuids = [1, 2]\nmax_dollars_a_day = 100\n[clients.b]\nmax_dollars_a_day = 100",
        "[clients.a]\nuids = [1]\nmax_dollars_a_day = 100\n[clients.b]\nmax_dollars_a_day = 100\nuids = [2]",
    ),
    "orders of two users": (
        "[clients.a]\nuids = [1, 2]\norders_per_minute = 5\n[clients.b]\norders_per_minute = 5",
        "[clients.a]\nuids = [1]\norders_per_minute = 5\n[clients.b]\norders_per_minute = 5\nuids = [2]",
    ),
    "tokens of two users": (
        "[clients.a]\nuids = [1, 2]\nread_tokens_per_second = 50\n[clients.b]\nread_tokens_per_second = 50",
        "[clients.a]\nuids = [1]\nread_tokens_per_second = 50\n[clients.b]\nread_tokens_per_second = 50\nuids = [2]",
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_callers_share_is_found_by_several_of_them(name: str) -> None:
    old, new = (parse_policy(f"version = 1\n{text}") for text in TOGETHER[name])
    known = ("a", "b", "c", "uid 1", "uid 2")
    for one, other in ((old, new), (new, old)):
        found = [one for one in compare(one, other).differences if one.asked.client in known and one.others]
        assert found
        assert {*found[0].others} <= {*known}
    assert compare(old, old).differences == []


def test_each_way_has_a_request_of_its_own() -> None:
    found = compare(policy("read_only = true"), policy('deny = ["GET /portfolio/fills"]')).differences
    assert {difference.new.rule for difference in found} == {"allowed", "deny GET /portfolio/fills"}


@pytest.mark.parametrize("operation", SCHEMAS)
def test_bodies_are_of_the_operations_schema(operation: str) -> None:
    """An operation of which no body could be read would look alike under every limit."""
    known = next(one for one in OPERATIONS if one.name == operation)
    rules = policy("max_count = 5\nmax_price_cents = 60\norders_per_minute = 3\nmax_order_dollars = 2").clients.values()
    read = [read_request(known, known.path, body) for body in bodies(operation, rules) if len(body) > 2]
    assert read


def test_the_command(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("version = 1\n[clients.default]\nmax_count = 5\n")
    new.write_text("version = 1\n[clients.default]\nmax_count = 6\n")
    done = run_cli("proxy", "policy", "diff", str(old), str(new))
    assert done.returncode == 1
    assert f"{old}: denied (403), by max_count: the order is for more than 5 contracts" in done.stdout
    assert f"{new}: allowed: nothing denies it" in done.stdout
    done = run_cli("proxy", "policy", "diff", str(old), str(new), "--output", "json")
    said: dict[str, Any] = json.loads(done.stdout)
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps(one["request"]) + "\n" for one in said["differences"]))
    for path, allowed in ((old, False), (new, True)):  # as it is printed, it can be checked
        checked = run_cli("proxy", "check", str(path), "--requests", str(requests), "--output", "json")
        assert [one["allowed"] for one in json.loads(checked.stdout)["verdicts"]] == [allowed]
    said = run_json("proxy", "policy", "diff", str(old), str(old))
    assert (said["same"], said["differences"], said["tried"] > 1000) == (True, [], True)
