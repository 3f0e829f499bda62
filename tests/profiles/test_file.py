"""The file with the profiles: where it is, what it may hold, and who may write it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import UsageError
from hsm_keys.profiles.fields import FIELDS
from hsm_keys.profiles.file import chosen_profile, config_path, read_profiles
from tests.support.canaries import CANARIES, pieces

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = """
default = "prod"

[profiles.prod]
store = "pkcs11:token=kalshi?module-path=/usr/lib/softhsm/libsofthsm2.so"
pin-file = "~/pin"
env = "prod"
ws-url = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
policy = "/etc/hsm-keys/policy.toml"
api-key-id = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"

[profiles.sandbox]
module = "/usr/lib/softhsm/libsofthsm2.so"
base-url = "http://127.0.0.1:8960"
exchange = "perps"
"""


@pytest.fixture
def write() -> Callable[[str], Path]:
    """Writes the file."""

    def write(text: str) -> Path:
        path = config_path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def test_the_file_is_where_the_xdg_specification_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_path({"XDG_CONFIG_HOME": "/conf"}) == Path("/conf/hsm-keys/config.toml")
    monkeypatch.setenv("HOME", "/home/somebody")
    for unusable in ({}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": "relative"}):
        assert config_path(unusable) == Path("/home/somebody/.config/hsm-keys/config.toml")


def test_every_field_is_read_and_paths_lead_home(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    profiles = read_profiles(write(ALL))
    assert profiles is not None
    fields = {name: dict(profile.fields) for name, profile in profiles.profiles.items()}
    assert fields["prod"]["pin-file"] == "/home/somebody/pin"
    assert fields["sandbox"]["base-url"] == "http://127.0.0.1:8960"
    assert {*fields["prod"], *fields["sandbox"]} == {*FIELDS}


def test_an_option_names_the_profile_before_the_variable_and_the_default(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ALL.replace("[profiles.sandbox]", "[profiles.third]\n[profiles.sandbox]"))

    def chosen(name: str | None, **env: str) -> str | None:
        found = chosen_profile(name, {**os.environ, **env})
        return found.name if found else None

    assert chosen("sandbox", HSM_KEYS_PROFILE="third") == "sandbox"
    assert chosen(None, HSM_KEYS_PROFILE="third") == "third"
    assert chosen(None, HSM_KEYS_PROFILE="") == chosen(None) == "prod"


def test_a_profile_that_is_not_there_is_an_error_that_names_the_near_one(write: Callable[[str], Path]) -> None:
    assert chosen_profile(None) is None
    with pytest.raises(UsageError, match="there is no file") as error:
        chosen_profile("prod")
    assert "AWS_PROFILE" in error.value.hint
    write(ALL)
    with pytest.raises(UsageError, match=r"did you mean 'prod'\?.*it has prod, sandbox"):
        chosen_profile("prd")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[profiles.prod]\npin_file = "/pin"', "'pin_file' (did you mean 'pin-file'?)"),
        ('store = "pkcs11:token=a"', "outside [profiles.NAME]"),
        ('[profile.prod]\nenv = "prod"', "'profile' (did you mean 'profiles'?)"),
        ('[profiles.prod]\nenv = "production"', "env has to be prod or demo"),
        ('[profiles.prod]\nenv = "prod"\nbase-url = "https://external-api.kalshi.com"', "keep one of them"),
        ('[profiles.prod]\nbase-url = "http://kalshi.example"', "base-url can't be used"),
        ('[profiles.prod]\nmodule = "libsofthsm2.so"', "begins with /"),
        ('[profiles.prod]\nstore = "awskms:///"\npin-file = "/pin"', "pin-file goes with PKCS#11 tokens"),
        ('[profiles.prod]\nstore = "pkcs11:?pin-source=file:/p"\npin-file = "/pin"', "in the store's URI, too"),
        ('[profiles.prod]\nstore = "kalshi"', "a store's URI"),
        ('[profiles.prod]\nstore = ["pkcs11:"]', "a text in quotes"),
        ("[profiles.prod.more]\n[profiles.prod]\nslot = 0", "there is no setting"),
        ('profiles = "prod"', "the form [profiles.NAME]"),
        ('[profiles."a b"]', "can't be a profile"),
        ('default = "demo"\n[profiles.prod]', "default has to name a profile"),
        ("[profiles.prod", "is no TOML"),
        ("a = " + "[" * 5_000, "is no TOML"),
        ("default = 'prod'\n" + "#" * 70_000, "too long"),
    ],
)
def test_what_no_profile_holds_is_refused_with_its_place(write: Callable[[str], Path], text: str, problem: str) -> None:
    with pytest.raises(UsageError) as error:
        read_profiles(write(text))
    assert problem in error.value.message, error.value.message
    assert "config.toml" in error.value.message


@pytest.mark.parametrize("field", [*FIELDS, "pin", "token", "private-key"])
@pytest.mark.parametrize("what", CANARIES)
def test_a_secret_in_the_file_is_refused_and_not_repeated(write: Callable[[str], Path], field: str, what: str) -> None:
    quoted = "'''" + CANARIES[what] + "'''"
    texts = (f"[profiles.prod]\n{field} = {quoted}", f"{field} = {quoted}", f"default = {quoted}", CANARIES[what])
    for text in texts:
        with pytest.raises(UsageError) as error:
            read_profiles(write(text))
        said = f"{error.value.message} {error.value.hint}"
        assert not [piece for piece in pieces(CANARIES[what]) if piece in said], said


@pytest.mark.parametrize(
    "store",
    [
        "pkcs11:token=kalshi?pin-value=1234",
        "pkcs11:token=kalshi?PIN-VALUE=1234",
        "vault:///transit?address=https://user:canary@vault.example",
        "vault:///transit?address=https://vault.example&token=hvs.canary",
    ],
)
def test_a_secret_within_a_stores_uri_is_refused(write: Callable[[str], Path], store: str) -> None:
    with pytest.raises(UsageError, match="it may be a secret") as error:
        read_profiles(write(f'[profiles.prod]\nstore = "{store}"'))
    assert "1234" not in str(error.value)
    assert "canary" not in str(error.value)


def test_long_paths_are_no_secrets(write: Callable[[str], Path]) -> None:
    path = "/home/somebody/kalshi/trading/keys/production/modules/libvendor.so"
    assert read_profiles(write(f'[profiles.prod]\nmodule = "{path}"\nstore = "pkcs11:token=a"')) is not None
    assert read_profiles(write(f'[profiles.prod]\nstore = "pkcs11:token=a?module-path={path}"')) is not None


def test_a_file_that_others_can_write_is_refused(write: Callable[[str], Path]) -> None:
    path = write(ALL)
    path.chmod(0o620)
    with pytest.raises(UsageError, match="others can write"):
        read_profiles(path)
    path.chmod(0o644)
    assert read_profiles(path) is not None
    path.parent.chmod(0o777)
    with pytest.raises(UsageError, match="replace"):
        read_profiles(path)


def test_a_file_that_is_none_is_refused_at_once(write: Callable[[str], Path]) -> None:
    path = write(ALL)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(UsageError, match="isn't a regular file"):
        read_profiles(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("folder", [0o700, 0o755])
def test_settings_that_somebody_else_keeps_to_themselves_are_none(write: Callable[[str], Path], folder: int) -> None:
    path = write(ALL)
    path.parent.chmod(folder)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        try:
            os.setuid(65534)
            code = 0 if read_profiles(path) is None else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
