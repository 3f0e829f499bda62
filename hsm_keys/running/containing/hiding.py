"""What a contained program doesn't see of the file system, and what it sees instead."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_keys.running.containing.kernel import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    bind,
    hide_folder,
    make_read_only,
    mount,
)
from hsm_keys.stores import backends

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["View", "bundles", "hidden_paths", "show"]

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_WRITABLE: Final = 0o222
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
    return [path for path in every if os.path.exists(path) and path.parts[1] not in {"dev", "proc"}]


def bundles(program: str, environment: Mapping[str, str]) -> list[Path]:
    """Return the files of trusted authorities that a program may read: the system's, and its Python's certifi's."""
    prefixes = {Path(program).parent.parent, Path(os.path.realpath(program)).parent.parent}
    if environment.get("VIRTUAL_ENV"):
        prefixes.add(Path(environment["VIRTUAL_ENV"]))
    certifis = [path for prefix in prefixes for path in prefix.glob("lib/python3*/site-packages/certifi/cacert.pem")]
    return [path for path in (*map(Path, _BUNDLES), *certifis) if os.path.isfile(path)]


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
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES if os.path.exists(Path("/dev", name))}
    nothing = devices["null"]
    here = _current_folder()
    _show_kernel(nothing)
    _show_devices(devices)
    for path in view.hidden:
        _hide(path, nothing)
    for path, descriptor in opened.items():
        if path in view.shown:
            _place(descriptor, path)
    for path, instead in view.replaced.items():
        if os.path.exists(path):
            bind(f"/proc/self/fd/{opened[instead]}", str(path))
    for descriptor in (*opened.values(), *devices.values()):
        os.close(descriptor)
    try:
        os.chdir(here)  # enter the folder again: the one that was entered before still shows the hidden files
    except OSError:
        os.chdir("/")


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return "/"


def _show_kernel(nothing: int) -> None:
    """Give this process a /proc of its PID namespace. What sets the kernel is read-only there and in /sys.

    Root could do that from a namespace, too: to have the kernel run a program outside, write to core_pattern (core(5)).
    """
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    entries = [path for path in Path("/proc").iterdir() if not path.name.isdigit() and not os.path.islink(path)]
    for path in [*entries, Path("/sys")]:
        if (os.path.isdir(path) or path.stat().st_mode & _WRITABLE) and not make_read_only(str(path)):
            _hide(path, nothing)


def _show_devices(devices: Mapping[str, int]) -> None:
    """Give this process a /dev with these devices, and terminals of its own: in others it could read what is typed."""
    hide_folder("/dev")
    for name, descriptor in devices.items():
        _place(descriptor, Path("/dev", name))
    Path("/dev/pts").mkdir()
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    links = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
    for name, target in links.items():
        Path("/dev", name).symlink_to(target)
    Path("/dev/shm").mkdir()  # noqa: S108 - a folder of the program's own
    Path("/dev/shm").chmod(0o1777)  # noqa: S108


def _hide(path: Path, nothing: int) -> None:
    """Put nothing in the place of a folder or a file; it may have gone with a folder that is hidden already."""
    if os.path.isdir(path):
        hide_folder(str(path))
    elif os.path.exists(path):
        bind(f"/proc/self/fd/{nothing}", str(path))


def _place(descriptor: int, path: Path) -> None:
    """Show an open file or folder at a path, which is made where it isn't there."""
    opened = f"/proc/self/fd/{descriptor}"
    if not os.path.exists(path):
        if os.path.isdir(opened):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    bind(opened, str(path))
