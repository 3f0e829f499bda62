"""One workflow at a time for a name: a lock on this machine, which the kernel releases when its process ends.

The lock keeps two runs of one user from working on a name at the same time. It isn't shared between machines or users;
marks in the store and answers of Kalshi's decide between their runs (``contention``, ``KeyStore.generate``).
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hsm_keys.errors import KeyBusyError
from hsm_keys.files import open_private, runtime_folder, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys.stores.base import KeyStore

__all__ = ["exclusive"]


@contextmanager
def exclusive(store: KeyStore, name: str) -> Iterator[None]:
    """Hold the name in that store for one workflow; the kernel lets go of it when the process ends, however it does.

    Raises:
        KeyBusyError: If another run holds it.
    """
    descriptor = _opened(store, name)
    try:
        if descriptor is not None and not try_lock(descriptor):
            raise KeyBusyError(
                f"another hsm-keys is working on {name!r} at this moment; nothing was changed",
                hint="wait until it has ended, then look with `hsm-keys list`",
            )
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(store: KeyStore, name: str) -> int | None:
    """Return a descriptor of the lock's file; None where no file can be made: then the second defence must do."""
    digest = hashlib.sha256(f"{store.describe()}\0{name}".encode(errors="surrogatepass")).hexdigest()[:32]
    with suppress(OSError):
        return open_private(runtime_folder() / f"{digest}.lock")
    return None
