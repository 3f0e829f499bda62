"""The form of an explanation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Explanation"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an error code means.

    Args:
        cause: What has happened, and why.
        remedy: What to do next.
        example: A line for a shell or a policy file that shows the remedy.
        exit_code: What the command line exits with; None for a code that only answers over HTTP have.
    """

    cause: str
    remedy: str
    example: str
    exit_code: int | None = None
