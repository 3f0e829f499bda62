"""Programs that end with a store open, and other code of the process that uses the same module."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pkcs11
import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.stores.pkcs11 import patience
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from tests.support.cli import ROOT
from tests.support.endings import OPEN, SIGNING, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.shim import Shim
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm


@pytest.fixture
def with_key(token: TestToken) -> TestToken:
    with open_store(token.uri) as store:
        store.generate("prod", KeyType.ED25519)
    return token


@pytest.mark.program
@pytest.mark.parametrize(
    "program",
    [OPEN, OPEN + SIGNING, OPEN + SIGNING + "sys.exit(0)", OPEN + "store.close()", OPEN + "store.keys(); del store"],
)
def test_a_program_ends_without_a_word(with_key: TestToken, program: str) -> None:
    done = run(program, with_key.uri)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.program
def test_the_module_is_finalised_when_the_program_ends(with_key: TestToken, shim: Shim, tmp_path: Path) -> None:
    shim.rules(f"log {tmp_path / 'calls'}")
    done = run(OPEN + SIGNING, shim.uri(with_key))
    assert (done.returncode, done.stderr) == (0, "")
    assert shim.calls(tmp_path / "calls")[-1] == "C_Finalize"


@pytest.mark.program
def test_a_function_of_atexit_may_still_sign(with_key: TestToken) -> None:
    last = "import atexit\natexit.register(lambda: print(len(key.sign(b'last'))))\n"
    done = run(last + OPEN + SIGNING, with_key.uri)
    assert (done.returncode, done.stdout) == (0, "64\n"), done.stderr


def test_other_code_that_was_first_keeps_its_sessions_and_its_login(with_key: TestToken) -> None:
    library = pkcs11.lib(with_key.module)
    try:
        theirs = library.get_token(token_label=with_key.label).open(user_pin=with_key.pin)
        with open_store(with_key.uri) as store:
            assert store.key("prod").sign(b"m")
        assert len(list(theirs.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}))) == 1
        theirs.close()
    finally:
        library.finalize()


@pytest.mark.parametrize("how_often", [1, 2])
def test_other_code_that_came_later_keeps_its_sessions(with_key: TestToken, how_often: int) -> None:
    store = open_store(with_key.uri)
    assert isinstance(store, Pkcs11Store)
    connection = store._connection
    theirs = connection.token.open()  # as other code would have it, after its C_Initialize was told that this is done
    for _ in range(how_often):
        store.close()
        assert len(list(theirs.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}))) == 1
        store = open_store(with_key.uri)
    theirs.close()
    assert store.key("prod").sign(b"m")
    store.close()


def test_other_code_keeps_its_session_if_the_module_counts_none_and_opens_no_read_only_one(
    with_key: TestToken, shim: Shim
) -> None:
    shim.rules("token sessions -1", "fail C_OpenSession 0xb7 mode=ro")  # CKR_SESSION_READ_ONLY_EXISTS
    store = open_store(shim.uri(with_key))
    assert isinstance(store, Pkcs11Store)
    theirs = store._connection.token.open(rw=True)
    store.close()
    assert len(list(theirs.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}))) == 1
    theirs.close()
    open_store(shim.uri(with_key)).close()  # which finalises it, for other tests


def test_a_thread_with_a_session_when_the_program_ends_leaves_the_module(
    with_key: TestToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finalises the module waits for it: parked with its session, it would keep the module as it is."""
    with open_store(with_key.uri) as store:
        new = store.generate("new", KeyType.ED25519)
        store.key("prod").sign(b"m")  # opens the session; the other key is still to be looked up in it
        monkeypatch.setattr(patience, "_last_thread", threading.get_ident())
        signatures: list[bytes] = []

        def sign() -> None:
            signatures.append(store._connection.sign(new, b"m", digest=False))  # type: ignore[attr-defined]  # of PKCS#11

        thread = threading.Thread(target=sign, daemon=True)
        thread.start()
        thread.join(20)
        monkeypatch.undo()
        assert [len(signature) for signature in signatures] == [64]


SUB_INTERPRETER = """
import sys
uri, root, how = sys.argv[1:]
code = f"import sys; sys.path.insert(0, {root!r}); uri = {uri!r}; isolated = {how == 'isolated'}" + '''
from hsm_keys import HsmKeysError, open_store
try:
    with open_store(uri, isolated=isolated) as store:
        print(len(store.key("prod").sign(b"m")))
except HsmKeysError as error:
    print(error.code, error)
'''
try:
    import _interpreters
    _interpreters.exec(_interpreters.create("legacy"), code)
except ImportError:
    import _xxsubinterpreters
    _xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=False), code)
"""


@pytest.mark.program
@pytest.mark.parametrize(("how", "said"), [("plain", "store a sub-interpreter of Python"), ("isolated", "64")])
def test_a_sub_interpreter_is_refused_with_the_way_out(with_key: TestToken, how: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SUB_INTERPRETER, with_key.uri, str(ROOT), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith(said), done.stderr
