"""The machine and the versions with which a report was made, for people who compare two reports."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from hsm_keys._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["surroundings"]


def surroundings(software: Iterable[str]) -> list[str]:
    """Return one line each for the host with its processors, this program, its libraries, and the stores' software.

    Args:
        software: The stores' software with its version; an empty text for a store that doesn't tell.
    """
    host = f"{platform.node()}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"
    own = f"hsm-keys {__version__}, Python {platform.python_version()}"
    return [host, own, *_packages(), *(one for one in dict.fromkeys(software) if one)]


def _packages() -> list[str]:
    versions = []
    for name in ("python-pkcs11", "cryptography"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return versions
