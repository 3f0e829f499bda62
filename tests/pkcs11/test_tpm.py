"""A TPM through tpm2-pkcs11: its user PIN is empty, its fields are filled with NUL, and tpm2_ptool makes keys in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys import KeyState, open_store
from hsm_keys.errors import ForeignKeyError, StoreError
from hsm_keys.stores.abilities import RenamesKeys
from hsm_keys.stores.pkcs11.key import Pkcs11Key
from tests.support import tpm
from tests.support.terminal import answer
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    """An empty PIN."""
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    return pin


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tpm.Tpm]:
    """A TPM of the test's own, which the module finds."""
    lacking = tpm.missing()
    if lacking is not None:
        pytest.skip(f"a software TPM is needed: {lacking}")
    with tpm.running(tmp_path / "tpm") as found:
        for variable, value in found.environment.items():
            monkeypatch.setenv(variable, value)
        yield found


@pytest.mark.program
def test_an_empty_pin_by_file_variable_and_prompt(
    running: tpm.Tpm, pin_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(running.uri) as store, pytest.raises(StoreError, match="empty --pin-file"):
        store.generate("prod")
    with open_store(running.uri, pin_file=pin_file) as store:
        key = store.generate("prod")
        assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))
    code, shown = answer(b"User PIN of", b"", "--store", running.uri, "public-key", "prod")
    assert code == 0, shown
    assert "BEGIN PUBLIC KEY" in shown
    monkeypatch.setenv("HSM_KEYS_PIN", "")
    with open_store(running.uri) as store:
        assert store.key("prod").sign(b"m")


def test_a_key_of_its_own_tool_is_not_ours_and_signs(running: tpm.Tpm, pin_file: Path, tmp_path: Path) -> None:
    """Its CKA_ID has 16 bytes, as an API key id has."""
    running.add_key("alpha")
    with open_store(running.uri, pin_file=pin_file) as store:
        (key,) = store.keys()
        assert isinstance(key, Pkcs11Key)
        assert (key.name, key.state, key.api_key_id, len(key.cka_id)) == ("alpha", KeyState.FOREIGN, None, 16)
        signer = key.signer(api_key_id="0f8fad5b-d9cb-469f-a165-70867728950e")
        assert signer.headers("GET", "/trade-api/v2/portfolio/balance")
        assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))
        for change in (store.destroy, lambda key: RenamesKeys.of(store).rename(key, "beta")):
            with pytest.raises(ForeignKeyError):
                change(key)


def test_the_uri_that_p11tool_writes_is_taken(running: tpm.Tpm, pin_file: Path) -> None:
    written = running.run("p11tool", "--provider", str(tpm.MODULE), "--list-token-urls").split()
    (uri,) = [uri for uri in written if uri.endswith(f"token={tpm.LABEL}")]
    assert "%00" in uri
    with open_store(f"{uri}?module-path={tpm.MODULE}", pin_file=pin_file) as store:
        assert "%00" not in store.uri
        assert store.describe().startswith(f'token "{tpm.LABEL}"')
