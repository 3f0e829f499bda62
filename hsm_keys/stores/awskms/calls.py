"""Calls that are safe to repeat: a few attempts, over the Regions in order, within one budget of time.

A signature has the budget that the store's URI names, two seconds by default, because an order that is late is
worth nothing. Looking up keys and diagnosing have more, because there the right answer matters more than the time.

The timeouts of connections and answers keep the budget. As in every program that uses botocore, two things can take
longer: the system's name resolution, and a server that sends its answer byte by byte.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_keys.errors import HsmKeysError, NetworkError
from hsm_keys.forks import fork_generation
from hsm_keys.stores.awskms.connection import MANAGEMENT, Patience, acquire_connection
from hsm_keys.stores.awskms.error_mapping import KmsCall, ask
from hsm_keys.stores.awskms.errors import (
    AwsCredentialsError,
    AwsThrottledError,
    AwsUnavailableError,
    KmsGarbledAnswerError,
)
from hsm_keys.stores.awskms.failover import RegionOrder
from hsm_keys.stores.awskms.uri import in_region

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.awskms.uri import AwsKmsUri

__all__ = ["RegionalCaller"]

_T = TypeVar("_T")

_DOWN: Final = (NetworkError, AwsUnavailableError, KmsGarbledAnswerError)
"""What speaks against a whole Region."""

_ATTEMPTS_SHARE: Final = 0.9
"""Of the budget; the rest is for pauses, and for what botocore does around the socket."""

_CONNECT_SHARE: Final = 1 / 3
"""Of an attempt: a round trip to the other end of the world takes 0.3 s."""

_PAUSE_SHARE: Final = 0.04

_LOOKING_S: Final = 30.0
"""The budget of everything but signatures, unless the URI's is larger."""


class _Budget:
    """How long a call may take.

    Args:
        total_s: Seconds for all attempts together.
        attempts: How often the call is tried.
    """

    def __init__(self, total_s: float, attempts: int) -> None:
        self.total_s: Final = total_s
        self.attempts: Final = attempts
        self.attempt_s: Final = total_s * _ATTEMPTS_SHARE / attempts
        connect_s = self.attempt_s * _CONNECT_SHARE
        self.patience: Final = Patience(connect_s=connect_s, read_s=self.attempt_s - connect_s)


class RegionalCaller:
    """The process's clients for one store, with the budget and the memory of which Region works.

    Args:
        uri: Says Regions, profile and budget.

    Raises:
        AwsError: If there is no Region, or there are no credentials.
    """

    def __init__(self, uri: AwsKmsUri) -> None:
        self.generation: Final = fork_generation()
        self._connection = acquire_connection(uri.profile)
        try:
            self.regions: Final = uri.regions or (self._connection.default_region(),)
            attempts = max(uri.attempts, len(self.regions))
            signing_s = uri.budget_ms / 1000
            self._signing = _Budget(signing_s, attempts)
            self._looking = _Budget(max(signing_s, _LOOKING_S), attempts)
            # One client is made now, so that its errors show now; others when they are needed, as each takes 15 ms.
            self._connection.client(self.regions[0], self._looking.patience)
        except BaseException:
            self._connection.release()
            raise
        self.order = RegionOrder(self.regions)

    def manage(self, region: str) -> Any:
        """Return the patient client of a Region, for calls that make or change a key."""
        return self._connection.client(region, MANAGEMENT)

    def sign(self, call: Callable[[Any, str], _T], reference: str) -> _T:
        """Return what a call for a signature gives; as ``look``, within the budget of the store's URI."""
        return self._run(call, reference, self._signing)

    def look(self, call: Callable[[Any, str], _T], reference: str) -> _T:
        """Return what a call gives that reads, after as many attempts as it takes and its budget allows.

        Args:
            call: Makes one attempt, given a Region's client and name; safe to repeat.
            reference: The key it is about: asked for its public half to see whether a Region works again.

        Raises:
            AwsError: If AWS or KMS refuses.
            NetworkError: If no Region answers.
        """
        return self._run(call, reference, self._looking)

    def _run(self, call: Callable[[Any, str], _T], reference: str, budget: _Budget) -> _T:
        started = time.monotonic()
        order = self.order.current
        if self.order.disturbed:
            self._start_probe(reference)
        attempts = 0
        while True:
            region = order[attempts % len(order)]
            attempts += 1
            renewed = self._connection.credentials.renewal()
            try:
                return call(self._connection.client(region, budget.patience), region)
            except (AwsCredentialsError, AwsThrottledError, *_DOWN) as error:
                failure = error
            if len(order) > 1 and isinstance(failure, _DOWN):
                self.order.failed(region)
            spare_s = budget.total_s - (time.monotonic() - started) - budget.attempt_s
            if attempts >= budget.attempts or spare_s < 0:
                raise _counted(failure, attempts, time.monotonic() - started)
            if isinstance(failure, AwsCredentialsError):
                if not renewed(spare_s):
                    raise _counted(failure, attempts, time.monotonic() - started)
            elif len(order) == 1:
                time.sleep(min(spare_s, budget.total_s * _PAUSE_SHARE * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter

    def _start_probe(self, reference: str) -> None:
        region = self.order.to_probe()
        if region is not None:
            threading.Thread(
                target=self._probe, args=(region, reference), name="hsm-keys-aws-probe", daemon=True
            ).start()

    def _probe(self, region: str, reference: str) -> None:
        try:
            ask(
                KmsCall("GetPublicKey", "", region),
                self._connection.client(region, self._signing.patience).get_public_key,
                KeyId=in_region(reference, region),
            )
        except _DOWN:
            self.order.failed(region)
        except HsmKeysError:  # the Region refused: that is an answer, and no reason to try another
            self.order.answered(region)
        else:
            self.order.answered(region)

    def close(self) -> None:
        """Give the clients back; those of a parent process are left alone."""
        if self.generation == fork_generation():
            self._connection.release()


def _counted(failure: HsmKeysError, attempts: int, elapsed_s: float) -> HsmKeysError:
    if attempts == 1:
        return failure
    return failure.amend(message=f"{failure.message}; tried {attempts} times in {elapsed_s * 1000:.0f} ms")
