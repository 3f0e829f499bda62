"""A back-end that goes away and comes back: signing goes on by itself, with the right key, and no PIN is wasted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from pkcs11 import exceptions as ckr

from hsm_keys import open_store
from hsm_keys.errors import KeyNotFoundError, PinIncorrectError, StoreError, StoreUnavailableError
from hsm_keys.signing.algorithms import KeyType, verifies
from hsm_keys.stores.pkcs11 import login as login_module
from hsm_keys.stores.pkcs11 import restart as restart_module
from hsm_keys.stores.pkcs11.restart import restart
from tests.support import p11kit
from tests.support.load import Load
from tests.support.oddkeys import session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = pytest.mark.softhsm

WITHIN_S = 1.0
"""Signing again after the module's return. It takes some 0.2 s; the limit is what is promised."""


@pytest.fixture
def served(
    token: TestToken, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[p11kit.P11KitServer]:
    lacking = p11kit.missing()
    if lacking is not None:
        pytest.skip(f"p11-kit is needed: {lacking}")
    # The client module reads the address once a process: so it is the same for all tests of one.
    with p11kit.P11KitServer(token, tmp_path_factory.getbasetemp() / "p11-kit.socket") as server:
        monkeypatch.setenv("P11_KIT_SERVER_ADDRESS", server.address)
        yield server


def go_and_come_back(load: Load, go: Callable[[], object], come_back: Callable[[], object]) -> float:
    """Return how long signing took to go on after the return, in seconds."""
    load.signs()
    go()
    load.fails()
    before = load.errors.total()
    load.wait_for(lambda load: load.errors.total() > before + 100)  # meanwhile every request fails, and at once
    come_back()
    returned = time.monotonic()
    return load.signs() - returned


def check(load: Load, took: list[float]) -> None:
    assert max(took) < WITHIN_S, took
    assert load.bad == 0
    assert load.wrong == []
    assert set(load.errors) <= {"store_unavailable", "store_not_found"}


def test_a_token_directory_that_is_moved_away_and_back(token: TestToken, softhsm: SoftHsm) -> None:
    away = softhsm.tokens.with_name("away")
    with open_store(token.uri) as store, Load(store.generate("prod", KeyType.ED25519)) as load:
        took = [
            go_and_come_back(load, lambda: softhsm.tokens.rename(away), lambda: away.rename(softhsm.tokens))
            for _ in range(3)
        ]
    check(load, took)


def test_a_server_that_is_killed_and_started_again(served: p11kit.P11KitServer) -> None:
    with open_store(served.uri) as store, Load(store.generate("prod")) as load:
        took = [go_and_come_back(load, served.kill, served.start) for _ in range(3)]
        assert store.key("prod").sign(b"m")
    check(load, took)


def test_a_server_that_hangs_holds_up_one_thread_and_goes_on(
    served: p11kit.P11KitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.pool.PATIENCE_S", 0.2)
    monkeypatch.setattr("hsm_keys.stores.pkcs11.patience.PATIENCE_S", 0.2)
    with open_store(served.uri) as store, Load(store.generate("prod"), 4) as load:
        load.signs()
        served.hang()
        for _ in range(6):  # all but the one inside, twice
            load.fails()
        with pytest.raises(StoreUnavailableError):
            store.keys()
        served.go_on()
        continued = time.monotonic()
        took = load.signs() - continued
    check(load, [took])
    assert set(load.errors) == {"store_unavailable"}


def test_listing_works_again_too(served: p11kit.P11KitServer) -> None:
    with open_store(served.uri) as store:
        store.generate("prod")
        served.kill()
        with pytest.raises(StoreError):
            store.keys()
        served.start()
        deadline = time.monotonic() + 5
        while True:
            try:
                assert [key.name for key in store.keys()] == ["prod"]
                break
            except StoreError:
                assert time.monotonic() < deadline
        assert store.key("prod").attributes()["sensitive"] is True


def test_all_stores_of_a_module_go_on(softhsm: SoftHsm) -> None:
    tokens = [softhsm.init_token(label) for label in ("one", "two")]
    with open_store(tokens[0].uri) as one, open_store(tokens[1].uri) as two:
        keys = [store.generate("prod", KeyType.ED25519) for store in (one, two)]
        with Load(keys[0], 2) as first, Load(keys[1], 2) as second:
            first.signs()
            second.signs()
            module = one._connection.module  # type: ignore[attr-defined]  # of PKCS#11
            for _ in range(5):
                module.rests_until = 0.0
                restart(module, module.epoch)
                first.signs()
                second.signs()
    for load in (first, second):
        assert (load.bad, load.wrong, load.errors) == (0, [], {})


def test_stores_are_opened_and_closed_while_the_module_is_brought_back(softhsm: SoftHsm) -> None:
    tokens = [softhsm.init_token(label) for label in ("one", "two")]
    over, failures = threading.Event(), list[BaseException]()

    def open_and_close() -> None:
        while not over.is_set():
            try:
                with open_store(tokens[1].uri) as store:
                    store.keys()
            except StoreError:
                pass
            except BaseException as error:  # noqa: BLE001 - it is looked at
                failures.append(error)

    with open_store(tokens[0].uri) as store:
        module = store._connection.module  # type: ignore[attr-defined]  # of PKCS#11
        threads = [threading.Thread(target=open_and_close, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        for _ in range(40):
            module.rests_until = 0.0
            restart(module, module.epoch)
            assert time.monotonic() < deadline
        over.set()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert store.keys() == []
    assert failures == []


def test_those_who_wait_while_a_call_never_returns_fail_and_dont_queue_up(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart_module, "_DRAINED_S", 0.4)
    monkeypatch.setattr(restart_module, "_REST_S", 60.0)
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        connection = store._connection  # type: ignore[attr-defined]  # of PKCS#11
        member = connection.pool.take()  # somebody hangs in it
        waits: list[float] = []
        rest = connection.module.rest
        failures: list[str] = []

        def counted_rest(until: float, *, for_good: bool = False) -> bool:
            waits.append(until)
            return bool(rest(until, for_good=for_good))

        monkeypatch.setattr(connection.module, "rest", counted_rest)

        def try_it() -> None:
            with pytest.raises(StoreUnavailableError) as caught:
                restart(connection.module, connection.module.epoch)
            failures.append(caught.value.message)

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(failures) == 8
        assert len(waits) == 1  # the other seven know from the first that it is no use
        connection.pool.put(member)
        connection.module.rests_until = 0.0
        assert key.sign(b"m")  # back by itself, once the call has returned


def test_a_store_closes_while_a_call_never_returns_and_leaves_the_module_alone(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.pool._CLOSING_S", 0.05)
    monkeypatch.setattr("hsm_keys.stores.pkcs11.module._AT_REST_S", 0.05)
    store = open_store(token.uri)
    store.generate("prod", KeyType.ED25519).sign(b"m")
    connection = store._connection  # type: ignore[attr-defined]  # of PKCS#11
    member = connection.pool.take()  # somebody hangs in it
    store.close()
    assert connection.module.library.owned  # not finalised: whoever hangs would go on in freed memory
    connection.pool.put(member)
    with open_store(token.uri) as again:
        assert again.key("prod").sign(b"m")
        assert again._connection.module is connection.module  # type: ignore[attr-defined]  # of PKCS#11
    assert not connection.module.library.owned


def test_closing_waits_for_the_signatures_of_other_threads(token: TestToken) -> None:
    for _ in range(10):
        store = open_store(token.uri)
        key = store.keys()[0] if store.keys() else store.generate("prod", KeyType.ED25519)
        with Load(key, 4) as load:
            load.signs()
            store.close()
            load.fails()
        assert (load.bad, load.wrong, set(load.errors)) == (0, [], {"store_unavailable"})


def test_it_restarts_one_at_a_time_and_not_too_often(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(token.uri) as store:
        store.generate("prod", KeyType.ED25519)
        module: Any = store._connection.module  # type: ignore[attr-defined]  # of PKCS#11
        count = []
        monkeypatch.setattr(restart_module, "_restart", lambda _: count.append(1))
        outcomes: list[str] = []

        def try_it() -> None:
            try:
                restart(module, module.epoch)
                outcomes.append("done")
            except StoreUnavailableError:
                outcomes.append("refused")

        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(count) == 1
        assert sorted(outcomes) == ["done"] + ["refused"] * 7


def test_after_a_refused_pin_it_never_logs_in_again(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        key.sign(b"m")
        tried = []

        def refuse(*_: object) -> None:
            tried.append(1)
            raise PinIncorrectError("the token refused the PIN")

        monkeypatch.setattr(login_module.Login, "_present", refuse)
        module = store._connection.module  # type: ignore[attr-defined]  # of PKCS#11
        restart(module, module.epoch)
        for _ in range(3):
            module.rests_until = 0.0
            with pytest.raises(PinIncorrectError):
                key.sign(b"m")
    assert len(tried) == 1


def test_another_key_of_the_same_name_is_not_taken_for_the_one_that_was_there(token: TestToken) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        key.sign(b"m")
        store.destroy(key)
        store.generate("prod", KeyType.ED25519)
        module = store._connection.module  # type: ignore[attr-defined]  # of PKCS#11
        restart(module, module.epoch)
        with pytest.raises(KeyNotFoundError):
            key.sign(b"m")


def test_the_first_signature_after_a_return_is_verified_again(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []

    def verified(*arguments: object, **keywords: object) -> bool:
        checked.append(1)
        return verifies(*arguments, **keywords)  # type: ignore[arg-type]

    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        monkeypatch.setattr("hsm_keys.stores.pkcs11.key.verifies", verified)
        for _ in range(3):
            key.sign(b"m")
        assert len(checked) == 1
        module = store._connection.module  # type: ignore[attr-defined]  # of PKCS#11
        restart(module, module.epoch)
        for _ in range(3):
            key.sign(b"m")
        assert len(checked) == 2


def test_a_module_that_is_in_a_call_is_not_finalised(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_module, "_DRAINED_S", 0.05)
    with open_store(token.uri) as store:
        store.generate("prod", KeyType.ED25519).sign(b"m")
        connection = store._connection  # type: ignore[attr-defined]  # of PKCS#11
        member = connection.pool.take()
        with pytest.raises(StoreUnavailableError, match="doesn't return"):
            restart(connection.module, connection.module.epoch)
        assert list(session_of(store).get_objects())  # it still is what it was
        connection.pool.put(member)


@pytest.mark.parametrize("answer", [ckr.DeviceError, ckr.GeneralError, ckr.SessionHandleInvalid])
def test_one_retry_and_no_more(
    token: TestToken, monkeypatch: pytest.MonkeyPatch, answer: type[ckr.PKCS11Error]
) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        asked = []

        def broken(*_: object, **__: object) -> bytes:
            asked.append(1)
            raise answer

        monkeypatch.setattr("hsm_keys.stores.pkcs11.token_connection.TokenConnection.sign", broken)
        with pytest.raises(StoreUnavailableError):
            key.sign(b"m")
    assert len(asked) == 2


def test_a_refusal_is_not_taken_for_a_loss(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        epoch = store._connection.module.epoch  # type: ignore[attr-defined]  # of PKCS#11

        def refused(*_: object, **__: object) -> bytes:
            raise ckr.MechanismInvalid

        monkeypatch.setattr("hsm_keys.stores.pkcs11.token_connection.TokenConnection.sign", refused)
        with pytest.raises(StoreError):
            key.sign(b"m")
        assert store._connection.module.epoch == epoch  # type: ignore[attr-defined]  # of PKCS#11
