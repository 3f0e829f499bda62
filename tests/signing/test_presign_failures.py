"""What makes headers in hand worthless, and what becomes of a worker whose store fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import HsmKeysError, PinIncorrectError, StoreUnavailableError
from hsm_keys.signing.headers import KEY_HEADER, TIMESTAMP_HEADER
from hsm_keys.signing.presign_pool import elapsed_ns
from tests.support.presigning import ORDERS, Clocks, CountingKey, clocks, key, make, no_worker, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.signing.presign import PresigningSigner

__all__ = ["clocks", "key", "make", "no_worker"]  # pytest finds the fixtures here

CANCEL = ("DELETE", "/trade-api/v2/portfolio/events/orders/1")


@pytest.mark.parametrize("seconds", [-3600, -10, -0.2, 0.2, 10, 3600])
def test_a_clock_that_was_set_makes_all_worthless(
    make: Callable[..., PresigningSigner], clocks: Clocks, seconds: float
) -> None:
    signer = make()
    work(signer, clocks, 0.1)
    clocks.set_by(seconds)
    before = signer.headers(*ORDERS)
    assert before[TIMESTAMP_HEADER] == str(clocks.wall())
    assert (signer.stats.taken, signer.stats.discarded, signer.stats.in_hand) == (0, 4, 0)
    work(signer, clocks, 0.2)
    assert int(signer.headers(*ORDERS)[TIMESTAMP_HEADER]) >= clocks.wall() - 1000
    assert signer.stats.taken == 1


@pytest.mark.parametrize("seconds", [-3600, -10, -0.2, 0.2, 10, 3600])
def test_headers_signed_ahead_are_discarded_if_the_clock_is_set_meanwhile(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey, seconds: float
) -> None:
    signer = make(depth=1)
    key.before = lambda: clocks.set_by(seconds)
    signer._work_once()
    key.before = lambda: None
    assert signer.stats.made == 1
    assert signer.headers(*ORDERS)[TIMESTAMP_HEADER] == str(clocks.wall())
    assert (signer.stats.taken, signer.stats.discarded) == (0, 1)


def test_a_clock_that_is_slewed_changes_nothing(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    signer = make()
    work(signer, clocks, 0.1)
    clocks.set_by(0.02)
    signer.headers(*ORDERS)
    assert signer.stats.taken == 1


@pytest.mark.parametrize("counts_suspend", [True, False])
def test_after_a_suspend_all_is_signed_anew(
    make: Callable[..., PresigningSigner], clocks: Clocks, *, counts_suspend: bool
) -> None:
    signer = make()
    work(signer, clocks, 0.1)
    (clocks.go_on if counts_suspend else clocks.set_by)(600)
    assert signer.headers(*ORDERS)[TIMESTAMP_HEADER] == str(clocks.wall())
    assert (signer.stats.taken, signer.stats.in_hand) == (0, 0)


def test_the_clock_runs_on_in_suspend() -> None:
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(elapsed_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 10**9


def test_after_a_rotation_nothing_of_the_old_key_is_handed_out(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    successor = CountingKey("new")
    signer = make(follow=lambda: successor)
    work(signer, clocks, 0.1)
    assert signer.headers(*ORDERS)[KEY_HEADER] == "id"
    assert signer.moved_on("id")
    assert (signer.api_key_id, signer.key) == ("new", successor)
    assert signer.headers(*ORDERS)[KEY_HEADER] == "new"
    assert (signer.stats.taken, signer.stats.discarded) == (1, 3)
    work(signer, clocks, 0.1)
    assert [signer.headers(*ORDERS)[KEY_HEADER] for _ in range(4)] == ["new"] * 4
    assert signer.stats.taken == 5


def test_the_worker_finds_out_that_a_key_was_destroyed(
    make: Callable[..., PresigningSigner], clocks: Clocks, key: CountingKey
) -> None:
    signer = make(follow=lambda: CountingKey("new"))
    work(signer, clocks, 0.1)

    def destroyed() -> None:
        raise StoreUnavailableError("destroyed")

    key.before = destroyed
    work(signer, clocks, 1.0)
    assert signer.api_key_id == "new"
    assert [signer.headers(*ORDERS)[KEY_HEADER] for _ in range(4)] == ["new"] * 4
    assert (signer.stats.errors, signer.stats.missed) == (0, 0)


class Flaky:
    """Fails as long as it has an error, and counts how often it was tried."""

    def __init__(self, clocks: Clocks) -> None:
        self.error: Exception | None = None
        self.tried: list[int] = []
        self._clocks = clocks

    def __call__(self) -> None:
        pin = "pin-canary-4711"  # what a frame may hold
        self.tried.append(self._clocks.real_ns)
        if self.error is not None and pin:
            raise self.error


def test_a_store_that_fails_in_the_worker_hurts_nobody_who_has_headers(
    make: Callable[..., PresigningSigner],
    clocks: Clocks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    flaky = Flaky(clocks)
    signer = make(key=CountingKey(before=flaky), depth=4)
    work(signer, clocks, 0.1)
    flaky.error = StoreUnavailableError("unplugged")
    for _ in range(3):
        signer.headers(*ORDERS)
    work(signer, clocks, 0.1)
    assert signer.stats.errors == 1
    signer.headers(*ORDERS)  # one is left
    with pytest.raises(StoreUnavailableError, match="unplugged"):
        signer.headers(*ORDERS)
    kept = signer.stats.error
    assert kept is flaky.error
    assert "canary" not in repr(signer.stats) + caplog.text
    flaky.tried.clear()
    work(signer, clocks, 300)
    assert 8 <= len(flaky.tried) <= 20  # seconds apart, and more and more of them
    assert sum("couldn't sign ahead" in record.message for record in caplog.records) == 1
    flaky.error = None
    work(signer, clocks, 31)
    assert signer.stats.in_hand == 4
    missed = signer.stats.missed
    signer.headers(*ORDERS)
    assert signer.stats.missed == missed


def test_a_kept_error_holds_no_frames(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    def fail() -> None:
        pin = "pin-canary-4711"
        try:
            raise OSError(len(pin))
        except OSError:
            raise StoreUnavailableError("unplugged")  # noqa: B904 - as careless code does

    signer = make(key=CountingKey(before=fail))
    signer._work_once()
    error: BaseException | None = signer.stats.error
    assert isinstance(error, StoreUnavailableError)
    while error is not None:
        assert error.__traceback__ is None
        error = error.__context__


def test_a_signature_that_somebody_got_ends_the_rest(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    flaky = Flaky(clocks)
    flaky.error = StoreUnavailableError("unplugged")
    signer = make(key=CountingKey(before=flaky))
    work(signer, clocks, 100)
    flaky.error = None
    signer.headers(*ORDERS)
    work(signer, clocks, 0.1)
    assert signer.stats.in_hand == 4


def test_a_refused_pin_is_not_tried_again_by_the_worker(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    flaky = Flaky(clocks)
    flaky.error = PinIncorrectError("wrong")
    signer = make(key=CountingKey(before=flaky))
    work(signer, clocks, 10_000)
    assert len(flaky.tried) == 1
    assert signer._work_once() is None
    flaky.error = None
    signer.headers(*ORDERS)
    work(signer, clocks, 0.1)
    assert signer.stats.in_hand == 4


def test_a_failing_key_that_is_not_ours_does_not_end_the_worker(
    make: Callable[..., PresigningSigner], clocks: Clocks
) -> None:
    flaky = Flaky(clocks)
    flaky.error = ZeroDivisionError()
    signer = make(key=CountingKey(before=flaky))
    work(signer, clocks, 1)
    assert isinstance(signer.stats.error, ZeroDivisionError)
    flaky.error = None
    work(signer, clocks, 10)
    assert signer.stats.in_hand == 4


def test_a_store_that_is_too_slow_for_it_is_left_alone(make: Callable[..., PresigningSigner], clocks: Clocks) -> None:
    tries: list[int] = []

    def slow() -> None:
        tries.append(1)
        clocks.go_on(1.5)

    signer = make(key=CountingKey(before=slow), max_age=1.0)
    work(signer, clocks, 60)
    assert isinstance(signer.stats.error, HsmKeysError)
    assert "1.5 s" in signer.stats.error.message
    assert len(tries) <= 8
    for _ in range(10):
        signer.headers(*ORDERS)  # succeed, and are no reason to try again at once
        signer._work_once()
    assert len(tries) <= 18 + 1
