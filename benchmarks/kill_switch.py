# ruff: noqa: INP001, T201 - a script that prints what it measures
"""``freeze --cancel-all`` at full load, a tenth of it with a token that hangs: ``python -m benchmarks.kill_switch``.

The whole target is ``--freezes 1000``. Each time: from asking the control socket, and from the moment when the proxy
has read that, to the cancel at a stand-in for Kalshi, and the orders that came there afterwards, before the thaw.
Clients, the stand-in and the proxy share the processors. What that costs anybody is measured in turns with it: how long
a loop that works as much for as many clients takes to come to a question (``benchmarks/echo.py``).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.echo import Echo
from benchmarks.exchange import Exchange
from benchmarks.traders import Traders
from tests.support.running_proxy import RunningProxy, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

HANGS_EVERY: Final = 10
ECHO_EVERY: Final = 3
HANG_S: Final = 0.5
BUSY: Final = 24
WARM_S: Final = 2.0
READY_S: Final = 0.55
"""Headers of the cancel are made ahead twice a second at most."""


def control(proxy: RunningProxy, path: str) -> dict[str, Any]:
    """Ask the control socket."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(proxy.socket.with_name("prod.control.sock")))
    with closing(connection):
        connection.request("POST", path)
        said: dict[str, Any] = json.loads(connection.getresponse().read())
        return said


def show(what: str, times: Sequence[float]) -> None:
    """Print how many milliseconds it took."""
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    print(f"  {what}: {statistics.median(times):.1f} ms (p50), {p99:.1f} ms (p99), {max(times):.1f} ms at most")


def spent_in_loop(proxy: RunningProxy) -> float:
    """Return the processor's time that the proxy's event loop has used, in seconds."""
    pid = proxy.process.pid
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work(traders: Traders, until: float = 0.0) -> None:
    """Have them be busy, until then at least (``time.monotonic``)."""
    traders.goes_on.set()
    before = traders.sent
    while traders.sent < before + BUSY or time.monotonic() < until:
        time.sleep(0.005)


class Run:
    """A run.

    Args:
        exchange: The stand-in.
        proxy: The proxy.
        folder: Where its files are.
        hang: While it is there, the token hangs.
        stamp: Has when the proxy was asked last.

    Attributes:
        took: Milliseconds until the cancel, from the command and from when it was read; with a token that hangs or not.
        late: Orders that came after a cancel.
        undone: Cancels that weren't confirmed.
    """

    def __init__(self, exchange: Exchange, proxy: RunningProxy, *, hang: Path, stamp: Path) -> None:
        self._exchange = exchange
        self._proxy = proxy
        self._hang, self._stamp = hang, stamp
        self.took: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        self.late = self.undone = 0

    def freeze(self, *, hangs: bool) -> None:
        """Freeze, and look at what came to the stand-in."""
        self._exchange.counted()
        if hangs:
            self._hang.touch()
            threading.Timer(HANG_S, self._hang.unlink).start()
        asked = time.monotonic()
        self.undone += bool(control(self._proxy, "/freeze/cancel-all")["cancelled"]["problem"])
        moments = self._exchange.counted()["moments"]
        cancelled = next((at for at, method in moments if method == "DELETE"), None)
        if cancelled is not None:
            read = float(self._stamp.read_text())
            self.took[hangs].append(((cancelled - asked) * 1000, (cancelled - read) * 1000))
            self.late += sum(at > cancelled and method == "POST" for at, method in moments)


def main() -> None:
    """Freeze and thaw, and print how long cancels took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--freezes", type=int, default=50)
    freezes = parser.parse_args().freezes
    echoes: list[float] = []
    started, thawed = time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as name, Exchange() as exchange, ExitStack() as stack:
        hang, stamp = Path(name) / "hang", Path(name) / "stamp"
        proxy = with_key_in_memory(Path(name), hangs_while=hang, asked_at=stamp)
        run = Run(exchange, proxy, hang=hang, stamp=stamp)
        traders = Traders(proxy)
        before = spent_in_loop(proxy)
        work(traders, time.monotonic() + WARM_S)
        each = (spent_in_loop(proxy) - before) / traders.sent
        traders.goes_on.clear()
        echo = stack.enter_context(Echo(Path(name) / "echo.sock", each))
        others = Traders(echo)
        for number in range(freezes):
            if number % ECHO_EVERY == 0:
                work(others)
                asked = time.monotonic()
                echoes.append((echo.came_to_it() - asked) * 1000)
            others.goes_on.clear()
            work(traders, thawed + READY_S)
            run.freeze(hangs=number % HANGS_EVERY == 0)
            traders.goes_on.clear()
            control(proxy, "/thaw")
            thawed = time.monotonic()
        for some in (traders, others):
            some.is_over.set()
            some.join()
        proxy.stop()
    for hangs, times in run.took.items():
        with_what = "with a token that hangs" if hangs else "at full load"
        print(f"{len(times)} freezes {with_what}, cancel on the wire after")
        show("the command", [since_asked for since_asked, _ in times])
        show("the proxy has read it", [since_read for _, since_read in times])
    print(f"a loop that works {each * 1e6:.0f} us for each request, as the proxy's does, comes to a question after")
    show("it was asked", echoes)
    print(f"orders that came to Kalshi after the cancel, before the thaw: {run.late}; not confirmed: {run.undone}")
    spent = time.monotonic() - started
    print(f"{freezes} freezes in {spent:.0f} s; 1,000 would take {spent / freezes * 1000 / 60:.0f} minutes")


if __name__ == "__main__":
    main()
