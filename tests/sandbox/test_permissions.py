"""What a key may do: scopes, the account's tier, subaccounts, FCM subtraders."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsm_keys.errors import UsageError
from hsm_keys.sandbox import SandboxServer
from tests.sandbox.client import API_KEYS, BALANCE, EVENT_ORDERS, ORDERS, Caller, Reply, pem_of, send
from tests.support.orders import order_body

ORDER = order_body(client_order_id=None)
PEM = pem_of(Ed25519PrivateKey.generate())

CALLS: dict[str, tuple[str, str, Any, int]] = {
    "balance": ("GET", BALANCE, None, 200),
    "orders": ("GET", ORDERS, None, 200),
    "order": ("POST", EVENT_ORDERS, ORDER, 201),
    "cancel": ("DELETE", f"{EVENT_ORDERS}/unknown", None, 404),
    "list": ("GET", API_KEYS, None, 200),
    "create": ("POST", API_KEYS, {"name": "n", "public_key": PEM}, 201),
    "generate": ("POST", f"{API_KEYS}/generate", {"name": "n", "key_type": "ed25519"}, 201),
    "delete": ("DELETE", f"{API_KEYS}/00000000-0000-4000-8000-000000000000", None, 404),
}
"""Each with the status of a key that may."""

READING = {"balance", "orders", "list"}
TRADING = {"order", "cancel"}


def is_forbidden(reply: Reply) -> bool:
    return reply.status == 403 and reply.error["code"] == "forbidden" and isinstance(reply.error["message"], str)


def allowed(caller: Caller) -> set[str]:
    """Try everything; each call is either done or forbidden, and nothing else."""
    done = set()
    for name, (method, target, body, status) in CALLS.items():
        reply = caller.call(method, target, body)
        assert reply.status == status or is_forbidden(reply), (name, reply)
        if reply.status == status:
            done.add(name)
    return done


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (["read", "write"], set(CALLS)),
        (["read"], READING),
        (["read::portfolio_balance"], {"balance"}),
        (["read::block_trade_accept"], set()),
        (["write::trade"], TRADING),
        (["write::transfer"], set()),
        (["write::fcm_risk"], set()),
        (["write::block_trade_accept"], set()),
        (["read", "write::trade"], READING | TRADING),
        (["read::portfolio_balance", "write::trade"], {"balance"} | TRADING),
    ],
)
def test_scopes(server: SandboxServer, scopes: list[str], may: set[str]) -> None:
    assert allowed(Caller.added(server, scopes=scopes)) == may


def test_scopes_left_out_are_read_and_write(server: SandboxServer) -> None:
    assert allowed(Caller.added(server)) == set(CALLS)


def test_below_premier_everything_but_create_is_allowed() -> None:
    with SandboxServer(tier="basic", key_type="ed25519") as server:
        boss = Caller.bootstrap(server)
        assert allowed(boss) == set(CALLS) - {"create"}
        reply = boss.call("POST", API_KEYS, {"name": "n", "public_key": PEM})
        assert "usage level" in reply.error["message"]
        by_hand = Caller.added(server)  # the account page takes a public key at any tier
        assert by_hand.call("GET", BALANCE).status == 200


def test_the_tier_is_looked_at_before_the_body() -> None:
    with SandboxServer(tier="basic", key_type="ed25519") as server:
        assert is_forbidden(Caller.bootstrap(server).call("POST", API_KEYS, {"name": 1}))


@pytest.mark.parametrize("subaccount", [0, 7, 63])
def test_a_key_of_a_subaccount_trades_and_manages_no_keys(server: SandboxServer, subaccount: int) -> None:
    assert allowed(Caller.added(server, subaccount=subaccount)) == {"balance", "orders"} | TRADING


def test_a_key_of_a_subaccount_is_kept_to_it(server: SandboxServer) -> None:
    boss, seven = Caller.bootstrap(server), Caller.added(server, subaccount=7)
    own = seven.call("POST", EVENT_ORDERS, ORDER).json
    assert seven.call("GET", f"{ORDERS}/{own['order_id']}").json["order"]["subaccount_number"] == 7
    foreign = boss.call("POST", EVENT_ORDERS, ORDER | {"subaccount": 8}).json
    assert seven.call("POST", EVENT_ORDERS, ORDER | {"subaccount": 7}).status == 201
    assert is_forbidden(seven.call("POST", EVENT_ORDERS, ORDER | {"subaccount": 0}))
    for target in (BALANCE, ORDERS):
        assert seven.call("GET", f"{target}?subaccount=7").status == 200
        assert is_forbidden(seven.call("GET", f"{target}?subaccount=0"))
    assert {order["subaccount_number"] for order in seven.call("GET", ORDERS).json["orders"]} == {7}
    assert seven.call("DELETE", f"{EVENT_ORDERS}/{foreign['order_id']}").status == 404
    assert seven.call("DELETE", f"{EVENT_ORDERS}/{own['order_id']}").status == 200


def test_a_key_of_an_fcm_subtrader_is_denied_everywhere(server: SandboxServer) -> None:
    assert allowed(Caller.added(server, fcm_subtrader_id="me_x1")) == set()


def test_a_refused_key_changes_nothing(server: SandboxServer) -> None:
    reader = Caller.added(server, scopes=["read"])
    before = server.state.keys
    for name in ("create", "generate", "order"):
        method, target, body, _ = CALLS[name]
        assert is_forbidden(reader.call(method, target, body))
    assert is_forbidden(reader.call("DELETE", f"{API_KEYS}/{reader.api_key_id}"))
    assert (server.state.keys, server.state.orders) == (before, {})


def test_a_wrong_signature_is_401_before_any_403(server: SandboxServer) -> None:
    denied = Caller.added(server, fcm_subtrader_id="me_x1")
    headers = denied.headers("GET", BALANCE, message=f"GET{API_KEYS}")
    assert send(server, "GET", BALANCE, headers).status == 401


@pytest.mark.parametrize(
    "restrictions",
    [
        {"scopes": []},
        {"scopes": ["write"]},
        {"scopes": ["admin"]},
        {"subaccount": 64},
        {"subaccount": -1},
        {"subaccount": 1, "fcm_subtrader_id": "me_x1"},
    ],
)
def test_the_account_page_keeps_the_same_rules(server: SandboxServer, restrictions: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        server.add_key("n", PEM, **restrictions)
    with pytest.raises(UsageError, match="BEGIN PUBLIC KEY"):
        server.add_key("n", "not a key")
    assert list(server.state.keys) == [server.bootstrap_key_id]
