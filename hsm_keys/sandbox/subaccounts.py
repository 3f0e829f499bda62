"""Which subaccount a call is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.sandbox.wire import nested

if TYPE_CHECKING:
    from hsm_keys.sandbox.wire import Call

__all__ = ["subaccount_of"]


def subaccount_of(call: Call, number: int | None) -> int | None:
    """Return the subaccount that a call is about; None for a key and a call that name none.

    A restricted key that names none is taken to mean its own; the documents don't say.

    Raises:
        WireError: 403, if the key is restricted to another one.
    """
    own = call.key.subaccount if call.key is not None else None
    if own is None:
        return number
    if number not in {None, own}:
        raise nested(403, "forbidden", f"the API key is restricted to subaccount {own}", service="sandbox")
    return own
