"""Where a token's user PIN comes from: read once, shown nowhere."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from hsm_keys.errors import PinMissingError, UsageError
from hsm_keys.files import warn_if_others_read
from hsm_keys.values import Secret, describe, hides_its_arguments, shown_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["PROMPT", "Pin", "PinGetter", "PinWanted", "is_named", "resolve_pin", "what_to_check"]

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
    """A PIN that shows nothing of itself, in ``repr``, ``str`` and formatting, and can't be pickled.

    Args:
        value: The PIN.
        source: Where it came from, as people are told; empty if that isn't known.
    """

    __slots__ = ("source",)

    def __init__(self, value: str, source: str = "") -> None:
        super().__init__(value)
        self.source = source


def what_to_check(pin: Pin | None) -> str:
    """Return what to look at after a PIN was refused: where it came from; None is one that was entered on a pad."""
    if pin is None:
        return "check the PIN: it was entered on the token's own pad"
    if pin.source:
        return f"check the PIN: it came from {pin.source}"
    return "check the PIN source: --pin-file, pin-source, HSM_KEYS_PIN_FILE, HSM_KEYS_PIN"


@dataclass(frozen=True, slots=True)
class PinWanted:
    """Which PIN is wanted.

    Args:
        token: What people call the token.
        has_pad: Whether the token can ask for the PIN itself.
        takes_empty: Whether its PIN may be empty; elsewhere an empty one would use up a try.
        needed: Whether the token says that it wants a login. Some with an empty PIN say that they don't, and do.
    """

    token: str
    has_pad: bool = False
    takes_empty: bool = False
    needed: bool = True


PinGetter = Callable[[PinWanted], Pin | None]
"""Gives the PIN; None lets a token with a pad of its own ask there, and one that needs no login go without."""


def resolve_pin(
    wanted: PinWanted,
    *,
    pin_file: Path | None,
    uri: Pkcs11Uri,
    ask: Callable[[str], str] | None,
    env: Mapping[str, str] = os.environ,
) -> Pin | None:
    """Return the PIN from the first source that was named; None is for a token with a pad, or that needs no login.

    The order is: ``pin_file``, the URI's ``pin-source`` or ``pin-value``, ``HSM_KEYS_PIN_FILE``,
    ``HSM_KEYS_PIN``, the pad, ``ask``. A source that is named and can't be read is an error: the next isn't tried,
    since its PIN may be another token's. An empty variable counts as left out, unless the PIN may be empty.

    Args:
        wanted: Which PIN.
        pin_file: A file, pipe or descriptor.
        uri: The token's URI.
        ask: Asks a person; None where there is nobody to ask.
        env: The environment.

    Raises:
        UsageError: If the pin-source can't be one.
        PinMissingError: If there is no source, or the one named can't be read or holds anything but one line of
            UTF-8 text, or of UTF-16 text with a byte order mark.
    """
    by_env = Secret(env["HSM_KEYS_PIN"]) if "HSM_KEYS_PIN" in env else None
    file_by_env = Secret(env.get("HSM_KEYS_PIN_FILE", ""))
    del env  # an error's report has this frame's variables
    if pin_file is not None:
        return _from_file(Secret(str(pin_file)), "--pin-file", wanted)
    if uri.pin_source is not None:
        return _from_file(_source_path(uri.pin_source), "the URI's pin-source", wanted)
    if uri.pin_value is not None:
        return _checked(uri.pin_value, "the URI's pin-value", wanted)
    if file_by_env:
        return _from_file(file_by_env, "HSM_KEYS_PIN_FILE", wanted)
    if by_env or (by_env is not None and wanted.takes_empty):
        return _checked(by_env, "HSM_KEYS_PIN", wanted)
    return None if wanted.has_pad else _from_person(wanted, ask)


def _from_person(wanted: PinWanted, ask: Callable[[str], str] | None) -> Pin | None:
    if not wanted.needed and (ask is None or not wanted.takes_empty):
        return None
    if ask is None:
        raise PinMissingError(f"{wanted.token} wants its user PIN, and none was given", hint=_WAYS)
    return _checked(Secret(ask(PROMPT + wanted.token)), "the answer to the prompt", wanted)


def is_named(*, pin_file: str | None, uri: Pkcs11Uri, env: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a PIN can be had without asking anybody."""
    sources = (pin_file, uri.pin_source, uri.pin_value, env.get("HSM_KEYS_PIN_FILE"), env.get("HSM_KEYS_PIN"))
    return any(sources)


@hides_its_arguments
def _source_path(source: str) -> Secret:
    """Return the path that a pin-source names (RFC 7512, section 2.4)."""
    if source.startswith("/"):
        return Secret(source)
    if source.startswith("|"):
        raise UsageError(
            "pin-source names a command, and hsm-keys runs none",
            hint="give the command's output: --pin-file <(COMMAND)",
        )
    file_uri = _FILE_URI.fullmatch(source)
    if file_uri is None:
        raise UsageError("pin-source doesn't name a file", hint="it looks like pin-source=file:/run/secrets/pin")
    return Secret(os.fsdecode(unquote_to_bytes(file_uri[1])))


@hides_its_arguments
def _from_file(path: Secret, by: str, wanted: PinWanted) -> Pin:
    """Return the PIN in a file; the path is hidden, as it may be a PIN in the place of one.

    Args:
        path: The file.
        by: What names it.
        wanted: Which PIN.
    """
    named = path.reveal()
    called = _called(named, by)
    place = str(Path(named).absolute())  # a relative path means another file after the working folder has changed
    pin = _read_files.get(place)
    if pin is None:
        pin = _read_files[place] = _read(named, called)
    return _checked(pin, called, wanted)


def _called(path: str, by: str) -> str:
    """Return what to call a PIN file: a PIN in its place may begin with a slash, and has no folder that is there.

    That ``/`` is there, and the folder at work, says nothing.
    """
    folder = Path(path).parent
    try:
        is_path = os.path.lexists(path) or (folder not in {Path(), Path("/")} and os.path.isdir(folder))
    except ValueError:
        is_path = False
    return f"the PIN file {shown_path(path)} ({by})" if is_path else f"the PIN file ({by}), {describe(path)},"


def _read(path: str, called: str) -> Pin:
    try:
        with Path(path).open("rb") as file:
            warn_if_others_read("PIN", path, file.fileno())
            content = file.read(_MAX_LENGTH + 1)
    except OSError as error:
        raise PinMissingError(f"{called} can't be read: {error.strerror}", hint=_WAYS) from None
    except ValueError:  # what Python raises for a NUL, or for what no file name can hold
        raise PinMissingError(f"{called} can't be read: it isn't a path", hint=_WAYS) from None
    if len(content) > _MAX_LENGTH:
        raise PinMissingError(f"{called} is too long to hold a PIN", hint="give a file that holds only the PIN")
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise PinMissingError(f"{called} isn't UTF-8 text", hint=_WAYS) from None
    return Pin(text.removesuffix("\n").removesuffix("\r"))


def _checked(pin: Secret, source: str, wanted: PinWanted) -> Pin:
    if not pin and not wanted.takes_empty:
        raise PinMissingError(f"{source} is empty, and {wanted.token} takes no empty PIN", hint=_WAYS)
    if _NOT_ONE_LINE.search(pin.reveal()):  # trying it would only use up one of the token's tries
        raise PinMissingError(
            f"{source} isn't one line of text, so it wasn't tried", hint="give a file that holds only the PIN"
        )
    return Pin(pin.reveal(), source)
