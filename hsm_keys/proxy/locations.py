"""The places of a proxy's sockets and state. It imports almost nothing, so that a freeze doesn't wait for libraries."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hsm_keys.errors import UsageError
from hsm_keys.files import runtime_folder, temporary_folder

__all__ = [
    "Search",
    "beside",
    "control_link",
    "control_socket",
    "default_socket",
    "search",
    "state_folder",
]

_CONTROL: Final = ".control.sock"
_LINK: Final = "control.sock"
_RUN: Final = Path("/run")
_TMP: Final = Path("/tmp")  # noqa: S108 - only searched; the owner of each file there is checked
_ROOT: Final = 0


@dataclass(slots=True)
class Search:
    """The result of a search for control sockets.

    Attributes:
        sockets: Paths of sockets, each once.
        folders: Folders that were looked into.
        closed: Folders that this user can't look into.
    """

    sockets: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)


def state_folder(name: str) -> Path:
    """Return where a proxy keeps its audit trail and whether it is frozen: ``XDG_STATE_HOME/hsm-keys/NAME``."""
    return states_folder() / name


def control_link(name: str) -> Path:
    """Return the link that a proxy leaves in its state folder to its control socket."""
    return state_folder(name) / _LINK


def default_socket(name: str) -> Path:
    """Return where a proxy listens by default."""
    return _runtime() / f"{name}.sock"


def control_socket(name: str) -> Path:
    """Return where a proxy is controlled."""
    return _runtime() / f"{name}{_CONTROL}"


def search(name: str | None) -> Search:
    """Look for control sockets wherever a proxy of this user may have put one; for root, of any user.

    Cron, su and systemd set another XDG_RUNTIME_DIR than a login, or none.

    Args:
        name: The proxy's name; None for all.
    """
    result = Search()
    for folder in dict.fromkeys(_folders()):
        try:
            entries = sorted(folder.iterdir())
        except FileNotFoundError:
            result.folders.append(folder)
            continue
        except OSError:
            result.closed.append(folder)
            continue
        result.folders.append(folder)
        result.sockets += (one for one in entries if one.name == f"{name}{_CONTROL}" or _is_any(one, name))
    links = [control_link(name)] if name is not None else sorted(states_folder().glob(f"*/{_LINK}"))
    result.folders.append(states_folder())
    result.sockets += (link for link in links if os.path.islink(link))
    result.sockets = list({os.path.realpath(path): path.resolve() for path in result.sockets}.values())
    return result


def _is_any(path: Path, name: str | None) -> bool:
    return name is None and path.name.endswith(_CONTROL)


def beside(socket: Path) -> Path:
    """Return the control socket that a proxy has beside its clients' socket, where both are at their default places."""
    return socket if socket.name.endswith(_CONTROL) else socket.with_name(socket.name.removesuffix(".sock") + _CONTROL)


def _folders() -> list[Path]:
    user = os.geteuid()
    folders = []
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folders.append(Path(runtime) / "hsm-keys")
    folders += [_RUN / "user" / str(user) / "hsm-keys", temporary_folder() / f"hsm-keys-{user}"]
    folders.append(_TMP / f"hsm-keys-{user}")
    folders += (folder / "hsm-keys" for folder in sorted(_RUN.glob("hsm-keys-proxy-*")))  # hsm_keys/proxy/systemd
    if user == _ROOT:
        folders += (folder / "hsm-keys" for folder in sorted((_RUN / "user").glob("*")))
        folders += (one for one in sorted(_TMP.glob("hsm-keys-*")) if one.name.rpartition("-")[2].isdecimal())
    return folders


def states_folder() -> Path:
    """Return where the state folders of all proxies of this user lie."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "hsm-keys"


def _runtime() -> Path:
    try:
        return runtime_folder()
    except OSError as error:
        raise UsageError(
            f"there is no folder for sockets that is this user's alone: {error.strerror or error}",
            hint="set XDG_RUNTIME_DIR",
        ) from None
