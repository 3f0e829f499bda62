"""The names of a token's keys that it shows without a login: no PIN is asked for, and no try of it is risked.

They are labels of public objects, which somebody without the PIN may be able to write. So shell completion may propose
them, but they prove nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pkcs11 import exceptions as ckr
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys.stores.key_names import is_marked
from hsm_keys.stores.pkcs11.attributes import read
from hsm_keys.stores.pkcs11.errors import mapped_errors
from hsm_keys.stores.pkcs11.login import open_session
from hsm_keys.stores.pkcs11.marks import read_mark
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.tokens import find_token, with_its_module

if TYPE_CHECKING:
    from hsm_keys.stores.uri import Pkcs11Uri

__all__ = ["names_without_login"]


def names_without_login(uri: Pkcs11Uri) -> list[str]:
    """Return the names that the token's public objects with a mark of ours bear, sorted, but for those of workflows.

    Args:
        uri: Names the token. Its PIN isn't looked up.

    Raises:
        StoreError: If there is no such token, or it doesn't answer.
    """
    uri = with_its_module(uri)
    module = acquire_module(str(uri.module_path))
    try:
        token = find_token(module, uri).token
        with module.mutex, mapped_errors("show its public objects"):
            session = open_session(token, rw=False)
            try:
                names = {_name(one) for one in session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})}
            finally:
                session.close()
    finally:
        module.release()
    return sorted(name for name in names if name and not is_marked(name))


def _name(public: Any) -> str | None:
    """Return the label of a public object that carries our mark; None of any other one."""
    with suppress(ckr.PKCS11Error):
        label: str | None = read(public, Attribute.LABEL)
        return label if read_mark(read(public, Attribute.ID)).ours else None
    return None
