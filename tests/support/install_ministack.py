"""Installs ministack, a KMS server for tests, in a virtual environment of its own; any Python runs this, once::

    python -m tests.support.install_ministack

It pins an older botocore than the one under test, so it can't be installed beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".venv-ministack"
_VERSION = "1.5.33"


def is_there() -> bool:
    """Return whether there is a program, here or where ``HSM_KEYS_TEST_MINISTACK`` says."""
    named = os.environ.get("HSM_KEYS_TEST_MINISTACK")
    return Path(named or FOLDER / "bin" / "ministack").is_file()


def main() -> None:
    """Make the virtual environment, unless it is there."""
    if is_there():
        return
    venv.create(FOLDER, with_pip=True, clear=True)
    subprocess.run(
        [FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", f"ministack=={_VERSION}", "cryptography"],
        check=True,
        stdout=sys.stderr,
    )


if __name__ == "__main__":
    main()
