"""The commands, in processes of their own, on a real token and over real HTTP."""

from __future__ import annotations

import base64
import json
import os
import pty
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from hsm_keys import open_store
from hsm_keys.cli.sandbox import DEFAULT_PORT
from hsm_keys.sandbox import SandboxServer
from hsm_keys.signing.environments import environment_name
from tests.support.cli import ED25519, ROOT, failed_json, run_cli, run_json
from tests.support.oddkeys import make_extractable
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from tests.support.softhsm import SoftHsm, TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

FAULT = ["--fault", "GET /api_keys:status=429:1"]


def test_the_main_job(pin: str, sandbox: SandboxServer, token: TestToken, tmp_path: Path) -> None:
    done = run_cli("enroll", "--slot", "0", "--name", "prod")
    assert done.returncode == 0, done.stderr
    assert "slot 0 is token" in done.stderr
    for step in ("made the rsa-2048 key", "proved custody", "registered the public half", "bound the id", "proved it"):
        assert step in done.stderr
    shown = run_json("show", "prod")
    assert list(shown) == ["name", "api_key_id", "key_type", "state", "uri", "public_key_pem", "custody", "environment"]
    assert shown["name"] == "prod"
    assert shown["environment"] == run_json("list")["keys"][0]["environment"] == environment_name(sandbox.base_url)
    assert shown["custody"]["attributes"]["label"] == "prod"
    assert shown["state"] == "registered"
    assert shown["key_type"] == "rsa-2048"
    assert shown["uri"].startswith("pkcs11:token=kalshi;serial=")
    assert shown["custody"]["verdict"] == "in custody"
    assert shown["custody"]["private_half_readable"] is False
    registered = sandbox.state.keys[shown["api_key_id"]]
    assert registered.public_pem == shown["public_key_pem"]
    headers = run_json(
        "sign", "GET", "/trade-api/v2/markets?limit=5", "--name", "prod", "--timestamp-ms", "1700000000000"
    )
    assert set(headers) == {"KALSHI-ACCESS-KEY", "KALSHI-ACCESS-TIMESTAMP", "KALSHI-ACCESS-SIGNATURE"}
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
    message = b"1700000000000GET/trade-api/v2/markets"
    assert openssl_verifies(tmp_path, shown["public_key_pem"], message, signature)
    assert not openssl_verifies(tmp_path, shown["public_key_pem"], message, signature, salt=222)


def test_enroll_gives_the_object_of_the_contract_and_nothing_else_on_stdout(pin: str, sandbox: SandboxServer) -> None:
    given = run_json("enroll", "--slot", "0", "--name", "prod", "--key-type", "ed25519", "--scope", "read")
    assert list(given) == ["name", "api_key_id", "key_type", "state", "uri", "public_key_pem", "custody"]
    assert (given["key_type"], given["state"]) == ("ed25519", "registered")
    assert sandbox.state.keys[given["api_key_id"]].scopes == ("read",)


def test_signed_headers_for_scripts_in_any_language(pin: str, sandbox: SandboxServer) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    signing = ("sign", "GET", "/portfolio/orders?limit=5&x=%22", "--name", "prod", "--output")
    lines = run_cli(*signing, "headers").stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "KALSHI-ACCESS-KEY",
        "KALSHI-ACCESS-TIMESTAMP",
        "KALSHI-ACCESS-SIGNATURE",
    ]
    exports = run_cli(*signing, "env").stdout
    shell = subprocess.run(
        ["bash", "-c", f"{exports}\necho $KALSHI_ACCESS_KEY"], capture_output=True, text=True, check=True
    )
    assert shell.stdout.strip() == prod["api_key_id"]
    config = run_cli(*signing, "curl").stdout.splitlines()
    settings = [line.split(" = ", 1) for line in config]
    assert settings[0] == ["request", "GET"]
    url = json.loads(settings[1][1])  # curl's quoting of plain text is JSON's
    headers = dict(json.loads(value).split(": ") for name, value in settings[2:])
    assert url == sandbox.base_url + "/portfolio/orders?limit=5&x=%22"
    answer = httpx2.get(url, headers=headers)
    assert answer.status_code == 200
    assert sandbox.requests[-1].verified
    refused = run_cli("sign", "GET", "/x?a\nheader = y", "--name", "prod", "--output", "curl")
    assert refused.returncode == 2
    assert refused.stdout == ""


def test_a_fix_logon_is_signed_in_the_token(pin: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    chosen = ("--name", "prod", "--target", "KalshiNR", "--seq", "1")
    logon = run_json("fix-logon", *chosen, "--sending-time", "20260102-03:04:05.678")
    assert logon["SenderCompID"] == prod["api_key_id"]
    assert logon["RawDataLength"] == len(logon["RawData"])
    message = "\x01".join(["20260102-03:04:05.678", "A", "1", prod["api_key_id"], "KalshiNR"]).encode()
    signature = base64.b64decode(logon["RawData"], validate=True)
    assert openssl_verifies(tmp_path, prod["public_key_pem"], message, signature)
    assert failed_json(2, "fix-logon", *chosen, "--sending-time", "yesterday")["code"] == "usage"


def test_list_joins_both_sides(pin: str, sandbox: SandboxServer) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    run_json("enroll", "--name", "by-hand", *ED25519, "--offline")
    gone = run_json("enroll", "--name", "gone", "--key-type", "ed25519")
    sandbox.state.delete_key(gone["api_key_id"])
    by_name = {key["name"]: key for key in run_json("list")["keys"]}
    assert {name: key["state"] for name, key in by_name.items()} == {
        "prod": "registered",
        "by-hand": "minted",
        "gone": "gone",
        "bootstrap": "elsewhere",
    }
    assert by_name["prod"]["scopes"] == ["read", "write"]
    assert by_name["prod"]["location"].startswith('token "kalshi"')
    assert by_name["bootstrap"]["location"] == "not in this store"
    table = run_cli("list", COLUMNS="80").stdout.splitlines()
    assert len(table) == 1 + len(by_name)  # a key a line, also where the terminal is narrow
    (line,) = [line for line in table if prod["api_key_id"] in line]
    assert "registered" in line
    assert any("elsewhere" in line for line in table)


def test_without_a_bootstrap_key_a_registered_key_of_the_store_manages(
    pin: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prod = run_json("enroll", "--name", "prod", *ED25519)
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    run_json("enroll", "--name", "second", *ED25519)
    post = [seen for seen in sandbox.requests if seen.method == "POST"][-1]
    assert post.api_key_id == prod["api_key_id"]
    run_json("enroll", "--name", "third", *ED25519, "--auth", "second")


def test_without_any_key_enroll_says_where_to_get_one_and_makes_nothing(pin: str) -> None:
    error = failed_json(5, "enroll", "--name", "prod")
    assert "KALSHI_KEY_ID" in error["hint"]
    assert "--offline" in error["hint"]
    assert run_json("list")["keys"] == []


def test_below_premier(pin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer(tier="basic") as basic:
        monkeypatch.setenv("KALSHI_API_BASE_URL", basic.base_url)
        monkeypatch.setenv("KALSHI_KEY_ID", basic.bootstrap_key_id)
        monkeypatch.setenv("KALSHI_PRIVATE_KEY", basic.bootstrap_pem)
        error = failed_json(6, "enroll", "--name", "prod", *ED25519)
        assert error["code"] == "kalshi_tier"
        assert "--offline" in error["hint"]
        offline = run_cli("enroll", "--name", "prod", *ED25519, "--offline")
        assert offline.stdout.startswith("-----BEGIN PUBLIC KEY-----")
        assert "hsm-keys adopt prod --api-key-id ID" in offline.stderr
        pasted = basic.add_key("prod", offline.stdout).api_key_id
        adopted = run_json("adopt", "prod", "--api-key-id", pasted)
        assert (adopted["state"], adopted["api_key_id"]) == ("registered", pasted)
    pem = run_cli("public-key", "prod").stdout
    assert pem == offline.stdout


def test_the_exit_codes(pin: str, sandbox: SandboxServer, token: TestToken) -> None:
    with open_store(token.uri) as store:
        make_extractable(store, "leaky")
    run_json("enroll", "--name", "prod", *ED25519)
    assert failed_json(3, "list", "--token", "nope")["code"] == "store_not_found"
    assert failed_json(3, "list", "--module", "/nope.so")["code"] == "store_not_found"
    other = {"HSM_KEYS_STORE": token.uri_without_pin}
    assert failed_json(2, "list", "--module", "/nope.so", **other)["message"].startswith("--module and the URI")
    assert failed_json(3, "list", "--module", "/nope.so", HSM_KEYS_STORE="pkcs11:token=kalshi")["code"] == (
        "store_not_found"
    )
    assert run_json("list", HSM_KEYS_MODULE="", HSM_KEYS_STORE="")["keys"]
    assert failed_json(3, "list", "--slot", "77")["code"] == "store_not_found"
    assert failed_json(4, "list", HSM_KEYS_PIN_FILE="", HSM_KEYS_PIN="wrong")["code"] == "pin_incorrect"
    assert failed_json(4, "list", HSM_KEYS_PIN_FILE="")["code"] == "pin_missing"
    assert failed_json(5, "show", "nope")["code"] == "key_not_found"
    assert failed_json(5, "enroll", "--name", "prod")["code"] == "key_exists"
    assert failed_json(5, "enroll", "--name", "leaky")["code"] == "custody"
    assert failed_json(5, "sign", "GET", "/trade-api/v2/x", "--name", "leaky")["code"] == "key_not_registered"
    assert failed_json(6, "enroll", "--name", "x", KALSHI_KEY_ID="nope")["code"] == "kalshi_unauthorized"
    closed = failed_json(7, "enroll", "--name", "x", KALSHI_API_BASE_URL="http://127.0.0.1:9/trade-api/v2")
    assert closed["code"] == "network"
    assert "nothing was sent" in closed["message"]


def test_an_id_given_by_hand_stands_in_for_one_in_the_store(pin: str, sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "loose", *ED25519, "--offline")
    pasted = sandbox.add_key("loose", run_cli("public-key", "loose").stdout).api_key_id
    chosen = ("--name", "loose", "--api-key-id", pasted)
    assert run_json("sign", "GET", "/trade-api/v2/x", *chosen)["KALSHI-ACCESS-KEY"] == pasted
    assert run_json("show", "loose", "--api-key-id", pasted)["api_key_id"] == pasted


def test_several_tokens_are_warned_about_and_ambiguity_lists_them(
    softhsm: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = softhsm.init_token("one")
    softhsm.init_token("two")
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(first.pin_file))
    done = run_cli("list", "--slot", "0")
    assert done.returncode == 0
    assert "warning: slot numbers may change" in done.stderr
    error = failed_json(3, "list")
    assert error["code"] == "store_ambiguous"
    assert '"one"' in error["message"]
    assert '"two"' in error["message"]


def test_options_before_the_command_and_after_it(pin: str) -> None:
    assert (
        run_cli("--token", "kalshi", "--output", "json", "list").stdout
        == run_cli("list", "--token", "kalshi", "--output", "json").stdout
    )
    assert run_cli("--token", "nope", "list", "--token", "kalshi").returncode == 0


def test_the_pin_of_a_pipe(token: TestToken) -> None:
    command = f"{sys.executable} -m hsm_keys list --pin-file <(cat {token.pin_file})"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_terminal_is_asked_for_the_pin_by_the_name_of_the_token(token: TestToken) -> None:
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - another process
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "hsm_keys", "list"])  # noqa: S606 - no shell is the point
    shown = b""
    while b"User PIN of" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, token.pin.encode() + b"\n")
    try:
        while True:
            shown += os.read(terminal, 1024)
    except OSError:  # the terminal ends with its program
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b'token "kalshi"' in shown
    assert token.pin.encode() not in shown


def test_no_secret_shows_anywhere(pin: str, sandbox: SandboxServer, token: TestToken) -> None:
    secrets = [token.pin, sandbox.bootstrap_pem.splitlines()[1]]
    outputs = [
        run_cli("enroll", "--name", "prod", *ED25519),
        run_cli("show", "prod", "--output", "json"),
        run_cli("list"),
        run_cli("list", HSM_KEYS_PIN_FILE="", HSM_KEYS_PIN=token.pin[:-1]),
        run_cli("enroll", "--name", "x", *ED25519, KALSHI_KEY_ID="nope"),
        run_cli("enroll", "--name", "x", *ED25519, KALSHI_PRIVATE_KEY=sandbox.bootstrap_pem[:-40]),
        run_cli("enroll", "--name", "x", *ED25519, KALSHI_API_BASE_URL="http://127.0.0.1:9/trade-api/v2"),
    ]
    for done in outputs:
        shown = done.stdout + done.stderr
        assert shown
        assert "Traceback" not in shown
        for secret in [*secrets, token.pin[:-1]]:
            assert secret not in shown


def test_the_demo_tells_the_whole_story_and_leaves_the_token_as_it_was(pin: str) -> None:
    done = run_cli("demo")
    assert "warning" not in (done.stdout + done.stderr).lower()
    assert done.returncode == 0, done.stderr
    for said in (
        "listens on http://127.0.0.1:",
        "GET /portfolio/balance: 200",
        "POST /portfolio/events/orders: 201",
        "extractable: False",
        "private_half_readable: False (tried to read CKA_PRIVATE_EXPONENT, CKA_PRIME_1",
        "GET /api_keys with the headers of GET /portfolio/balance: 401",
        "proved it: Kalshi refuses its signature",
        "GET /portfolio/balance by it: 200",
        "the token is as it was",
    ):
        assert said in done.stdout
    assert run_json("list")["keys"] == []


def test_the_demo_tells_a_program_the_same_as_one_object(pin: str) -> None:
    told = run_json("demo", "--slot", "0")
    assert list(told) == ["steps"]
    assert told["steps"][-1]["step"].endswith("the token is as it was")
    assert "sensitive: True" in [line for step in told["steps"] for line in step["lines"]]
    assert failed_json(4, "demo", "--slot", "0", HSM_KEYS_PIN_FILE="")["code"] == "pin_missing"


def test_the_sandbox_command_prints_lines_for_the_shell(pin: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "hsm_keys", "sandbox", "--port", "0", "--key-type", "ed25519", *FAULT],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as server:
        assert server.stdout is not None
        exports = [server.stdout.readline().strip() for _ in range(4)]
        assert all(line.startswith("export KALSHI_") for line in exports)
        environment = dict(line.removeprefix("export ").split("=", 1) for line in exports)
        pem = environment["KALSHI_PRIVATE_KEY_PATH"].strip("'")
        environment["KALSHI_PRIVATE_KEY_PATH"] = pem
        assert Path(pem).stat().st_mode & 0o777 == 0o600
        given = run_json("enroll", "--name", "prod", **environment)  # the 429 was tried again: it is a GET
        assert given["state"] == "registered"
        server.terminate()
        assert server.wait(30) == 0
    assert not Path(pem).exists()


def test_the_sandbox_has_the_same_port_each_time_and_says_when_it_is_taken() -> None:
    with socket.socket() as first, suppress(OSError):  # somebody else may have it already: that will do, too
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", DEFAULT_PORT))
        first.listen()
        done = run_cli("sandbox")
    assert done.returncode == 2
    assert f"port {DEFAULT_PORT} " in done.stderr
    assert "--port" in done.stderr
    assert f"[default: {DEFAULT_PORT}]" in run_cli("sandbox", "--help").stdout


@pytest.mark.parametrize(
    "words",
    [
        ("enroll", "x", "--scope", "nonsense"),
        ("enroll", "x", "--subaccount", "64"),
        ("enroll", "a+b", "--offline"),
        ("generate", "x", "--scope", "write"),
        ("generate", "a/b"),
        ("generate", "x", "--to-file", "/no/such/folder/x.pem"),
        ("migrate", "x", "--yes", "--scope", "nonsense"),
        ("init", "x", "--yes", "--scope", "nonsense"),
        ("adopt", "x", "--api-key-id", "a b"),
        ("rotate", "a+b"),
        ("show", "x", "--api-key-id", "a b"),
        ("sign", "GET", "/x", "x", "--api-key-id", "a b"),
        ("fix-logon", "x", "--target", "a b", "--seq", "1"),
        ("custody", "--accept", "a b"),
        ("request", "GET", "/x", "x", "--header", "nonsense"),
        ("bench", "x", "--html", "/no/such/x.html"),
        ("bench", "x", "--html", "/"),
        ("custody", "--html", "/no/such/x.html"),
        ("custody", "--html", "/"),
        ("generate", "x", "--to-file", "/"),
        ("proxy", "--name", "x", "--listen", "nonsense"),
        ("proxy", "--name", "x", "--socket", "/no/such/x.sock"),
        ("proxy", "--name", "x", "--socket", "/"),
        ("proxy", "--name", "x", "--socket", "/etc/passwd"),
        ("proxy", "--name", "x", "--socket", f"/{'x' * 110}"),
        ("proxy", "--name", "x", "--audit", "/etc/passwd"),
        ("proxy", "--name", "x", "--audit", "/etc/passwd/audit"),
        ("list", "--ws-url", "nonsense"),
        ("show", "x", "--ws-url", "nonsense"),
        ("show", "x", "--base-url", "nonsense"),
        ("proxy", "--name", "x", "--ws-url", "nonsense"),
        ("run", "--output", "json", "--name", "x", "--ws-url", "nonsense", "--", "true"),
        ("replicate", "x", "--to", "us-west-2"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_looked_for(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY", "KALSHI_PRIVATE_KEY_PATH"):
        monkeypatch.delenv(name, raising=False)
    error = failed_json(2, *words, HSM_KEYS_STORE="pkcs11:token=none?module-path=/no/such.so")
    assert "PEM to migrate" not in error["message"]


@pytest.mark.parametrize("variable", ["KALSHI_WS_URL", "KALSHI_API_BASE_URL"])
def test_a_variable_that_is_no_url_is_said_before_anything_is_looked_for(variable: str) -> None:
    changed = {variable: "nonsense", "HSM_KEYS_STORE": "pkcs11:token=none?module-path=/no/such.so"}
    assert "URL" in failed_json(2, "list", **changed)["message"]


def test_a_region_that_is_none_is_said_before_credentials_are_looked_for() -> None:
    pytest.importorskip("boto3")
    without = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/no/such"}
    error = failed_json(2, "replicate", "x", "--to", "nonsense", "--store", "awskms:///?region=us-east-1", **without)
    assert "Region" in error["message"]
