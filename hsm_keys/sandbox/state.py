"""What the account holds: keys, orders, groups, requests for quotes.

Keys are read and changed from several threads, all else on the server's own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from hsm_keys.sandbox.grouping import Groups
from hsm_keys.sandbox.keys import KeyType, PublicKey, key_type_of, public_pem
from hsm_keys.sandbox.matching import Book
from hsm_keys.sandbox.shapes import order_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TIERS", "SandboxKey", "SandboxState"]

TIERS: Final = ("basic", "premier")


@dataclass(frozen=True, slots=True)
class SandboxKey:
    """One API key. ``scopes_given`` tells whether its maker named the scopes or took the default."""

    api_key_id: str
    name: str
    public_key: PublicKey
    scopes: tuple[str, ...]
    scopes_given: bool = True
    subaccount: int | None = None
    fcm_subtrader_id: str | None = None

    @property
    def key_type(self) -> KeyType:
        """``rsa`` or ``ed25519``."""
        return key_type_of(self.public_key)

    @property
    def public_pem(self) -> str:
        """The SubjectPublicKeyInfo PEM."""
        return public_pem(self.public_key)


class SandboxState:
    """The account: its tier, its keys by id, its orders on the two exchanges.

    Args:
        tier: ``basic`` or ``premier``.
        null_lists: Send ``null`` where a list is empty or was left out, and for absent optional fields, as
            servers written in Go do; clients must survive it.

    Attributes:
        region_expiration_ts: When the account's location attestation ends, Unix time in seconds; None if it never
            attested. It is listed with the keys, and nothing comes of it.
    """

    def __init__(self, *, tier: str, null_lists: bool = False) -> None:
        self.tier = tier
        self.null_lists = null_lists
        self.region_expiration_ts: int | None = None
        self.user_id = str(uuid4())
        self._lock = threading.Lock()
        self._keys: dict[str, SandboxKey] = {}
        self._listeners: list[Callable[[str, object], None]] = []
        self.book = Book(self._tell)
        self.margin = Book(lambda kind, subject: self._tell(f"margin {kind}", subject))
        self.groups = Groups(self.book)
        self.margin_groups = Groups(self.margin)
        self.rfqs: dict[str, dict[str, Any]] = {}
        self.quotes: dict[str, dict[str, Any]] = {}

    @property
    def keys(self) -> dict[str, SandboxKey]:
        """A copy of the registered keys by id, oldest first."""
        with self._lock:
            return dict(self._keys)

    def find_key(self, api_key_id: str) -> SandboxKey | None:
        """Return the key with this id."""
        with self._lock:
            return self._keys.get(api_key_id)

    def register(
        self,
        name: str,
        public_key: PublicKey,
        *,
        scopes: Sequence[str] | None = None,
        subaccount: int | None = None,
        fcm_subtrader_id: str | None = None,
    ) -> SandboxKey:
        """Register a key under a new id; left out, the scopes are ``read`` and ``write``, as documented.

        A second key of the same name, or with the same public half, is taken. What Kalshi does is not documented;
        this is the more dangerous answer for a client that repeats a request.
        """
        key = SandboxKey(
            api_key_id=str(uuid4()),
            name=name,
            public_key=public_key,
            scopes=("read", "write") if scopes is None else tuple(dict.fromkeys(scopes)),
            scopes_given=scopes is not None,
            subaccount=subaccount,
            fcm_subtrader_id=fcm_subtrader_id,
        )
        with self._lock:
            self._keys[key.api_key_id] = key
        return key

    def delete_key(self, api_key_id: str) -> bool:
        """Delete a key; from now on its signatures are refused. Tell whether it was there."""
        with self._lock:
            return self._keys.pop(api_key_id, None) is not None

    @property
    def orders(self) -> dict[str, dict[str, Any]]:
        """A copy of the orders by id, oldest first, in the shape of Kalshi's Order."""
        return {order_id: order_json(order, self.user_id) for order_id, order in list(self.book.orders.items())}

    def follow(self, listener: Callable[[str, object], None]) -> Callable[[], None]:
        """Have a listener called with whatever happens in a Book or to a group; call the result to end that.

        Of perpetuals, the kind of event has ``margin `` before it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, kind: str, subject: object) -> None:
        for listener in list(self._listeners):
            listener(kind, subject)
