"""The form in which faults are written."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.sandbox import Fault, FaultKind, Faults, parse_fault
from hsm_keys.sandbox.routes import SERVED

WEBSOCKET = "GET /trade-api/ws/v2"
WEBSOCKETS = {WEBSOCKET, f"{WEBSOCKET}/margin"}
ENDPOINT_NAMES = ["*", *(endpoint.name for endpoint in SERVED)]
VALUES = {FaultKind.LATENCY: st.integers(1, 600_000), FaultKind.STATUS: st.integers(400, 599)}


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    endpoint = draw(st.sampled_from(ENDPOINT_NAMES))
    kinds = [kind for kind in FaultKind if endpoint not in WEBSOCKETS or kind.value not in {"drop-after", "truncate"}]
    kind = draw(st.sampled_from(kinds))
    return Fault(endpoint, kind, draw(VALUES.get(kind, st.none())), draw(st.none() | st.integers(1, 999_999_999)))


@given(faults())
def test_a_written_fault_reads_back(fault: Fault) -> None:
    assert parse_fault(str(fault)) == fault


@given(st.text() | st.lists(st.sampled_from([*ENDPOINT_NAMES, *FaultKind, ":", "=", "1", "500", "x"])).map("".join))
def test_any_text_is_a_fault_or_a_usage_error(text: str) -> None:
    try:
        fault = parse_fault(text)
    except UsageError:
        return
    assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("POST /api_keys:drop-after:1", Fault("POST /api_keys", FaultKind.DROP_AFTER, times=1)),
        ("DELETE /api_keys/{api_key}:drop-before", Fault("DELETE /api_keys/{api_key}", FaultKind.DROP_BEFORE)),
        ("*:latency=200", Fault("*", FaultKind.LATENCY, 200)),
        ("GET /portfolio/balance:status=429:3", Fault("GET /portfolio/balance", FaultKind.STATUS, 429, 3)),
        ("POST /api_keys/generate:truncate", Fault("POST /api_keys/generate", FaultKind.TRUNCATE)),
    ],
)
def test_examples(spec: str, fault: Fault) -> None:
    assert parse_fault(spec) == fault


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "is not a fault"),
        ("POST /api_keys", "is not a fault"),
        ("POST /api_keys:drop-after:1:2", "is not a fault"),
        ("POST /apikeys:drop-after", "is no endpoint"),
        ("post /api_keys:drop-after", "is no endpoint"),
        ("/api_keys:drop-after", "is no endpoint"),
        ("POST /trade-api/v2/api_keys:drop-after", "is no endpoint"),
        ("POST /api_keys:explode", "there is no fault text of 7 characters"),
        ("POST /api_keys:", "there is no fault an empty text"),
        ("POST /api_keys:drop-after=1", "takes no value"),
        ("POST /api_keys:drop-after=0", "takes no value"),
        ("POST /api_keys:drop-after=", "must be a whole number"),
        ("POST /api_keys:status", "takes a value from 400 to 599"),
        ("POST /api_keys:status=399", "takes a value from 400 to 599"),
        ("POST /api_keys:status=600", "takes a value from 400 to 599"),
        ("POST /api_keys:status=teapot", "must be a whole number"),
        ("*:latency=0", "takes a value from 1 to 600000"),
        ("*:latency=600001", "takes a value from 1 to 600000"),
        ("*:latency=-5", "must be a whole number"),
        ("*:latency=1.5", "must be a whole number"),
        ("*:latency=\u0663", "must be a whole number"),
        ("POST /api_keys:drop-after:0", "at least once"),
        ("POST /api_keys:drop-after:", "must be a whole number"),
        ("POST /api_keys:drop-after:often", "must be a whole number"),
        ("POST /api_keys:drop-after:1000000000", "must be a whole number"),
        (f"{WEBSOCKET}:drop-after", "no answer that drop-after could cut"),
    ],
)
def test_what_is_wrong_is_said(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_fault(spec)


def test_an_unknown_endpoint_gets_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault("GET /x:drop-after")
    for name in ENDPOINT_NAMES:
        assert name in caught.value.hint


def test_a_fault_with_a_count_hits_exactly_so_many_requests_on_many_threads() -> None:
    switches = Faults()
    switches.add(Fault("GET /api_keys", FaultKind.STATUS, 500, times=100))
    hits: list[bool] = []

    def take() -> None:
        hits.extend(switches.take("GET /api_keys").fault is not None for _ in range(50))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (hits.count(True), hits.count(False)) == (100, 300)
    assert switches.active == ()
