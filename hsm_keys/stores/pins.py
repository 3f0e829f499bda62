"""Where a token's user PIN comes from: read once, shown nowhere."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from hsm_keys.errors import PinMissingError, UsageError
from hsm_keys.values import Secret, hides_its_arguments, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["PROMPT", "Pin", "resolve_pin"]

_log = logging.getLogger("hsm_keys")

PROMPT: Final = "User PIN of "
"""What a prompt begins with; the token's description follows."""

_MAX_LENGTH: Final = 1024  # bytes; longer than any token takes, shorter than a file given by mistake
_WAYS: Final = (
    "give it with --pin-file, pin-source=file:/path in the URI, HSM_KEYS_PIN_FILE, HSM_KEYS_PIN, "
    "or run the command on a terminal, which asks"
)
# RFC 8089, without the forms for other hosts: file:/path, file:///path, file://localhost/path.
_FILE_URI: Final = re.compile(r"file:(?://(?:localhost)?)?(/(?!/)[^?#]*)", re.IGNORECASE)
_NOT_ONE_LINE: Final = re.compile("[\r\n\0\ud800-\udfff]")

_read_files: dict[str, Pin] = {}
"""A pipe can be read once: what it held is kept for the process."""


class Pin(Secret):
    """A PIN that shows nothing of itself, in ``repr``, ``str`` and formatting, and can't be pickled."""

    __slots__ = ()


def resolve_pin(
    *,
    pin_file: Path | None,
    uri: Pkcs11Uri,
    token_name: str,
    ask: Callable[[str], str] | None,
    env: Mapping[str, str] = os.environ,
) -> Pin:
    """Return the PIN from the first source that was named.

    The order is: ``pin_file``, the URI's ``pin-source`` or ``pin-value``, ``HSM_KEYS_PIN_FILE``,
    ``HSM_KEYS_PIN``, ``ask``. A source that is named and can't be read is an error: the next isn't tried, since
    its PIN may be another token's. An empty variable counts as left out.

    Args:
        pin_file: A file, pipe or descriptor.
        uri: The token's URI.
        token_name: What people call the token, for the prompt.
        ask: Asks a person; None where there is nobody to ask.
        env: The environment.

    Raises:
        UsageError: If the pin-source can't be one.
        PinMissingError: If there is no source, or the one named can't be read or holds anything but one line of
            UTF-8 text.
    """
    by_env, file_by_env = Secret(env.get("HSM_KEYS_PIN", "")), Secret(env.get("HSM_KEYS_PIN_FILE", ""))
    del env  # it goes home with an error, and with it all that it holds
    if pin_file is not None:
        return _from_file(Secret(str(pin_file)))
    if uri.pin_source is not None:
        return _from_file(_source_path(uri.pin_source))
    if uri.pin_value is not None:
        return _checked(uri.pin_value, "the URI's pin-value")
    if file_by_env:
        return _from_file(file_by_env)
    if by_env:
        return _checked(by_env, "HSM_KEYS_PIN")
    if ask is None:
        raise PinMissingError(f"{token_name} wants its user PIN, and none was given", hint=_WAYS)
    return _checked(Secret(ask(PROMPT + token_name)), "the answer")


@hides_its_arguments
def _source_path(source: str) -> Secret:
    """Return the path that a pin-source names (RFC 7512, section 2.4)."""
    if source.startswith("/"):
        return Secret(source)
    if source.startswith("|"):
        raise UsageError("pin-source names a command, and this tool runs none", hint="pipe its output: --pin-file")
    file_uri = _FILE_URI.fullmatch(source)
    if file_uri is None:
        raise UsageError("pin-source is no file", hint="it looks like pin-source=file:/run/secrets/pin")
    return Secret(os.fsdecode(unquote_to_bytes(file_uri[1])))


@hides_its_arguments
def _from_file(path: Secret) -> Pin:
    """Return the PIN in a file; the path is hidden, as it may be a PIN in the place of one."""
    named = path.reveal()
    place = str(Path(named).absolute())  # the same words mean another file once the working folder has changed
    pin = _read_files.get(place)
    if pin is None:
        pin = _read_files[place] = _read(named)
    return pin


def _read(path: str) -> Pin:
    called = f"the PIN file {shown_path(path)}"
    try:
        with Path(path).open("rb") as file:
            _warn_if_others_can_read(path, os.fstat(file.fileno()).st_mode)
            content = file.read(_MAX_LENGTH + 1)
    except OSError as error:
        raise PinMissingError(f"{called} can't be read: {error.strerror}", hint=_WAYS) from None
    except ValueError:  # what Python raises for a NUL, or for what no file name can hold
        raise PinMissingError(f"{called} can't be read: that is no path", hint=_WAYS) from None
    if len(content) > _MAX_LENGTH:
        raise PinMissingError(f"{called} is too long to hold a PIN", hint="give the file with the PIN alone")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise PinMissingError(f"{called} isn't UTF-8 text", hint=_WAYS) from None
    return _checked(Secret(text.removesuffix("\n").removesuffix("\r")), called)


def _warn_if_others_can_read(path: str, mode: int) -> None:
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("the PIN file %s can be read by others: chmod 600 it", path)


def _checked(pin: Secret, source: str) -> Pin:
    if not pin:
        raise PinMissingError(f"{source} is empty", hint=_WAYS)
    if _NOT_ONE_LINE.search(pin.reveal()):  # trying it would only use up one of the token's tries
        raise PinMissingError(f"{source} isn't one line of text, so it wasn't tried", hint="give the PIN alone")
    return Pin(pin.reveal())
