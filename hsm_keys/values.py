"""Values that people and programs give: which of them a message may repeat, and how it describes the others.

Any option, variable, URI attribute or line of a file may hold a secret by mistake: a PIN instead of a file's path, a
private key instead of its path. So this rule is for every message, hint, log line and JSON:

- A value that passed its check may be shown: a key's name, a token's label, an API key id, a file that was opened.
- A value that failed its check is described, not repeated: ``describe`` gives its kind and its length. A text of up to
  three characters, which is too short for a secret, is given as it is.
- An unknown name (``shown``) and a path that doesn't exist (``shown_path``) may be repeated if no secret has such a
  form, because people have to compare them with what they meant.
- An unknown word (a command, a scope) may be repeated if it is close to a known one (``shown_word``): then it is a
  typing error.

Error reporters also send the local variables of frames. So secrets are passed as ``Secret`` and revealed only where
they are used, and ``hides_its_arguments`` is for functions that take text which may hold a secret.
"""

from __future__ import annotations

import os
import re
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "NAME",
    "Secret",
    "describe",
    "encodable",
    "hides_its_arguments",
    "looks_secret",
    "may_be_shown",
    "shown",
    "shown_path",
    "shown_word",
    "what_is_round",
    "without_frames",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_E = TypeVar("_E", bound=BaseException)

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What can name a key, a client of the proxy, or a profile."""

_ARMOUR: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_PEMS: Final = {
    "PRIVATE KEY": "a PEM of a private key",
    "RSA PRIVATE KEY": "a PEM of a private key",
    "EC PRIVATE KEY": "a PEM of a private key",
    "ENCRYPTED PRIVATE KEY": "a PEM of an encrypted private key",
    "OPENSSH PRIVATE KEY": "a private key in OpenSSH's format",
    "PUBLIC KEY": "a PEM of a public key",
    "RSA PUBLIC KEY": "a PEM of a public key",
    "CERTIFICATE": "a PEM of a certificate",
}
_KINDS: Final = (
    (re.compile(r"\s*(?:pkcs11|awskms|vault):.*", re.IGNORECASE | re.DOTALL), "the URI of a store"),
    (re.compile(r"\s*https?://.*", re.IGNORECASE | re.DOTALL), "a URL"),
    (re.compile(r"\s*[{\[].*", re.DOTALL), "JSON"),
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE), "a UUID"),
    (re.compile(r"(?:~|\.{1,2})?/[^\n]*"), "a path"),
    (re.compile(r"[A-Za-z0-9+/_\s-]{40,}={0,2}\s*"), "base64"),
)
# Base64 or hex of 30 bytes and more has no place in a name, and "pin-value" has none outside a URI. Tokens of Vault
# begin with hvs., hvb. or hvr., those of OpenBao (and of Vault before 1.10) with s., b. or r.
_LIKE_A_SECRET: Final = re.compile(
    r"-----BEGIN|PRIVATE KEY|pin-value|://[^/]*@|[A-Za-z0-9+/]{40,}|\bhv[sbr]\.|\b[sbr]\.[a-z0-9]{24}|\beyJ",
    re.IGNORECASE,
)
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = range(0xDC80, 0xDD00)
"""What Python makes of the bytes 80 to FF where they are no UTF-8 (PEP 383)."""


_QUOTES: Final = "'\""
_NO_SECRET: Final = 3
_LONGEST_NAME: Final = 128
_LONGEST_PATH: Final = 300
_PATH: Final = re.compile(r"(?:~[a-z0-9_-]*|\.{1,2})?/.+|[\w.-]+\.(?:crt|json|jsonl|key|md|pem|pin|pub|so|toml|txt)")


class Secret:
    """A text that shows nothing of itself, in ``repr``, ``str`` and formatting, and can't be pickled or copied."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text, for the call that uses it: a local variable with it is sent home with an error."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret can't be pickled or copied")


def describe(value: str | Secret) -> str:
    """Return what a value is and how long, such as ``a PEM of a private key (1704 characters)``; nothing of it."""
    text = value.reveal() if isinstance(value, Secret) else value
    if 0 < len(text.strip()) == len(text) <= _NO_SECRET and text.isprintable() and not isinstance(value, Secret):
        return repr(text)
    if not text.strip():
        return "blank text" if text else "an empty text"
    kind, lines = _kind(text.strip().strip(_QUOTES)), len(text.strip().splitlines())
    length, pasted = f"{len(text)} characters", what_is_round(text)
    if kind:
        return f"{kind} ({length}{f', with {pasted} around it' if pasted else ''})"
    return (
        f"text of {length}"
        + (f" in {lines} lines" if lines > 1 else "")
        + (f" (with {pasted} around it)" if pasted else "")
    )


def what_is_round(text: str) -> str:
    """Return what a text has around it that a paste or a shell may have put there; empty if nothing."""
    if text != text.strip():
        return "white space"
    return "quotes" if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0] else ""


def _kind(text: str) -> str:
    armour = _ARMOUR.search(text)
    if armour is not None:
        return _PEMS.get(armour[1], "a PEM")
    return next((kind for form, kind in _KINDS if form.fullmatch(text)), "")


def looks_secret(text: str) -> bool:
    """Tell whether a text has a form that secrets have: a PEM, long base64 or hex, a URI with a PIN, a token."""
    return _LIKE_A_SECRET.search(text) is not None


def may_be_shown(name: str) -> bool:
    """Tell whether a text has a form that names have, and secrets haven't."""
    return bool(name.strip()) and len(name) <= _LONGEST_NAME and name.isprintable() and not looks_secret(name)


def shown(name: str) -> str:
    """Return a name in quotes, to be repeated to people; its description if it has no form that names have."""
    return repr(name) if may_be_shown(name) else describe(name)


def shown_word(word: str, known: Iterable[str]) -> str:
    """Return a word in quotes, with the known one that was meant; its description if it comes close to none."""
    from difflib import get_close_matches

    close = get_close_matches(word, [*known], n=1) if len(word) <= _LONGEST_NAME else []
    return f"{word!r} (did you mean {close[0]!r}?)" if close and word.isprintable() else describe(word)


def shown_path(path: object) -> str:
    """Return a path to be repeated to people; its description where it leads nowhere and doesn't look like one."""
    text = os.fsdecode(path) if isinstance(path, bytes) else str(path)
    if _leads_somewhere(text):
        return text
    plain = text.isprintable() and len(text) <= _LONGEST_PATH and not any(map(looks_secret, text.split("/")))
    return text if plain and _PATH.fullmatch(text) else describe(text)


def encodable(text: str) -> str:
    r"""Return a text that any output can hold: bytes that were no UTF-8 become text such as ``\xfc``.

    Labels in a token, paths and names at Kalshi may hold such.
    """

    def escape(match: re.Match[str]) -> str:
        point = ord(match[0])
        return f"\\x{point - _ESCAPED.start + 0x80:02x}" if point in _ESCAPED else f"\\u{point:04x}"

    return _LONE_SURROGATE.sub(escape, text)


def _leads_somewhere(path: str) -> bool:
    try:
        return bool(path) and path.isprintable() and os.path.lexists(path)
    except ValueError:
        return False


def without_frames(error: _E) -> _E:
    """Return the error without its frames and the errors before it, whose local variables may hold a secret."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def hides_its_arguments(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a function's errors go without its frames: its arguments, and what it makes of them, may hold a secret."""

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised again
            raised = without_frames(error)
        args, kwargs = (), {}  # type: ignore[assignment]  # an error's report has this frame's variables
        raise raised

    return call
