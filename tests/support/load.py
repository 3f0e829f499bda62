"""A key under load: threads that sign all the time, verify every signature, and write down what fails and when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Self

from hsm_keys.errors import HsmKeysError
from hsm_keys.signing.algorithms import verifies

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hsm_keys import StoredKey

_PAUSE_S = 0.002  # else refusals that come at once would use up the processor that the recovery needs


class Load:
    """Signs on some threads while the ``with`` block does harm.

    Attributes:
        signed: When good signatures came, on the monotonic clock.
        errors: How often each error came: class, and its code.
        bad: Signatures that didn't verify.
        wrong: Exceptions that aren't of this project.
    """

    def __init__(self, key: StoredKey, threads: int = 4) -> None:
        self._key = key
        self._over = threading.Event()
        self._more = threading.Condition()
        self._threads = [threading.Thread(target=self._sign, args=(number,)) for number in range(threads)]
        self.signed: list[float] = []
        self.errors: Counter[str] = Counter()
        self.bad = 0
        self.wrong: list[BaseException] = []

    def _sign(self, number: int) -> None:
        public_key = self._key.public_key()
        count = 0
        while not self._over.is_set():
            count += 1
            message = f"{number} {count}".encode()
            try:
                signature = self._key.sign(message)
            except HsmKeysError as error:
                self._note(partial(self.errors.update, [error.code]))
                time.sleep(_PAUSE_S)
            except BaseException as error:  # noqa: BLE001 - that is what is looked for
                self._note(partial(self.wrong.append, error))
                return
            else:
                if not verifies(public_key, message, signature):
                    self.bad += 1
                self._note(lambda: self.signed.append(time.monotonic()))

    def _note(self, what: Callable[[], object]) -> None:
        with self._more:
            what()
            self._more.notify_all()

    def wait_for(self, what: Callable[[Load], bool], within_s: float = 20.0) -> None:
        """Wait until that is so."""
        with self._more:
            assert self._more.wait_for(lambda: what(self), within_s), f"{self.errors}, {len(self.signed)} signed"

    def signs(self, more: int = 20, within_s: float = 20.0) -> float:
        """Wait for so many more signatures; return when the first of them came, on the monotonic clock."""
        before = len(self.signed)
        self.wait_for(lambda load: len(load.signed) >= before + more, within_s)
        return self.signed[before]

    def fails(self, within_s: float = 20.0, *, since: int | None = None) -> float:
        """Wait until one more signature fails than by now, or than so many; return when."""
        before = self.errors.total() if since is None else since
        self.wait_for(lambda load: load.errors.total() > before, within_s)
        return time.monotonic()

    def fails_or_signs_on(self, for_s: float) -> None:
        """Wait until one more signature fails, or until they have come for so many seconds all the same."""
        before, until = self.errors.total(), time.monotonic() + for_s
        self.wait_for(lambda load: load.errors.total() > before or bool(load.signed and load.signed[-1] > until))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads)
