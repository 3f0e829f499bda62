"""A registered key as type checkers see it: what ``StoredKey.registered`` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_keys.stores.base import StoredKey

__all__ = ["RegisteredKey"]

if TYPE_CHECKING:

    class RegisteredKey(StoredKey):
        """A ``StoredKey`` that has an API key id."""

        api_key_id: str

else:
    RegisteredKey = StoredKey
