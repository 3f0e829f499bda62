"""Whether a file is there is asked in the one way that raises no error with the path in it."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "hsm_keys"
_RAISES = re.compile(r"\.(?:exists|is_(?:file|dir|socket|fifo|mount|symlink|block_device|char_device))\(\)")


def test_pathlib_is_not_asked() -> None:
    """Up to Python 3.13 ``Path.is_dir`` raises for a name that is too long, as a private key in its place is."""
    asked = {
        f"{file.relative_to(SOURCE)}: {line.strip()}"
        for file in SOURCE.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if _RAISES.search(line)
    }
    assert asked == set()
