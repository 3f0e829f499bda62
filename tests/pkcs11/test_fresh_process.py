"""A look at a token by a process that has just begun: what it finds, what it shows, and what it survives."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.stores.pins import Pin
from hsm_keys.stores.pkcs11 import fresh_process, look
from hsm_keys.stores.pkcs11.key_pairs import make_pair
from hsm_keys.stores.pkcs11.marks import passing_id
from hsm_keys.stores.pkcs11.store import Pkcs11Store
from hsm_keys.stores.uri import Pkcs11Uri

if TYPE_CHECKING:
    from tests.support.shim import Shim
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = pytest.mark.softhsm


def test_it_counts_the_keys_of_a_label_in_the_right_token(softhsm: SoftHsm) -> None:
    token, other = (softhsm.init_token(label) for label in ("kalshi", "other"))
    with open_store(token.uri) as store, open_store(other.uri) as elsewhere:
        assert isinstance(store, Pkcs11Store)
        elsewhere.generate("prod", KeyType.ED25519)
        uri = Pkcs11Uri.parse(store.uri)
        for number in range(4):
            assert fresh_process.private_keys_labelled(uri, "prod", Pin(token.pin)) == min(number, 2)
            with store.managing("make a further key of that label") as objects:
                make_pair(objects, "prod", KeyType.ED25519, passing_id())
        assert fresh_process.private_keys_labelled(uri, "pro", Pin(token.pin)) == 0


def test_a_module_that_prints_does_not_spoil_the_answer(token: TestToken, shim: Shim) -> None:
    shim.rules("say 17")
    with open_store(shim.uri(token)) as store:
        store.generate("prod", KeyType.ED25519)
        assert fresh_process.private_keys_labelled(Pkcs11Uri.parse(store.uri), "prod", Pin(token.pin)) == 1


@pytest.mark.parametrize("change", [{"pin": "wrong-pin-4711"}, {"serial": "0"}, {"module": "/nowhere.so"}])
def test_what_cannot_be_told_is_none_and_shows_no_pin(
    token: TestToken, change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[subprocess.CompletedProcess[bytes]] = []
    real = subprocess.run

    def run(*arguments: Any, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        seen.append(real(*arguments, **keywords))
        return seen[-1]

    with open_store(token.uri) as store:
        uri = Pkcs11Uri.parse(store.uri)
    pin = change.get("pin", token.pin)
    uri = Pkcs11Uri(
        token=uri.token, serial=change.get("serial", uri.serial), module_path=change.get("module", uri.module_path)
    )
    monkeypatch.setattr(subprocess, "run", run)
    assert fresh_process.private_keys_labelled(uri, "prod", Pin(pin)) is None
    (done,) = seen
    assert pin not in repr((done.args, done.stdout, done.stderr))


def test_the_new_process_loads_next_to_nothing(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs twice in each enrolment; python-pkcs11 alone takes a fifth of a second of processor."""
    command: list[str] = []
    real = subprocess.run

    def run(arguments: list[str], **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        command.extend(arguments)
        return real(arguments, **keywords)

    with open_store(token.uri) as store:
        monkeypatch.setattr(subprocess, "run", run)
        fresh_process.private_keys_labelled(Pkcs11Uri.parse(store.uri), "prod", Pin(token.pin))
    monkeypatch.undo()
    python, *options = command[: command.index(look.__file__)]
    assert options == ["-I", "-S"]
    show = "import sys; exec(open(sys.argv[1]).read(), {'__name__': 'look'}); print(*sys.modules)"
    loaded = subprocess.run([python, *options, "-c", show, look.__file__], capture_output=True, text=True, check=True)
    assert "ctypes" in loaded.stdout.split()
    assert {"pkcs11", "hsm_keys", "typing", "contextlib", "subprocess"} & set(loaded.stdout.split()) == set()
