"""System calls of Linux that contain a process: Python's ``os`` lacks them before 3.12, and always lacks mounts."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct
from pathlib import Path
from typing import Final

from hsm_keys.errors import HsmKeysError

__all__ = [
    "ContainmentError",
    "bind",
    "drop_privileges",
    "filter_calls",
    "hide_folder",
    "leave_namespaces",
    "make_read_only",
    "mount",
    "raise_loopback",
]

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_ALL: Final = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWUTS

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_SLAVE: Final = 1 << 19

_MOUNT_SETATTR: Final = 442  # on every machine; glibc has it from 2.36 on
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_RDONLY: Final = 1

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1

_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES: Final = 64
_LINUX_CAPABILITY_VERSION_3: Final = 0x20080522

_HINT: Final = (
    "unprivileged user namespaces have to be allowed: `sysctl kernel.unprivileged_userns_clone=1` (Debian), `sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), and in a container `--security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined`"
)


class ContainmentError(HsmKeysError):
    """The program can't be contained, and so it wasn't started."""

    code = "containment"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise ContainmentError(
            f"{what} was refused: {os.strerror(ctypes.get_errno())}; the program was not started", hint=_HINT
        )


def leave_namespaces() -> None:
    """Give this process user, mount, network, IPC and host name namespaces of its own, and its children a PID one.

    Raises:
        ContainmentError: If the system doesn't allow it.
    """
    user, group = os.geteuid(), os.getegid()
    libc = _libc()
    _check(libc.unshare(_ALL), "a namespace")
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root: proc(5)
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    except OSError as error:
        raise ContainmentError(
            f"the user of a namespace can't be set: {error.strerror}; the program was not started", hint=_HINT
        ) from None
    finally:
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    mount(None, "/", None, _MS_REC | _MS_SLAVE)


def raise_loopback() -> None:
    """Set up the loopback of this process's network namespace (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(asked, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """Attach a file system, a file or a folder at a path.

    Raises:
        ContainmentError: If it is refused.
    """
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _check(_libc().mount(*texts, ctypes.c_ulong(flags), data), f"mounting {target}")


def bind(source: str, target: str) -> None:
    """Show what is at one path, or in an open file by its path in /proc/self/fd, at another, too."""
    mount(source, target, None, _MS_BIND | _MS_REC)


def hide_folder(path: str, *, mode: str = "755") -> None:
    """Put an empty folder in the place of what is at a path."""
    mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def make_read_only(path: str) -> bool:
    """Let nothing be written at a path and in what is mounted below it; tell whether the kernel can (5.12)."""
    bind(path, path)
    attributes = _MountAttributes(attr_set=_MOUNT_ATTR_RDONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    given = (_AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, ctypes.byref(attributes), size)
    return bool(_libc().syscall(_MOUNT_SETATTR, *given) == 0)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_privileges() -> None:
    """Give up every capability for good, that over the own namespaces too: what is hidden stays so (capabilities(7)).

    Raises:
        ContainmentError: If it is refused.
    """
    libc = _libc()
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "to give up privileges")
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_CAPABILITIES):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # beyond the last one it is refused
    header, none = _CapHeader(_LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _check(libc.capset(ctypes.byref(header), ctypes.byref(none)), "to give up capabilities")


# Classic BPF on struct seccomp_data: the call's number at 0, the architecture at 4, arguments from 16, 8 bytes each.
_LOAD: Final = 0x20
_AND: Final = 0x54
_IF_EQUAL: Final = 0x15
_IF_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | 13  # EACCES
_UNKNOWN: Final = 0x00050000 | 38  # ENOSYS
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_X32: Final = 0x40000000
_IO_URING_SETUP: Final = 425
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_CALLS: Final = {"x86_64": (0xC000003E, 41, 53, 16), "aarch64": (0xC00000B7, 198, 199, 29)}
"""By machine: AUDIT_ARCH, and the numbers of socket(2), socketpair(2) and ioctl(2)."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_calls() -> None:
    """Allow sockets of IPv4, IPv6 and netlink alone from now on, and pairs of connected Unix sockets; no typing.

    A network namespace doesn't hold Unix sockets that have a path, VSOCK and others: a file is reached from everywhere.
    io_uring, which makes sockets past this filter, and other ABIs, with other numbers, are as if there were none.
    What is typed into the terminal by ioctl_tty(2) would be run by the shell that reads it when the program has ended.

    Raises:
        ContainmentError: If it can't be had on this machine.
    """
    known = _CALLS.get(platform.machine())
    if known is None:
        raise ContainmentError(
            f"programs can't be contained on {platform.machine()}; the program was not started",
            hint="run it on x86_64 or aarch64",
        )
    architecture, make, pair, control = known
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _UNKNOWN),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _UNKNOWN),
        (_IF_EQUAL, 0, 1, _IO_URING_SETUP),
        (_RETURN, 0, 0, _UNKNOWN),
        (_IF_EQUAL, 0, 5, control),
        (_LOAD, 0, 0, _SECOND),
        (_IF_EQUAL, 2, 0, _TIOCSTI),
        (_IF_EQUAL, 1, 0, _TIOCLINUX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
        (_IF_EQUAL, 0, 5, make),
        (_LOAD, 0, 0, _FIRST),
        (_IF_EQUAL, 9, 0, int(socket.AF_INET)),
        (_IF_EQUAL, 8, 0, int(socket.AF_INET6)),
        (_IF_EQUAL, 7, 0, int(socket.AF_NETLINK)),
        (_RETURN, 0, 0, _REFUSE),
        (_IF_EQUAL, 0, 5, pair),
        (_LOAD, 0, 0, _SECOND),
        (_AND, 0, 0, 0xF),  # without SOCK_CLOEXEC and SOCK_NONBLOCK
        (_IF_EQUAL, 2, 0, int(socket.SOCK_STREAM)),
        (_IF_EQUAL, 1, 0, int(socket.SOCK_SEQPACKET)),
        (_RETURN, 0, 0, _REFUSE),  # datagrams go to any path, from a pair too
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p).value)
    _check(_libc().prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0), "a filter of system calls")
