"""``generate`` as its users run it; and where the private half is never seen."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsm_keys.sandbox import SandboxServer, parse_fault
from hsm_keys.sandbox.keys import generate_pair
from hsm_keys.signing.pem import load_private_key
from tests.support.cli import ROOT, failed_json, run_cli, run_json, run_new_cli

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox.keys import PublicKey
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]


@pytest.fixture
def handed_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The PEMs that the sandbox gives out."""
    given: list[str] = []

    def watched(key_type: Literal["rsa", "ed25519"]) -> tuple[str, PublicKey]:
        pem, public_key = generate_pair(key_type)
        given.append(pem)
        return pem, public_key

    monkeypatch.setattr("hsm_keys.sandbox.api_keys.generate_pair", watched)
    return given


def traces_of(pem: str) -> list[bytes]:
    """Return what a private key could be recognised by: its PEM, line by line, and its numbers."""
    key = load_private_key(pem)
    lines = [line.encode() for line in pem.splitlines() if not line.startswith("-----") and len(line) > 20]
    if "RSA" in pem:
        numbers = key.private_numbers()  # type: ignore[union-attr]  # Ed25519 has none
        secrets = [number.to_bytes(256, "big").lstrip(b"\0") for number in (numbers.d, numbers.p, numbers.q)]
    else:
        secrets = [key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())]
    return [*lines, *(form for secret in secrets for form in (secret, secret.hex().encode(), repr(secret).encode()))]


def test_the_object_of_the_contract_and_the_other_commands(pin: str, sandbox: SandboxServer) -> None:
    given = run_json("generate", "ci", "--slot", "0", "--scope", "read", "--subaccount", "3")
    assert list(given) == ["name", "api_key_id", "key_type", "state", "uri", "public_key_pem", "custody"]
    assert (given["name"], given["key_type"], given["state"]) == ("ci", "rsa-2048", "registered")
    assert given["custody"]["verdict"] == "imported, made by Kalshi"
    made = sandbox.state.keys[given["api_key_id"]]
    assert (made.scopes, made.subaccount, made.public_pem) == (("read",), 3, given["public_key_pem"])
    shown = run_json("show", "ci")
    assert shown["custody"]["verdict"] == "imported"
    assert shown["custody"]["local"] is False
    assert "local" in run_cli("show", "ci").stdout
    listed = {entry["name"]: entry["state"] for entry in run_json("list")["keys"]}
    assert listed == {"ci": "registered", "bootstrap": "elsewhere"}
    assert run_json("sign", "GET", "/trade-api/v2/markets", "--name", "ci")["KALSHI-ACCESS-KEY"] == given["api_key_id"]
    assert run_json("request", "GET", "/portfolio/balance", "--name", "ci")
    assert failed_json(5, "generate", "ci")["code"] == "key_exists"


def test_a_key_of_the_store_can_sign_the_management_calls(pin: str, sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "manager")
    done = run_cli(
        "generate", "ci", "--auth", "manager", "--key-type", "ed25519", KALSHI_KEY_ID="", KALSHI_PRIVATE_KEY=""
    )
    assert done.returncode == 0, done.stderr
    assert "imported, made by Kalshi" in done.stderr


@pytest.mark.parametrize("key_type", ["rsa-2048", "ed25519"])
@pytest.mark.parametrize(
    "fault",
    [
        None,
        "POST /api_keys/generate:truncate:2",
        "GET /portfolio/balance:status=403",
        "DELETE /api_keys/{api_key}:status=500",
    ],
)
def test_the_private_half_is_in_no_output_and_no_file(
    pin: str, sandbox: SandboxServer, softhsm: SoftHsm, handed_out: list[str], *, key_type: str, fault: str | None
) -> None:
    if fault is not None:
        sandbox.faults.add(parse_fault("POST /api_keys/generate:drop-after:1"))
        sandbox.faults.add(parse_fault(fault))
    done = run_new_cli("generate", "ci", "--key-type", key_type, PYTHONDEVMODE="1", HSM_KEYS_STORE="")
    assert handed_out
    seen = (done.stdout + done.stderr).encode()
    on_disk = b"".join(path.read_bytes() for path in softhsm.folder.rglob("*") if path.is_file())
    for pem in handed_out:
        for trace in traces_of(pem):
            assert trace not in seen
            assert trace not in on_disk  # the token encrypts what it keeps


def test_the_private_half_is_in_no_log_repr_or_traceback(
    token: TestToken, sandbox: SandboxServer, handed_out: list[str], tmp_path: Path
) -> None:
    script = f"""
import logging, sys, traceback
logging.basicConfig(level=0, stream=sys.stderr)
from hsm_keys import KalshiClient, KeyType, RequestSigner, open_store
from hsm_keys.kalshi.account import Account
from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
from hsm_keys.lifecycle import generate as lifecycle
from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
from hsm_keys.lifecycle.registering import ApiKeyRequest
from hsm_keys.stores.pkcs11 import importing
def full(*_, **__): raise RuntimeError("nobody foresaw this")
real = importing._import_pair
importing._import_pair = lambda session, label, *rest: (full if label == "ci" else real)(session, label, *rest)
made_repr = lifecycle.Generator._import
def shown(self, made):
    print(repr(made), repr(self), str(made), repr(vars(self)))
    return made_repr(self, made)
lifecycle.Generator._import = shown
connect = lambda signer: KalshiClient(signer)
with open_store({token.uri!r}) as store, connect(RequestSigner(bootstrap_key_from_env())) as client:
    maker = KalshiGenerator(ApiKeyRequest("ci"), KeyType.RSA_2048, Account(client, connect), print)
    try:
        lifecycle.Generator(store, maker).run()
    except RuntimeError:
        traceback.print_exc()
        print(vars(maker))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert b"nobody foresaw this" in done.stderr
    assert b"GeneratedPair(api_key_id=" in done.stdout
    (pem,) = handed_out
    for trace in traces_of(pem):
        assert trace not in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_only_the_token_and_its_lock_are_written_to(
    pin: str, sandbox: SandboxServer, softhsm: SoftHsm, handed_out: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "strace"
    calls = "trace=open,openat,creat,write,pwrite64,writev"
    traced = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-s",
            "100000",
            "-e",
            calls,
            "-o",
            str(log),
            sys.executable,
            "-m",
            "hsm_keys",
            "generate",
            "ci",
            "--slot",
            "0",
        ],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=110,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if b"ptrace" in traced.stderr:
        pytest.skip("this machine allows no tracing")
    assert traced.returncode == 0, traced.stderr
    lines = log.read_bytes().splitlines()
    opened = {
        match[1].decode()
        for line in lines
        if (match := re.search(rb'open(?:at)?\((?:AT_FDCWD, )?"([^"]+)", [^)]*O_(?:WRONLY|RDWR)[^)]*\) = \d', line))
    }
    allowed = (str(softhsm.tokens), str(tmp_path / "hsm-keys"), "/dev/")
    assert {path for path in opened if not path.startswith(allowed)} == set()
    assert any(path.startswith(str(softhsm.tokens)) for path in opened)
    (pem,) = handed_out
    written = b"\n".join(line for line in lines if b"write" in line)
    for line in pem.splitlines()[1:-1]:
        assert line.encode() not in written


def test_a_file_gets_the_pem_with_a_warning_and_no_store(
    sandbox: SandboxServer, handed_out: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "ci.pem"
    done = run_cli("generate", "ci", "--to-file", str(path), HSM_KEYS_STORE="pkcs11:token=none?module-path=/nowhere.so")
    assert done.returncode == 0, done.stderr
    assert "WARNING" in done.stderr
    assert "enroll" in done.stderr
    assert path.read_text() == handed_out[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["ci.pem"]
    assert not any(trace in (done.stdout + done.stderr).encode() for trace in traces_of(handed_out[0]))
    given = run_json("generate", "ci2", "--key-type", "ed25519", "--to-file", str(tmp_path / "ci2.pem"))
    assert list(given) == ["name", "api_key_id", "key_type", "state", "uri", "public_key_pem", "custody"]
    assert given["uri"] == (tmp_path / "ci2.pem").as_uri()
    assert given["custody"]["verdict"] == "not in custody"
    assert sandbox.state.keys[given["api_key_id"]].public_pem == given["public_key_pem"]


def test_a_file_that_exists_is_never_written_to(sandbox: SandboxServer, tmp_path: Path) -> None:
    path = tmp_path / "kept.pem"
    path.write_text("kept")
    assert failed_json(2, "generate", "ci", "--to-file", str(path))["message"].endswith("nothing was done")
    link = tmp_path / "link.pem"
    link.symlink_to(tmp_path / "nowhere")
    assert failed_json(2, "generate", "ci", "--to-file", str(link))["code"] == "usage"
    assert failed_json(2, "generate", "ci", "--to-file", str(tmp_path / "no-folder" / "x.pem"))["code"] == "usage"
    assert path.read_text() == "kept"
    assert not any(seen.method == "POST" for seen in sandbox.requests)


def test_a_file_for_a_name_that_kalshi_has_is_refused(sandbox: SandboxServer, tmp_path: Path) -> None:
    run_json("generate", "ci", "--to-file", str(tmp_path / "a.pem"))
    error = failed_json(5, "generate", "ci", "--to-file", str(tmp_path / "b.pem"))
    assert error["code"] == "key_exists"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pem"]


@pytest.mark.parametrize("status", [400, 403, 429])
def test_a_refusal_leaves_no_file(sandbox: SandboxServer, tmp_path: Path, status: int) -> None:
    sandbox.faults.add(parse_fault(f"POST /api_keys/generate:status={status}:1"))
    failed_json(6, "generate", "ci", "--to-file", str(tmp_path / "a.pem"))
    assert list(tmp_path.iterdir()) == []
