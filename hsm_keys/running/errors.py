"""Errors of ``run``, which belong to the tree in ``hsm_keys.errors``."""

from __future__ import annotations

from typing import ClassVar

from hsm_keys.errors import HsmKeysError

__all__ = ["ProxyEndedError"]


class ProxyEndedError(HsmKeysError):
    """The proxy ended while its program ran; the program was ended too."""

    code: ClassVar[str] = "proxy_ended"
