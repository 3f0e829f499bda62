"""What a contained program doesn't see of the file system, and what it sees instead."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.running.containing.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, bind, hide_folder, mount
from hsm_keys.stores import backends

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["View", "bundles", "hidden_paths", "show"]

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx")
_NAMED_BY: Final = (
    "HSM_KEYS_PIN_FILE",
    "KALSHI_PRIVATE_KEY_PATH",
    "KALSHI_PERPS_PRIVATE_KEY_PATH",
    "CREDENTIALS_DIRECTORY",
)
"""Variables that name a file or folder which holds a key or a PIN; those of the stores are the back-ends' own."""

_OF_A_HOME: Final = (".config/hsm-keys", ".local/state/hsm-keys")
_OF_THE_SYSTEM: Final = ("/var/lib/hsm-keys", "/etc/hsm-keys")
_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
)
"""Where Debian, Alpine, Red Hat and SUSE have the authorities that they trust."""


def hidden_paths(environment: Mapping[str, str], further: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the files and folders that open a store, are one, or control a proxy: those that are there.

    Args:
        environment: What names some of them.
        further: More of them.
    """
    home = Path(environment.get("HOME") or Path.home())
    named = [Path(environment[name]) for name in _NAMED_BY if environment.get(name)]
    of_stores = [path for backend in backends() for path in backend.access_paths(environment, home)]
    own = [*named, *(home / name for name in _OF_A_HOME), *map(Path, _OF_THE_SYSTEM), *map(Path, further)]
    every = dict.fromkeys(path.absolute() for path in own + of_stores)
    return [path for path in every if path.exists() and path.parts[1] not in {"dev", "proc"}]


def bundles(program: str, environment: Mapping[str, str]) -> list[Path]:
    """Return the files of trusted authorities that a program may read: the system's, and its Python's certifi's."""
    prefixes = {Path(program).parent.parent, Path(os.path.realpath(program)).parent.parent}
    if environment.get("VIRTUAL_ENV"):
        prefixes.add(Path(environment["VIRTUAL_ENV"]))
    certifis = [path for prefix in prefixes for path in prefix.glob("lib/python3*/site-packages/certifi/cacert.pem")]
    return [path for path in (*map(Path, _BUNDLES), *certifis) if path.is_file()]


@dataclass(frozen=True, slots=True)
class View:
    """What the program sees.

    Args:
        hidden: Files and folders that are empty to it.
        shown: Folders that it sees, below hidden ones.
        replaced: Files, and what it sees in their place.
    """

    hidden: list[Path]
    shown: list[Path] = field(default_factory=list)
    replaced: dict[Path, Path] = field(default_factory=dict)


def show(view: View) -> None:
    """Give this process the view, in a mount namespace of its own, with a /proc of its PID namespace and few devices.

    Raises:
        ContainmentError: If the system refuses it.
        OSError: If a folder can't be made.
    """
    opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in [*view.shown, *view.replaced.values()]}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES if Path("/dev", name).exists()}
    nothing = devices["null"]
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    hide_folder("/dev")
    for name, descriptor in devices.items():
        _place(descriptor, Path("/dev", name))
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        Path("/dev", name).symlink_to(target)
    Path("/dev/shm").mkdir()  # noqa: S108 - a folder of the program's own
    Path("/dev/shm").chmod(0o1777)  # noqa: S108
    for path in view.hidden:
        _hide(path, nothing)
    for path, descriptor in opened.items():
        if path in view.shown:
            _place(descriptor, path)
    for path, instead in view.replaced.items():
        if path.exists():
            bind(f"/proc/self/fd/{opened[instead]}", str(path))
    for descriptor in (*opened.values(), *devices.values()):
        os.close(descriptor)


def _hide(path: Path, nothing: int) -> None:
    """Put nothing in the place of a folder or a file; it may have gone with a folder that is hidden already."""
    if path.is_dir():
        hide_folder(str(path))
    elif path.exists():
        bind(f"/proc/self/fd/{nothing}", str(path))


def _place(descriptor: int, path: Path) -> None:
    """Show an open file or folder at a path, which is made where it isn't there."""
    opened = f"/proc/self/fd/{descriptor}"
    if not path.exists():
        if Path(opened).is_dir():
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    bind(opened, str(path))
