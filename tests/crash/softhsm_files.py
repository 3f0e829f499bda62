"""What SoftHSM itself left undone, read off its files: no code under test and no module is asked.

It writes a file in place: it empties it, and then writes the whole in one call, as long as it is shorter than stdio's
buffer of 4 KiB. Killed between the two it leaves an empty file. And it makes an object in two steps: first it writes
the defaults of its kind, one after another, then all that was asked for at once. Killed between those two it leaves an
object that has neither a label nor any part of a key. Nothing else excuses a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_LABEL: Final = 0x3
_KEYS: Final = (0x11, 0x120, 0x181)  # CKA_VALUE, CKA_MODULUS, CKA_EC_POINT
_LENGTHS: Final = {1: 1, 2: 8}  # of its kinds bool and ulong; the others say theirs


def torn(tokens: Path) -> list[str]:
    """Return the names of the files below a folder of tokens that SoftHSM didn't finish."""
    files = [*tokens.rglob("*.object"), *tokens.rglob("generation")]
    return [path.name for path in files if not path.stat().st_size or _is_begun(path)]


def _is_begun(path: Path) -> bool:
    """Tell whether it is an object that has its defaults alone."""
    if path.suffix != ".object" or path.stem == "token":
        return False
    filled = _filled(path.read_bytes())
    return _LABEL not in filled and filled.isdisjoint(_KEYS)


def _filled(content: bytes) -> set[int]:
    """Return the types of the attributes that aren't empty; a number counts as filled."""
    filled = set()
    at = 8  # behind the generation
    while at + 16 <= len(content):
        attribute, kind = (int.from_bytes(content[start : start + 8]) for start in (at, at + 8))
        at += 16
        length = _LENGTHS.get(kind)
        if length is None:
            length = int.from_bytes(content[at : at + 8])
            at += 8
        if length:
            filled.add(attribute)
        at += length
    return filled
