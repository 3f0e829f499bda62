"""The JSON body of a request: from the command line, a file or stdin, checked, and sent byte for byte."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hsm_keys.cli import exact_json
from hsm_keys.cli.options import secret_files
from hsm_keys.errors import UsageError
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings

__all__ = ["read_body"]


def read_body(settings: Settings, source: str) -> bytes:
    """Return the body as it was given: writing it anew could change a number.

    Args:
        settings: The shared options: where the PIN comes from.
        source: JSON; ``@PATH`` for a file that holds it; ``@-`` or ``-`` for stdin.

    Raises:
        UsageError: If it can't be read, or isn't JSON.
    """
    content = _content(settings, source)
    try:
        exact_json.read(content)
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {error}", hint=_hint(source)) from None
    return content


def _content(settings: Settings, source: str) -> bytes:
    if source in {"-", "@-"}:
        if any(map(_is_stdin, secret_files(settings))):
            # The first one to be read would get both: a PIN is JSON too, and would be sent.
            raise UsageError("both the body and the PIN would be read from stdin", hint="put one of them into a file")
        return sys.stdin.buffer.read()
    if not source.startswith("@"):
        return os.fsencode(source)  # the bytes of the command line, whatever the locale
    try:
        return Path(source[1:]).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"the file of the body, {shown_path(source[1:])}, can't be read: {why}",
            hint="give a file that you can read, or the body itself: --json '{...}'",
        ) from None


def _is_stdin(path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdin.fileno()))  # noqa: PTH116 - pathlib has no fstat
    except (OSError, ValueError):
        return False  # opening it will say what is wrong


def _hint(source: str) -> str:
    if source.startswith(("@", "-")):
        return "see what is in it; a body is sent as it is, in UTF-8 and without a byte order mark"
    return 'quote it for the shell: --json \'{"ticker": "..."}\'; --json @FILE reads a file'
