"""The signing path's calls: a few attempts, over the Regions in order, inside one budget of time.

The budget is kept through the timeouts of connections and answers. Two things outlast them, as in every program
over botocore: the system's name resolution, and a server that sends its answer byte by byte.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hsm_keys.errors import HsmKeysError, NetworkError
from hsm_keys.forks import fork_generation
from hsm_keys.stores.awskms.connection import MANAGEMENT, Patience, acquire
from hsm_keys.stores.awskms.errors import (
    AwsCredentialsError,
    AwsThrottledError,
    AwsUnavailableError,
    KmsGarbledAnswerError,
)
from hsm_keys.stores.awskms.failover import RegionOrder
from hsm_keys.stores.awskms.refusals import Call, ask
from hsm_keys.stores.awskms.uri import in_region

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.stores.awskms.uri import AwsKmsUri

__all__ = ["Caller"]

_T = TypeVar("_T")

_DOWN: Final = (NetworkError, AwsUnavailableError, KmsGarbledAnswerError)
"""What speaks against a whole Region."""

_ATTEMPTS_SHARE: Final = 0.9
"""Of the budget; the rest is for pauses, and for what botocore does around the socket."""

_CONNECT_SHARE: Final = 1 / 3
"""Of an attempt: a round trip to the other end of the world takes 0.3 s."""

_PAUSE_SHARE: Final = 0.04


class Caller:
    """The process's clients for one store, with the budget and the memory of which Region works.

    Args:
        uri: Says Regions, profile and budget.

    Raises:
        AwsError: If there is no Region, or there are no credentials.
    """

    def __init__(self, uri: AwsKmsUri) -> None:
        self.generation: Final = fork_generation()
        self._connection = acquire(uri.profile)
        try:
            self.regions: Final = uri.regions or (self._connection.default_region(),)
            self._attempts = max(uri.attempts, len(self.regions))
            self._budget_s = uri.budget_ms / 1000
            attempt_s = self._attempt_s = self._budget_s * _ATTEMPTS_SHARE / self._attempts
            patience = Patience(connect_s=attempt_s * _CONNECT_SHARE, read_s=attempt_s * (1 - _CONNECT_SHARE))
            self._clients = {region: self._connection.client(region, patience) for region in self.regions}
        except BaseException:
            self._connection.release()
            raise
        self.order = RegionOrder(self.regions)

    def manage(self, region: str) -> Any:
        """Return the patient client of a Region, for calls that make or change a key."""
        return self._connection.client(region, MANAGEMENT)

    def run(self, call: Callable[[Any, str], _T], reference: str) -> _T:
        """Return what the call gives, after as many attempts as it takes and the budget allows.

        Args:
            call: Makes one attempt, given a Region's client and name; safe to repeat.
            reference: The key it is about: asked for its public half to see whether a Region works again.

        Raises:
            AwsError: If AWS or KMS refuses.
            NetworkError: If no Region answers.
        """
        started = time.monotonic()
        order = self.order.current
        if self.order.disturbed:
            self._start_probe(reference)
        made = 0
        while True:
            region = order[made % len(order)]
            made += 1
            try:
                return call(self._clients[region], region)
            except (AwsCredentialsError, AwsThrottledError, *_DOWN) as error:
                failure = error
            if len(order) > 1 and isinstance(failure, _DOWN):
                self.order.failed(region)
            spare_s = self._budget_s - (time.monotonic() - started) - self._attempt_s
            if made >= self._attempts or spare_s < 0 or not self._worth_another(failure, spare_s, moves=len(order) > 1):
                raise _counted(failure, made, time.monotonic() - started)

    def _worth_another(self, failure: HsmKeysError, spare_s: float, *, moves: bool) -> bool:
        """Tell whether the next attempt can end otherwise; make the pause before it."""
        if isinstance(failure, AwsCredentialsError):
            return self._connection.renew_credentials(spare_s)
        if not moves:
            time.sleep(min(spare_s, self._budget_s * _PAUSE_SHARE * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter
        return True

    def _start_probe(self, reference: str) -> None:
        region = self.order.to_probe()
        if region is not None:
            threading.Thread(
                target=self._probe, args=(region, reference), name="hsm-keys-aws-probe", daemon=True
            ).start()

    def _probe(self, region: str, reference: str) -> None:
        try:
            ask(
                Call("GetPublicKey", "", region),
                self._clients[region].get_public_key,
                KeyId=in_region(reference, region),
            )
        except _DOWN:
            self.order.failed(region)
        except HsmKeysError:  # it refuses: that is an answer
            self.order.answered(region)
        else:
            self.order.answered(region)

    def close(self) -> None:
        """Give the clients back; those of a parent process are left alone."""
        if self.generation == fork_generation():
            self._connection.release()


def _counted(failure: HsmKeysError, attempts: int, elapsed_s: float) -> HsmKeysError:
    if attempts > 1:
        failure.message = f"{failure.message}; tried {attempts} times in {elapsed_s * 1000:.0f} ms"
        failure.args = (failure.message,)
    return failure
