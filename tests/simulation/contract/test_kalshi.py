"""Kalshi: the double and the sandbox, asked by the same client calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.inspecting.proof_of_possession import says_unknown
from hsm_keys.kalshi.errors import (
    ClockError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    TierError,
    UnauthorizedError,
)
from hsm_keys.signing.algorithms import public_key_pem
from hsm_keys.signing.pem import load_private_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.contract.conftest import Account
    from tests.simulation.pairs import Pair

BALANCE = "/portfolio/balance"
NOBODYS = "00000000-0000-4000-8000-00000000abcd"


def pem(pair: Pair) -> str:
    return public_key_pem(pair.public_key)


def registered(account: Account, name: str = "bot", **rights: Any) -> tuple[Pair, str]:
    """Register a new pair with the first key; one that is bound to an FCM subtrader, by hand."""
    pair = account.pair()
    if "fcm_subtrader_id" in rights:
        return pair, account.add(name, pair, **rights)
    return pair, account.client().api_keys.create(name, pem(pair), **rights).api_key.api_key_id


def refused(kind: type[RefusedError], call: Callable[[], object]) -> tuple[int, bool, str | None, str | None]:
    """Return what a refusal says, which has to be of exactly that kind."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert type(error) is kind
    return error.status, error.from_kalshi, error.kalshi_code, error.details


def test_a_key_is_listed_as_it_was_asked_for(account: Account) -> None:
    rights: list[dict[str, Any]] = [{}, {"scopes": ["read"]}, {"scopes": ["read", "write::trade"], "subaccount": 3}]
    rights.append({"fcm_subtrader_id": "trader-1"})
    ids = [registered(account, f"bot {number}", **each)[1] for number, each in enumerate(rights)]
    listed = account.client().api_keys.list().api_keys
    assert [key.api_key_id for key in listed] == [account.first, *ids]  # the oldest first
    assert [key.model_dump(exclude={"api_key_id"}) for key in listed[1:]] == [
        {
            "name": f"bot {number}",
            "scopes": each.get("scopes", ["read", "write"]),
            "created_ts": None,
            "subaccount": each.get("subaccount"),
            "fcm_subtrader_id": each.get("fcm_subtrader_id"),
        }
        for number, each in enumerate(rights)
    ]


def test_what_create_returns_reads_like_the_list(account: Account) -> None:
    created = account.client().api_keys.create("bot", pem(account.pair()), scopes=["read"])
    (listed,) = [key for key in account.client().api_keys.list().api_keys if key.api_key_id != account.first]
    assert created.api_key.model_dump() == listed.model_dump()


def test_only_an_fcm_member_binds_a_key_to_a_subtrader(account: Account) -> None:
    calls: Callable[[], object] = lambda: account.client().api_keys.create(  # noqa: E731
        "bot", pem(account.pair()), fcm_subtrader_id="trader-1"
    )
    assert refused(ForbiddenError, calls)[:3] == (403, True, "forbidden")
    assert [key.api_key_id for key in account.client().api_keys.list().api_keys] == [account.first]


def test_a_name_and_a_public_half_may_be_there_twice(account: Account) -> None:
    """What Kalshi does isn't documented. Both take it by default, which is the more dangerous answer."""
    pair = account.pair()
    ids = {account.client().api_keys.create("bot", pem(pair)).api_key.api_key_id for _ in range(2)}
    assert len(ids) == 2
    for api_key_id in ids:
        assert "balance" in account.client(pair, api_key_id).get_json(BALANCE)


def test_a_deleted_key_is_unknown_at_once(account: Account) -> None:
    pair, api_key_id = registered(account)
    account.client().api_keys.delete(api_key_id)
    assert [key.api_key_id for key in account.client().api_keys.list().api_keys] == [account.first]
    said = refused(UnauthorizedError, lambda: account.client(pair, api_key_id).get_json(BALANCE))
    assert said == (401, True, "authentication_error", "NOT_FOUND")
    assert refused(NotFoundError, lambda: account.client().api_keys.delete(api_key_id))[:3] == (404, True, "not_found")


def test_an_id_that_nobody_has_is_unknown(account: Account) -> None:
    said = refused(UnauthorizedError, lambda: account.client(account.pair(), NOBODYS).get_json(BALANCE))
    assert said == (401, True, "authentication_error", "NOT_FOUND")
    assert refused(NotFoundError, lambda: account.client().api_keys.delete(NOBODYS))[:3] == (404, True, "not_found")


def test_a_key_may_delete_itself_and_can_do_nothing_then(account: Account) -> None:
    pair, api_key_id = registered(account)
    client = account.client(pair, api_key_id)
    client.api_keys.delete(api_key_id)
    calls: list[Callable[[], object]] = [
        lambda: client.api_keys.delete(api_key_id),
        client.api_keys.list,
        lambda: client.api_keys.create("bot", pem(account.pair())),
    ]
    for call in calls:
        with pytest.raises(UnauthorizedError) as caught:
            call()
        assert says_unknown(caught.value)


def test_the_signature_of_another_pair_is_refused_in_other_words(account: Account) -> None:
    _, api_key_id = registered(account)
    said = refused(UnauthorizedError, lambda: account.client(account.pair(), api_key_id).get_json(BALANCE))
    assert said == (401, True, "authentication_error", "INCORRECT_API_KEY_SIGNATURE")


@pytest.mark.parametrize("seconds", [60.0, -60.0])
def test_a_clock_that_is_off_is_told_as_such(account: Account, seconds: float) -> None:
    account.be_late(seconds)
    assert refused(ClockError, lambda: account.client().get_json(BALANCE))[:2] == (401, True)


@pytest.mark.parametrize(
    ("rights", "balance", "looks", "changes"),
    [
        ({"scopes": ["read"]}, True, True, False),
        ({"scopes": ["read", "write"]}, True, True, True),
        ({"scopes": ["read", "write::trade"]}, True, True, False),
        ({"scopes": ["read::portfolio_balance"]}, True, False, False),
        ({"scopes": ["read", "write"], "subaccount": 3}, True, False, False),
        ({"scopes": ["read", "write"], "subaccount": 0}, True, False, False),
        ({"scopes": ["read", "write"], "fcm_subtrader_id": "trader-1"}, False, False, False),
    ],
)
def test_a_key_may_do_what_its_rights_say(
    account: Account, rights: dict[str, Any], *, balance: bool, looks: bool, changes: bool
) -> None:
    pair, api_key_id = registered(account, **rights)
    client = account.client(pair, api_key_id)
    _, other = registered(account, "other")
    calls: list[tuple[bool, Callable[[], object]]] = [
        (balance, lambda: client.get_json(BALANCE)),
        (looks, client.api_keys.list),
        (changes, lambda: client.api_keys.create("third", pem(account.pair()))),
        (changes, lambda: client.api_keys.generate("fourth", key_type="ed25519")),
        (changes, lambda: client.api_keys.delete(other)),
        (changes, lambda: client.api_keys.delete(api_key_id)),
    ]
    for allowed, call in calls:
        if allowed:
            call()
        else:
            assert refused(ForbiddenError, call)[:3] == (403, True, "forbidden")


def test_below_premier_kalshi_makes_pairs_and_takes_none(account: Account) -> None:
    account.be_basic()
    assert refused(TierError, lambda: account.client().api_keys.create("bot", pem(account.pair())))[:2] == (403, True)
    account.client().api_keys.generate("bot", key_type="ed25519")
    assert [key.name for key in account.client().api_keys.list().api_keys] == ["first", "bot"]


def test_what_kalshi_makes_signs_for_the_id_that_it_gives(account: Account) -> None:
    made = account.client().api_keys.generate("bot", key_type="ed25519", scopes=["read"])
    private_key = load_private_key(made.private_key.get_secret_value())
    listed = account.client().api_keys.list().api_keys
    assert [(key.api_key_id, key.name, key.scopes) for key in listed[1:]] == [
        (made.api_key.api_key_id, "bot", ["read"])
    ]
    assert "balance" in account.client(account.pair_of(private_key), made.api_key.api_key_id).get_json(BALANCE)
