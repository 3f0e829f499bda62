"""Reports that are written as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import UsageError
from hsm_keys.files import write_whole
from hsm_keys.values import encodable, shown_path

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_page"]


def write_page(path: Path, page: str) -> None:
    """Write the page in one step: it is whole, or as it was.

    Raises:
        UsageError: If it can't be written.
    """
    try:
        write_whole(path, encodable(page))
    except OSError as error:
        raise UsageError(f"{shown_path(path)} can't be written: {error.strerror}", hint="choose another path") from None
