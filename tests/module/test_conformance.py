"""What every PKCS#11 module has to be able to do: through the store as programs use it, judged by others' code.

Parts that a module openly doesn't offer (Ed25519, say) are skipped and say so; docs/modules.md has the table.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pkcs11 import MGF, Mechanism
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys import KeyType, open_store
from hsm_keys.errors import (
    CustodyError,
    KeyAmbiguousError,
    KeyExistsError,
    KeyNotFoundError,
    PinError,
    PinIncorrectError,
    StoreError,
    StoreUnavailableError,
)
from hsm_keys.inspecting.custody import prove_custody
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.pins import PinWanted, resolve_pin
from hsm_keys.stores.pkcs11.attributes import Mapper
from hsm_keys.stores.pkcs11.key_pairs import make_pair
from hsm_keys.stores.pkcs11.marks import minted_id, passing_id
from hsm_keys.stores.pkcs11.module import acquire_module
from hsm_keys.stores.pkcs11.objects import Objects
from hsm_keys.stores.pkcs11.store import Pkcs11Key, Pkcs11Store
from hsm_keys.stores.pkcs11.tokens import find_token
from hsm_keys.stores.uri import Pkcs11Uri
from tests.module.conftest import KNOWN, NAMED
from tests.support import endings
from tests.support.load import Load
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from hsm_keys import KeyStore, StoredKey
    from tests.module.conftest import Subject

pytestmark = [pytest.mark.module, pytest.mark.timeout(0 if "HSM_KEYS_TEST_SIGNATURES" in os.environ else 300)]

API_KEY_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEYS = int(os.environ.get("HSM_KEYS_TEST_KEYS", "30"))
SIGNATURES = int(os.environ.get("HSM_KEYS_TEST_SIGNATURES", "4000"))
SESSIONS = int(os.environ.get("HSM_KEYS_TEST_SESSIONS", "100"))
NOISE = 64  # bytes a signature: less in a short loop is no leak of the module's
WARMING_UP = max(1, SIGNATURES // 10)
SLOW = "HSM_KEYS_TEST_SIGNATURES" in os.environ


def quick_type(subject: Subject) -> KeyType:
    """Return the type that is made fastest."""
    return KeyType.ED25519 if "Ed25519" in subject.state().makes else KeyType.RSA_2048


def made(subject: Subject, store: KeyStore, name: str, key_type: KeyType) -> StoredKey:
    """Make a key; skip what the module doesn't offer, and only that."""
    kind = "Ed25519" if key_type is KeyType.ED25519 else "RSA"
    if kind not in subject.state().makes:
        with pytest.raises(StoreError):
            store.generate(name, key_type)
        pytest.skip(f"the module offers no {kind} keys, and the error says so")
    return store.generate(name, key_type)


@pytest.mark.usefixtures("makes_keys")
@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
def test_a_key_is_in_custody_and_signs(
    subject: Subject, store: KeyStore, name: str, key_type: KeyType, tmp_path: Path
) -> None:
    key = made(subject, store, name, key_type)
    if not subject.custody:
        with pytest.raises(CustodyError):
            prove_custody(key)
        pytest.skip("this token gives its keys away, and the error says so")
    report = prove_custody(key)
    assert report.verdict == "in custody"
    assert not report.as_dict()["private_half_readable"]
    for message in (b"m", b"1700000000000GET/trade-api/v2/portfolio/balance", b"x" * 3000):
        assert openssl_verifies(tmp_path, key.public_pem(), message, key.sign(message))  # PSS: salt of 32 exactly
    assert store.key(name).public_key() == key.public_key()
    store.destroy(key)
    with pytest.raises(KeyNotFoundError):
        store.key(name)


@pytest.mark.usefixtures("makes_keys")
@pytest.mark.parametrize("key_type", [KeyType.RSA_3072, KeyType.RSA_4096])
def test_larger_keys_are_made_or_refused_before_anything_is_left(
    subject: Subject, store: KeyStore, name: str, key_type: KeyType, tmp_path: Path
) -> None:
    try:
        key = store.generate(name, key_type)
    except StoreError as refused:
        with pytest.raises(KeyNotFoundError):
            store.key(name)
        pytest.skip(f"the module makes no {key_type} keys: {refused.message}")
    assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))


def test_a_key_signs_what_others_verify(key: StoredKey, tmp_path: Path) -> None:
    for message in (b"m", b"1700000000000GET/trade-api/v2/portfolio/balance", b"x" * 3000):
        assert openssl_verifies(tmp_path, key.public_pem(), message, key.sign(message))


def test_eight_threads_sign_at_once(key: StoredKey) -> None:
    with Load(key, 8) as load:
        load.signs(min(2000, SIGNATURES), 7200 if SLOW else 120)
    assert (load.bad, load.wrong, load.errors) == (0, [], {})


@pytest.mark.usefixtures("makes_keys")
def test_a_label_and_an_id_that_another_process_sees(subject: Subject, store: KeyStore, name: str) -> None:
    key = store.generate(name, quick_type(subject))
    try:
        bound = store.bind(key, API_KEY_ID, "prod")
        renamed = RenamesKeys.of(store).rename(bound, f"{name}-new")
    except StoreError as refused:
        assert store.key(name).sign(b"m")
        if "doesn't let" not in refused.message:
            raise
        pytest.skip(refused.message)
    assert renamed.sign(b"m")
    assert key.sign(b"m")  # a program that has it open signs on
    script = (
        "import sys; from hsm_keys import open_store\n"
        "with open_store(sys.argv[1]) as store: print(store.key(sys.argv[2]).api_key_id)"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script, subject.uri, f"{name}-new"], check=True, capture_output=True, text=True
    )
    assert seen.stdout.strip() == API_KEY_ID
    with pytest.raises(KeyNotFoundError):
        store.key(name)


@pytest.mark.usefixtures("makes_keys")
def test_duplicates(subject: Subject, store: KeyStore, name: str) -> None:
    key_type = quick_type(subject)
    store.generate(name, key_type)
    with pytest.raises(KeyExistsError):
        store.generate(name, key_type)
    assert isinstance(store, Pkcs11Store)
    with store.managing("make a second key of that label") as objects:
        mark = passing_id()
        _, public_key = make_pair(objects, name, key_type, mark)
        for each in list(objects.find({Attribute.ID: mark})):  # it is whole: one that is being made would be left out
            each[Attribute.ID] = minted_id(public_key)
    with pytest.raises(KeyAmbiguousError, match="2 private keys"):
        store.key(name)


def test_a_wrong_pin_is_tried_once(subject: Subject, tmp_path: Path) -> None:
    if not subject.wrong_pins:
        pytest.skip("a try of the PIN may be wasted only with HSM_KEYS_TEST_WRONG_PINS=yes")
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("0000wron\n")
    uri = str(replace(Pkcs11Uri.parse(subject.uri), pin_source=None, pin_value=None))
    with pytest.raises(PinIncorrectError) as caught:
        open_store(uri, pin_file=wrong)
    assert "0000wron" not in f"{caught.value!r} {caught.value.hint}"
    with pytest.raises(PinError, match=r"not tried again|nothing was tried"):
        open_store(uri, pin_file=wrong)
    with open_store(subject.uri) as opened:  # the right one clears the counter, where there is one
        opened.keys()
    assert subject.state().pin == "ok"


def test_gone_and_back(subject: Subject, key: StoredKey) -> None:
    if subject.stop is None or subject.start is None:
        pytest.skip("HSM_KEYS_TEST_STOP and HSM_KEYS_TEST_START don't say how the back-end is stopped and started")
    took = []
    begun = time.monotonic()
    with open_store(subject.uri) as other:
        assert other.key(key.name).sign(b"m")
    opening = time.monotonic() - begun  # some tokens take their time over it, whoever asks
    with Load(key) as load:
        for _ in range(2):
            load.signs(within_s=120)
            subject.stop()
            # A software token in the process may need its daemon only to begin with, and sign on without.
            load.fails_or_signs_on(1.0)
            subject.start()
            returned = time.monotonic()
            took.append(load.signs(within_s=120) - returned)
    assert max(took) < 1.0 + opening, (took, opening)
    assert (load.bad, load.wrong) == (0, [])
    with open_store(subject.uri) as again:
        assert again.key(key.name).sign(b"m")
    print(f"signs again after {max(took):.2f} s; meanwhile {dict(load.errors)}")  # noqa: T201 - with pytest -rP


def test_a_forked_child_signs_and_the_parent_signs_on(key: StoredKey) -> None:
    key.sign(b"before")
    heard, telling = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(telling, b"+" + key.sign(b"child"))
        except StoreUnavailableError as error:
            os.write(telling, b"-" + str(error).encode())
        finally:
            os._exit(0)
    os.close(telling)
    with os.fdopen(heard, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert verifies(key.public_key(), b"parent", key.sign(b"parent"))
    if said.startswith(b"-") and NAMED not in KNOWN:
        pytest.skip(f"the module doesn't begin anew in a child, and the error says so: {said[1:].decode()}")
    assert said.startswith(b"+"), said
    assert verifies(key.public_key(), b"child", said[1:])


def test_other_code_of_the_process_keeps_its_session_when_the_store_is_closed(subject: Subject, key: StoredKey) -> None:
    with open_store(subject.uri) as opened:
        assert isinstance(opened, Pkcs11Store)
        theirs = opened._connection.token.open()  # as other code has it: its C_Initialize was told it is done
    key.sign(b"m")  # of another store, which is closed now, too
    key._store.close()  # type: ignore[attr-defined]  # of a token's key
    try:
        assert list(theirs.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})) or subject.existing
    finally:
        theirs.close()


def test_a_program_ends_without_a_word_while_its_threads_sign(subject: Subject, key: StoredKey) -> None:
    for _ in range(2):
        done = endings.run(endings.OPEN + endings.SIGNING, subject.uri, key.name)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr  # some modules have words of their own for stderr
        assert not re.search("Traceback|Exception|Fatal|hsm_keys", done.stderr)


@pytest.mark.usefixtures("makes_keys")
def test_many_keys(subject: Subject, store: KeyStore, name: str) -> None:
    key_type = quick_type(subject)
    keys = {f"{name}-{number}": store.generate(f"{name}-{number}", key_type) for number in range(KEYS)}
    assert {key.name for key in store.keys()} >= set(keys)
    for number in (0, KEYS // 2, KEYS - 1):
        there = store.key(f"{name}-{number}")
        assert there.public_key() == keys[f"{name}-{number}"].public_key()
        assert verifies(there.public_key(), b"m", there.sign(b"m"))


def memory() -> int:
    """Return the resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(sign: object, count: int) -> int:
    """Return by how many bytes the process grows over so many signatures on two threads."""
    assert callable(sign)

    def work() -> None:
        for number in range(count // 2):
            sign(f"message {number}".encode())

    before = memory()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return memory() - before


def test_many_signatures_need_no_more_memory(subject: Subject, store: KeyStore, name: str) -> None:
    key = store.key(subject.existing) if subject.existing else store.generate(name, quick_type(subject))
    growth(key.sign, WARMING_UP)
    grown = growth(key.sign, SIGNATURES)
    assert isinstance(store, Pkcs11Store)
    assert isinstance(key, Pkcs11Key)
    with store.raw(key) as raw:
        lock = threading.Lock()

        def sign(message: bytes) -> None:
            with lock:  # one session
                raw(message)

        count = max(min(4000, SIGNATURES), SIGNATURES // 50)  # long enough that a stray page doesn't count
        growth(sign, WARMING_UP)
        leak = growth(sign, count) / count
    print(f"{grown / SIGNATURES:.0f} bytes a signature; the module's own C_Sign: {leak:.0f}")  # noqa: T201
    assert grown < 4 * 1024 * 1024 + (1.25 * leak * SIGNATURES if leak > NOISE else 0)


def test_many_logins_need_no_more_memory(subject: Subject, store: KeyStore, name: str) -> None:
    if subject.existing:
        name = subject.existing
    else:
        store.generate(name, quick_type(subject))
    store.close()

    def open_and_sign(count: int) -> None:
        for _ in range(count):
            with open_store(subject.uri) as opened:
                opened.key(name).sign(b"m")

    open_and_sign(min(30, SESSIONS))
    before = memory()
    open_and_sign(SESSIONS)
    grown = memory() - before
    bare = bare_leak(subject, name)
    print(f"{grown / SESSIONS:.0f} bytes an opening; the module's own for one session: {bare:.0f}")  # noqa: T201
    assert grown < 4 * 1024 * 1024 + (1024 + 4 * bare) * SESSIONS


def bare_leak(subject: Subject, name: str) -> float:
    """Return by how many bytes the process grows for each initialisation with a login and a signature, storeless."""
    uri = Pkcs11Uri.parse(subject.uri)
    module = acquire_module(str(uri.module_path))
    pin = resolve_pin(PinWanted("the token under test"), pin_file=None, uri=uri, ask=None)

    how: dict[str, Any] = {"mechanism": Mechanism.EDDSA}
    if quick_type(subject) is not KeyType.ED25519:
        digest_first = Mechanism.SHA256_RSA_PKCS_PSS not in find_token(module, uri).token.slot.get_mechanisms()
        mechanism = Mechanism.RSA_PKCS_PSS if digest_first else Mechanism.SHA256_RSA_PKCS_PSS
        how = {"mechanism": mechanism, "mechanism_param": (Mechanism.SHA256, MGF.SHA256, 32)}
    message = b"m" * 32

    def cycle(count: int) -> None:
        for _ in range(count):
            module.library.finalize()
            module.library.initialize()
            session = find_token(module, uri).token.open(
                rw=True, user_pin=pin and pin.reveal(), attribute_mapper=Mapper()
            )
            objects = Objects(session, lambda private, text: bytes(private.sign(text, **how)))
            objects.pairs()
            (private,) = objects.private_keys(name)
            private.sign(message, **how)

    try:
        count = min(50, SESSIONS)
        cycle(min(10, SESSIONS))
        before = memory()
        cycle(count)
        return max(0, memory() - before) / count
    finally:
        module.library.finalize()  # with the sessions that were left open
        module.release()
