"""What ``request`` refuses before a token is touched: the module of the token doesn't even exist."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hsm_keys.cli import main
from tests.support.cli import failed_json

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.program


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_MODULE", "/nowhere/module.so")


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run ``request`` and return its exit code, and message and hint of its error."""
    with pytest.raises(SystemExit) as caught:
        main(["request", *arguments, "--name", "x", "--output", "json"])
    printed = capsys.readouterr()
    assert printed.out == ""
    error = json.loads(printed.err)["error"]
    assert isinstance(caught.value.code, int)
    return caught.value.code, f"{error['message']} {error['hint']}"


def test_a_request_that_can_be_sent_gets_as_far_as_the_token(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = outcome(capsys, "DELETE", "/x?a=b", "--json", "{}", "--header", "A: b", "--query", "c=d", "--include")
    assert (code, "/nowhere/module.so" in said) == (3, True)
    assert outcome(capsys, "GET", "/x", "--repeat", "2")[0] == 3
    assert outcome(capsys, "POST", "/x", "--repeat", "1")[0] == 3
    assert outcome(capsys, "get", "/x", "--all")[0] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["GET", "https://evil.example/x"], "a URL"),
        (["GET", "//evil.example/x"], "names a host"),
        (["GET", "/a/../b"], "'..'"),
        (["GET", "/a\r\nb"], "not a path"),
        (["GET", "/a?b\r\nc"], "percent-encoded"),
        (["GET", f"/x?{'a' * 70_000}"], "can't be sent"),
        (["G\r\nET", "/x"], "not an HTTP method"),
        (["TRACE", "/x"], "not a method of Kalshi's"),
        (["CONNECT", "/x"], "not a method of Kalshi's"),
        (["GET", "/x", "--query", "ab"], "NAME=VALUE"),
        (["GET", "/x", "--query", "a=b\nc"], "control character"),
        (["GET", "/x", "--header", "Accept"], "'Name: value'"),
        (["GET", "/x", "--header", ": b"], "'Name: value'"),
        (["GET", "/x", "--header", "A:"], "can't be sent"),
        (["GET", "/x", "--header", "A b: c"], "can't be sent"),
        (["GET", "/x", "--header", "A : c"], "can't be sent"),
        (["GET", "/x", "--header", "A: b\r\nC: d"], "can't be sent"),
        (["GET", "/x", "--header", "A: b\x00"], "can't be sent"),
        (["GET", "/x", "--header", "A: é"], "can't be sent"),
        (["GET", "/x", "--header", "A: b", "--header", "a: c"], "twice"),
        (["GET", "/x", "--header", "Host: evil.example"], "can't be set"),
        (["GET", "/x", "--header", "kalshi-access-key: k"], "can't be set"),
        (["GET", "/x", "--header", "Kalshi-Access-Timestamp: 1"], "can't be set"),
        (["GET", "/x", "--header", "KALSHI-ACCESS-SIGNATURE: s"], "can't be set"),
        (["POST", "/x", "--json", "{}", "--header", "Content-Length: 1"], "can't be set"),
        (["POST", "/x", "--json", "{}", "--header", "transfer-encoding: chunked"], "can't be set"),
        (["POST", "/x", "--json", "{"], "not JSON"),
        (["POST", "/x", "--json", ""], "not JSON"),
        (["POST", "/x", "--json", "NaN"], "NaN"),
        (["POST", "/x", "--json", '{"a": Infinity}'], "Infinity"),
        (["POST", "/x", "--json", '{"count": 1, "count": 2}'], "'count' is given twice"),
        (["POST", "/x", "--json", '"\udcff"'], "UTF-8"),
        (["POST", "/x", "--json", "@"], "can't be read"),
        (["POST", "/x", "--json", "@/nowhere.json"], "/nowhere.json"),
        (["POST", "/x", "--json", "@/nowhere\x00"], "can't be read"),
        (["GET", "/x", "--json", "{}"], "a GET has no body"),
        (["HEAD", "/x", "--json", "{}"], "a HEAD has no body"),
        (["POST", "/x", "--all"], "--all"),
        (["GET", "/x", "--all", "--repeat", "2"], "--repeat"),
        (["GET", "/x", "--all", "--include"], "--include"),
        (["GET", "/x", "--repeat", "0"], "--repeat"),
        (["DELETE", "/x", "--repeat", "2"], "--output json"),
        (["GET", "/x", "--api-key-id", "a b"], "API key id"),
        (["GET", "/x", "--env", "demo", "--base-url", "https://kalshi.example"], "--env and --base-url"),
    ],
)
def test_it_is_refused_before_a_token_is_touched(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, told = outcome(capsys, *arguments)
    assert (code, said in told) == (2, True), told


def test_a_file_that_is_no_json_is_not_repeated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("-----BEGIN PRIVATE KEY-----\ncanary-4711\n")
    code, told = outcome(capsys, "POST", "/x", "--json", f"@{file}")
    assert code == 2
    assert "canary" not in told
    for arguments in (["--header", "Authorization canary-4711"], ["--header", "A: canary-4711\x00"]):
        assert "canary" not in outcome(capsys, "POST", "/x", *arguments)[1]


def test_nothing_on_stdin_is_no_body() -> None:
    assert "not JSON" in failed_json(2, "request", "POST", "/x", "--name", "x", "--json", "-")["message"]
