"""SoftHSM's configuration: which file is read, whether this user can make tokens with it, and a new one for the user.

SoftHSM 2 reads ``SOFTHSM2_CONF``, else ``~/.config/softhsm2/softhsm2.conf``, else the system's, whose folder of tokens
is root's and the group softhsm's on most distributions.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import StoreError, StoreNotFoundError
from hsm_keys.files import write_whole
from hsm_keys.values import hides_its_arguments, shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_configuration", "folder_in", "own_configuration", "tokens_folder", "write_own_configuration"]

_SYSTEMS: Final = (
    "/etc/softhsm/softhsm2.conf",
    "/etc/softhsm2.conf",
    "/usr/local/etc/softhsm/softhsm2.conf",
    "/opt/homebrew/etc/softhsm/softhsm2.conf",
)
_TOKENDIR: Final = re.compile(r"^\s*directories\.tokendir\s*=\s*(\S.*?)\s*$", re.MULTILINE)


@hides_its_arguments
def check_configuration(env: Mapping[str, str] = os.environ) -> None:
    """Make sure that the configuration that was named can be read: SoftHSM would take another one in silence.

    A PIN would go to another token then, which may have the same label, and count as a wrong one there.

    Raises:
        StoreNotFoundError: If ``SOFTHSM2_CONF`` names no file that can be read.
    """
    named = env.get("SOFTHSM2_CONF")
    if not named:
        return
    try:
        Path(named).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "that is no path"
        raise StoreNotFoundError(
            f"SOFTHSM2_CONF names {shown_path(named)}, which can't be read: {why}; SoftHSM would use another "
            "configuration, with other tokens",
            hint="correct SOFTHSM2_CONF, or leave it out",
        ) from None


def own_configuration() -> Path:
    """Return where SoftHSM looks for this user's configuration."""
    return Path.home() / ".config" / "softhsm2" / "softhsm2.conf"


@hides_its_arguments
def tokens_folder(env: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder in which this user can make tokens, as SoftHSM is configured; None if there is none.

    Raises:
        StoreError: If ``SOFTHSM2_CONF`` names a file that can't be used: nothing is configured in its place.
    """
    named = env.get("SOFTHSM2_CONF")
    candidates = [Path(named)] if named else [own_configuration(), *map(Path, _SYSTEMS)]
    conf = next((path for path in candidates if _is_there(path)), candidates[0])
    folder = folder_in(conf)
    if folder is not None and os.access(folder, os.W_OK | os.X_OK):
        return folder
    if named or (conf == own_configuration() and _is_there(conf)):
        raise StoreError(
            f"{shown_path(conf)} names no folder in which this user can make tokens",
            hint="make a folder, and name it there, in the line directories.tokendir = /path",
        )
    return None


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # in a folder that this user can't enter
        return True
    return True


def folder_in(conf: Path) -> Path | None:
    """Return where SoftHSM keeps its tokens by a configuration (softhsm2.conf(5)); None if it can't be told."""
    try:
        match = _TOKENDIR.search(conf.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return Path(match[1]) if match else None


def write_own_configuration() -> Path:
    """Write a configuration of this user's own, with a folder of tokens that nobody else can enter; return its path.

    Raises:
        OSError: If it can't be written.
    """
    conf = own_configuration()
    folder = Path.home() / ".local" / "share" / "softhsm2" / "tokens"
    conf.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = f"directories.tokendir = {folder}\nobjectstore.backend = file\nlog.level = ERROR\n"
    write_whole(conf, text)
    return conf
