"""What a profile may hold: the fields, what each takes, and that none of them holds a secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hsm_keys.errors import HsmKeysError
from hsm_keys.signing.environments import ENVIRONMENTS, PERPS, resolve, websocket_url
from hsm_keys.stores import backends
from hsm_keys.values import describe, looks_secret, shown_word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FIELDS", "OF_BACKENDS", "check_fields", "holds_secret"]

OF_BACKENDS: Final = {
    option.field: (backend, option) for backend in backends() for option in backend.options if option.uri_attribute
}
"""Fields to the back-end that offers them, and its option."""

_PARTS: Final = re.compile(r"[/?&;:=]")
_SECRETS: Final = {
    "pin": "did you mean 'pin-file'?",
    "token": "a token of PKCS#11 is named by 'store', and a token of Vault by BAO_TOKEN or VAULT_TOKEN",
    "private-key": "a bootstrap key is named by KALSHI_PRIVATE_KEY_PATH",
}
"""Names under which somebody may want to put a secret, and what there is instead."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_USER: Final = re.compile(r"://[^/?#]*@")


class _WrongValueError(Exception):
    """A value isn't what its field takes; the text says what it takes."""


def holds_secret(text: str) -> bool:
    """Tell whether a text, or a part of the path or URI that it is, has a form that secrets have."""
    named = "pin-value" in text.lower() or "\n" in text or _USER.search(text) is not None
    return named or any(map(looks_secret, _PARTS.split(text)))


def _store(text: str) -> None:
    if not any(backend.has(text) for backend in backends()):
        raise _WrongValueError("has to be a store's URI: " + ", ".join(f"{known.scheme}:..." for known in backends()))


def _path(text: str) -> None:
    # A relative path depends on the folder in which a command is run; and a PIN given by mistake isn't an absolute one.
    if not text.startswith(("/", "~/")):
        raise _WrongValueError("has to be a path that begins with / or ~/")


def _one_of(*words: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in words:
            raise _WrongValueError(f"has to be {' or '.join(words)}")

    return check


def _base_url(text: str) -> None:
    _accepted(lambda: resolve(base_url=text, env={}))


def _ws_url(text: str) -> None:
    _accepted(lambda: websocket_url(base_url="http://127.0.0.1", ws_url=text, env={}))


def _api_key_id(text: str) -> None:
    # Kalshi's are UUIDs. Anything else is refused here, because it might be a PIN in the wrong place.
    if not _UUID.fullmatch(text):
        raise _WrongValueError("has to be an API key id, which is a UUID")


def _accepted(check: Callable[[], object]) -> None:
    try:
        check()
    except HsmKeysError as error:
        raise _WrongValueError(f"can't be used: {error.message}") from None


FIELDS: Final[Mapping[str, Callable[[str], None]]] = {
    "store": _store,
    **dict.fromkeys(OF_BACKENDS, _path),
    "env": _one_of(*ENVIRONMENTS),
    "base-url": _base_url,
    "ws-url": _ws_url,
    "exchange": _one_of(PERPS),
    "policy": _path,
    "api-key-id": _api_key_id,
}
"""Field to what checks its value. All are texts, named as the options are."""


def check_fields(table: Mapping[str, object]) -> str:
    """Return what is wrong with a profile's fields, in words that repeat no value; empty if nothing is.

    Args:
        table: The profile as it stands in the file.
    """
    for name, value in table.items():
        problem = _problem(name, value)
        if problem:
            return problem
    return _contradiction({name: str(value) for name, value in table.items()})


def _problem(name: str, value: object) -> str:
    if name in _SECRETS:
        return f"there is no setting {name!r}, since a profile holds no secret; {_SECRETS[name]}"
    if name not in FIELDS:
        return f"there is no setting {shown_word(name, FIELDS)}"
    if not isinstance(value, str) or not value.strip():
        return f"{name} has to be a text in quotes"
    if holds_secret(value):
        return f"{name} holds {describe(value)}: it may be a secret, and a profile holds none"
    try:
        FIELDS[name](value)
    except _WrongValueError as error:
        return f"{name} {error}"
    return ""


def _contradiction(table: Mapping[str, str]) -> str:
    if "env" in table and "base-url" in table:
        return "env and base-url both name an environment: keep one of them"
    store = table.get("store", "")
    for name in OF_BACKENDS.keys() & table.keys() if store else ():
        backend, option = OF_BACKENDS[name]
        if not backend.has(store):
            return f"{name} goes with {backend.title}, and the store is another one"
        if f"{option.uri_attribute}=" in store:
            return f"{name} is in the store's URI, too: keep one of them"
    return ""
