"""A TPM whose user PIN is empty, through tpm2-pkcs11: it wants a login, and doesn't say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.errors import StoreError
from tests.support import tpm
from tests.support.terminal import answer
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.program
def test_an_empty_pin_by_file_variable_and_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = tpm.missing()
    if lacking is not None:
        pytest.skip(f"a software TPM is needed: {lacking}")
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    with tpm.running(tmp_path / "tpm") as running:
        for variable, value in running.environment.items():
            monkeypatch.setenv(variable, value)
        with open_store(running.uri) as store, pytest.raises(StoreError, match="empty --pin-file"):
            store.generate("prod")
        with open_store(running.uri, pin_file=pin) as store:
            key = store.generate("prod")
            assert openssl_verifies(tmp_path, key.public_pem(), b"m", key.sign(b"m"))
        code, shown = answer(b"User PIN of", b"", "--store", running.uri, "public-key", "prod")
        assert code == 0, shown
        assert "BEGIN PUBLIC KEY" in shown
        monkeypatch.setenv("HSM_KEYS_PIN", "")
        with open_store(running.uri) as store:
            assert store.key("prod").sign(b"m")
