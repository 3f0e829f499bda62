"""What a module is asked for, as OpenSC's pkcs11-spy writes it down: two calls a signature, and no private part."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.cli import ROOT

if TYPE_CHECKING:
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

SPY = Path("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so")
PAGE = ROOT / "docs" / "modules.md"
PRIVATE_PARTS = {
    *("CKA_PRIVATE_EXPONENT", "CKA_PRIME_1", "CKA_PRIME_2", "CKA_EXPONENT_1", "CKA_EXPONENT_2", "CKA_COEFFICIENT"),
    "CKA_VALUE",
}
TAKING_OUT = {"C_WrapKey", "C_CopyObject", "C_GetOperationState"}

PROGRAM = """
import os, sys
from hsm_keys import KeyType, open_store

uri, log, key_type = sys.argv[1:]
seen = 0

def chapter(name):
    global seen
    with open(log) as file:
        file.seek(seen)
        text = file.read()
    seen += len(text)
    print(f"=== {name}\\n{text}")

with open_store(uri) as store:
    key = store.generate("prod", KeyType(key_type))
    key.sign(b"m")
    chapter("open and make")
    key.sign(b"1700000000000GET/trade-api/v2/portfolio/balance")
    chapter("one signature")
    bound = store.bind(key, "0f8fad5b-d9cb-469f-a165-70867728950e", "prod")
    store.rename(bound, "prod+retired")
    retired = store.key("prod+retired")
    retired.attributes(), retired.sign(b"m"), store.keys()
    chapter("bind, rename, look up, list")
    retired.custody_facts()
    chapter("custody")
    store.destroy(retired)
chapter("destroy and close")
"""


@pytest.fixture(params=["rsa-2048", "ed25519"])
def chapters(
    request: pytest.FixtureRequest, token: TestToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The spy's log of a key's life, by chapter."""
    if not SPY.exists():
        pytest.skip("pkcs11-spy is needed (Debian: opensc-pkcs11)")
    log = tmp_path / "spy.log"
    monkeypatch.setenv("PKCS11SPY", token.module)
    monkeypatch.setenv("PKCS11SPY_OUTPUT", str(log))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    uri = token.uri.replace(token.module, str(SPY))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri, str(log), request.param], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert token.pin not in done.stderr
    return dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])


def calls(text: str) -> list[str]:
    return re.findall(r"^\d+: (C_\w+)$", text, re.MULTILINE)


def test_one_signature_is_what_the_page_shows(chapters: dict[str, str]) -> None:
    said = chapters["one signature"]
    assert calls(said) == ["C_SignInit", "C_Sign"]
    listing = PAGE.read_text().partition("<!-- one signature -->\n```\n")[2].partition("\n```")[0]
    assert listing
    if "CKM_SHA256_RSA_PKCS_PSS" in said:
        assert shortened(said) == listing.splitlines()


def shortened(log: str) -> list[str]:
    """Return the lines of the log without times, handles, addresses and data."""
    lines = [re.sub(r" 0x[0-9a-f]+$| [0-9a-f]{16}(?= / )", "", line).rstrip() for line in log.splitlines()]
    lines = [re.sub(r"^\d+: ", "", line) for line in lines]
    return [line for line in lines if line and not re.match(r"\d{4}-| {4}[0-9A-F]{8} ", line)]


def test_no_call_asks_for_a_private_part_outside_of_the_custody_probes(chapters: dict[str, str]) -> None:
    for name, text in chapters.items():
        asked = PRIVATE_PARTS & set(re.findall(r"CKA_\w+", text)) | TAKING_OUT & set(calls(text))
        assert bool(asked) is (name == "custody"), (name, asked)
    refused = re.findall(r"^Returned: .*SENSITIVE", chapters["custody"], re.MULTILINE)
    assert refused  # and what custody asks for, the token keeps
