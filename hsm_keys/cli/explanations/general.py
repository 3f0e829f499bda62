"""Error codes of the command line, of keys, and of what Kalshi and the network answer."""

from __future__ import annotations

from typing import Final

from hsm_keys.cli.explanations.explanation import Explanation

__all__ = ["EXPLANATIONS"]

EXPLANATIONS: Final = {
    "unexpected": Explanation(
        "Something failed that hsm-keys doesn't expect: a defect of hsm-keys or of a library.",
        "Report the line that was printed, and the command. Workflows can be run again: they continue from there.",
        "hsm-keys doctor",
        1,
    ),
    "system": Explanation(
        "The operating system refused something: a file, a folder, a port, a full disk.",
        "Correct what the message names, then run the same command again.",
        "df -h . && ls -ld .",
        1,
    ),
    "interrupted": Explanation(
        "Ctrl-C, or no answer to a question, ended the command.",
        "Run the same command again: it continues from there.",
        "hsm-keys list",
        130,
    ),
    "usage": Explanation(
        "The command line, a URI, a path, a scope, a variable or a file isn't what the command takes. It did nothing.",
        "The message names the part. A value that was refused isn't repeated, since it may be a secret.",
        "hsm-keys enroll --help",
        2,
    ),
    "key": Explanation(
        "There is a problem with a key of the store that has no error code of its own.",
        "Look at the key's state and attributes.",
        "hsm-keys show prod",
        5,
    ),
    "key_not_found": Explanation(
        "The store has no key of that name. It may be another store, token or account than you mean.",
        "List what is there; the token or Region is in the last column.",
        "hsm-keys list",
        5,
    ),
    "key_exists": Explanation(
        "The store already has a key of that name, and it wasn't changed.",
        "Choose another name, or replace the old key with a new one.",
        "hsm-keys rotate prod",
        5,
    ),
    "key_ambiguous": Explanation(
        "A name stands for several keys: a rotation is under way, or a token holds two private keys with one label.",
        "Finish the rotation, or give the API key id. Two keys with one label: relabel one with the vendor's tool.",
        "hsm-keys rotate prod --finish",
        5,
    ),
    "key_busy": Explanation(
        "Another run is working on the key, or has changed it in the meantime.",
        "Wait until it has ended, look at the keys, and run the same command again.",
        "hsm-keys list",
        5,
    ),
    "key_not_registered": Explanation(
        "The key has no API key id, so Kalshi can't know it; or no registered key and no bootstrap key can sign.",
        "Register it, or bind the id that Kalshi's account page shows.",
        "hsm-keys adopt prod --api-key-id 3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d",
        5,
    ),
    "wrong_environment": Explanation(
        "The key belongs to one environment of Kalshi, and the command is for another one. Nothing was sent.",
        "Name the key's environment (--env, --base-url), or a key of this environment.",
        "hsm-keys request GET /portfolio/balance --name prod --env prod",
        5,
    ),
    "foreign_key": Explanation(
        "The key doesn't have the mark of hsm-keys: another program made it. It isn't changed.",
        "Choose another name; or adopt the key, if it is yours and registered at Kalshi.",
        "hsm-keys adopt prod --api-key-id 3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d",
        5,
    ),
    "custody": Explanation(
        "The private half can be read or wrapped, or once could have been.",
        "Let the store make a new key under another name. A key that was outside can't be made safe again.",
        "hsm-keys enroll --name prod-2",
        5,
    ),
    "signing": Explanation(
        "The store signed nothing, or something that doesn't verify with the key's public half.",
        "Look at the key: it may not be made for signing, or its public half may be another key's.",
        "hsm-keys custody --offline",
        5,
    ),
    "kalshi": Explanation(
        "Kalshi refused with a status that it doesn't document for this request.",
        "Read what Kalshi said, in the message.",
        "hsm-keys request GET /exchange/status --name prod --include",
        6,
    ),
    "kalshi_bad_request": Explanation(
        "400: Kalshi refuses the request as it is: a field is missing, unknown or out of range.",
        "The message has Kalshi's own code and words; `explain` knows most of its codes.",
        "hsm-keys explain invalid_parameters",
        6,
    ),
    "kalshi_unauthorized": Explanation(
        "401: API key id, signature or a header is wrong, or the key was revoked or is another environment's.",
        "Check that id and key are a pair, and the environment. `doctor` tries each part.",
        "hsm-keys doctor",
        6,
    ),
    "kalshi_clock": Explanation(
        "401: the timestamp that was signed is too far from Kalshi's clock.",
        "Set this machine's clock (NTP); sign right before you send.",
        "timedatectl set-ntp true",
        6,
    ),
    "kalshi_forbidden": Explanation(
        "403: Kalshi knows the key, but doesn't allow this: a scope, a subaccount, or the location attestation.",
        "See the key's scopes; enroll one with those that it needs.",
        "hsm-keys enroll --name trader --scope read --scope write::trade",
        6,
    ),
    "kalshi_tier": Explanation(
        "403: the account's usage level doesn't let it register keys by API; Premier and Market Maker may.",
        "Print the public half, paste it on Kalshi's account page, and adopt the id; or let Kalshi make the key.",
        "hsm-keys enroll --name prod --offline",
        6,
    ),
    "kalshi_not_found": Explanation(
        "404: there is no such order, market, API key or route; or it is in the other environment.",
        "Check the id or path, and the environment.",
        "hsm-keys request GET /portfolio/orders --name prod",
        6,
    ),
    "kalshi_conflict": Explanation(
        "409: the request contradicts something that exists, or something that it needs isn't visible everywhere yet.",
        "Try again in a moment. For an order, look for its client_order_id first.",
        "hsm-keys request GET /portfolio/orders --name prod",
        6,
    ),
    "kalshi_gone": Explanation(
        "410: Kalshi has switched this route off, such as the orders of version 1.",
        "Send the request to the route that the hint names.",
        "hsm-keys request POST /portfolio/events/orders --name prod --json @order.json",
        6,
    ),
    "kalshi_rate_limit": Explanation(
        "429: the account's tokens for this second are used up.",
        "Wait a second and send less. The account's limits tell how much it may.",
        "hsm-keys request GET /account/limits --name prod",
        6,
    ),
    "network": Explanation(
        "Kalshi or the store couldn't be reached, or didn't answer a request that changes nothing.",
        "Check the network, HTTPS_PROXY and the base URL, then try again.",
        "hsm-keys doctor",
        7,
    ),
    "outcome_unknown": Explanation(
        "A request that changes something got no usable answer: it may have been carried out. It isn't sent again.",
        "Look before you repeat it: for an order, its client_order_id. Enroll, rotate and revoke look by themselves.",
        "hsm-keys reconcile",
        7,
    ),
    "end_not_proved": Explanation(
        "It isn't known whether an API key is dead: what answered doesn't prove it. Nothing was destroyed.",
        "Run the same command again when Kalshi answers, with another key that signs the call.",
        "hsm-keys revoke old-bot --destroy --auth prod",
        7,
    ),
    "kalshi_server": Explanation(
        "Kalshi answered 5xx to a request that changes nothing: Kalshi itself failed.",
        "Try again later.",
        "hsm-keys request GET /exchange/status --name prod",
        7,
    ),
    "not_kalshi": Explanation(
        "Something between here and Kalshi answered: a CDN, a proxy, a firewall, a login page. Or a list of API keys "
        "doesn't have the API key that signed for it, so it isn't this account's list.",
        "The message says what answered. Check the network, HTTPS_PROXY and the base URL. It says nothing about a key.",
        "hsm-keys doctor",
        7,
    ),
    "program_not_found": Explanation(
        "`run` found no program of that name: neither at that path nor along PATH. Nothing was started.",
        "Give the program's path, or see that PATH names its folder.",
        "hsm-keys run --name prod -- ./bot",
        127,
    ),
    "program_not_executable": Explanation(
        "The program is a folder, or a file that lacks the permission to be executed. Nothing was started.",
        "Make it a program (chmod +x), or put its interpreter in front.",
        "hsm-keys run --name prod -- python bot.py",
        126,
    ),
    "proxy_ended": Explanation(
        "A program's proxy ended while the program ran, so the program was ended too: it couldn't sign any more.",
        "Look in the audit trail for the last requests, and run the program again; or give --on-proxy-exit restart.",
        "hsm-keys run --name prod --on-proxy-exit restart -- python bot.py",
        1,
    ),
    "containment": Explanation(
        "The system doesn't allow what `run --contain` needs: namespaces of a user's own. Nothing was started.",
        "Allow unprivileged user namespaces, as the hint says, or run the program without --contain, as another user.",
        "sysctl kernel.apparmor_restrict_unprivileged_userns kernel.unprivileged_userns_clone",
        1,
    ),
    "frozen": Explanation(
        "The proxy's signing is frozen: somebody ran `proxy freeze`, which holds over restarts.",
        "Find out why, then thaw it.",
        "hsm-keys proxy thaw --name prod",
        1,
    ),
    "not_cancelled": Explanation(
        "A proxy sent a request to cancel all orders, and Kalshi didn't confirm it: Kalshi refused, didn't answer, "
        "its list of resting orders can't be read, or orders rest although signing is frozen.",
        "Run the command again, or cancel the orders on Kalshi's site; a freeze holds in any case.",
        "hsm-keys proxy freeze --name prod --cancel-all",
        7,
    ),
    "not_saved": Explanation(
        "The proxy's state folder couldn't keep a freeze or a thaw, so that a restart would undo it.",
        "Make room in the folder or correct its permissions, and run the same command again before a restart.",
        "hsm-keys proxy freeze --name prod",
        1,
    ),
    "audit": Explanation(
        "The audit trail can't be written or read, so the proxy signs nothing: a full disk, or another user's folder.",
        "Make room or correct the folder's permissions; then verify the trail.",
        'hsm-keys audit verify "$HOME/.local/state/hsm-keys/prod/audit"',
        1,
    ),
    "caps": Explanation(
        "The journal of the proxy's caps can't be written or read, so no order under a cap is signed; or an order "
        "for a perpetual future came under caps, and its cost can't be told.",
        "Make room: signing continues by itself. For perpetual futures, name their route in `allow_unjudged`.",
        'allow_unjudged = ["POST /margin/orders"]',
        1,
    ),
}
