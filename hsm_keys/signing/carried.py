"""Headers that a request carries and doesn't hold: they are there for whoever reads or sends them.

HTTP libraries copy a request's headers when they follow a redirect, to another host too, and send the same ones again
when a transport retries. Signed headers are good for one path and for seconds: a copy of httpx's has none of them, for
requests' they are taken off before it copies them, and each sending takes fresh ones.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from hsm_keys.signing.signer import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.signing.signer import RequestSigner

__all__ = ["Stamp", "carrying", "stamp_of", "without_stamp"]

_NAMES: Final = {name.lower(): name for name in (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)}
_OLD_S: Final = 2.0
"""Seconds after which headers that Kalshi refuses may be refused for their age: its limit is about 5."""


class Stamp:
    """The signed headers of one request.

    Args:
        sign: Makes them.
        live: Whether they are made anew when they are sent again; not where that would block an event loop.
        headers: The first ones, if they are made already.
    """

    def __init__(
        self, sign: Callable[[], dict[str, str]], *, live: bool, headers: dict[str, str] | None = None
    ) -> None:
        self._sign = sign
        self._live = live
        self._sent = False
        self._renewals = 0
        self._make(headers)

    def _make(self, headers: dict[str, str] | None = None) -> None:
        self.headers = self._sign() if headers is None else headers
        self._made_at = time.monotonic()

    def to_send(self) -> dict[str, str]:
        """Return the headers for a sending: the first time as they are, then fresh ones."""
        if self._sent and self._live:
            self._make()
        self._sent = True
        return self.headers

    def renew(self, signer: RequestSigner) -> bool:
        """Make the headers anew if a refusal may be due to their key or their age; tell whether."""
        old = time.monotonic() - self._made_at > _OLD_S
        if not signer.moved_on(self.headers[KEY_HEADER]) and not (old and self._renewals == 0):
            return False
        self._renewals += 1
        self._make()
        self._sent = False
        return True


def stamp_of(headers: Any) -> Stamp | None:
    """Return the stamp that headers carry."""
    stamp: Stamp | None = getattr(headers, "stamp", None)
    return stamp


def carrying(headers: Any, stamp: Stamp) -> Any:
    """Return headers of the same kind, which carry a stamp; what they held of an older signature is dropped.

    Args:
        headers: Those of a request of requests, niquests, httpx or httpx2.
        stamp: What to carry.
    """
    kind = _kind_of(headers)
    carried = (_carrying_raw if hasattr(kind, "raw") else _carrying_items)(kind)(without_stamp(headers))
    carried.stamp = stamp
    return carried


def without_stamp(headers: Any) -> Any:
    """Return a copy of headers without anything signed."""
    kind = _kind_of(headers)
    own = kind(headers._own() if hasattr(headers, "_own") else headers)  # noqa: SLF001 - a class of this module
    for name in _NAMES.values():
        if name in own:
            del own[name]
    return own


def _kind_of(headers: Any) -> Any:
    return type(headers) if stamp_of(headers) is None else type(headers).__mro__[1]


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
def _carrying_raw(kind: Any) -> Any:
    """Return httpx's ``Headers`` with a stamp: a copy is made from ``_list``, and ``raw`` is what is sent."""

    class SignedHeaders(kind):  # type: ignore[misc]  # its base is known when it is made
        stamp: Stamp

        @property
        def raw(self) -> list[tuple[bytes, bytes]]:
            sent = [(name.encode(), value.encode()) for name, value in self.stamp.to_send().items()]
            return [*super().raw, *sent]

    def reading(method: str) -> Any:
        def read(self: Any, *arguments: Any, **options: Any) -> Any:
            whole = kind([*kind(self).multi_items(), *self.stamp.headers.items()])
            return getattr(whole, method)(*arguments, **options)

        return read

    for method in _READING:
        setattr(SignedHeaders, method, reading(method))
    return SignedHeaders


@cache
def _carrying_items(kind: Any) -> Any:
    """Return requests' ``CaseInsensitiveDict`` with a stamp: ``items`` is what is sent."""

    class SignedHeaders(kind):  # type: ignore[misc]  # its base is known when it is made
        stamp: Stamp

        def _own(self) -> list[tuple[str, Any]]:
            return [(name, super(SignedHeaders, self).__getitem__(name)) for name in super().__iter__()]

        def items(self) -> Any:
            return [*self._own(), *self.stamp.to_send().items()]

        def __getitem__(self, key: str) -> Any:
            name = _NAMES.get(key.lower())
            return super().__getitem__(key) if name is None else self.stamp.headers[name]

        def __contains__(self, key: Any) -> bool:
            return key.lower() in _NAMES or super().__contains__(key)

        def __iter__(self) -> Iterator[str]:
            yield from super().__iter__()
            yield from self.stamp.headers

        def __len__(self) -> int:
            return len(list(iter(self)))

        def copy(self) -> Any:
            return carrying(self, self.stamp)  # urllib3 copies what it is given before it sends

    return SignedHeaders
