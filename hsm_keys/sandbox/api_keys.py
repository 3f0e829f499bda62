"""The four key endpoints, as Kalshi's OpenAPI document 3.34 describes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypedDict
from uuid import UUID

from hsm_keys.sandbox.keys import KEY_TYPES, generate_pair, parse_public_key
from hsm_keys.sandbox.wire import SandboxAnswer, WireError, flat, nested

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.sandbox.state import SandboxKey
    from hsm_keys.sandbox.wire import Call

__all__ = ["SCOPES", "check_scopes", "check_subaccount", "create_key", "delete_key", "generate_key", "list_keys"]

SCOPES: Final = (
    "read",
    "write",
    "read::block_trade_accept",
    "read::portfolio_balance",
    "write::trade",
    "write::transfer",
    "write::fcm_risk",
    "write::block_trade_accept",
)
"""The OpenAPI's ApiKeyScope. ``read`` and ``write`` cover their children; a child stands alone."""

_MAX_SUBACCOUNT: Final = 63


async def list_keys(call: Call) -> SandboxAnswer:
    """``GET /api_keys``: every key, or those bound to one FCM subtrader."""
    subtrader = call.query.get("fcm_subtrader_id")
    listed = [
        _listed(key, nulls=call.state.null_lists)
        for key in call.state.keys.values()
        if subtrader is None or key.fcm_subtrader_id == subtrader
    ]
    expires = call.state.region_expiration_ts
    if not call.state.null_lists:
        attested = {} if expires is None else {"api_key_region_expiration_ts": expires}
        return SandboxAnswer(200, {"api_keys": listed, **attested})
    return SandboxAnswer(200, {"api_keys": listed or None, "api_key_region_expiration_ts": expires})


def _listed(key: SandboxKey, *, nulls: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"api_key_id": key.api_key_id, "name": key.name, "scopes": list(key.scopes)}
    if nulls and not key.scopes_given:
        item["scopes"] = None
    if nulls or key.subaccount is not None:
        item["subaccount"] = key.subaccount
    if nulls or key.fcm_subtrader_id is not None:
        item["fcm_subtrader_id"] = key.fcm_subtrader_id
    return item


async def create_key(call: Call) -> SandboxAnswer:
    """``POST /api_keys``: register a public key."""
    body = call.json_object()
    restrictions = _restrictions(body)
    try:
        public_key = parse_public_key(_required_string(body, "public_key"))
    except ValueError as error:
        raise _bad(str(error)) from None
    key = call.state.register(public_key=public_key, **restrictions)
    return SandboxAnswer(201, {"api_key_id": key.api_key_id, **_no_warning(call)})


async def generate_key(call: Call) -> SandboxAnswer:
    """``POST /api_keys/generate``: make a pair, hand the private half out, keep the public one."""
    body = call.json_object()
    restrictions = _restrictions(body)
    key_type = body.get("key_type", "rsa")
    if key_type not in KEY_TYPES:
        raise _bad("key_type must be rsa or ed25519")
    private_pem, public_key = await asyncio.to_thread(generate_pair, key_type)
    key = call.state.register(public_key=public_key, **restrictions)
    return SandboxAnswer(
        201,
        {"api_key_id": key.api_key_id, "key_type": key_type, "private_key": private_pem, **_no_warning(call)},
    )


async def delete_key(call: Call) -> SandboxAnswer:
    """``DELETE /api_keys/{api_key}``: the key is dead when the answer leaves.

    Whether a key may delete itself is not documented. Here it may: a client must not lock itself out by relying
    on a refusal.
    """
    api_key_id = call.path["api_key"]
    if call.state.delete_key(api_key_id):
        return SandboxAnswer(204)
    if not _is_uuid(api_key_id):
        raise _bad("invalid API key ID")
    raise flat(404, "not_found", "API key not found")


class _Restrictions(TypedDict):
    name: str
    scopes: Sequence[str] | None
    subaccount: int | None
    fcm_subtrader_id: str | None


def _restrictions(body: dict[str, Any]) -> _Restrictions:
    """Read what create and generate have in common. ``null`` isn't a value for any of it in the OpenAPI."""
    name = _required_string(body, "name")
    try:
        scopes = check_scopes(body["scopes"]) if "scopes" in body else None
        subaccount = check_subaccount(body["subaccount"]) if "subaccount" in body else None
    except ValueError as error:
        raise _bad(str(error)) from None
    if "fcm_subtrader_id" in body:
        _required_string(body, "fcm_subtrader_id")
        if subaccount is not None:
            raise _bad("subaccount and fcm_subtrader_id exclude each other")
        # The sandbox's account is no FCM member, so no key gets bound this way; add_key() can make one.
        raise nested(403, "forbidden", "fcm_subtrader_id requires an FCM member caller", service="sandbox")
    return {"name": name, "scopes": scopes, "subaccount": subaccount, "fcm_subtrader_id": None}


def check_scopes(value: object) -> list[str]:
    """Return a list of scopes.

    An empty list is refused: the documents don't say whether it means nothing or everything.

    Raises:
        ValueError: With what is wrong.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("scopes must be a list of scopes, and not be empty")
    for scope in value:
        if not isinstance(scope, str) or scope not in SCOPES:
            raise ValueError(f"scopes must be among {', '.join(SCOPES)}")
    if "write" in value and "read" not in value:
        raise ValueError("the scope write needs the scope read")
    return value


def check_subaccount(value: object) -> int:
    """Return the number of a subaccount, 0 to 63.

    Raises:
        ValueError: With what is wrong.
    """
    if type(value) is not int or not 0 <= value <= _MAX_SUBACCOUNT:  # True is an int to isinstance, not to JSON
        raise ValueError("subaccount must be an integer from 0 to 63")
    return value


def _required_string(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise _bad(f"{field} is required and must be a string")
    return value


def _no_warning(call: Call) -> dict[str, None]:
    return {"warning": None} if call.state.null_lists else {}


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _bad(message: str) -> WireError:
    return flat(400, "invalid_parameters", message)
