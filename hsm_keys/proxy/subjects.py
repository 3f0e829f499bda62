"""The request to judge: the client's request itself, or for ``/sign`` the one that the headers are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.proxy.access import Refused
from hsm_keys.proxy.paths import UnclearPathError, split_target
from hsm_keys.proxy.request_heads import Subject
from hsm_keys.proxy.sign_targets import read_sign_target

if TYPE_CHECKING:
    from hsm_keys.proxy.client_requests import ClientRequest

__all__ = ["Subject", "subject_of"]


def subject_of(request: ClientRequest) -> Subject:
    """Return what a request is about.

    Raises:
        Refused: If it can't be read in one way.
    """
    known = request.head.subject
    if known is not None:
        return known
    try:
        wanted = read_sign_target(request.raw_path) if request.method == "GET" else None
        subject = Subject(*wanted, is_sent=False) if wanted else None
        path, query = ("", "") if subject else split_target(request.raw_path)
    except UnclearPathError as error:
        raise Refused(400, "path", f"the request target is refused: {error}") from None
    if request.headers.get("Upgrade", "").lower() == "websocket" and not request.is_websocket:
        raise Refused(400, "framing", "the WebSocket's handshake isn't one (RFC 6455, section 4.1)")
    if subject is not None and (request.body_exists or "Upgrade" in request.headers):
        raise Refused(400, "framing", "headers are asked for by a plain GET without a body")
    request.head.subject = known = subject or Subject(request.method, path, query)
    return known
