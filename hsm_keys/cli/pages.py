"""Reports that are written as a page."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from hsm_keys.errors import UsageError
from hsm_keys.values import encodable, shown_path

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
        descriptor, part = tempfile.mkstemp(prefix=path.name, dir=path.resolve().parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(encodable(page))
            Path(part).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(part).unlink()
            raise
    except OSError as error:
        raise UsageError(f"{shown_path(path)} can't be written: {error.strerror}", hint="choose another path") from None
