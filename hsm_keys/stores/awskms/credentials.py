"""Credentials that a background thread renews, so that no signature waits for it.

botocore renews temporary credentials within the call that finds them old: that signature waits for the renewal,
and fails with its exception. Here calls use a snapshot, and a thread renews it. Credentials without an expiry (a file,
a program) are read again when AWS refuses them, because a running program is expected to read a replaced file.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from botocore.credentials import (  # type: ignore[import-untyped]  # botocore has no annotations
    Credentials,
    RefreshableCredentials,
)

from hsm_keys.stores.awskms.errors import AwsCredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SteadyCredentials", "check_credentials"]

_LOOK_EVERY_S: Final = 30.0
"""botocore renews 15 minutes before the end; looking costs a comparison of two times."""


_PARTS: Final = (
    ("access_key", "access key id", "AWS_ACCESS_KEY_ID", re.compile(r"[!-~]+(?<![\"',;])")),
    ("secret_key", "secret access key", "AWS_SECRET_ACCESS_KEY", re.compile(r"[!-~]+")),
    ("token", "session token", "AWS_SESSION_TOKEN", re.compile(r"[!-~]+")),
)


def check_credentials(credentials: Credentials) -> Credentials:
    """Return credentials, if they can be sent: a line end behind one breaks every request before it is sent.

    Raises:
        AwsCredentialsError: If one of their parts holds white space or the like.
    """
    flaw = _flaw_of(credentials)
    if flaw:
        part, variable = flaw
        where = variable if credentials.method == "env" else f"what {credentials.method} gives"
        raise AwsCredentialsError(
            f"the AWS {part} isn't valid: there is white space, a quote or the like in it or around it",
            hint=f"correct {where}: give only the value, without a line end; nothing was sent",
        )
    return credentials


def _flaw_of(credentials: Credentials) -> tuple[str, str] | None:
    if isinstance(credentials, RefreshableCredentials):  # a program makes them, and is run only when they are needed
        return None
    frozen = credentials.get_frozen_credentials()
    for attribute, part, variable, form in _PARTS:
        value = getattr(frozen, attribute)
        if value and not form.fullmatch(value):
            return part, variable
    return None


class SteadyCredentials(Credentials):  # type: ignore[misc]  # botocore has no annotations
    """What signs requests to AWS: the newest credentials that were had, never waited for.

    Args:
        source: The credentials that botocore found.
        look_up: Goes through botocore's chain of providers again; None where that finds nothing. Called in a thread.
        look_every_s: Seconds between two looks at a source that renews itself.
    """

    def __init__(
        self,
        source: Credentials,
        look_up: Callable[[], Credentials | None],
        *,
        look_every_s: float = _LOOK_EVERY_S,
    ) -> None:
        self._source = source
        self._look_up = look_up
        self._frozen = source.get_frozen_credentials()
        super().__init__(
            self._frozen.access_key, self._frozen.secret_key, self._frozen.token, source.method, self._frozen.account_id
        )
        self._look_every_s = look_every_s
        self._changed = threading.Condition()
        self._looks = 0
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        if isinstance(source, RefreshableCredentials):
            self._start()

    def get_frozen_credentials(self) -> Any:
        """Return the snapshot; botocore asks before each request."""
        return self._frozen

    def renewal(self) -> Callable[[float], bool]:
        """Return ``renewed`` for the credentials of now: a frame that goes home with an error can hold it."""
        used = self._frozen
        return lambda timeout_s: self.renewed(used, timeout_s)

    def renewed(self, refused: Any, timeout_s: float) -> bool:
        """Have credentials looked up now, and tell whether there are others than those that AWS refused.

        Args:
            refused: What ``get_frozen_credentials`` gave before the refusal.
            timeout_s: Seconds to wait for the look-up; it goes on after that.
        """
        with self._changed:
            if self._frozen != refused:  # another thread had the same refusal before
                return True
            if self._thread is None:
                self._start()
            seen = self._looks
            self._wanted.set()
            self._changed.wait_for(lambda: self._looks > seen, timeout_s)
            return bool(self._frozen != refused)

    def close(self) -> None:
        """End the thread; a renewal under way is not waited for."""
        self._closing = True
        self._wanted.set()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._keep_fresh, name="hsm-keys-aws-credentials", daemon=True)
        self._thread.start()

    def _keep_fresh(self) -> None:
        while True:
            renews = isinstance(self._source, RefreshableCredentials)
            wanted = self._wanted.wait(self._look_every_s if renews else None)
            self._wanted.clear()
            if self._closing:
                return
            with suppress(Exception):  # a provider may raise anything; AWS refuses when the credentials have expired
                self._look(wanted=wanted)
            with self._changed:
                self._looks += 1
                self._changed.notify_all()

    def _look(self, *, wanted: bool) -> None:
        """Take what the source has now; if that is what it had, and was refused, ask the providers again."""
        with suppress(Exception):  # the providers may know better than a source that fails
            frozen = self._source.get_frozen_credentials()
            if frozen != self._frozen:
                self._frozen = frozen
                return
        if wanted:
            source = self._look_up()
            if source is not None:
                self._source, self._frozen = source, source.get_frozen_credentials()
