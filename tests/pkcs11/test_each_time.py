"""Keys that want a login for each signature (CKA_ALWAYS_AUTHENTICATE), and logins that others end."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.errors import PinIncorrectError, PinMissingError, StoreError
from hsm_keys.signing.algorithms import verifies
from hsm_keys.stores.pkcs11.cryptoki import CKU_CONTEXT_SPECIFIC, Functions
from hsm_keys.stores.pkcs11.store import Pkcs11Key, Pkcs11Store
from tests.support.cli import run_cli
from tests.support.load import Load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.shim import Shim
    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.softhsm

TYPES = {"rsa-2048": "rsa:2048", "ed25519": "EC:edwards25519"}


@pytest.fixture(params=TYPES)
def always(request: pytest.FixtureRequest, token: TestToken) -> TestToken:
    """A token with a key ``each`` that wants a login for each signature."""
    how = ("--id", "01", "--label", "each", "--always-auth")
    pkcs11_tool(token, "--keypairgen", "--key-type", TYPES[request.param], *how)
    return token


def pkcs11_tool(token: TestToken, *arguments: str) -> None:
    command = ["pkcs11-tool", "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


@pytest.fixture
def store(always: TestToken) -> Iterator[Pkcs11Store]:
    with open_store(always.uri) as opened:
        assert isinstance(opened, Pkcs11Store)
        yield opened


def test_it_signs_without_a_restart_and_says_what_it_costs(store: Pkcs11Store) -> None:
    key = store.key("each")
    epoch = store._connection.module.epoch
    for number in range(3):
        message = b"%d" % number
        assert verifies(key.public_key(), message, key.sign(message))
    assert store._connection.module.epoch == epoch
    assert key.attributes()["always_authenticate"] is True


def test_it_signs_on_many_threads(store: Pkcs11Store) -> None:
    with Load(store.key("each"), 4) as load:
        load.signs(100)
    assert (load.bad, load.wrong, load.errors) == (0, [], {})


def test_it_signs_ahead(store: Pkcs11Store) -> None:
    path = "/trade-api/v2/portfolio/balance"
    signer = store.key("each").signer(api_key_id="0f8fad5b-d9cb-469f-a165-70867728950e")
    with signer.ahead(routes=[("GET", path)]) as ahead:
        assert ahead.headers("GET", path)


@pytest.mark.program
def test_show_doctor_and_bench_say_what_it_costs(always: TestToken) -> None:
    nowhere = {"HSM_KEYS_STORE": always.uri, "KALSHI_API_BASE_URL": "http://127.0.0.1:9/trade-api/v2"}
    for command in ("show each", "doctor", "bench --name each --seconds 0.1 --threads 1"):
        done = run_cli(*command.split(), **nowhere)
        assert "two PKCS#11 calls more" in done.stdout + done.stderr, done.stderr


def test_it_signs_in_a_process_of_its_own(always: TestToken) -> None:
    with open_store(always.uri, isolated=True) as store:
        key = store.key("each")
        for _ in range(2):
            assert verifies(key.public_key(), b"m", key.sign(b"m"))


def test_a_changed_pin_is_tried_once_by_all_threads_together(
    always: TestToken, store: Pkcs11Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = store.key("each")
    key.sign(b"m")
    pkcs11_tool(always, "--change-pin", "--new-pin", "another-pin-4711")
    tried: list[int] = []
    real = Functions.login

    def login(self: Functions, session: int, user: int, pin: object) -> int:
        tried.append(user)
        return 0xA0 if user == CKU_CONTEXT_SPECIFIC else real(self, session, user, pin)  # type: ignore[arg-type]

    monkeypatch.setattr(Functions, "login", login)
    with Load(key, 4) as load:
        for _ in range(8):
            load.fails()
    assert set(load.errors) == {"pin_incorrect"}
    assert tried == [CKU_CONTEXT_SPECIFIC]
    with pytest.raises(PinIncorrectError) as caught:
        key.sign(b"m")
    assert caught.value.exit_code == 4


def test_a_store_that_was_opened_without_a_pin_says_that_it_wants_one(always: TestToken, store: Pkcs11Store) -> None:
    with open_store(always.uri_without_pin) as second, pytest.raises(PinMissingError):
        second.key("each").sign(b"m")
    assert store.key("each").sign(b"m")


def test_a_key_that_does_not_say_so_is_found_out(always: TestToken, shim: Shim) -> None:
    shim.rules("attribute 0x202 none")  # CKA_ALWAYS_AUTHENTICATE
    with open_store(shim.uri(always)) as store:
        key = store.key("each")
        for _ in range(2):
            assert verifies(key.public_key(), b"m", key.sign(b"m"))


def test_a_module_that_wants_a_login_for_ever_is_no_loss_of_the_back_end(token: TestToken, shim: Shim) -> None:
    with open_store(shim.uri(token)) as store:
        assert isinstance(store, Pkcs11Store)
        key = store.generate("prod", KeyType.ED25519)
        epoch = store._connection.module.epoch
        shim.rules("fail C_SignInit 0x101")
        with pytest.raises(StoreError, match="UserNotLoggedIn"):
            key.sign(b"m")
        assert store._connection.module.epoch == epoch


def test_a_login_that_other_code_ended_is_made_again_without_a_restart(token: TestToken) -> None:
    with open_store(token.uri) as store:
        assert isinstance(store, Pkcs11Store)
        key = store.generate("prod", KeyType.ED25519)
        key.sign(b"m")
        connection = store._connection
        epoch = connection.module.epoch
        for use in (lambda: key.sign(b"m"), store.keys, lambda: store.generate("new", KeyType.ED25519)):
            connection.module.library.functions.logout(connection.login.session.handle)
            assert use()
        assert connection.module.epoch == epoch
        assert [one.name for one in store.keys()] == ["new", "prod"]


@pytest.mark.parametrize("what", ["generate", "bind", "rename", "destroy", "mend"])
def test_after_a_session_that_was_closed_keys_are_made_and_changed_as_well(token: TestToken, what: str) -> None:
    with open_store(token.uri) as store:
        assert isinstance(store, Pkcs11Store)
        key = store.generate("prod", KeyType.ED25519)
        connection = store._connection
        connection.module.library.functions.close_session(connection.login.session.handle)
        if what == "generate":
            store.generate("new", KeyType.ED25519)
        elif what == "bind":
            assert store.bind(key, "0f8fad5b-d9cb-469f-a165-70867728950e", "prod").api_key_id
        elif what == "rename":
            assert store.rename(key, "new").name == "new"
        elif what == "destroy":
            store.destroy(key)
        else:
            store.mend("prod")
        assert len(store.keys()) == {"generate": 2, "destroy": 0}.get(what, 1)


def test_a_signature_takes_two_calls(token: TestToken, shim: Shim, tmp_path: Path) -> None:
    with open_store(shim.uri(token)) as store:
        keys = [store.generate(kind, KeyType(kind)) for kind in ("rsa-2048", "ed25519")]
        for key in keys:
            key.sign(b"m")
        shim.rules(f"log {tmp_path / 'calls'}")
        for key in keys:
            key.sign(b"m")
        assert shim.calls(tmp_path / "calls") == ["C_SignInit", "C_Sign"] * 2


def test_an_answer_that_wants_more_room_gets_it_once(token: TestToken) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod")
        assert isinstance(key, Pkcs11Key)
        for length in (1, 255):
            short = Pkcs11Key.__new__(Pkcs11Key)
            short.__dict__.update({**vars(key), "signature_length": length})
            assert isinstance(store, Pkcs11Store)
            with store.raw(short) as sign:
                assert verifies(key.public_key(), b"m", sign(b"m"))
                assert verifies(key.public_key(), b"n", sign(b"n"))
