"""Reports that are written as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.errors import UsageError
from hsm_keys.files import write_whole
from hsm_keys.values import encodable, shown_path

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_folder", "write_page"]


def check_folder(path: Path) -> None:
    """Make sure, before anything is measured or asked, that there is a folder for the page.

    Raises:
        UsageError: If there is none.
    """
    if not path.resolve().parent.is_dir():
        raise UsageError(f"there is no folder for {shown_path(path)}", hint="make it first, or choose another path")


def write_page(path: Path, page: str) -> None:
    """Write the page in one step: it is whole, or as it was.

    Raises:
        UsageError: If it can't be written.
    """
    try:
        write_whole(path, encodable(page))
    except OSError as error:
        raise UsageError(f"{shown_path(path)} can't be written: {error.strerror}", hint="choose another path") from None
