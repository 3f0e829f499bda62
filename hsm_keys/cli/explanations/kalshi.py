"""Kalshi's own codes, as its answers have them in ``code`` and ``details``."""

from __future__ import annotations

from typing import Final

from hsm_keys.cli.explanations.explanation import Explanation

__all__ = ["EXPLANATIONS"]

EXPLANATIONS: Final = {
    "authentication_error": Explanation(
        "401: Kalshi couldn't authenticate the request. `details` says which part is wrong.",
        "Look up the details: NOT_FOUND, INCORRECT_API_KEY_SIGNATURE.",
        "hsm-keys explain INCORRECT_API_KEY_SIGNATURE",
    ),
    "NOT_FOUND": Explanation(
        "401: Kalshi doesn't know the API key id: deleted, mistyped, or of the other environment.",
        "Compare the id with those that Kalshi lists, and check the environment.",
        "hsm-keys list --env demo",
    ),
    "INCORRECT_API_KEY_SIGNATURE": Explanation(
        "401: the signature doesn't verify with the public key of that API key id.",
        "Check that key and id are a pair, that the signed path is the one that is sent (with /trade-api/v2, without "
        "the query), and that the PSS salt has 32 bytes.",
        "hsm-keys reconcile",
    ),
    "INVALID_TIMESTAMP": Explanation(
        "401: KALSHI-ACCESS-TIMESTAMP isn't Unix time in whole milliseconds.",
        "Send milliseconds, not seconds, and no fraction.",
        "hsm-keys sign GET /portfolio/balance --name prod",
    ),
    "signature_is_missing_from_headers": Explanation(
        "401: one of the three KALSHI-ACCESS headers is missing, empty or there twice.",
        "Look at the request that is sent; a proxy may strip or double headers.",
        "hsm-keys sign GET /portfolio/balance --name prod --output headers",
    ),
    "header_timestamp_expired": Explanation(
        "401: the timestamp is too far from Kalshi's clock, or the headers were kept too long.",
        "Set the clock (NTP); sign right before you send.",
        "timedatectl set-ntp true",
    ),
    "forbidden": Explanation(
        "403: Kalshi knows the key, and it may not do this: a scope, a subaccount, the usage level.",
        "See the key's scopes, and enroll one with those that it needs.",
        "hsm-keys list",
    ),
    "not_found": Explanation(
        "404: there is no such order, market, API key or group, in this environment and on this shard.",
        "Check the id and the environment; an order that is done isn't open any more.",
        "hsm-keys request GET /portfolio/orders --name prod",
    ),
    "market_not_found": Explanation(
        "404: there is no market with that ticker.",
        "Look the ticker up.",
        "hsm-keys request GET /markets --query status=open --name prod",
    ),
    "invalid_parameters": Explanation(
        "400: a parameter or a field of the body is missing, unknown or out of range; the message names it.",
        "Correct that field. Prices and counts are decimal strings.",
        "hsm-keys request GET /portfolio/orders --query limit=200 --name prod",
    ),
    "invalid_content_type": Explanation(
        "400: the body isn't sent as application/json.",
        "Send that header; --json does.",
        "hsm-keys request POST /portfolio/events/orders --name prod --json @order.json",
    ),
    "invalid_order": Explanation(
        "400: the exchange refuses the order: post-only and it would trade, reduce-only and there is nothing to "
        "reduce, or its order group was triggered.",
        "The details say which. Change the order, or reset the group.",
        "hsm-keys request GET /portfolio/positions --name prod",
    ),
    "insufficient_balance": Explanation(
        "400: the account doesn't have the money that the order may cost.",
        "Look at balance and open orders; cancel some, or order less.",
        "hsm-keys request GET /portfolio/balance --name prod",
    ),
    "order_already_exists": Explanation(
        "409: there is an order with that client_order_id already: a request that seemed lost has arrived.",
        "Look at that order before you send one with another id.",
        "hsm-keys request GET /portfolio/orders --name prod",
    ),
    "fill_or_kill_insufficient_resting_volume": Explanation(
        "409: the order was to be filled whole or not at all, and there weren't enough offers. Nothing was traded.",
        "Order less, or with another time_in_force.",
        "hsm-keys request GET /markets/KXTEST-1/orderbook --name prod",
    ),
    "rfq_closed": Explanation(
        "409: the request for quotes is closed.",
        "Look at its state; make a new one.",
        "hsm-keys request GET /communications/rfqs --name prod",
    ),
    "invalid_quote_status": Explanation(
        "409: the quote isn't in the state that this step needs: not accepted yet, or confirmed or withdrawn already.",
        "Look at the quote before the next step.",
        "hsm-keys request GET /communications/quotes --name prod",
    ),
    "too_many_requests": Explanation(
        "429: the account's tokens for this second are used up. Kalshi sends these words, no code and no Retry-After.",
        "Wait a second and send less.",
        "hsm-keys request GET /account/limits --name prod",
    ),
    "deprecated_v1_order_endpoint": Explanation(
        "410: Kalshi switched the order routes of version 1 off in June 2026.",
        "Send orders to the routes of version 2.",
        "hsm-keys request POST /portfolio/events/orders --name prod --json @order.json",
    ),
}
