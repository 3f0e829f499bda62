"""Names of a token: its label and serial number (CK_TOKEN_INFO), and the words that name it in messages."""

from __future__ import annotations

from typing import Any

__all__ = ["describe_token", "label_of", "serial_of", "unpadded"]


def label_of(token: Any) -> str:
    """Return the token's label."""
    return unpadded(token.label)


def serial_of(token: Any) -> str:
    """Return the token's serial number as text; vendors fill the field with ASCII."""
    return unpadded(bytes(token.serial).decode("ascii", errors="replace"))


def unpadded(text: str) -> str:
    """Return what a field says. It is to be padded with blanks; some modules write a C string into it."""
    return text.partition("\0")[0].rstrip()


def describe_token(token: Any) -> str:
    """Return what people call the token."""
    return f'token "{label_of(token)}" (serial {serial_of(token)})'
