"""Whether a file of SoftHSM's is whole, read as SoftHSM 2.6 writes it: no code under test and no module is asked.

SoftHSM writes in place. Killed within a write it leaves a file that is empty or ends too early; nothing else excuses a
test from finding what it looks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_WORD: Final = 8  # bytes of a number, big-endian
_BOOLEAN, _NUMBER, _BYTES, _ATTRIBUTES, _MECHANISMS = range(1, 6)


def torn(tokens: Path) -> list[str]:
    """Return the files below a folder of tokens that SoftHSM didn't finish, with their sizes."""
    files = [*tokens.rglob("*.object"), *tokens.rglob("generation")]
    return [f"{path.name}: {path.stat().st_size} bytes" for path in files if not _whole(path)]


def _whole(path: Path) -> bool:
    content = path.read_bytes()
    if path.name == "generation":
        return len(content) == _WORD
    at = _WORD  # a counter comes first
    while at < len(content):
        kind = int.from_bytes(content[at + _WORD : at + 2 * _WORD])
        at += 2 * _WORD
        counted = int.from_bytes(content[at : at + _WORD])
        sizes = {
            _BOOLEAN: 1,
            _NUMBER: _WORD,
            _BYTES: _WORD + counted,
            _ATTRIBUTES: _WORD + counted,
            _MECHANISMS: _WORD + counted * _WORD,
        }
        if kind not in sizes:
            return False
        at += sizes[kind]
    return bool(content) and at == len(content)
