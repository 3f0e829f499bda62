"""Codes that only the signing proxy uses: about the client, the form of the request, and the policy."""

from __future__ import annotations

from typing import Final

from hsm_keys.cli.explanations.explanation import Explanation

__all__ = ["EXPLANATIONS"]

EXPLANATIONS: Final = {
    "origin": Explanation(
        "The request came from a page in a browser. Any page could send one, so none is answered.",
        "Send the request from a program, not from a page.",
        'curl --unix-socket "$XDG_RUNTIME_DIR/hsm-keys/prod.sock" http://localhost/trade-api/v2/portfolio/balance',
    ),
    "host": Explanation(
        "The Host header isn't the proxy's own address, as in an attack by DNS rebinding.",
        "Use the address at which the proxy listens.",
        "hsm-keys proxy status --name prod",
    ),
    "uid": Explanation(
        "The user of the process at the Unix socket may not use the proxy.",
        "Start the proxy with that user's number allowed.",
        "hsm-keys proxy --name prod --allow-uid 1001",
    ),
    "token": Explanation(
        "Over TCP the proxy wants a client's token, and it is missing, wrong, revoked or now another client's.",
        "Send the token of the client's file, as a bearer token or instead of the API key id.",
        'curl -H "Authorization: Bearer $(cat clients/bot)" http://127.0.0.1:8090/trade-api/v2/portfolio/balance',
    ),
    "client": Explanation(
        "The policy has no rules for this client, nor for `default`.",
        "Add a section for it, or name its user in `uids` of one.",
        "[clients.maker]",
    ),
    "busy": Explanation(
        "The client has sent as many requests at the same time as one client may.",
        "Wait for answers before you send more.",
        "hsm-keys proxy status --name prod",
    ),
    "gone": Explanation(
        "The client closed the connection before its request was signed; or the route was switched off by Kalshi, and "
        "limits of orders can't judge it.",
        "Keep the connection until the answer; send orders to the routes of version 2.",
        "hsm-keys request POST /portfolio/events/orders --name prod --json @order.json",
    ),
    "method": Explanation(
        "Kalshi has no route with this method.",
        "Send GET, POST, PUT, PATCH or DELETE, in capitals.",
        "hsm-keys proxy check policy.toml GET /trade-api/v2/portfolio/balance",
    ),
    "path": Explanation(
        "The path can be read in two ways: `..`, `//`, a trailing slash, or escapes of what needs none.",
        "Send the path in its one spelling.",
        "hsm-keys proxy check policy.toml GET /trade-api/v2/portfolio/balance",
    ),
    "version": Explanation(
        "The path isn't below /trade-api/v2, the version of Kalshi's API that the proxy knows.",
        "Use a route of version 2, or name the other one in `allow`.",
        'allow = ["GET /**", "GET /trade-api/v3/**"]',
    ),
    "framing": Explanation(
        "The headers say in two ways where the body ends, or the handshake of a WebSocket isn't one.",
        "Send one Content-Length, or the one Transfer-Encoding chunked. Open WebSockets with a client made for them.",
        "hsm-keys request POST /portfolio/events/orders --name prod --json @order.json",
    ),
    "malformed": Explanation(
        "The request isn't HTTP that can be read in one way.",
        "Use an HTTP client; look at what stands between it and the proxy.",
        'curl -v --unix-socket "$XDG_RUNTIME_DIR/hsm-keys/prod.sock" http://localhost/trade-api/v2/exchange/status',
    ),
    "body": Explanation(
        "The body can't be judged: no JSON in UTF-8, compressed, too long, or not exactly the route's fields.",
        "The message names the field. Let the policy judge the body without sending it.",
        "hsm-keys proxy check policy.toml POST /trade-api/v2/portfolio/events/orders --body '{}'",
    ),
    "policy": Explanation(
        "The client's rules were changed while the request was under way; it wasn't sent.",
        "Send it again: it is judged by the new rules.",
        "hsm-keys proxy status --name prod",
    ),
    "api_keys": Explanation(
        "The request manages API keys: a key that a bot made would be in no token.",
        "Use hsm-keys itself; or allow it with `allow_key_management = true` in the client's section.",
        "hsm-keys enroll --name second",
    ),
    "transfers": Explanation(
        "The request moves money.",
        "Allow it with `allow_transfers = true` in the client's section.",
        "allow_transfers = true",
    ),
    "accounts": Explanation(
        "The request changes an account.",
        "Allow it with `allow_account_changes = true` in the client's section.",
        "allow_account_changes = true",
    ),
    "read_only": Explanation(
        "The client may only read.",
        "Remove `read_only` from its section, and name what it may do in `allow`.",
        'allow = ["GET /**", "POST /portfolio/events/orders"]',
    ),
    "deny": Explanation(
        "A rule in `deny` of the client's section matches; the code names it.",
        "Remove the rule, if the client is to do this.",
        "hsm-keys proxy check policy.toml GET /trade-api/v2/portfolio/settlements --client maker",
    ),
    "allow": Explanation(
        "The client's section has an `allow`, and no rule in it matches.",
        "Add a rule for the request.",
        'allow = ["GET /**", "POST /portfolio/events/orders"]',
    ),
    "hours": Explanation(
        "It is outside the hours of the client's section.",
        "Wait, or widen the hours.",
        'hours = ["Mon-Fri 09:30-16:00 America/New_York"]',
    ),
    "allow_unjudged": Explanation(
        "The client's orders are limited, and this request may trade in a way that no limit can judge.",
        "Name the operation in `allow_unjudged`, if the client is to do it without limits.",
        'allow_unjudged = ["POST /communications/quotes"]',
    ),
    "sign": Explanation(
        "A client whose rules judge the body or Kalshi's answer asked for headers alone (GET /sign).",
        "Send the request through the proxy; or give the client only rules by route and rate.",
        "curl --unix-socket SOCKET http://localhost/trade-api/v2/portfolio/balance",
    ),
    "markets": Explanation(
        "The order isn't for one of the markets that the client's section allows.",
        "Add the ticker or a pattern.",
        'markets = ["KXHIGHNY-*"]',
    ),
    "max_count": Explanation(
        "The order is for more contracts than the client may order at once.",
        "Order less, or raise the limit.",
        "max_count = 100",
    ),
    "max_price_cents": Explanation(
        "A contract may cost more than the client may pay: a bid its price, an ask one dollar less its price.",
        "Change the price, or raise the limit.",
        "max_price_cents = 60",
    ),
    "max_order_dollars": Explanation(
        "The order may cost more than one order of the client may.",
        "Order less, or raise the cap.",
        'max_order_dollars = "50"',
    ),
    "max_dollars_a_day": Explanation(
        "With this order, the orders of the last 24 hours could cost more than the cap.",
        "Cancel resting orders, wait for Retry-After if there is one, or raise the cap.",
        'max_dollars_a_day = "500"',
    ),
    "max_open_dollars": Explanation(
        "With this order, the resting orders could cost more than the cap.",
        "Cancel resting orders, or raise the cap.",
        'max_open_dollars = "200"',
    ),
    "max_contracts_a_market": Explanation(
        "With this order, more contracts of the market could be held, either way, than the cap allows.",
        "Order less, reduce the position, or raise the cap.",
        "max_contracts_a_market = 500",
    ),
    "duplicate_seconds": Explanation(
        "An equal order, or one with the same client_order_id, was sent within the seconds of the rule.",
        "If this is a second order, send it again after Retry-After, with another client_order_id.",
        "duplicate_seconds = 2",
    ),
    "client_order_id": Explanation(
        "Under caps, and with cancel_after_silence_seconds, an order needs a new client_order_id: the proxy looks up "
        "lost orders by it.",
        "Send an id that no earlier order had.",
        '{"client_order_id": "maker-0001"}',
    ),
    "amend": Explanation(
        "The order to amend isn't in the proxy's journal of caps: it was placed elsewhere, is of another market or "
        "side, or an earlier amendment isn't known to be over.",
        "Cancel it, and send another order.",
        "hsm-keys request GET /portfolio/orders --query status=resting --name prod",
    ),
    "tokens": Explanation(
        "The client's tokens for this second are used up, or a batch asks for more than there ever are.",
        "Wait for the seconds in Retry-After; send smaller batches; or raise the limit.",
        "write_tokens_per_second = 100",
    ),
    "orders_per_minute": Explanation(
        "The client has made or changed as many orders in the last 60 seconds as it may.",
        "Wait for the seconds in Retry-After, or raise the limit.",
        "orders_per_minute = 60",
    ),
    "tier": Explanation(
        "Kalshi's limit for the account is reached; all clients of the proxy share it.",
        "Wait for the seconds in Retry-After; give busy clients smaller limits.",
        "hsm-keys request GET /account/limits --name prod",
    ),
    "websocket": Explanation(
        "Kalshi refused the WebSocket, or its answer to the handshake isn't one.",
        "Check the key's scopes, and the WebSocket's URL where the base URL doesn't tell it.",
        "hsm-keys proxy --name prod --ws-url wss://HOST/trade-api/ws/v2",
    ),
    "defect": Explanation(
        "The proxy itself failed. Its log has the traceback.",
        "Report it, and look whether the request was carried out.",
        "hsm-keys proxy status --name prod",
    ),
}
