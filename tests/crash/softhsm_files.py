"""What SoftHSM itself left undone, read off its files: no code under test and no module is asked.

It writes a file in place: it empties it, and then writes the whole in one call, as long as it is shorter than stdio's
buffer of 4 KiB. Killed between the two it leaves an empty file, and nothing else excuses a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def torn(tokens: Path) -> list[str]:
    """Return the names of the empty files below a folder of tokens."""
    files = [*tokens.rglob("*.object"), *tokens.rglob("generation")]
    return [path.name for path in files if not path.stat().st_size]
