"""``vault:`` URIs: which server, which engines, which key.

::

    vault:///transit                                                 every key of hsm-keys in the engine at transit/
    vault:///transit?address=https://a:8200,https://b:8200           servers of one cluster, tried in that order
    vault:///team/transit?kv=team/kv&namespace=trading               other mounts, in a namespace
    vault:///transit?key=prod                                        one key

Without ``address`` and ``namespace``, the variables of OpenBao's and HashiCorp's own tools count: ``BAO_ADDR`` or
``VAULT_ADDR``, ``BAO_NAMESPACE`` or ``VAULT_NAMESPACE``. A token never stands in the URI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from hsm_keys.errors import UsageError
from hsm_keys.signing.environments import is_loopback
from hsm_keys.stores.parameters import UriText
from hsm_keys.values import Secret, describe, hides_its_arguments

__all__ = [
    "VaultUri",
    "checked_addresses",
    "checked_namespace",
]

_SCHEME: Final = "vault:"
_MAX_LENGTH: Final = 2048
_EXAMPLE: Final = "vault:///transit?address=https://vault.example:8200"
_PARAMETERS: Final = ("address", "namespace", "kv", "key")
_TRANSIT: Final = "transit"
_KV: Final = "secret"

# RFC 3986, section 3.4, without the characters that this URI has no use for unencoded; brackets for IPv6.
_SAFE: Final = "/:,@+[]"
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_NETLOC = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class VaultUri:
    """A ``vault:`` URI.

    Args:
        mount: Where the Transit engine is mounted.
        kv: Where the KV v2 engine is mounted that holds names and API key ids.
        addresses: Origins of the servers, in the order of preference; empty where the environment says.
        namespace: The namespace of both engines; empty where the environment says, or there is none.
        key: The name of the one key that is meant; empty for a store.
    """

    mount: str = _TRANSIT
    kv: str = _KV
    addresses: tuple[str, ...] = ()
    namespace: str = ""
    key: str = ""

    @classmethod
    @hides_its_arguments
    def parse(cls, text: str | Secret) -> VaultUri:
        """Return the URI that the text holds.

        Raises:
            UsageError: If it isn't such a URI; nothing was opened.
        """
        text = text.reveal() if isinstance(text, Secret) else text
        if len(text) > _MAX_LENGTH:
            raise _bad(f"is longer than {_MAX_LENGTH} characters")
        begin = f"{_SCHEME}///"
        if text[: len(begin)].lower() != begin:
            raise _bad(f"doesn't begin with {begin}", f"the server is a parameter: {_EXAMPLE}")
        path, mark, query = text[len(begin) :].partition("?")
        if mark and not query:
            raise _bad("ends in an empty query")
        parameters = _parameters(query)
        return cls(
            mount=_mount("the mount of the Transit engine", _TEXT.decoded("the mount", path) or _TRANSIT),
            kv=_mount("the mount of the KV engine", parameters.get("kv", _KV)),
            addresses=checked_addresses(parameters["address"], "the Vault URI") if "address" in parameters else (),
            namespace=checked_namespace(parameters["namespace"], "the Vault URI") if "namespace" in parameters else "",
            key=parameters.get("key", ""),
        )

    def __str__(self) -> str:
        pairs = {
            "address": ",".join(self.addresses),
            "namespace": self.namespace,
            "kv": "" if self.kv == _KV else self.kv,
            "key": self.key,
        }
        query = "&".join(f"{name}={quote(value, safe=_SAFE)}" for name, value in pairs.items() if value)
        return f"{_SCHEME}///{quote(self.mount, safe=_SAFE)}" + (f"?{query}" if query else "")


def checked_addresses(text: str, where: str) -> tuple[str, ...]:
    """Return the origins of servers that a text names, separated by commas.

    Args:
        text: The text.
        where: Where it stands, for the words of an error.

    Raises:
        UsageError: If one is none, or is plain http and not on loopback: a token would be sent over it.
    """
    addresses = tuple(_origin(address.strip(), where) for address in text.split(","))
    if len(set(addresses)) != len(addresses):
        raise UsageError(f"{where} names an address twice", hint="name each server once")
    return addresses


def checked_namespace(text: str, where: str) -> str:
    """Return a namespace without slashes round it.

    Raises:
        UsageError: If it can't be one.
    """
    namespace = text.strip("/")
    if not _PATH.fullmatch(namespace):
        raise UsageError(f"{where} has a bad namespace", hint="it looks like trading/bots")
    return namespace


def _origin(address: str, where: str) -> str:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    rest = parts.path.rstrip("/") or parts.query or parts.fragment
    if parts.scheme not in {"http", "https"} or not _NETLOC.fullmatch(parts.netloc) or rest:
        raise UsageError(
            f"{where} isn't the address of a server: {describe(address)}", hint="it looks like https://host:8200"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise UsageError(
            f"{where} names an address that is neither https nor loopback",
            hint="others could read the token and every signature over http: use https",
        )
    return f"{parts.scheme}://{parts.netloc}"


def _mount(what: str, path: str) -> str:
    mount = path.strip("/")
    if not _PATH.fullmatch(mount):
        raise _bad(f"has a bad path as {what}", "it looks like transit, or team/transit")
    return mount


def _bad(what: str, hint: str = f"it looks like {_EXAMPLE}") -> UsageError:
    return UsageError(f"the Vault URI {what}", hint=hint)


_TEXT: Final = UriText(_SAFE, _bad)


def _parameters(query: str) -> dict[str, str]:
    parameters = _TEXT.parameters(query, _PARAMETERS)
    for name, value in parameters.items():
        if not value:
            raise _bad(f"has an empty {name}", "give a value, or leave it out")
    return parameters
