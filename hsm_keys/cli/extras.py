"""Parts of the program that are installed on request."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["import_extra"]


def import_extra(extra: str, module: str) -> ModuleType:
    """Import a module whose libraries are in an extra.

    Args:
        extra: The extra's name, which is what people call that part too.
        module: The module.

    Raises:
        UsageError: If a library of the extra isn't installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hsm_keys"):
            raise
        raise UsageError(
            f"the {extra} needs {error.name}, which isn't installed", hint=f"pip install 'hsm-keys[{extra}]'"
        ) from None
