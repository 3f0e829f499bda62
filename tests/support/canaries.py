"""Secrets in the wrong place: what they look like, and commands run with one, in the test's own process."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from hsm_keys.cli import main, program
from hsm_keys.logs import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

PIN = "pin-canary-4711"
PEM = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
_RSA = load_pem_private_key(PEM.encode(), None).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
PEM_LINE = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _base64(*, slashes: bool) -> str:
    """Return a private key in base64: one that could be taken for a path, or one that couldn't."""
    while True:
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        text = base64.b64encode(key).decode()
        if (text.count("/") >= 2) is slashes and ("/" in text) is slashes:
            return text


def _long_name(der: bytes) -> str:
    """Return a private key in base64 as one path, whose first name is longer than a file's may be."""
    text = base64.b64encode(der).decode()
    return f"{text[:300].replace('/', '+')}/{text[300:]}"


CANARIES = {
    "a PIN": PIN,
    "a PIN of digits": "47110815",
    "a private key": PEM,
    "a private key on one line": PEM_LINE.strip().replace("\n", "\\n"),
    "the base64 of a private key": _base64(slashes=False),
    "base64 that looks like a path": _base64(slashes=True),
    "base64 that is a path with a name that is too long": _long_name(_RSA),
    "a URI with a PIN": f"pkcs11:token=nowhere?pin-value={PIN}",
}


def pieces(canary: str) -> list[str]:
    """Return what must not be seen of a secret: any of its parts that is long enough to be of use."""
    if canary.startswith("pkcs11:"):
        return [PIN]
    lines = [line for line in canary.replace("\\n", "\n").splitlines() if "-----" not in line]
    return [line[start : start + 12] for line in lines for start in ((0, len(line) // 2) if len(line) > 12 else (0,))]


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit code."""

    code: int
    text: str


def run(*arguments: str) -> Ran:
    """Run the command line as ``main`` does, with stdout and stderr together."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
    try:
        with (
            _logs_as_before(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            main(arguments)
    except SystemExit as ended:
        code = ended.code
    return Ran(code if isinstance(code, int) else 0, raw.getvalue().decode())


@contextlib.contextmanager
def _logs_as_before() -> Iterator[None]:
    """Take away what a command line has the program's logs do, as with ``--verbose``."""
    logs = [logging.getLogger("hsm_keys"), LOG]
    before = [(log, log.level, log.propagate, list(log.handlers)) for log in logs]
    try:
        yield
    finally:
        for log, level, propagate, handlers in before:
            log.setLevel(level)
            log.propagate = propagate
            log.handlers[:] = handlers


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give every command with the words that call it; a group that does something itself is one too."""
    yield from _below((), program)


def _below(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    if command.invoke_without_command:
        yield words, command
    with click.Context(command) as context:
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _below((*words, name), below)
