"""Modules that answer as no module at hand does: a shared object of the tests' own in front of a real one.

``shim.c`` says what rules there are. Each ``Shim`` is a copy of the shared object under a path of its own, since a
process loads a path once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

_SOURCE = Path(__file__).with_name("shim.c")


def compiler() -> str | None:
    """Return the C compiler; None if there is none."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def compiled(folder: Path) -> Path:
    """Compile the shared object in a folder, and return its path."""
    cc = compiler()
    assert cc is not None
    library = folder / "shim.so"
    command = [cc, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Shim:
    """A module in front of a real one.

    Args:
        library: The compiled shared object.
        path: Where its copy goes.
        real: The real module.
    """

    def __init__(self, library: Path, path: Path, real: str) -> None:
        self.path = Path(shutil.copy(library, path))
        self._real = real
        self.rules()

    def rules(self, *rules: str) -> None:
        """Answer by these rules from now on, and by no others."""
        lines = [f"module {self._real}", *rules]
        file = Path(f"{os.fspath(self.path)}.rules")
        new = file.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(file)

    def uri(self, token: TestToken) -> str:
        """Return the URI of a token of the real module, with its PIN's source."""
        return f"pkcs11:token={token.label}?module-path={self.path}&pin-source=file:{token.pin_file}"

    def calls(self, log: Path) -> list[str]:
        """Return the functions that were called since a rule said ``log``."""
        return log.read_text().split() if log.exists() else []
