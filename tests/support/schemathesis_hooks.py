"""Signs what schemathesis sends: it imports this file, and gets the key from its environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from requests.auth import AuthBase
from schemathesis.auths import GLOBAL_AUTH_STORAGE

from tests.sandbox.client import headers_for, load, now_ms, sign

if TYPE_CHECKING:
    from requests import PreparedRequest


class _Signature(AuthBase):
    """Signs each request as it goes out."""

    def __init__(self) -> None:
        self._key_id, self._key = os.environ["KALSHI_KEY_ID"], load(os.environ["KALSHI_PRIVATE_KEY"])

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        stamp = str(now_ms())
        path = r.path_url.partition("?")[0]
        r.headers.update(headers_for(self._key_id, stamp, sign(self._key, f"{stamp}{r.method}{path}")))
        return r


GLOBAL_AUTH_STORAGE.set_from_requests(_Signature())
