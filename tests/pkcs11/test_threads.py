"""Threads and forks: what crashes a process when the module isn't told about them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.errors import StoreUnavailableError
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.store import Pkcs11Store

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

SCRIPT = Path(__file__).with_name("sign_on_threads.py")


def test_eight_threads_sign_at_once_and_every_signature_verifies(token: TestToken) -> None:
    with open_store(token.uri) as store:
        store.generate("rsa")
        store.generate("ed25519", KeyType.ED25519)
    done = subprocess.run(
        [sys.executable, SCRIPT, token.uri, "250"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109 - the tree under test
    )
    assert (done.returncode, done.stdout) == (0, "2000\n"), done.stderr


def test_the_module_is_initialised_with_locking_and_finalised_by_its_last_user(token: TestToken) -> None:
    first, second = acquire_module(token.module), acquire_module(token.module)
    assert first is second
    assert first.library.locking
    assert first.parallel
    first.release()
    assert first.library.locking
    second.release()
    assert not first.library.owned


def test_generating_beside_finding_and_signing_corrupts_nothing(token: TestToken) -> None:
    with open_store(token.uri) as store:
        signing = store.generate("sign", KeyType.ED25519)
        failures: list[BaseException] = []
        stop = threading.Event()

        def until_stopped(action: object) -> None:
            try:
                while not stop.is_set():
                    action()  # type: ignore[operator]  # a callable of any kind
            except BaseException as error:  # noqa: BLE001 - it is counted
                failures.append(error)

        actions = [lambda: signing.sign(b"m"), store.keys, lambda: store.key("sign")]
        threads = [threading.Thread(target=until_stopped, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        for number in range(20):
            store.generate(f"key-{number}", KeyType.ED25519)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(store.keys()) == 21


def test_a_forked_child_starts_afresh_and_leaves_its_parent_alone(token: TestToken) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        key.sign(b"parent")
        assert isinstance(store, Pkcs11Store)
        inherited = store._connection.pool
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            outcome = b"failed"
            try:
                signature = key.sign(b"child")
                # SoftHSM's handles would have worked in the child; those of other modules hang or break the parent.
                outcome = signature if store._connection.pool is not inherited else b"inherited handles were used"
                store.close()
            finally:
                os.write(writing, outcome)
                os._exit(0)
        os.close(writing)
        signature = os.read(reading, 100)
        os.close(reading)
        assert os.waitpid(child, 0)[1] == 0
        assert verifies(key.public_key(), b"child", signature)
        assert verifies(key.public_key(), b"parent again", key.sign(b"parent again"))


def test_children_forked_while_threads_sign_and_look_start_afresh_too(token: TestToken) -> None:
    with open_store(token.uri) as store:
        store.generate("prod")
    done = subprocess.run(
        [sys.executable, SCRIPT.with_name("fork_while_signing.py"), token.uri, "20"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},  # noqa: PTH109 - the tree under test
    )
    assert (done.returncode, done.stdout) == (0, "20 good, 0 errors in the parent\n"), done.stderr


def test_a_child_forked_while_a_call_never_returns_is_told_so(
    token: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.module._FORK_WAITS_S", 0.05)
    with open_store(token.uri) as store:
        key = store.generate("prod", KeyType.ED25519)
        assert isinstance(store, Pkcs11Store)
        pool = store._connection.pool
        member = pool.take()  # somebody hangs in it
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            try:
                key.sign(b"child")
            except StoreUnavailableError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            assert "forked while a call" in pipe.read()
        os.waitpid(child, 0)
        pool.put(member)
        assert key.sign(b"parent")
