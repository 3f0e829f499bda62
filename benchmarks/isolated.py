# ruff: noqa: INP001, T201 - a script that prints what it measures
"""What a busy thread costs a signature, in this process and in one of its own, in the same run.

    python benchmarks/isolated.py [SECONDS]           # as root, `chrt -r 5 python ...` keeps others off the processors

The key is RSA-2048 in SoftHSM. "busy" means one Python thread that computes all the time. The echo is what a bare
socket to another process reaches: no signer behind a socket can do better. The last column is the control: a busy
process takes a processor and no GIL, so where it costs much, the machine has none to spare and the rest tells nothing.
The target: isolated, beside a busy thread at 0.1 ms, at least 70 %.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hsm_keys import open_store  # noqa: E402
from tests.support import softhsm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
INTERVALS = (0.005, 0.0001)
MESSAGE = b"1700000000000POST/trade-api/v2/portfolio/events/orders"


def rate(sign: Callable[[bytes], object]) -> float:
    """Return how many a second it makes; the median of three measurements."""
    for _ in range(5):
        sign(MESSAGE)
    rates = []
    for _ in range(3):
        count, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < SECONDS / 3:
            sign(MESSAGE)
            count += 1
        rates.append(count / (time.perf_counter() - begun))
    return statistics.median(rates)


@contextmanager
def busy() -> Iterator[None]:
    """Compute in a thread, without ever waiting for anything."""
    over = False

    def work() -> None:
        number = 0
        while not over:
            number = (number * 31 + 7) % 1_000_003

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over = True
        thread.join()


@contextmanager
def busy_process() -> Iterator[None]:
    """Compute in another process."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def echo() -> Iterator[Callable[[bytes], object]]:
    """Give what asks another process to send back 256 bytes."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while theirs.recv(4096):
            theirs.sendall(b"s" * 256)
        os._exit(0)
    theirs.close()

    def ask(message: bytes) -> bytes:
        ours.sendall(message)
        return ours.recv(4096)

    yield ask
    ours.close()
    os.waitpid(child, 0)


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        hsm = softhsm.SoftHsm(Path(folder))
        os.environ["SOFTHSM2_CONF"] = str(hsm.conf)
        uri = hsm.init_token().uri
        with (
            echo() as ask,
            open_store(uri, isolated=True) as isolated,
            open_store(uri) as here,
        ):
            here.generate("prod")
            signers = {"in process": here.key("prod").sign, "isolated": isolated.key("prod").sign, "echo": ask}
            print(
                f"{'signatures a second':22}{'undisturbed':>12}"
                + "".join(f"{f'busy, {i * 1000:g} ms':>16}" for i in INTERVALS)
                + f"{'busy process':>16}"
            )
            for what, sign in signers.items():
                alone = rate(sign)
                cells = []
                for interval in INTERVALS:
                    sys.setswitchinterval(interval)
                    with busy():
                        disturbed = rate(sign)
                    cells.append(f"{disturbed:>9,.0f} {disturbed / alone:>5.0%}")
                sys.setswitchinterval(INTERVALS[0])
                with busy_process():
                    control = rate(sign)
                cells.append(f"{control:>9,.0f} {control / alone:>5.0%}")
                print(f"{what:22}{alone:>12,.0f}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
