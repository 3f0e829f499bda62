"""Credentials that are renewed beside the signing path.

botocore renews temporary credentials within the call that finds them old: that signature waits for all of it,
and a renewal that fails surfaces there with its own exception. Here calls use a snapshot, and a thread keeps
it fresh.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any, Final

from botocore.credentials import (  # type: ignore[import-untyped]  # botocore has no annotations
    Credentials,
    RefreshableCredentials,
)

__all__ = ["SteadyCredentials", "steady"]

_LOOK_EVERY_S: Final = 30.0
"""botocore renews 15 minutes before the end; looking costs a comparison of two times."""


class SteadyCredentials(Credentials):  # type: ignore[misc]  # botocore has no annotations
    """What signs requests to AWS: the newest credentials that were had, never waited for.

    Args:
        source: Renews itself when it is asked close to its end.
        look_every_s: Seconds between two looks at the source.
    """

    def __init__(self, source: RefreshableCredentials, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._source = source
        self._frozen = source.get_frozen_credentials()
        super().__init__(
            self._frozen.access_key, self._frozen.secret_key, self._frozen.token, source.method, self._frozen.account_id
        )
        self._look_every_s = look_every_s
        self._changed = threading.Condition()
        self._looks = 0
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._keep_fresh, name="hsm-keys-aws-credentials", daemon=True)
        self._thread.start()

    def get_frozen_credentials(self) -> Any:
        """Return the snapshot; botocore asks before each request."""
        return self._frozen

    def renewed(self, timeout_s: float) -> bool:
        """Have the source looked at now, and tell whether that brought other credentials in time."""
        before = self._frozen
        with self._changed:
            seen = self._looks
            self._wanted.set()
            self._changed.wait_for(lambda: self._looks > seen, timeout_s)
        return bool(self._frozen != before)

    def close(self) -> None:
        """End the thread; a renewal under way is not waited for."""
        self._closing = True
        self._wanted.set()

    def _keep_fresh(self) -> None:
        while True:
            self._wanted.wait(self._look_every_s)
            self._wanted.clear()
            if self._closing:
                return
            with suppress(Exception):  # a provider raises what it likes; AWS says when it is too late
                self._frozen = self._source.get_frozen_credentials()
            with self._changed:
                self._looks += 1
                self._changed.notify_all()


def steady(source: Credentials) -> Credentials:
    """Return credentials for clients: as they are if they never change, else kept fresh by a thread."""
    return SteadyCredentials(source) if isinstance(source, RefreshableCredentials) else source
