"""The sandbox as a program: until it is told to stop."""

from __future__ import annotations

import shlex
import signal
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_keys.files import write_whole
from hsm_keys.sandbox.faults import parse_fault
from hsm_keys.sandbox.server import SandboxServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["export_lines", "run_forever"]


def run_forever(
    report: Callable[[dict[str, str]], None],
    *,
    port: int = 0,
    ws_port: int = 0,
    tier: str = "premier",
    key_type: str = "rsa",
    faults: Iterable[str] = (),
) -> None:
    """Serve on 127.0.0.1 until SIGINT, SIGTERM or SIGHUP; to be called on the main thread.

    The bootstrap key lies in a fresh temporary folder (0700) as a file (0600); both go when it stops.

    Args:
        report: Takes the variables that lead to it, as soon as the sandbox answers. Must not hold them back in a
            buffer.
        port: The TCP port of the REST API; 0 takes a free one.
        ws_port: The TCP port of the WebSockets; 0 takes a free one.
        tier: ``premier`` or ``basic``.
        key_type: Kind of the bootstrap key: ``rsa`` or ``ed25519``.
        faults: What goes wrong from the start, in the form that ``parse_fault`` reads.

    Raises:
        UsageError: If an argument or a fault is wrong, aiohttp is missing, or the port can't be had.
    """
    sandbox = SandboxServer(tier=tier, port=port, ws_port=ws_port, key_type=key_type)
    for fault in faults:
        sandbox.faults.add(parse_fault(fault))
    with _told_to_stop() as stop, tempfile.TemporaryDirectory(prefix="hsm-keys-sandbox-") as folder, sandbox:
        pem = Path(folder) / "bootstrap.pem"
        write_whole(pem, sandbox.bootstrap_pem)
        report(
            {
                "KALSHI_API_BASE_URL": sandbox.base_url,
                "KALSHI_WS_URL": sandbox.ws_url,
                "KALSHI_KEY_ID": sandbox.bootstrap_key_id,
                "KALSHI_PRIVATE_KEY_PATH": str(pem),
            }
        )
        stop.wait()


def export_lines(variables: Mapping[str, str]) -> str:
    """Return the lines that set variables in a shell."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Give an event that signals set; without this they would end the process and leave the key behind."""
    stop = threading.Event()
    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
