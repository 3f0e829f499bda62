"""Programs that end with a store open, and threads in the middle of a signature."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.cli import ROOT

__all__ = ["OPEN", "SIGNING", "run"]

OPEN = """
import atexit, sys, threading, time
from hsm_keys import open_store
store = open_store(sys.argv[1])
"""
SIGNING = """
key = store.key(sys.argv[2])
going = threading.Event()
def work():
    while True:
        key.sign(b"m")
        store.keys()
        going.set()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
going.wait(20)
"""


def run(program: str, uri: str, name: str = "prod") -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter.

    Args:
        program: Its text.
        uri: The store's.
        name: The key that signs.
    """
    return subprocess.run(
        [sys.executable, "-c", program, uri, name],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
