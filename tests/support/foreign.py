"""Keys that another program makes in a token: OpenSC's pkcs11-tool, which knows nothing of hsm-keys."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import SoftHsm, TestToken

ED25519 = "EC:edwards25519"
LIKE_OURS = "0f8fad5bd9cb469fa16570867728950e"
"""A CKA_ID of 16 bytes, such as tpm2_ptool makes up."""

_TOKEN = "token.object"


def pkcs11_tool(token: TestToken, *arguments: str | bytes) -> str:
    """Run pkcs11-tool, logged in to a token, and return what it prints."""
    tool = shutil.which("pkcs11-tool")
    if tool is None:
        pytest.skip("pkcs11-tool is needed (Debian: opensc)")
    command = [tool, "--module", token.module, "--token-label", token.label, "--login", "--pin", token.pin]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=60)
    return done.stdout.decode(errors="replace")


def make_pair(token: TestToken, label: str | bytes | None, *, key_type: str = ED25519, cka_id: str = "01") -> None:
    """Make a pair, without a label if that is None."""
    named = () if label is None else ("--label", label)
    pkcs11_tool(token, "--keypairgen", "--key-type", key_type, "--id", cka_id, *named)


def folder_of(softhsm: SoftHsm, token: TestToken) -> Path:
    """Return the folder of a SoftHSM token."""
    label = f"{token.label:<32}".encode()
    return next(file.parent for file in softhsm.tokens.glob(f"*/{_TOKEN}") if label in file.read_bytes())


def copy_objects(softhsm: SoftHsm, giver: TestToken, taker: TestToken) -> None:
    """Copy one token's objects into the folder of another, which can't read the private ones."""
    for file in folder_of(softhsm, giver).glob("*.object"):
        if file.name != _TOKEN:
            shutil.copy(file, folder_of(softhsm, taker))


def objects_of(softhsm: SoftHsm) -> dict[str, bytes]:
    """Return every object of SoftHSM's tokens, as it lies there: what is equal was not touched."""
    return {str(file): file.read_bytes() for file in softhsm.tokens.glob("*/*.object") if file.name != _TOKEN}
