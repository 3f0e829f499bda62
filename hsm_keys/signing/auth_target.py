"""Where signed headers may go: to one origin, and over plain HTTP not through a proxy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hsm_keys.errors import UsageError
from hsm_keys.signing.flow import signing_flow
from hsm_keys.signing.message import REST_PREFIX, canonical_path
from hsm_keys.signing.signed_headers import HeadersToSend

if TYPE_CHECKING:
    from hsm_keys.signing.flow import SignsAhead

__all__ = ["BoundToOrigin", "is_proxied_by_environment", "refuse_plain_proxy"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class BoundToOrigin:
    """What signs for one origin alone.

    Args:
        signer: Signs.
        base_url: Names the origin.
    """

    def __init__(self, signer: SignsAhead, base_url: str) -> None:
        self.signer = signer
        self.base_url = base_url
        self._origin = _origin(base_url)

    def is_at_home(self, url: str) -> bool:
        """Tell whether a URL is in the configured environment."""
        return _origin(url) == self._origin

    def path_to_sign(self, url: str) -> str:
        """Return the path of a URL as it is signed and sent.

        Raises:
            UsageError: If the URL is somewhere else than in the configured environment, or can't be signed.
        """
        if not self.is_at_home(url):
            raise UsageError(
                f"a signed request may only go to {self.base_url.removesuffix(REST_PREFIX)}, and this one goes to "
                f"{_shown(url)}",
                hint="check the URL; another environment is chosen with signer.auth(environment=...) or base_url=...",
            )
        return canonical_path(urlsplit(url).path)

    def headers_to_send(
        self, method: str, path: str, *, live: bool = True, taken: dict[str, str] | None = None
    ) -> HeadersToSend:
        """Return the signed headers of a request, not made yet unless they were taken; see ``HeadersToSend``."""
        begin = partial(signing_flow, self.signer, method, path)
        return HeadersToSend(begin, live=live, flow=begin(taken=taken) if taken else None)

    def __repr__(self) -> str:
        return f"KalshiAuth(signer={self.signer!r}, base_url={self.base_url!r})"


def refuse_plain_proxy() -> None:
    """Refuse to send a signature through a proxy that could read it.

    Raises:
        UsageError: Always.
    """
    raise UsageError(
        "the request would go over plain HTTP through a proxy, which could read its signature; nothing was sent",
        hint="set NO_PROXY=127.0.0.1,localhost, or use no proxy for this base URL",
    )


def is_proxied_by_environment(url: str) -> bool:
    """Tell whether ``HTTP_PROXY`` and the like send a URL through a proxy, as the standard library reads them."""
    parts = urlsplit(url)
    return not getproxies().keys().isdisjoint({parts.scheme, "all"}) and not proxy_bypass(parts.hostname or "")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
