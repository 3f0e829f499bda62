"""One authentication object for requests, niquests, httpx and httpx2, in sync and async programs.

It signs when a request is sent, with the path exactly as it goes over the wire, and signs again whenever a request is
sent again: after a redirect (to the same origin, never to another), by a retrying transport, after a rotation, or
because the headers became too old before Kalshi got them. This is safe, because Kalshi doesn't carry out a request that
it answers with 401. A request that can't be signed raises an error: nothing is sent unsigned.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from hsm_keys.signing.auth_httpx import HttpxAuth
from hsm_keys.signing.auth_requests import RequestsAuth
from hsm_keys.signing.environments import resolve

if TYPE_CHECKING:
    from hsm_keys.signing.flow import SignsAhead

__all__ = ["KalshiAuth", "kalshi_auth"]

_FLOW_LIBRARIES: Final = ("httpx2", "httpx")


class KalshiAuth(HttpxAuth, RequestsAuth):
    """Signs the requests of an HTTP client. Made by ``signer.auth()``.

    Args:
        signer: Signs.
        base_url: The one origin that signed headers are sent to.
    """


@cache
def _class_for(bases: tuple[type, ...]) -> type[KalshiAuth]:
    return type("KalshiAuth", (KalshiAuth, *bases), {"__doc__": KalshiAuth.__doc__, "__module__": __name__})


def kalshi_auth(signer: SignsAhead, *, base_url: str | None = None, environment: str | None = None) -> KalshiAuth:
    """Return the authentication object; see ``RequestSigner.auth``."""
    # httpx recognises an auth object by its class, so the class has httpx's Auth among its bases.
    present = [name for name in _FLOW_LIBRARIES if name in sys.modules or find_spec(name) is not None]
    bases = tuple(import_module(name).Auth for name in present)
    return _class_for(bases)(signer, resolve(base_url=base_url, environment=environment))
