"""The results of ``doctor``, one for each check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from hsm_keys.errors import HsmKeysError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Check", "checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: Stable name.
        verdict: How it is.
        message: What was found.
        remedy: What to do about it; empty if nothing.
        exit_code: What the command ends with if this is the first problem.
    """

    name: str
    verdict: Literal["ok", "warning", "problem", "skipped"]
    message: str
    remedy: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the check as it goes into JSON output."""
        return {name: value for name, value in asdict(self).items() if name != "exit_code"}


def checked(name: str, look: Callable[[], Check | Sequence[Check]]) -> list[Check]:
    """Return what a look found; what it fails with is a finding too, and hides no other."""
    try:
        checks = look()
    except HsmKeysError as error:
        return [Check(name, "problem", error.message, error.hint, error.exit_code)]
    except Exception as error:  # noqa: BLE001 - the next look must take place
        return [Check(name, "problem", f"failed with {type(error).__name__}", "report this", 1)]
    return [checks] if isinstance(checks, Check) else list(checks)
