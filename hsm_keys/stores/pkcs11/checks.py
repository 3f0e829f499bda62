"""Checks of a token without a login: module, PIN, mechanisms, and whether a login may be tried."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import PinError, StoreError
from hsm_keys.stores.checks import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.stores.pkcs11.probing import TokenReport

__all__ = ["check_token"]

_OTHERS: Final = 0o077


def check_token(uri: str, *, pin_file: str | None, env: Mapping[str, str]) -> list[Check]:
    """Look at module, token and PIN state, without logging in."""
    from hsm_keys.stores.pins import is_named
    from hsm_keys.stores.pkcs11.probing import look_at
    from hsm_keys.stores.uri import Pkcs11Uri

    parsed = Pkcs11Uri.parse(uri)
    state = look_at(parsed)
    how = "several threads at once" if state.parallel else "one thread at a time: it isn't known to do more"
    checks = [
        Check("module", "ok", f"{state.module}; used by {how}"),
        Check("token", "ok", state.token),
        _pin(state.pin),
        *_no_login(state, pin_at_hand=is_named(pin_file=pin_file, uri=parsed, env=env)),
    ]
    if state.write_protected:
        checks.append(Check("token", "warning", "it is write-protected: no key can be made", "remove the protection"))
    checks.append(_mechanisms(state))
    source = pin_file or env.get("HSM_KEYS_PIN_FILE")
    if source and os.path.isfile(source) and Path(source).stat().st_mode & _OTHERS:
        checks.append(Check("pin-file", "warning", f"others can read {source}", f"chmod 600 {source}"))
    return checks


def _mechanisms(state: TokenReport) -> Check:
    if state.makes:
        return Check("mechanisms", "ok", f"makes and signs with {' and '.join(state.makes)}")
    if state.signs:
        message = f"signs with {' and '.join(state.signs)}, and makes no keys"
        remedy = "make one with the card's own tool, register its public half at Kalshi, and adopt it: hsm-keys adopt"
        return Check("mechanisms", "ok", message, remedy)
    lacking = "it neither makes nor signs with keys that Kalshi takes"
    return Check("mechanisms", "problem", lacking, "use another token", StoreError.exit_code)


def _no_login(state: TokenReport, *, pin_at_hand: bool) -> list[Check]:
    """Return why no login is made, if none is: nobody is asked here, and no try is spent."""
    if state.pin in {"low", "final", "locked", "unset"}:
        return [Check("login", "skipped", "the token reports a problem with the PIN, so none is tried")]
    if state.pin == "none" or pin_at_hand:
        return []
    if state.has_pad:
        return [Check("login", "skipped", "the token would ask for the PIN on its own pad")]
    return [Check("login", "skipped", "no PIN was given", "give --pin-file, or set HSM_KEYS_PIN_FILE")]


def _pin(state: str) -> Check:
    messages = {
        "none": Check("pin", "ok", "the token needs none"),
        "change": Check(
            "pin",
            "warning",
            "the token wants its first PIN to be changed",
            "set a new one with the vendor's tool, such as pkcs11-tool --module MODULE --login --change-pin",
        ),
        "ok": Check("pin", "ok", "the token has counted no wrong PIN"),
        "low": Check("pin", "warning", "a wrong PIN was given lately", "a right one clears the counter"),
        "final": Check(
            "pin",
            "problem",
            "one more wrong PIN locks it",
            "make sure of the PIN, then give --force-pin to a command that logs in",
            PinError.exit_code,
        ),
        "locked": Check(
            "pin",
            "problem",
            "it is locked",
            "have the security officer reset it with the vendor's tool",
            PinError.exit_code,
        ),
        "unset": Check("pin", "problem", "it has no user PIN", "set one with the vendor's tool", PinError.exit_code),
    }
    return messages[state]
