"""What init finds on a machine, and SoftHSM for a user whom the system's configuration leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys.errors import StoreError, StoreNotFoundError
from hsm_keys.onboarding.choosing_store import choose_store
from hsm_keys.stores import backends
from hsm_keys.stores.pkcs11 import candidates, softhsm_conf
from hsm_keys.stores.pkcs11.candidates import modules_here, tokens_here

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import TestToken


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


class _Nobody:
    """Agrees to everything, and chooses nothing."""

    answers = False

    def __init__(self) -> None:
        self.heard: list[str] = []

    def report(self, line: str) -> None:
        self.heard.append(line)

    def agree(self, question: str) -> None:
        self.heard.append(question)


def test_kms_and_vault_are_found_by_their_own_variables(home: Path) -> None:
    def uris(**env: str) -> list[str]:
        others = [backend for backend in backends() if backend.scheme != "pkcs11"]
        return [each.uri for backend in others for each in backend.candidates({}, env, lambda _: None)]

    assert uris() == []
    assert uris(AWS_REGION="eu-west-1") == [], "a Region alone is no account"
    assert uris(AWS_DEFAULT_REGION="eu-west-1", AWS_PROFILE="trading") == ["awskms:///?region=eu-west-1"]
    assert uris(BAO_ADDR="https://bao.example") == ["vault:///transit"]
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").touch()
    assert uris(AWS_REGION="eu-west-1") == ["awskms:///?region=eu-west-1"]


@pytest.mark.softhsm
def test_a_module_that_cannot_be_used_hides_no_other(token: TestToken, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    heard: list[str] = []
    (found,) = tokens_here([str(broken), token.module], None, heard.append)
    assert f'token "{token.label}"' in found.description
    assert tokens_here([token.module], "another", heard.append) == []
    assert any("can't be used" in line for line in heard)


def test_a_module_that_is_named_is_the_only_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tmp_path / "vendor.so"
    module.touch()
    assert modules_here(str(module)) == [str(module)]
    with pytest.raises(StoreNotFoundError):
        modules_here(str(tmp_path / "gone.so"))
    monkeypatch.setattr(candidates, "_VENDORS", (f"{tmp_path}/*.so".lstrip("/"),))
    assert str(module) in modules_here(None)


def test_without_softhsm_the_error_says_how_to_get_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.candidates.modules_here", lambda _: [])
    with pytest.raises(StoreNotFoundError) as error:
        choose_store({}, home, _Nobody(), {})  # type: ignore[arg-type]
    assert "apt install softhsm2" in error.value.hint


def test_a_user_without_a_configuration_gets_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = home / "system.conf"
    system.write_text(f"directories.tokendir = {home}/not/there\n")
    monkeypatch.setattr(softhsm_conf, "_SYSTEMS", (str(system),))
    assert softhsm_conf.tokens_folder({}) is None
    conf = softhsm_conf.write_own_configuration()
    assert conf == home / ".config" / "softhsm2" / "softhsm2.conf"
    folder = softhsm_conf.tokens_folder({})
    assert folder is not None
    assert folder.is_dir()


def test_a_configuration_that_is_named_is_not_replaced(home: Path) -> None:
    conf = home / "mine.conf"
    conf.write_text("log.level = ERROR\n")
    with pytest.raises(StoreError, match=r"mine\.conf"):
        softhsm_conf.tokens_folder({"SOFTHSM2_CONF": str(conf)})
