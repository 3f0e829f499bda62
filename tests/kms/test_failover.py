"""Several Regions: which is asked first, and that no signature is lost when one of them dies."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import NetworkError
from hsm_keys.stores.awskms import open_kms
from hsm_keys.stores.awskms.errors import AwsAccessDeniedError, AwsThrottledError, KmsKeyDisabledError
from hsm_keys.stores.awskms.failover import RegionOrder
from tests.support.kms_faults import Body, Fault, FaultyKms, Hang, Refuse, Reset, arn_in
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hsm_keys.stores.awskms.store import AwsKmsKey, AwsKmsStore

EAST, WEST = "us-east-1", "us-west-2"
URI = f"awskms:///alias/hsm-keys/prod?region={EAST},{WEST}&budget-ms=4000"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(kms: FaultyKms) -> Iterator[AwsKmsStore]:
    with open_kms(URI) as opened:
        yield opened


@pytest.fixture
def key(store: AwsKmsStore) -> AwsKmsKey:
    return store.key("prod")


def regions_of(kms: FaultyKms, operation: str = "Sign") -> list[str]:
    return [seen.region for seen in kms.of(operation)]


def test_a_region_that_failed_goes_to_the_end_until_a_probe_succeeds() -> None:
    clock = Clock()
    order = RegionOrder(("a", "b", "c"), clock=clock, probe_after_s=5.0)
    assert (order.current, order.disturbed, order.to_probe()) == (("a", "b", "c"), False, None)
    order.failed("a")
    assert (order.current, order.disturbed, order.to_probe()) == (("b", "c", "a"), True, None)
    clock.now = 5.0
    assert (order.to_probe(), order.to_probe()) == ("a", None)  # one caller probes
    order.failed("a")
    assert (order.current, order.to_probe()) == (("b", "c", "a"), None)
    clock.now = 10.0
    assert order.to_probe() == "a"
    order.answered("a")
    assert (order.current, order.disturbed) == (("a", "b", "c"), False)


def test_regions_that_all_failed_keep_the_preference_among_themselves() -> None:
    order = RegionOrder(("a", "b"), clock=Clock())
    order.failed("b")
    order.failed("a")
    assert order.current == ("a", "b")


def test_the_first_region_signs_while_it_works(key: AwsKmsKey, kms: FaultyKms) -> None:
    for _ in range(3):
        key.sign(b"m")
    assert regions_of(kms) == [EAST] * 3


@pytest.mark.parametrize(
    "fault",
    [Hang(), Reset(), Body(b"garbage"), Refuse("KMSInternalException", status=500)],
    ids=lambda f: type(f).__name__,
)
def test_a_region_that_dies_is_left_and_remembered(
    key: AwsKmsKey, kms: FaultyKms, fault: Fault, tmp_path: Path
) -> None:
    kms.always("Sign", fault, region=EAST)
    signature = key.sign(b"m")
    assert openssl_verifies(tmp_path, key.public_pem(), b"m", signature)
    key.sign(b"n")
    assert regions_of(kms) == [EAST, WEST, WEST]
    assert kms.of("Sign")[1].parameters["KeyId"] == arn_in(WEST)


def test_throttling_goes_to_the_next_region_and_is_not_held_against_the_first(key: AwsKmsKey, kms: FaultyKms) -> None:
    kms.fault("Sign", Refuse("ThrottlingException"), region=EAST)
    key.sign(b"m")
    key.sign(b"n")
    assert regions_of(kms) == [EAST, WEST, EAST]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Refuse("DisabledException", "arn is disabled."), KmsKeyDisabledError),
        (Refuse("AccessDeniedException"), AwsAccessDeniedError),
    ],
)
def test_what_somebody_forbade_in_one_region_is_not_got_round_in_another(
    key: AwsKmsKey, kms: FaultyKms, fault: Fault, kind: type[Exception]
) -> None:
    kms.always("Sign", fault, region=EAST)
    with pytest.raises(kind):
        key.sign(b"m")
    assert regions_of(kms) == [EAST]


def test_a_key_is_found_while_the_first_region_is_down(store: AwsKmsStore, kms: FaultyKms) -> None:
    kms.always("*", Reset(), region=EAST)
    key = store.key("prod")
    assert key.api_key_id == "key-id-1"
    assert len(key.sign(b"m")) == 256


def test_all_regions_dead_is_a_network_error(key: AwsKmsKey, kms: FaultyKms) -> None:
    kms.always("Sign", Hang())
    with pytest.raises(NetworkError, match="tried 2 times"):
        key.sign(b"m")
    assert regions_of(kms) == [EAST, WEST]


def test_every_region_throttled_is_told_as_throttling(key: AwsKmsKey, kms: FaultyKms) -> None:
    kms.always("Sign", Refuse("ThrottlingException"))
    with pytest.raises(AwsThrottledError, match=WEST):
        key.sign(b"m")


def test_a_region_that_works_again_is_found_off_the_signing_path(
    store: AwsKmsStore, key: AwsKmsKey, kms: FaultyKms, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    order = store.caller().order = RegionOrder((EAST, WEST), clock=clock)
    kms.always("*", Reset(), region=EAST)
    key.sign(b"1")
    clock.now = 4.9
    key.sign(b"2")
    assert "GetPublicKey" not in [seen.operation for seen in kms.seen[-2:]]
    kms.always("*", None, region=EAST)
    clock.now = 5.0
    recovered = threading.Event()
    answered = order.answered

    def report(region: str) -> None:
        answered(region)
        recovered.set()

    monkeypatch.setattr(order, "answered", report)  # an event instead of a sleep
    key.sign(b"3")
    assert recovered.wait(10)
    key.sign(b"4")
    assert regions_of(kms) == [EAST, WEST, WEST, WEST, EAST]
    assert regions_of(kms, "GetPublicKey")[-1] == EAST


def test_under_load_no_signature_is_lost_when_a_region_dies(key: AwsKmsKey, kms: FaultyKms) -> None:
    signed: list[int] = []
    lost: list[Exception] = []
    half = threading.Barrier(9)

    def work() -> None:
        for number in range(20):
            if number == 10:
                half.wait(10)
                half.wait(10)
            try:
                signed.append(len(key.sign(b"m")))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a loss
                lost.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    half.wait(10)
    kms.always("*", Hang(), region=EAST)
    half.wait(10)
    for thread in threads:
        thread.join()
    assert lost == []
    assert signed == [256] * 160
