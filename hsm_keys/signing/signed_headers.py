"""The signed headers of one request: made when the request is sent, not when somebody reads them.

They don't stay in the request's own headers. HTTP libraries copy those when they follow a redirect, even to another
host, and send the same ones again when a transport retries; but a signature is valid for one path, for some seconds.
"""

from __future__ import annotations

import codecs
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self

from hsm_keys.signing.flow import OLD_S, after
from hsm_keys.signing.headers import SIGNATURE_HEADER, SIGNED_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.signing.flow import Flow

__all__ = ["HeadersToSend", "SignedValue", "beside", "signed_headers_of", "values_of", "without_signed"]

_NOT_YET: Final = "\N{HORIZONTAL ELLIPSIS} made when it is sent"
"""What a value shows before it is sent. It isn't Latin-1: a library that doesn't encode it as below can't send it."""

_WIRE: Final = frozenset({"iso8859-1", "ascii"})
"""What HTTP libraries encode header values in, by Python's names (RFC 9110, section 5.5)."""


class HeadersToSend:
    """The signed headers of one request.

    Args:
        begin: Begins the request's flow.
        live: Whether a further sending has them made anew; not where that would block an event loop.
        flow: The first flow, if it has begun.
    """

    def __init__(self, begin: Callable[[], Flow], *, live: bool = True, flow: Flow | None = None) -> None:
        self._begin = begin
        self._live = live
        self._flow = flow
        self._headers: dict[str, str] | None = None
        self._made_at = 0.0
        self._sent: set[str] = set()

    def make(self) -> None:
        """Make those of the next sending."""
        if self._flow is None:
            self._flow = self._begin()
        self._headers = next(self._flow)
        self._made_at, self._sent = time.monotonic(), set()

    def to_send(self) -> dict[str, str]:
        """Return all three for a sending."""
        return {name: self.value_to_send(name) for name in SIGNED_HEADERS}

    def value_to_send(self, name: str) -> str:
        """Return one of them for a sending; when one is asked for again, the next sending begins."""
        if self.must_be_made(name) and (self._live or self._flow is None):
            self.make()
        self._sent.add(name)
        return self.shown()[name]

    def must_be_made(self, name: str = SIGNATURE_HEADER) -> bool:
        """Tell whether a sending now needs fresh ones: there are none, they were sent, or they waited too long."""
        waited = not self._sent and time.monotonic() - self._made_at > OLD_S
        return self._flow is None or name in self._sent or waited

    def shown(self) -> dict[str, str]:
        """Return the last ones, to look at."""
        return self._headers or dict.fromkeys(SIGNED_HEADERS, _NOT_YET)

    def go_again(self, status: int) -> bool:
        """Tell whether to send the request once more after an answer of that status."""
        flow, self._flow = self._flow, None
        again = None if flow is None else after(flow, status)
        if again is None:
            return False
        self._flow, self._headers = flow, again
        self._made_at, self._sent = time.monotonic(), set()
        return True


class SignedValue(str):
    """A header's value for requests and niquests, which encode it in Latin-1 when they send it, and only then.

    Args:
        signed: Gives what is sent.
        name: The header's name.
    """

    __slots__ = ("name", "signed")

    signed: HeadersToSend
    name: str

    def __new__(cls, signed: HeadersToSend, name: str) -> Self:  # noqa: D102 - see the class
        value = super().__new__(cls, signed.shown()[name])
        value.signed, value.name = signed, name
        return value

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return what is sent, signed now, in the encodings of the wire; in others what is shown."""
        if codecs.lookup(encoding).name in _WIRE:
            return self.signed.value_to_send(self.name).encode("ascii")
        return super().encode(encoding, errors)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return str, (str(self),)


def values_of(signed: HeadersToSend) -> dict[str, str]:
    """Return headers for a library that encodes them in Latin-1 when it sends them."""
    return {name: SignedValue(signed, name) for name in SIGNED_HEADERS}


def beside(headers: Any, signed: HeadersToSend) -> Any:
    """Return headers of httpx or httpx2 with signed ones beside them: read and sent with them, never copied.

    Args:
        headers: A request's.
        signed: What is made already.
    """
    together = _with_signed_ones(_own_kind(headers))(without_signed(headers))
    together.signed = signed
    return together


def signed_headers_of(headers: Any) -> HeadersToSend | None:
    """Return the signed ones that go with a request's headers, if there are any."""
    signed = getattr(headers, "signed", None)
    if signed is None:
        signed = getattr(headers.get(SIGNATURE_HEADER), "signed", None)
    return signed if isinstance(signed, HeadersToSend) else None


def without_signed(headers: Any) -> Any:
    """Return a copy of headers without anything signed."""
    own = _own_kind(headers)(headers)
    for name in SIGNED_HEADERS:
        if name in own:
            del own[name]
    return own


def _own_kind(headers: Any) -> Any:
    kind = type(headers)
    return kind.__mro__[1] if hasattr(headers, "signed") else kind


_READING: Final = (
    "__contains__",
    "__getitem__",
    "__iter__",
    "__len__",
    "get_list",
    "items",
    "keys",
    "multi_items",
    "values",
)


@cache
def _with_signed_ones(kind: Any) -> Any:
    """Return httpx's ``Headers`` with signed ones beside them: a copy is made from ``_list``, and ``raw`` is sent."""

    class WithSignedOnes(kind):  # type: ignore[misc]  # its base is known when it is made
        signed: HeadersToSend

        @property
        def raw(self) -> list[tuple[bytes, bytes]]:
            ours = [(name.encode(), value.encode()) for name, value in self.signed.shown().items()]
            return [*super().raw, *ours]

    def reading(method: str) -> Any:
        def read(self: Any, *arguments: Any, **options: Any) -> Any:
            whole = kind([*kind(self).multi_items(), *self.signed.shown().items()])
            return getattr(whole, method)(*arguments, **options)

        return read

    for method in _READING:
        setattr(WithSignedOnes, method, reading(method))
    return WithSignedOnes
