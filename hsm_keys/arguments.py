"""Refuses a private key that was given instead of another argument, before a frame's local variables hold it.

Error reporters send errors with the local variables of their frames. ``takes_no_private_key`` is for functions that
programs call with names, ids, paths and public keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["takes_no_private_key"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CO_COROUTINE: Final = 0x80
"""``inspect.CO_COROUTINE``: that module takes longer to load than all of this."""


def takes_no_private_key(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a function refuse the PEM of a private key in the place of any argument, before its frame holds it."""
    name = function.__name__

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if any(map(_is_private_key, args)) or any(map(_is_private_key, kwargs.values())):
            args, kwargs = (), {}  # type: ignore[assignment]  # an error's report has this frame's variables
            raise _private_key_given(name)
        return function(*args, **kwargs)

    @wraps(function)
    async def acall(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        if any(map(_is_private_key, args)) or any(map(_is_private_key, kwargs.values())):
            args, kwargs = (), {}  # type: ignore[assignment]
            raise _private_key_given(name)
        return await function(*args, **kwargs)  # type: ignore[misc]  # it is a coroutine function

    return acall if function.__code__.co_flags & _CO_COROUTINE else call  # type: ignore[return-value]


def _is_private_key(value: object) -> bool:
    """Tell whether a value is the PEM of a private key, or a mapping that has one."""
    if isinstance(value, str):
        return "PRIVATE KEY-----" in value
    if isinstance(value, bytes):
        return b"PRIVATE KEY-----" in value
    return isinstance(value, Mapping) and any(map(_is_private_key, value.values()))


def _private_key_given(name: str) -> UsageError:
    what = "the constructor" if name == "__init__" else f"{name}()"
    return UsageError(
        f"that is a PRIVATE key, and {what} takes none; nothing was done",
        hint="the public half is meant for Kalshi: openssl pkey -in key.pem -pubout",
    )
