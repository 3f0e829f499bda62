"""A program ``hsm-keys`` for a shell's PATH: what examples and scripts call is forked, as ``tests.support.cli`` does.

The program is a few lines that start in hundredths of a second: it passes its arguments, environment, folder and
streams through a socket to the process of the tests, and ends with the exit code of what was forked there.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.fork_server import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as tests:
    tests.connect({address!r})
    order = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}}
    text = json.dumps(order).encode()
    socket.send_fds(tests, [len(text).to_bytes(4)], [0, 1, 2])
    tests.sendall(text)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: tests.sendall(bytes([number])))
    code = tests.recv(1)
sys.exit(code[0] if code else "the tests have ended")
"""
_SIGNALLED = 128


@pytest.fixture
def forked_command() -> Iterator[Path]:
    """A folder for PATH with the program ``hsm-keys``."""
    with (
        tempfile.TemporaryDirectory() as name,
        socket.socket(socket.AF_UNIX) as server,
    ):  # a short path: it may have 107
        folder = Path(name)
        server.bind(str(folder / "socket"))
        server.listen()
        program = folder / "hsm-keys"
        program.write_text(_PROGRAM.format(python=sys.executable, address=str(folder / "socket")))
        program.chmod(0o700)
        thread = threading.Thread(target=_serve, args=(server,))
        thread.start()
        yield folder
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(server: socket.socket) -> None:
    threads = []
    with suppress(OSError):  # until it is shut down
        while True:
            threads.append(threading.Thread(target=_run, args=(server.accept()[0],)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _run(program: socket.socket) -> None:
    """Fork what the program wants; hand signals on, and kill it if the program is killed."""
    with program:
        size, streams, _, _ = socket.recv_fds(program, 4, 3)
        order = json.loads(program.recv(int.from_bytes(size), socket.MSG_WAITALL))
        stdin, stdout, stderr = streams
        forked = Forked(
            "tests.support.fork_server:hsm_keys",
            order["arguments"],
            environment=order["environment"],
            files=(stdin, stdout, stderr),
            folder=order["folder"],
        )
        for stream in streams:
            os.close(stream)
        both: list[socket.socket | Forked] = [program, forked]
        while program in select.select(both, [], [])[0]:
            number = program.recv(1)
            if not number:
                forked.kill()
                break
            forked.send_signal(number[0])
        code = forked.wait()
        with suppress(OSError):  # it was killed
            program.sendall(bytes([code if code >= 0 else _SIGNALLED - code]))
