"""A strict stand-in for Kalshi on loopback, with fault switches.

It shares no code with the packages whose requests it checks. Where Kalshi's behaviour is documented, the sandbox does
the same; where it isn't, the sandbox does what is stricter, or more dangerous for a client, and a comment says so. The
server needs aiohttp (the extra ``sandbox``), which is imported on start.
"""

from __future__ import annotations

from hsm_keys.sandbox.faults import Fault, FaultKind, Faults, parse_fault
from hsm_keys.sandbox.recording import RecordedRequest
from hsm_keys.sandbox.run import export_lines, run_forever
from hsm_keys.sandbox.server import SandboxServer
from hsm_keys.sandbox.state import SandboxKey, SandboxState

__all__ = [
    "Fault",
    "FaultKind",
    "Faults",
    "RecordedRequest",
    "SandboxKey",
    "SandboxServer",
    "SandboxState",
    "export_lines",
    "parse_fault",
    "run_forever",
]
