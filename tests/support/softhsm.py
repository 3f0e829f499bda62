"""A SoftHSM of a test's own: fresh token directory, fresh tokens."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)

SO_PIN = "so-0123456789"


def missing() -> str | None:
    """Return what of SoftHSM this machine lacks; None if it is all there."""
    if shutil.which("softhsm2-util") is None:
        return "softhsm2-util is not on PATH"
    return None if module_path() else "libsofthsm2.so was not found"


def module_path() -> str | None:
    named = os.environ.get("HSM_KEYS_TEST_MODULE")
    return named or next((path for path in _MODULES if Path(path).is_file()), None)


@dataclass(frozen=True)
class TestToken:
    """An initialised token."""

    __test__ = False

    label: str
    pin: str
    pin_file: Path
    module: str

    @property
    def uri(self) -> str:
        return f"pkcs11:token={self.label}?module-path={self.module}&pin-source=file:{self.pin_file}"

    @property
    def uri_without_pin(self) -> str:
        return f"pkcs11:token={self.label}?module-path={self.module}"


class SoftHsm:
    """A token directory and its configuration."""

    def __init__(self, folder: Path) -> None:
        path = module_path()
        assert path is not None
        self.module = str(Path(path).resolve())
        self.folder = folder
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")

    def init_token(self, label: str = "kalshi", pin: str = "pin-canary-4711") -> TestToken:
        """Make a token; the first one here is a copy of one that this process made before with that label and PIN."""
        if any(self.tokens.iterdir()):
            _make_token(self.conf, label, pin)
        else:
            _NewToken.of(label, pin).copy_to(self.tokens)
        pin_file = self.folder / f"pin-{label}"
        pin_file.touch(mode=0o600)
        pin_file.write_text(pin + "\n")
        return TestToken(label, pin, pin_file, self.module)


@dataclass(frozen=True)
class _NewToken:
    """The files of a new token, to be copied: the program that makes one takes longer than many tests.

    A token's serial number is the end of its folder's name, and stands in its files.
    """

    folder: str
    files: dict[str, bytes]

    @classmethod
    @functools.cache
    def of(cls, label: str, pin: str) -> Self:
        """Make one, once a process."""
        with tempfile.TemporaryDirectory() as folder:
            hsm = SoftHsm(Path(folder))
            _make_token(hsm.conf, label, pin)
            (token,) = hsm.tokens.iterdir()
            return cls(token.name, {file.name: file.read_bytes() for file in token.iterdir()})

    def copy_to(self, tokens: Path) -> None:
        """Put a copy there, with a serial number of its own."""
        name = str(uuid4())
        mine, its = (of.replace("-", "")[-16:].encode() for of in (self.folder, name))
        (tokens / name).mkdir(mode=0o700)
        for file, content in self.files.items():
            (tokens / name / file).write_bytes(content.replace(mine, its))


def _make_token(conf: Path, label: str, pin: str) -> None:
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", pin],
        env={**os.environ, "SOFTHSM2_CONF": str(conf)},
        check=True,
        capture_output=True,
    )
