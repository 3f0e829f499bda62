# ruff: noqa: INP001, T201 - a script that prints what it measures
"""``freeze --cancel-all`` at full load, a tenth of it with a token that hangs: ``python benchmarks/kill_switch.py``.

The whole target is ``--freezes 1000``. Each time: from asking the control socket to the cancel at the sandbox, and the
orders that came to it afterwards, before the thaw. Clients, the sandbox and the proxy share the processors.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsm_keys.sandbox import SandboxServer
from hsm_keys.sandbox.recording import RecordedRequest, Recorder
from tests.support.door import Door, with_key_in_memory
from tests.support.orders import ORDERS, order_body

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 8
HANGS_EVERY = 10
HANG_S = 1.0
BUSY_ORDERS = 20
READY_S = 0.6
"""Headers of the cancel are made ahead twice a second at most."""


class Seen:
    """When orders and cancels came to the sandbox."""

    def __init__(self) -> None:
        self.moments: list[tuple[float, str]] = []
        record = Recorder.record

        def recorded(recorder: Recorder, method: str, path: str, *rest: Any) -> RecordedRequest:
            if path == ORDERS:
                self.moments.append((time.monotonic(), method))
            return record(recorder, method, path, *rest)

        Recorder.record = recorded  # type: ignore[assignment]

    def count(self, method: str, since: float) -> int:
        """Return how many came since then."""
        return sum(at >= since and one == method for at, one in list(self.moments))

    def first(self, method: str, since: float) -> float | None:
        """Return when the first one came since then; None if none did."""
        return next((at for at, one in list(self.moments) if at >= since and one == method), None)


def trade(door: Door, names: Iterator[int], over: threading.Event) -> None:
    """Send orders, one after the other, whatever becomes of them."""
    connection: http.client.HTTPConnection | None = None
    while not over.is_set():
        try:
            if connection is None:
                connection = http.client.HTTPConnection("localhost", timeout=20)
                connection.sock = door.connect()
            body = order_body(count="0.01", price="0.0100", client_order_id=f"k{next(names)}")
            connection.request("POST", ORDERS, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == HTTPStatus.FORBIDDEN:  # frozen: nobody asks a thousand times a second
                over.wait(0.05)
        except (OSError, http.client.HTTPException):
            connection = None


def control(door: Door, path: str) -> dict[str, Any]:
    """Ask the control socket."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(door.socket.with_name("prod.control.sock")))
    with closing(connection):
        connection.request("POST", path)
        said: dict[str, Any] = json.loads(connection.getresponse().read())
        return said


def main() -> None:
    """Freeze and thaw, and print how long cancels took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--freezes", type=int, default=50)
    freezes = parser.parse_args().freezes
    seen, took, late, undone = Seen(), {False: [], True: []}, 0, 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, SandboxServer(tier="premier", key_type="ed25519") as sandbox:
        os.environ |= {
            "KALSHI_API_BASE_URL": sandbox.base_url,
            "KALSHI_WS_URL": sandbox.ws_url,
            "KALSHI_KEY_ID": sandbox.bootstrap_key_id,
            "KALSHI_PRIVATE_KEY": sandbox.bootstrap_pem,
        }
        hang = Path(name) / "hang"
        door, over, names = with_key_in_memory(Path(name), hangs_while=hang), threading.Event(), itertools.count()
        traders = [threading.Thread(target=trade, args=(door, names, over), daemon=True) for _ in range(CLIENTS)]
        for trader in traders:
            trader.start()
        for number in range(freezes):
            thawed = time.monotonic()
            while seen.count("POST", thawed) < BUSY_ORDERS or time.monotonic() - thawed < READY_S:
                time.sleep(0.01)
            hangs = number % HANGS_EVERY == 0
            if hangs:
                hang.touch()
                threading.Timer(HANG_S, hang.unlink).start()
            asked = time.monotonic()
            said = control(door, "/freeze/cancel-all")["cancelled"]
            undone += bool(said["problem"])
            cancelled = seen.first("DELETE", asked)
            if cancelled is not None:
                took[hangs].append((cancelled - asked) * 1000)
                late += seen.count("POST", cancelled)
            seen.moments.clear()
            control(door, "/thaw")
        over.set()
        for trader in traders:
            trader.join()
        door.stop()
    for hangs, times in took.items():
        p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
        print(
            f"{len(times)} freezes {'with a token that hangs' if hangs else 'at full load'}: cancel on the wire after "
            f"{statistics.median(times):.1f} ms (p50), {p99:.1f} ms (p99), {max(times):.1f} ms at most"
        )
    print(f"orders that came to the sandbox after the cancel, before the thaw: {late}; not confirmed: {undone}")
    spent = time.monotonic() - started
    print(f"{freezes} freezes in {spent:.0f} s; 1,000 would take {spent / freezes * 1000 / 60:.0f} minutes")


if __name__ == "__main__":
    main()
