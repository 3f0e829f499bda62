"""Which subaccount a call is about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hsm_keys.sandbox.api_keys import check_subaccount
from hsm_keys.sandbox.wire import flat, nested

if TYPE_CHECKING:
    from hsm_keys.sandbox.wire import Call

__all__ = ["asked_subaccount", "subaccount_of"]


def asked_subaccount(call: Call) -> int | None:
    """Return the subaccount of the query.

    Raises:
        WireError: 400, if it is none.
    """
    text = call.query.get("subaccount")
    if text is None:
        return None
    try:
        if re.fullmatch("[0-9]{1,2}", text) is None:
            raise ValueError("subaccount must be an integer from 0 to 63")
        return check_subaccount(int(text))
    except ValueError as error:
        raise flat(400, "invalid_parameters", str(error)) from None


def subaccount_of(call: Call, asked: int | None) -> int | None:
    """Return the subaccount that a call is about; None for a key and a call that name none.

    A restricted key that names none is taken to mean its own; the documents don't say.

    Raises:
        WireError: 403, if the key is restricted to another one.
    """
    own = call.key.subaccount if call.key is not None else None
    if own is None:
        return asked
    if asked not in {None, own}:
        raise nested(403, "forbidden", f"the API key is restricted to subaccount {own}", service="sandbox")
    return own
