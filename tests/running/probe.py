"""A contained program that looks for a way out; it prints what became of each, as JSON."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FREE = "/dev/shm"  # noqa: S108 - the program's own: it may mount what it likes there

given: dict[str, Any] = json.loads(sys.argv[1])
found: dict[str, str] = {}


def attempt(name: str, way: Callable[[], object]) -> None:
    try:
        found[name] = f"open: {way()!r}"
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)


def tcp(host: str, port: int, family: int = socket.AF_INET) -> object:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect((host, port))
        return host


def unix(kind: int, address: str) -> object:
    with socket.socket(socket.AF_UNIX, kind) as connection:
        connection.connect(address)
        return address


def datagram_of_a_pair(path: str) -> object:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        return one.sendto(b"x", path)


def trace(process: int) -> object:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, process, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return 0


def unmount(path: str) -> object:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(path.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), "umount")
    return 0


def syscall(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result


def in_a_namespace(way: Callable[[], object]) -> object:
    """Try it in a child with user and mount namespaces of its own, and so with all capabilities there."""
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        try:
            way() if libc.unshare(0x10000000 | 0x00020000) == 0 else os.stat("/nothing")  # noqa: PTH116
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    if number := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise OSError(number, "in a namespace")
    return 0


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    texts = [None if text is None else text.encode() for text in (source, target, kind)]
    if libc.mount(*texts, ctypes.c_ulong(flags), None if options is None else options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def layer(hidden: str) -> object:
    """Show the folder above a hidden one without what is mounted on it."""
    mount("overlay", FREE, "overlay", 0, f"lowerdir={Path(hidden).parent}:/dev/pts")
    return os.stat(f"{FREE}/{Path(hidden).name}/secret")  # noqa: PTH116


def bind_above(hidden: str) -> object:
    mount(str(Path(hidden).parent), FREE, None, 4096)
    return os.stat(f"{FREE}/{Path(hidden).name}/secret")  # noqa: PTH116


def processes_anew() -> object:
    mount("proc", FREE, "proc", 0)
    return writable(f"{FREE}/sys/kernel/core_pattern")


def writable(path: str) -> object:
    os.close(os.open(path, os.O_WRONLY))
    return path


def group_of_processes() -> object:
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        if "cgroup.procs" in names:
            return writable(f"{folder}/cgroup.procs")
    raise FileNotFoundError(errno.ENOENT, "none")


attempt("IPv4", lambda: tcp(given["address"], given["port"]))
attempt("IPv4, TEST-NET", lambda: tcp("192.0.2.1", 80))
attempt("IPv6", lambda: tcp("2001:db8::1", 80, socket.AF_INET6))
attempt("metadata", lambda: tcp("169.254.169.254", 80))
attempt("loopback", lambda: tcp("127.0.0.1", given["port"]))
attempt("loopback, IPv6", lambda: tcp("::1", given["port"], socket.AF_INET6))
attempt("DNS", lambda: socket.getaddrinfo("example.com", 443))
attempt("DNS over UDP", lambda: socket.create_connection(("127.0.0.53", 53), 5))
attempt("host that isn't allowed", lambda: socket.getaddrinfo("localhost.example", 443))
attempt("Unix socket", lambda: unix(socket.SOCK_STREAM, given["unix"]))
attempt("abstract socket", lambda: unix(socket.SOCK_STREAM, "\0" + given["abstract"]))
attempt("Unix datagrams", lambda: unix(socket.SOCK_DGRAM, given["unix"]))
attempt("datagrams of a pair", lambda: datagram_of_a_pair(given["unix"]))
for name in ("docker.sock", "pcscd/pcscd.comm", "dbus/system_bus_socket"):
    attempt(name, lambda name=name: unix(socket.SOCK_STREAM, f"/run/{name}"))  # type: ignore[misc]
attempt("VSOCK", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("io_uring", lambda: syscall(425, 1, 0))
attempt("control socket", lambda: os.stat(given["control"]))  # noqa: PTH116
attempt("tokens of clients", lambda: os.listdir(given["clients"]))  # noqa: PTH208
attempt("the token's files", lambda: list(Path(given["softhsm"]).iterdir())[0])  # noqa: RUF015
attempt("~/.vault-token", lambda: Path("~/.vault-token").expanduser().read_text() or os.stat("/nothing"))  # noqa: PTH116
attempt("PIN file", lambda: Path(given["pin_file"]).read_text() or os.stat("/nothing"))  # noqa: PTH116
attempt("the run's environment", lambda: Path("/proc/1/environ").read_bytes())
attempt("memory of the keeper", lambda: Path("/proc/1/mem").read_bytes())
attempt("ptrace of the keeper", lambda: trace(1))
attempt("ptrace of the run", lambda: trace(given["run"]))
attempt("/proc of the run", lambda: os.stat(f"/proc/{given['run']}/environ"))  # noqa: PTH116
attempt("shared memory", lambda: os.stat(given["shm"]))  # noqa: PTH116
attempt("unmounting", lambda: unmount(given["hidden"]))
attempt("unmounting in a namespace", lambda: in_a_namespace(lambda: unmount(given["hidden"])))
attempt("a layer over what is hidden", lambda: in_a_namespace(lambda: layer(given["hidden"])))
attempt("the folder above what is hidden", lambda: in_a_namespace(lambda: bind_above(given["hidden"])))
attempt("another /proc", lambda: in_a_namespace(processes_anew))
attempt("making /sys writable", lambda: in_a_namespace(lambda: mount("none", "/sys", None, 4096 | 32)))
attempt("the folder that it was started in", lambda: os.stat("secret"))  # noqa: PTH116
attempt("core_pattern", lambda: writable("/proc/sys/kernel/core_pattern"))
attempt("interrupts", lambda: writable("/proc/irq/default_smp_affinity"))
attempt("control groups", group_of_processes)
attempt("another terminal", lambda: os.stat(given["terminal"]))  # noqa: PTH116
attempt("typing", lambda: fcntl.ioctl(0, 0x5412, b"x"))
attempt("pasting", lambda: fcntl.ioctl(0, 0x541C, b"\x03"))
attempt("raw IP", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("frames", lambda: socket.socket(17, socket.SOCK_RAW, 0))
attempt("the keeper's descriptors", lambda: syscall(438, syscall(434, 1, 0), 3, 0))
found["processes"] = str(sum(name.isdigit() for name in os.listdir("/proc")))  # noqa: PTH208
print(json.dumps(found))  # noqa: T201
