"""The table of variables, and the page that shows it."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hsm_keys.running.throwaway import PemType, Throwaway, throwaway_in
from hsm_keys.running.variables import VARIABLES, environment_for, kept_from_programs
from tests.support.cli import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()


def test_the_page_has_every_variable() -> None:
    assert [name for name in VARIABLES if f"`{name}`" not in PAGE] == []
    assert [name for name in kept_from_programs() if not name.startswith("KALSHI_") and f"`{name}`" not in PAGE] == []


def test_what_opens_a_store_is_left_out() -> None:
    before = {
        "HSM_KEYS_PIN": "1",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "2",
        "vault_token": "3",
        "KALSHI_PRIVATE_KEY_PASSPHRASE": "4",
        "CREDENTIALS_DIRECTORY": "5",
        "KALSHI_DEMO": "true",
        "MINE": "6",
        "PATH": "/bin",
        "KALSHI_TIMEOUT": "7",
        "no_proxy": "example.org",
    }
    given = environment_for(before, port=1, token="t", throwaway=Throwaway(Path("/x"), "pem"))
    assert {name: value for name, value in given.items() if name not in VARIABLES} == {
        "MINE": "6",
        "PATH": "/bin",
        "KALSHI_TIMEOUT": "7",
        "no_proxy": "example.org,127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    assert given["KALSHI_API_BASE_URL"] == "http://127.0.0.1:1/trade-api/v2"
    assert given["KALSHI_WS_URL"] == "ws://127.0.0.1:1/trade-api/ws/v2"
    assert given["KALSHI_WS_BASE_URL"] == "ws://127.0.0.1:1"


@pytest.mark.parametrize(("pem_type", "kind"), [("rsa", RSAPrivateKey), ("ed25519", Ed25519PrivateKey)])
def test_the_throwaway_is_of_the_type_that_was_asked_for(tmp_path: Path, pem_type: PemType, kind: type) -> None:
    throwaway = throwaway_in(tmp_path, pem_type)
    given = environment_for({}, port=1, token="t", throwaway=throwaway)
    for pem in (Path(given["KALSHI_PRIVATE_KEY_PATH"]).read_bytes(), b64decode(given["KALSHI_PRIVATE_KEY_BASE64"])):
        assert isinstance(load_pem_private_key(pem, password=None), kind)
    assert throwaway.path.stat().st_mode & 0o777 == 0o600
    assert throwaway_in(tmp_path, pem_type) == throwaway
