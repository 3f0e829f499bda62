"""Where a proxy is found. It imports next to nothing: `hsm-keys proxy freeze` must not wait for libraries."""

from __future__ import annotations

import os
from pathlib import Path

from hsm_keys.errors import UsageError
from hsm_keys.lifecycle.locking import runtime_folder

__all__ = ["control_socket", "default_socket", "state_folder"]


def state_folder(name: str) -> Path:
    """Return where a proxy keeps its audit trail and whether it is frozen: ``XDG_STATE_HOME/hsm-keys/NAME``."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "hsm-keys" / name


def default_socket(name: str) -> Path:
    """Return where a proxy listens by default."""
    return _runtime() / f"{name}.sock"


def control_socket(name: str) -> Path:
    """Return where a proxy is controlled."""
    return _runtime() / f"{name}.control.sock"


def _runtime() -> Path:
    try:
        return runtime_folder()
    except OSError as error:
        raise UsageError(
            f"there is no folder for sockets that is this user's alone: {error.strerror or error}",
            hint="set XDG_RUNTIME_DIR",
        ) from None
