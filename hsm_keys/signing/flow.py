"""When a request is signed and when it is signed again: one rule for all clients, which send the requests themselves.

A request that Kalshi refused with 401 wasn't carried out. It is signed and sent once more if the reason may be that
the key was rotated meanwhile, or that the headers were too old.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar, TypeVarTuple

from hsm_keys.signing.headers import KEY_HEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["OLD_S", "Flow", "Signs", "SignsAhead", "after", "asend_signed", "in_thread", "send_signed", "signing_flow"]

OLD_S: Final = 2.0
"""Seconds after which headers that Kalshi refuses may be refused for their age: its limit is about 5."""

Flow: TypeAlias = Generator[dict[str, str], int | None, None]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Signs(Protocol):
    """What a flow needs of a signer."""

    def headers(self, method: str, path: str, /) -> dict[str, str]:
        """Return the three headers of a request."""

    def moved_on(self, api_key_id: str, /) -> bool:
        """Tell whether requests are signed for another API key by now."""


class SignsAhead(Signs, Protocol):
    """The same for a signer that may have headers ready."""

    def take(self, method: str, path: str, /) -> dict[str, str] | None:
        """Return headers that were made ahead, or None; never blocks."""


def signing_flow(signer: Signs, method: str, path: str, *, taken: dict[str, str] | None = None) -> Flow:
    """Yield the headers to send; what is sent in says what became of them.

    ``next(flow)`` gives the headers of the first sending, and fresh ones for each further sending that a transport
    makes by itself. ``flow.send(status)`` takes the status of Kalshi's answer, and gives the headers to send once more,
    or ends the flow. Both may block while a token signs or is looked at.

    Args:
        signer: Signs.
        method: HTTP method.
        path: Absolute path as it goes over the wire.
        taken: Headers for the first sending that were made ahead.
    """
    refused_before = False
    headers = taken
    while True:
        if headers is None:
            headers = signer.headers(method, path)
        made_at = time.monotonic()
        status = yield headers
        if status is not None:
            if status != HTTPStatus.UNAUTHORIZED or refused_before:
                return
            old = time.monotonic() - made_at > OLD_S
            if not signer.moved_on(headers[KEY_HEADER]) and not old:
                return
            refused_before = True
        headers = None


def after(flow: Flow, status: int) -> dict[str, str] | None:
    """Return the headers to send once more after an answer of that status; None if the answer stands."""
    try:
        return flow.send(status)
    except StopIteration:
        return None


def send_signed(flow: Flow, send: Callable[[dict[str, str]], _T], status_of: Callable[[_T], int]) -> _T:
    """Send a request as its flow says, and return the answer that stands.

    Args:
        flow: The request's.
        send: Sends it with such headers.
        status_of: Gives an answer's status.
    """
    headers: dict[str, str] | None = next(flow)
    while headers is not None:
        answer = send(headers)
        headers = after(flow, status_of(answer))
    return answer


async def asend_signed(
    signer: SignsAhead,
    method: str,
    path: str,
    send: Callable[[dict[str, str]], Awaitable[_T]],
    status_of: Callable[[_T], int],
) -> _T:
    """Do as ``send_signed`` does, and sign in a thread: the event loop runs on."""
    taken = signer.take(method, path)
    flow = signing_flow(signer, method, path, taken=taken)
    headers: dict[str, str] | None = await in_thread(next, flow) if taken is None else next(flow)
    while headers is not None:
        answer = await send(headers)
        status = status_of(answer)
        headers = await in_thread(after, flow, status) if status == HTTPStatus.UNAUTHORIZED else None
    return answer


async def in_thread(call: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
    """Call a blocking function in a thread, under asyncio or trio. A cancelled task doesn't wait for it."""
    from anyio import to_thread

    return await to_thread.run_sync(call, *arguments, abandon_on_cancel=True)
