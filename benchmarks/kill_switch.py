# ruff: noqa: INP001, T201 - a script that prints what it measures
"""``freeze --cancel-all`` at full load, a tenth of it with a token that hangs: ``python -m benchmarks.kill_switch``.

The whole target is ``--freezes 1000``. Each time: from asking the control socket, and from the moment when the proxy
has read that, to the cancel at a stand-in for Kalshi, and the orders that came there afterwards, before the thaw.
Clients, the stand-in and the proxy share the processors.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.exchange import Exchange
from benchmarks.traders import Traders
from tests.support.running_proxy import RunningProxy, with_key_in_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

HANGS_EVERY: Final = 10
HANG_S: Final = 1.0
BUSY_ORDERS: Final = 20
READY_S: Final = 0.6
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


def main() -> None:
    """Freeze and thaw, and print how long cancels took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--freezes", type=int, default=50)
    freezes = parser.parse_args().freezes
    took: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    late = undone = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, Exchange() as exchange:
        hang, stamp = Path(name) / "hang", Path(name) / "stamp"
        proxy = with_key_in_memory(Path(name), hangs_while=hang, asked_at=stamp)
        traders = Traders(proxy)
        for number in range(freezes):
            before, thawed = traders.sent, time.monotonic()
            while traders.sent < before + BUSY_ORDERS or time.monotonic() - thawed < READY_S:
                time.sleep(0.01)
            exchange.counted()
            hangs = number % HANGS_EVERY == 0
            if hangs:
                hang.touch()
                threading.Timer(HANG_S, hang.unlink).start()
            asked = time.monotonic()
            undone += bool(control(proxy, "/freeze/cancel-all")["cancelled"]["problem"])
            read = float(stamp.read_text())
            moments = exchange.counted()["moments"]
            cancelled = next((at for at, method in moments if method == "DELETE"), None)
            if cancelled is not None:
                took[hangs].append(((cancelled - asked) * 1000, (cancelled - read) * 1000))
                late += sum(at > cancelled and method == "POST" for at, method in moments)
            control(proxy, "/thaw")
        traders.is_over.set()
        traders.join()
        proxy.stop()
    for hangs, times in took.items():
        print(
            f"{len(times)} freezes {'with a token that hangs' if hangs else 'at full load'}, cancel on the wire after"
        )
        show("the command", [since_asked for since_asked, _ in times])
        show("the proxy has read it", [since_read for _, since_read in times])
    print(f"orders that came to Kalshi after the cancel, before the thaw: {late}; not confirmed: {undone}")
    spent = time.monotonic() - started
    print(f"{freezes} freezes in {spent:.0f} s; 1,000 would take {spent / freezes * 1000 / 60:.0f} minutes")


if __name__ == "__main__":
    main()
