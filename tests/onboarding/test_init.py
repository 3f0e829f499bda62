"""``init``: from an empty machine to a key that signs, asked or by script, and on from wherever it stopped."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys.cli.asking import TerminalPerson
from hsm_keys.errors import StoreError
from hsm_keys.profiles.file import config_path, read_profiles
from hsm_keys.sandbox.server import SandboxServer
from hsm_keys.stores.pkcs11 import softhsm_token
from tests.sandbox.client import Caller
from tests.support.canaries import run
from tests.support.cli import ROOT, failed_json, run_cli, run_json
from tests.support.terminal import converse

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = pytest.mark.softhsm

PIN = "pin-canary-4711"
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def _without_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KALSHI_KEY_ID")
    monkeypatch.delenv("KALSHI_PRIVATE_KEY")


def _tokens(hsm: SoftHsm) -> int:
    return len(list(hsm.tokens.glob("*/token.object")))


def _ids(sandbox: SandboxServer) -> set[str]:
    listed = Caller.bootstrap(sandbox).call("GET", "/trade-api/v2/api_keys").json["api_keys"]
    return {each["api_key_id"] for each in listed} - {sandbox.bootstrap_key_id}


def test_by_script_an_empty_softhsm_becomes_a_key_that_signs(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    made = run_json("init", "bot", "--yes")
    assert made["state"] == "registered"
    assert _ids(sandbox) == {made["api_key_id"]}
    known = read_profiles(config_path())
    assert known is not None
    assert known.default == made["profile"] == "bot"
    pin_file = config_path().with_name("pin-kalshi")
    assert stat.S_IMODE(pin_file.stat().st_mode) == 0o600
    assert len(pin_file.read_text().strip()) == 16
    assert not list(config_path().parent.glob("making-*")), "the security officer's PIN is kept nowhere"
    assert run_cli("request", "GET", "/portfolio/balance", "bot").returncode == 0, "the profile is the default"
    program = "\n".join([*made["python"], "print(client.request('GET', '/portfolio/balance').status_code)"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "200\n", done.stderr


def test_run_again_it_changes_nothing(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    first = run_json("init", "bot", "--yes", "--key-type", "rsa-2048")
    written = config_path().read_text()
    again = run_json("init", "--yes")
    assert again["api_key_id"] == first["api_key_id"]
    assert (config_path().read_text(), _tokens(softhsm), len(_ids(sandbox))) == (written, 1, 1)


def test_three_answers_lead_to_a_key_and_the_pin_is_never_shown(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    dialogue: list[Any] = [
        (b"called kalshi? [Y/n]", b""),
        (b"New user PIN", PIN.encode()),
        (b"The same again", PIN.encode()),
        (b"Go on? [Y/n]", b"y"),
    ]
    code, shown = converse(dialogue, "init", "bot")
    assert code == 0, shown
    assert "GET /portfolio/balance, and Kalshi answered 200" in shown
    assert "ed25519: as your bootstrap key is" in shown
    assert "key = open_store(" in shown
    assert PIN not in shown
    assert "pin-file" not in config_path().read_text()
    code, shown = converse([(b"User PIN of", PIN.encode())], "show", "bot")
    assert (code, PIN in shown) == (0, False)


def test_no_is_taken_for_an_answer(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    code, shown = converse([(b"called kalshi?", b"n")], "init")
    assert (code, _tokens(softhsm), config_path().exists()) == (2, 0, False), shown


def test_an_account_that_may_not_register_is_walked_through_by_hand(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = softhsm.init_token()
    with SandboxServer(tier="basic", key_type="ed25519") as basic:
        monkeypatch.setenv("KALSHI_API_BASE_URL", basic.base_url)
        monkeypatch.setenv("KALSHI_KEY_ID", basic.bootstrap_key_id)
        monkeypatch.setenv("KALSHI_PRIVATE_KEY", basic.bootstrap_pem)
        monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))

        def pasted(shown: str) -> bytes:
            pem = shown[shown.index("-----BEGIN PUBLIC KEY") :].partition("-----END PUBLIC KEY-----")
            return basic.add_key("by hand", "".join(pem[:2]).replace("\r", "") + "\n").api_key_id.encode()

        code, shown = converse([(b"Go on?", b""), (b"API key id:", pasted)], "init", "bot")
    assert code == 0, shown
    assert "so the key is registered by hand" in shown
    assert f'pin-file = "{token.pin_file}"' in config_path().read_text()


def test_by_script_the_id_is_given_in_a_second_run(
    token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    boss = Caller.bootstrap(sandbox)
    _without_bootstrap(monkeypatch)
    error = failed_json(5, "init", "bot", "--yes")
    assert error["code"] == "key_not_registered"
    assert "hsm-keys init bot --api-key-id ID" in error["hint"]
    pem = run_cli("public-key", "bot").stdout
    made = boss.call("POST", "/trade-api/v2/api_keys", {"name": "bot", "public_key": pem}).json["api_key_id"]
    assert run_json("init", "bot", "--yes", "--api-key-id", made)["api_key_id"] == made


def test_of_several_tokens_a_person_chooses_and_a_script_names_one(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    tokens = {label: softhsm.init_token(label, pin=f"pin-of-{label}") for label in ("first", "second")}
    error = failed_json(2, "init", "bot", "--yes")
    assert 'token "first"' in error["message"]
    assert 'token "second"' in error["message"]

    def place(shown: str) -> bytes:
        return str(re.findall(r'(\d)\. token "second"', shown)[0]).encode()

    dialogue: list[Any] = [(b"Where is the key to live?", place)]
    dialogue += [(b"User PIN of", tokens["second"].pin.encode()), (b"Go on?", b"")]
    code, shown = converse(dialogue, "init", "bot")
    assert code == 0, shown
    assert "token=second" in config_path().read_text()
    named = run_json("init", "other", "--yes", "--token", "first", "--pin-file", str(tokens["first"].pin_file))
    assert "token=first" in named["uri"]


def test_nothing_is_made_where_kalshi_cannot_be_reached(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    error = failed_json(7, "init", "--yes", KALSHI_API_BASE_URL="http://127.0.0.1:9")
    assert error["code"] == "network"
    assert (_tokens(softhsm), config_path().exists()) == (0, False)


def test_nothing_is_made_where_a_profile_says_something_else(
    token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_path().parent.mkdir(parents=True, mode=0o700)
    config_path().write_text('[profiles.bot]\nenv = "demo"\n# mine\n')
    config_path().chmod(0o600)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    error = failed_json(2, "init", "bot", "--yes")
    assert "other settings" in error["message"]
    assert _ids(sandbox) == set()
    run_json("init", "bot", "--yes", "--profile", "mine")
    text = config_path().read_text()
    assert text.startswith('[profiles.bot]\nenv = "demo"\n# mine\n\n[profiles.mine]\n'), "what stood there stays"


@pytest.mark.parametrize(
    "wrong",
    [
        ("a b",),
        ("bot+next",),
        ("bot", "--scope", "wirte"),
        ("bot", "--subaccount", "64"),
        ("bot", "--api-key-id", "x y"),
    ],
)
def test_what_cannot_be_is_refused_before_a_token_is_made(
    softhsm: SoftHsm, sandbox: SandboxServer, wrong: tuple[str, ...]
) -> None:
    assert failed_json(2, "init", *wrong, "--yes")["code"] == "usage"
    assert (_tokens(softhsm), config_path().parent.exists()) == (0, False)


def test_a_named_module_without_a_token_is_not_replaced_by_softhsm(
    softhsm: SoftHsm, sandbox: SandboxServer, tmp_path: Path
) -> None:
    other = tmp_path / "other.so"
    other.write_text("no library")
    error = failed_json(3, "init", "bot", "--yes", "--module", str(other))
    assert str(other) in error["message"]
    assert "install SoftHSM" not in error["hint"]


def test_without_a_terminal_nothing_is_done_unasked(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    done = run_cli("init")
    assert done.returncode == 2
    assert "give --yes" in done.stderr
    assert _tokens(softhsm) == 0


STEPS = {
    "the note is written": "hsm_keys.stores.pkcs11.cryptoki.Functions.init_token",
    "the token is made": "hsm_keys.stores.pkcs11.cryptoki.Functions.init_pin",
    "the PIN is set": "hsm_keys.onboarding.first_key.enroll",
    "the key is registered": "hsm_keys.onboarding.profile_of_key.add_profile_to_file",
    "the profile is written": "hsm_keys.onboarding.first_key.prove_custody",
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_a_step_it_goes_on_from_there(
    softhsm: SoftHsm, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(STEPS[step], kill)
        first = run("init", "bot", "--yes")
        assert first.code == (0 if step == "the profile is written" else 130), first.text
    made = run_json("init", "bot", "--yes")
    assert _ids(sandbox) == {made["api_key_id"]}
    assert _tokens(softhsm) == 1
    assert not list(config_path().parent.glob("making-*"))
    pins = [path.read_text().strip() for path in config_path().parent.glob("pin-*")]
    assert not [pin for pin in pins if pin in first.text]


def test_a_pin_that_the_token_refuses_is_asked_for_again_in_the_next_run(
    softhsm: SoftHsm, sandbox: SandboxServer
) -> None:
    begin: list[Any] = [(b"called kalshi?", b""), (b"New user PIN", b"1"), (b"The same again", b"1")]
    code, shown = converse(begin, "init", "bot")
    assert code != 0
    assert "[pin" in shown
    code, shown = converse(
        [(b"New user PIN", PIN.encode()), (b"The same again", PIN.encode()), (b"Go on?", b"")], "init", "bot"
    )
    assert code == 0, shown
    assert _tokens(softhsm) == 1


def test_a_token_that_somebody_left_without_a_pin_is_left_alone(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STEPS["the token is made"], lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        run("init", "bot", "--yes")
    next(config_path().parent.glob("making-*")).unlink()
    person = TerminalPerson(lambda _: None, yes=True)
    with pytest.raises(StoreError, match="without a user PIN"):
        softhsm_token.make_softhsm_token(softhsm.module, "kalshi", config_path().parent, None, person)


def test_a_note_that_is_damaged_is_not_guessed_at(softhsm: SoftHsm, sandbox: SandboxServer) -> None:
    folder = config_path().parent
    folder.mkdir(parents=True, mode=0o700)
    (folder / f"{softhsm_token._PREFIX}kalshi.json").write_text('{"so_pin": "canary-so-pin"')
    error = failed_json(2, "init", "bot", "--yes")
    assert "canary" not in str(error)


def test_two_different_pins_are_asked_for_again_and_none_is_asked_for_once(
    softhsm: SoftHsm, sandbox: SandboxServer
) -> None:
    begin: list[Any] = [(b"called kalshi?", b""), (b"New user PIN", PIN.encode()), (b"The same again", b"4711-4712")]
    code, shown = converse([*begin, (b"New user PIN", b""), (b"Go on?", b"")], "init", "bot")
    assert code == 0, shown
    assert "The two PINs were different" in shown
    assert "pin-file" in config_path().read_text()
