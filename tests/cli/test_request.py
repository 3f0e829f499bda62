"""``request`` in processes of its own: what reaches the server, what is printed, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from hsm_keys.sandbox import parse_fault
from tests.support.cli import ED25519, ROOT, failed_json, run_cli, run_json
from tests.support.kalshi_stub import send, standing_in
from tests.support.orders import add_orders, order_body

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from hsm_keys.sandbox import RecordedRequest, SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [pytest.mark.softhsm, pytest.mark.program]

ORDER = json.dumps(order_body(client_order_id="1"))
ORDERS = "/trade-api/v2/portfolio/orders"
NAMED = ("--name", "prod")


@pytest.fixture(params=["ed25519"])
def prod(
    request: pytest.FixtureRequest, token: TestToken, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A registered key, as ``enroll`` describes it, and a command line that finds the token."""
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    return run_json("enroll", *NAMED, "--key-type", request.param)


def seen(sandbox: SandboxServer, method: str, path: str) -> list[RecordedRequest]:
    return [one for one in sandbox.requests if (one.method, one.path) == (method, path)]


def public_key_of(prod: Any) -> RSAPublicKey | Ed25519PublicKey:
    key = load_pem_public_key(prod["public_key_pem"].encode())
    assert isinstance(key, RSAPublicKey | Ed25519PublicKey)
    return key


def test_the_answer_is_printed_and_the_request_was_signed(prod: Any, sandbox: SandboxServer) -> None:
    done = run_cli("request", "get", "/portfolio/balance", *NAMED)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["balance"] == 1_000_000
    assert done.stdout.endswith("}\n")
    last = sandbox.requests[-1]
    assert (last.method, last.path, last.query) == ("GET", "/trade-api/v2/portfolio/balance", "")
    assert (last.verified, last.api_key_id) == (True, prod["api_key_id"])
    run_json("request", "GET", "/trade-api/v2/portfolio/balance", *NAMED)
    assert (sandbox.requests[-1].path, sandbox.requests[-1].status) == (last.path, 200)


@pytest.mark.parametrize("prod", ["rsa-2048", "ed25519"], indirect=True)
def test_what_arrives_is_what_was_given_byte_for_byte(prod: Any, tmp_path: Path, sandbox: SandboxServer) -> None:
    body = ' {"price": 0.10, "big": 123456789012345678901234567890, "e": 1E400, "ü": "\\u00fc"}\n '
    file = tmp_path / "order.json"
    file.write_bytes(body.encode())
    ways = [(body, ""), (f"@{file}", ""), ("-", body), ("@-", body)]
    with standing_in(sandbox, (201, {})) as stub:
        for given, stdin in ways:
            posted = run_cli(
                "request",
                "POST",
                "/x?a=b+c&d=%2f",
                *NAMED,
                "--query",
                "e=f g&h=ü",
                "--json",
                given,
                "--header",
                "X-One:  two: three ",
                "--base-url",
                stub.base_url,
                stdin=stdin,
            )
            assert posted.returncode == 0, posted.stderr
        assert len(stub.arrived) == len(ways)
        for one in stub.arrived:
            assert one.body == body.encode()
            assert one.target == "/trade-api/v2/x?a=b+c&d=%2f&e=f%20g%26h%3D%C3%BC"
            assert one.headers["Content-Type"] == "application/json"
            assert one.headers["X-One"] == "two: three"
            assert one.headers["KALSHI-ACCESS-KEY"] == prod["api_key_id"]
            assert one.is_signed_by(public_key_of(prod))


def test_a_content_type_of_ones_own_stands_alone(prod: Any, sandbox: SandboxServer) -> None:
    with standing_in(sandbox, (201, {})) as stub:
        own = ("--header", "content-type: application/merge-patch+json")
        run_json("request", "PATCH", "/x", *NAMED, "--json", "{}", *own, "--base-url", stub.base_url)
        run_json("request", "POST", "/x", *NAMED, "--base-url", stub.base_url)
    types = [[v for n, v in one.headers.items() if n.lower() == "content-type"] for one in stub.arrived]
    assert types == [["application/merge-patch+json"], []]


def test_an_id_given_by_hand_stands_in_for_one_in_the_store(prod: Any, sandbox: SandboxServer) -> None:
    run_json("enroll", "--name", "loose", *ED25519, "--offline")
    pasted = sandbox.add_key("loose", run_cli("public-key", "loose").stdout).api_key_id
    run_json("request", "GET", "/portfolio/balance", "--name", "loose", "--api-key-id", pasted.upper())
    assert (sandbox.requests[-1].api_key_id, sandbox.requests[-1].verified) == (pasted, True)


def test_a_refusal_says_what_the_server_said_and_exits_with_its_class(prod: Any, sandbox: SandboxServer) -> None:
    sandbox.faults.add(parse_fault("GET /portfolio/balance:status=403:2"))
    asked = ("request", "GET", "/portfolio/balance", *NAMED)
    assert failed_json(6, *asked)["code"] == "kalshi_forbidden"
    shown = run_cli(*asked, "--include")
    assert (shown.returncode, shown.stdout) == (6, "")
    lines = shown.stderr.splitlines()
    assert lines[0] == "HTTP/1.1 403 Forbidden"
    assert 'answer: {"error": {"code": "forbidden", "message": "forbidden"}}' in lines
    assert lines[-2].startswith("error: Kalshi answered 403 to GET /trade-api/v2/portfolio/balance")
    sandbox.faults.add(parse_fault("GET /portfolio/balance:status=500"))
    assert failed_json(7, *asked)["code"] == "kalshi_server"
    sandbox.faults.add(parse_fault("POST /portfolio/events/orders:status=500"))
    assert (
        failed_json(7, "request", "POST", "/portfolio/events/orders", *NAMED, "--json", ORDER)["code"]
        == "outcome_unknown"
    )
    assert failed_json(6, "request", "GET", "/nowhere", *NAMED)["code"] == "kalshi_not_found"
    bad = run_cli("request", "POST", "/portfolio/events/orders?x=1", *NAMED, "--json", "[]")
    assert bad.returncode == 7


def test_a_refused_request_shows_its_whole_body_without_secrets(prod: Any, sandbox: SandboxServer) -> None:
    def echo(handler: BaseHTTPRequestHandler) -> None:
        said = {"code": "bad", "why": ["x" * 20] * 30, "sent": handler.headers["KALSHI-ACCESS-SIGNATURE"]}
        send(handler, 400, said, {"X-Sent": handler.headers["KALSHI-ACCESS-SIGNATURE"]})

    with standing_in(sandbox, echo) as stub:
        done = run_cli("request", "DELETE", "/x", *NAMED, "--include", "--base-url", stub.base_url)
    assert done.returncode == 6
    assert done.stderr.count("x" * 20) >= 30
    assert stub.arrived[0].headers["KALSHI-ACCESS-SIGNATURE"] not in done.stderr + done.stdout
    assert "error: Kalshi answered 400 to DELETE /trade-api/v2/x: bad" in done.stderr


def test_a_lost_answer_is_not_asked_for_again(prod: Any, sandbox: SandboxServer) -> None:
    sandbox.faults.add(parse_fault("POST /portfolio/events/orders:drop-after:1"))
    lost = failed_json(7, "request", "POST", "/portfolio/events/orders", *NAMED, "--json", ORDER)
    assert lost["code"] == "outcome_unknown"
    assert len(seen(sandbox, "POST", "/trade-api/v2/portfolio/events/orders")) == 1
    assert len(sandbox.state.orders) == 1


def test_include_prints_the_head_and_never_what_was_signed(prod: Any, sandbox: SandboxServer) -> None:
    def echo(handler: BaseHTTPRequestHandler) -> None:
        again = handler.headers["KALSHI-ACCESS-SIGNATURE"]
        send(handler, 201, b'{"a": 1.0}', {"X-Sent": f"<{again}>", "X-Two": "1"})

    with standing_in(sandbox, echo) as stub:
        asked = ("request", "PUT", "/x", *NAMED, "--include", "--base-url", stub.base_url)
        plain, object_ = run_cli(*asked), run_json(*asked)
    head, _, body = plain.stdout.partition("\n\n")
    assert head.splitlines()[0] == "HTTP/1.1 201 Created"
    assert "X-Two: 1".lower() in head.lower().splitlines()
    assert "x-sent: <[hidden]>" in head.lower().splitlines()
    assert body == '{"a": 1.0}\n'
    assert list(object_) == ["status", "headers", "body"]
    assert (object_["status"], object_["body"], object_["headers"]["x-sent"]) == (201, {"a": 1.0}, "<[hidden]>")
    for name in ("access-key", "access-timestamp", "access-signature"):
        assert name not in (plain.stdout + plain.stderr).lower()
    for one in stub.arrived:
        assert one.headers["KALSHI-ACCESS-SIGNATURE"] not in plain.stdout + plain.stderr + json.dumps(object_)


def test_a_body_is_printed_byte_for_byte_whatever_the_locale(prod: Any, sandbox: SandboxServer) -> None:
    for body, object_ in (('{"ü": 1.10}'.encode(), '{"ü": 1.10}'), (b"\x1b[1m\xff\n", None), (b"", None)):
        with standing_in(sandbox, (200, body)) as stub:
            asked = [sys.executable, "-m", "hsm_keys", "request", "GET", "/x", *NAMED, "--base-url", stub.base_url]
            environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
            plain, printed = (
                subprocess.run([*asked, *output], env=environment, capture_output=True, check=True).stdout
                for output in ([], ["--output", "json"])
            )
        assert plain == (body if body.endswith(b"\n") or not body else body + b"\n")
        if object_ is None:
            assert json.loads(printed)["status"] == 200
        else:
            assert printed.decode() == f"{object_}\n"


def test_what_a_request_does_not_need_is_not_loaded(prod: Any, sandbox: SandboxServer) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "hsm_keys", "request", "GET", "/portfolio/balance", *NAMED]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = {line.split()[-1] for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "httpx2" in loaded
    assert loaded & {"pydantic", "trio._core", "aiohttp", "boto3"} == set()


@pytest.mark.parametrize("prod", ["rsa-2048"], indirect=True)  # its signatures of one millisecond differ, too
def test_a_repeated_request_is_signed_anew_each_time(prod: Any, sandbox: SandboxServer) -> None:
    done = run_cli("request", "GET", "/portfolio/balance", *NAMED, "--repeat", "4")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert "4 answers" in done.stderr
    assert "ms the median" in done.stderr
    given = run_json("request", "GET", "/portfolio/balance", *NAMED, "--repeat", "2")
    assert [list(answer) for answer in given["answers"]] == [["status", "elapsed_ms", "body"]] * 2
    assert all(answer["body"]["balance"] == 1_000_000 and answer["elapsed_ms"] > 0 for answer in given["answers"])
    arrived = seen(sandbox, "GET", "/trade-api/v2/portfolio/balance")[-6:]
    assert all(one.verified for one in arrived)
    with standing_in(sandbox, (200, {})) as stub:
        run_json("request", "GET", "/x", *NAMED, "--repeat", "3", "--base-url", stub.base_url)
    assert len({one.headers["KALSHI-ACCESS-SIGNATURE"] for one in stub.arrived}) == 3


def test_repeating_stops_at_the_first_failure(prod: Any, sandbox: SandboxServer) -> None:
    with standing_in(sandbox, (200, {"n": 1}), (200, {"n": 2}), (404, {"code": "gone"})) as stub:
        done = run_cli("request", "GET", "/x", *NAMED, "--repeat", "9", "--base-url", stub.base_url)
    assert (done.returncode, len(stub.arrived)) == (6, 3)
    assert done.stdout == '{"n": 1}\n{"n": 2}\n'
    assert "(request 3 of 9; those before it succeeded)" in done.stderr
    with standing_in(sandbox, (200, {"n": 1}), (404, {"code": "gone"})) as stub:
        error = failed_json(6, "request", "GET", "/x", *NAMED, "--repeat", "9", "--base-url", stub.base_url)
    assert "request 2 of 9" in error["message"]


def test_what_changes_something_is_repeated_only_if_that_is_meant(prod: Any, sandbox: SandboxServer) -> None:
    order = ORDER.replace(', "client_order_id": "1"', "")
    post = ("request", "POST", "/portfolio/events/orders", *NAMED, "--json", order, "--repeat", "3")
    refused = run_cli(*post)
    assert refused.returncode == 2
    assert "carried out 3 times" in refused.stderr
    assert "--output json" in failed_json(2, *post, "--yes")["hint"]
    assert sandbox.state.orders == {}
    meant = run_cli(*post, "--yes")
    ids = [json.loads(line)["order_id"] for line in meant.stdout.splitlines()]
    assert ids == list(sandbox.state.orders)
    assert len(ids) == 3
    sandbox.faults.add(parse_fault("POST /portfolio/events/orders:drop-after:1"))
    lost = run_cli(*post, "--yes")
    assert (lost.returncode, lost.stdout) == (7, "")
    assert "request 1 of 3" in lost.stderr
    assert len(sandbox.state.orders) == 4


def test_all_follows_the_cursor_to_the_end(prod: Any, sandbox: SandboxServer) -> None:
    ids = add_orders(sandbox, 5)
    for output in ([], ["--output", "json"]):
        asked = ("/portfolio/orders?limit=2", *NAMED, "--query", "ticker=KXTEST-1", "--query", "x=A&B", "--all")
        done = run_cli("request", "GET", *asked, *output)
        assert done.returncode == 0, done.stderr
        merged = json.loads(done.stdout)
        assert [order["order_id"] for order in merged["orders"]] == ids
        assert merged["cursor"] == ""
        pages = seen(sandbox, "GET", ORDERS)[-3:]
        assert all(one.verified and one.query.startswith("limit=2&ticker=KXTEST-1&x=A%26B") for one in pages)
        assert [one.query.count("cursor=") for one in pages] == [0, 1, 1]


def test_all_gives_numbers_as_they_came(prod: Any, sandbox: SandboxServer) -> None:
    first = b'{"fills": [{"p": 0.10, "id": 123456789012345678901}], "cursor": "n=+/", "ts": 1}'
    with standing_in(sandbox, (200, first), (200, b'{"fills": [{"p": 1E400}], "cursor": null, "ts": 2.50}')) as stub:
        done = run_cli("request", "GET", "/x?cursor=old&a=1", *NAMED, "--all", "--base-url", stub.base_url)
    assert done.stdout == (
        '{"fills": [{"p": 0.10, "id": 123456789012345678901}, {"p": 1E400}], "cursor": null, "ts": 2.50}\n'
    )
    queries = [one.target.partition("?")[2] for one in stub.arrived]
    assert queries == ["cursor=old&a=1", "a=1&cursor=n%3D%2B%2F"]


def test_all_stops_at_a_cursor_that_was_given_before(prod: Any, sandbox: SandboxServer) -> None:
    with standing_in(sandbox, (200, {"a": [1], "cursor": "x"})) as stub:
        error = failed_json(7, "request", "GET", "/x", *NAMED, "--all", "--base-url", stub.base_url)
    assert "given before" in error["message"]
    assert len(stub.arrived) == 2


def test_all_prints_nothing_if_a_page_is_refused(prod: Any, sandbox: SandboxServer) -> None:
    with standing_in(sandbox, (200, {"a": [1], "cursor": "x"}), (403, {"code": "no"})) as stub:
        done = run_cli("request", "GET", "/x", *NAMED, "--all", "--base-url", stub.base_url)
    assert (done.returncode, done.stdout) == (6, "")


def test_an_interrupted_order_is_not_said_to_be_safe_to_repeat(prod: Any, sandbox: SandboxServer) -> None:
    arrived, over = threading.Event(), threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        arrived.set()
        over.wait(30)
        handler.close_connection = True

    with standing_in(sandbox, hold) as stub:
        asked = ["request", "POST", "/x", *NAMED, "--json", ORDER, "--output", "json", "--base-url", stub.base_url]
        with subprocess.Popen(
            [sys.executable, "-m", "hsm_keys", *asked],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            assert arrived.wait(30)
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=30)
            over.set()
    assert (process.returncode, printed) == (7, "")
    error = json.loads(said)["error"]
    assert error["code"] == "outcome_unknown"
    assert "may have been carried out" in error["message"]


def test_the_pin_on_stdin_is_never_taken_for_the_body(prod: Any, sandbox: SandboxServer) -> None:
    before = len(sandbox.requests)
    asked = ("request", "POST", "/portfolio/events/orders", *NAMED, "--json", "-")
    for chosen, environment in ((("--pin-file", "/dev/stdin"), {}), ((), {"HSM_KEYS_PIN_FILE": "/dev/stdin"})):
        done = run_cli(*asked, *chosen, stdin="4711", **environment)
        assert done.returncode == 2
        assert "stdin" in done.stderr
    assert len(sandbox.requests) == before
