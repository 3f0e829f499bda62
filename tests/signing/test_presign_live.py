"""Signing ahead with its worker: threads, forks, event loops, a real token and a strict server."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING

import httpx2
import pytest
import requests

from hsm_keys import AsyncKalshiClient, KalshiClient, RequestSigner
from hsm_keys.signing import presign
from hsm_keys.signing.algorithms import verifies
from hsm_keys.signing.environments import environment_name
from hsm_keys.signing.headers import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from hsm_keys.signing.signer import now_ms
from hsm_keys.stores.abilities import RenamesKeys
from tests.support.orders import order_body
from tests.support.presigning import BALANCE, ORDERS, CountingKey
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hsm_keys import KeyStore, StoredKey
    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.signing.presign import PresigningSigner

DRAWS = int(os.environ.get("HSM_KEYS_TEST_DRAWS", "20000"))


def soon(happened: Callable[[], object], what: str) -> None:
    """Wait for what a worker does in its own time."""
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hsm-keys-ahead"]


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    assert workers() == []


def test_threads_that_draw_together_never_get_the_same() -> None:
    key = CountingKey()
    threads, seen, too_old = 4, [Counter[str]() for _ in range(4)], []
    start = threading.Barrier(threads)

    def draw(signer: PresigningSigner, mine: Counter[str]) -> None:
        start.wait(10)
        for number in range(DRAWS // threads):
            before = now_ms()
            headers = signer.headers(*ORDERS)
            mine[headers[SIGNATURE_HEADER]] += 1
            if before - int(headers[TIMESTAMP_HEADER]) > 50:
                too_old.append(headers)
            if number % 50 == 0:
                time.sleep(0.0005)  # the worker needs a turn too

    # Old after 50 ms, so that many grow too old while they are drawn.
    with RequestSigner(key).ahead([ORDERS], depth=200, max_age=0.05, rate=1e6) as signer:
        soon(lambda: signer.stats.in_hand, "the worker makes nothing")
        running = [threading.Thread(target=draw, args=(signer, mine)) for mine in seen]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        stats = signer.stats
    all_seen = sum(seen, Counter())
    assert all_seen.total() == DRAWS // threads * threads
    assert max(all_seen.values()) == 1
    assert too_old == []
    assert stats.taken + stats.missed == all_seen.total()
    assert stats.taken > DRAWS // 20
    made = signer.stats.made + signer.stats.errors  # on a busy machine one may be too old when it is made
    assert made + stats.missed == len(key.messages)  # closed: nothing is on its way any more


def test_a_forgotten_signer_stops_signing() -> None:
    key = CountingKey()
    held = [RequestSigner(key).ahead([ORDERS])]
    soon(lambda: len(key.messages) == 4, "the worker makes nothing")
    (worker,) = workers()
    held.clear()
    worker.join(10)
    assert not worker.is_alive()


def test_closing_waits_for_the_signature_under_way() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert go_on.wait(10)

    key = CountingKey(before=wait)
    signer = RequestSigner(key).ahead([ORDERS])
    assert entered.wait(10)
    closing = threading.Thread(target=signer.close)
    closing.start()
    soon(lambda: signer._closed, "closing doesn't begin")
    assert closing.is_alive()
    go_on.set()
    closing.join(10)
    assert not workers()
    assert (len(key.messages), signer.stats.in_hand) == (1, 0)


def test_without_a_thread_all_is_signed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with RequestSigner(CountingKey()).ahead([ORDERS]) as signer:
        assert signer.headers(*ORDERS)[KEY_HEADER] == "id"


def test_at_exit_every_worker_ends_before_its_library_is_unloaded() -> None:
    signers = [RequestSigner(CountingKey()).ahead([ORDERS]) for _ in range(2)]
    presign._close_all()
    assert workers() == []
    assert all(signer.stats.in_hand == 0 for signer in signers)


def test_signatures_that_hang_at_exit_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, entered = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        entered.release()
        go_on.wait(20)

    waited: list[float] = []
    monkeypatch.setattr(presign, "_open", weakref.WeakSet())  # those of other tests aren't meant
    monkeypatch.setattr(presign.PresigningSigner, "_join", lambda _, seconds: waited.append(seconds))
    clock = iter(range(100, 200, 6))
    signers = [RequestSigner(CountingKey(before=hang)).ahead([ORDERS]) for _ in range(3)]
    for _ in signers:
        assert entered.acquire(timeout=20)
    monkeypatch.setattr("hsm_keys.signing.presign.time.monotonic", lambda: next(clock))
    try:
        presign._close_all()
    finally:
        monkeypatch.undo()
        go_on.set()
    assert waited == [4, 0, 0]
    for signer in signers:
        signer.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_has_nothing_of_its_parent_in_hand() -> None:
    with RequestSigner(CountingKey()).ahead([ORDERS], max_age=3.0) as signer:
        signer.add(*BALANCE, depth=1)
        soon(lambda: signer.stats.in_hand == 5, "the worker makes nothing")
        mine = {entry[0][SIGNATURE_HEADER] for entry in signer._pools.by_route[ORDERS].entries}
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            outcome = b"failed"
            try:
                drawn = [signer.headers(*ORDERS)[SIGNATURE_HEADER]]
                soon(lambda: signer.stats.in_hand == 5, "no worker in the child")
                drawn += [signer.headers(*ORDERS)[SIGNATURE_HEADER] for _ in range(4)]
                outcome = b"inherited" if mine & set(drawn) else b"its own" if signer.stats.taken else b"none"
                signer.close()
            finally:
                os.write(writing, outcome)
                os._exit(0)
        os.close(writing)
        outcome = os.read(reading, 20)
        os.close(reading)
        assert os.waitpid(child, 0)[1] == 0
        assert outcome == b"its own"
        assert len(workers()) == 1
        soon(lambda: signer.stats.in_hand >= 4, "the parent's worker is gone")


def test_headers_in_hand_never_block_a_loop_and_others_are_signed_in_a_thread() -> None:
    signed_in: list[threading.Thread] = []
    key = CountingKey(before=lambda: signed_in.append(threading.current_thread()))

    async def take(signer: PresigningSigner) -> int:
        loop_thread = threading.current_thread()
        for _ in range(4):
            step = signer.aheaders(*ORDERS)
            with pytest.raises(StopIteration):  # it comes to its end without waiting once
                step.send(None)
        taken = signer.stats.taken
        assert (await signer.aheaders(*BALANCE))[KEY_HEADER] == "id"
        assert loop_thread not in signed_in
        return taken

    with RequestSigner(key).ahead([ORDERS], max_age=3.0) as signer:
        soon(lambda: signer.stats.in_hand == 4, "the worker makes nothing")
        assert asyncio.run(take(signer)) == 4


@pytest.fixture
def key(store: KeyStore, sandbox: SandboxServer) -> StoredKey:
    made = store.generate("prod")
    return store.bind(made, sandbox.add_key("prod", made.public_pem()).api_key_id, environment_name(sandbox.base_url))


@pytest.fixture
def signer(key: StoredKey) -> Iterator[PresigningSigner]:
    with key.signer().ahead([ORDERS, BALANCE], depth=3, max_age=3.0) as ahead:
        soon(lambda: ahead.stats.in_hand >= 6, "the worker makes nothing")
        yield ahead


def all_verified(sandbox: SandboxServer, count: int) -> bool:
    return len(sandbox.requests) == count and all(
        seen.verified and seen.status in {200, 201} for seen in sandbox.requests
    )


@pytest.mark.softhsm
def test_openssl_verifies_what_was_made_ahead(signer: PresigningSigner, key: StoredKey, tmp_path: Path) -> None:
    headers = signer.take(*ORDERS)
    assert headers is not None
    message = f"{headers[TIMESTAMP_HEADER]}POST{ORDERS[1]}".encode()
    signature = base64.b64decode(headers[SIGNATURE_HEADER])
    assert openssl_verifies(tmp_path, key.public_pem(), message, signature)
    assert verifies(key.public_key(), message, signature)


@pytest.mark.softhsm
def test_a_client_sends_orders_and_cancels_with_what_is_in_hand(
    signer: PresigningSigner, sandbox: SandboxServer
) -> None:
    with KalshiClient(signer) as client:
        first = client.request("POST", "/portfolio/events/orders", json=order_body(client_order_id="1")).json()
        client.request("POST", "/portfolio/events/orders", json=order_body(client_order_id="2", count="7"))
        client.request("GET", "/portfolio/balance", params={"subaccount": "0"})
        cancel = "DELETE", f"/trade-api/v2/portfolio/events/orders/{first['order_id']}"
        signer.add(*cancel, depth=1)
        soon(lambda: signer._pools.by_route[cancel].entries, "the worker makes nothing for the new route")
        client.request(*cancel)
        signer.discard(*cancel)
    assert all_verified(sandbox, 4)
    assert (signer.stats.taken, signer.stats.missed) == (4, 0)


@pytest.mark.softhsm
def test_every_client_takes_it_for_a_signer(signer: PresigningSigner, sandbox: SandboxServer) -> None:
    auth = signer.auth()
    url = f"{sandbox.base_url}/portfolio/balance"

    async def by_async_clients() -> None:
        async with httpx2.AsyncClient(auth=auth) as http:
            assert (await http.get(url)).status_code == 200
        async with AsyncKalshiClient(signer) as client:
            assert (await client.request("GET", "/portfolio/balance")).status_code == 200

    with requests.Session() as session:
        session.auth = auth
        assert session.get(url, timeout=10).status_code == 200
    with httpx2.Client(auth=auth) as http:
        assert http.get(url).status_code == 200
    before = signer.stats
    soon(lambda: signer.stats.in_hand >= 5, "the worker refills nothing")
    asyncio.run(by_async_clients())
    assert all_verified(sandbox, 4)
    assert before.taken == 2
    assert (signer.stats.taken, signer.stats.missed) == (4, 0)
    assert len({seen.timestamp for seen in sandbox.requests}) == 4


@pytest.mark.softhsm
def test_a_key_that_was_rotated_away_costs_no_request(
    signer: PresigningSigner, store: KeyStore, sandbox: SandboxServer
) -> None:
    old = signer.api_key_id
    RenamesKeys.of(store).rename(store.key("prod"), "prod+retired")
    successor = store.generate("prod")
    successor_id = sandbox.add_key("prod 2", successor.public_pem()).api_key_id
    store.bind(successor, successor_id, environment_name(sandbox.base_url))
    assert sandbox.state.delete_key(old)
    with KalshiClient(signer) as client:  # what is in hand is refused, looked up, and signed with the new key
        assert client.request("GET", "/portfolio/balance").status_code == 200
        assert client.request("GET", "/portfolio/balance").status_code == 200
    good = [seen.api_key_id for seen in sandbox.requests if seen.verified]
    assert good == [successor_id] * 2
    assert len(sandbox.requests) <= 3  # one refusal at most, and none if the worker was the first to find out
    assert signer.api_key_id == successor_id


@pytest.mark.softhsm
def test_a_store_that_is_closed_first_only_ends_signing_ahead(key: StoredKey, store: KeyStore) -> None:
    with key.signer().ahead([ORDERS], max_age=0.05) as signer:
        soon(lambda: signer.stats.in_hand, "the worker makes nothing")
        store.close()
        # On a busy machine the error before it is that a signature took longer than max_age.
        soon(lambda: "closed" in str(signer.stats.error), "the worker signs with a closed store")
