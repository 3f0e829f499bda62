"""``hsm-keys custody``: what it reports, how it ends, and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from hsm_keys import KeyType, open_store
from hsm_keys.inspecting.custody import CustodyReport
from hsm_keys.inspecting.custody_page import custody_page
from hsm_keys.inspecting.custody_report import ELSEWHERE, CustodyEntry, examine_account, what_scopes_allow
from hsm_keys.kalshi.models import ApiKey
from hsm_keys.signing.environments import environment_name
from hsm_keys.stores.custody_verdicts import CustodyFact, CustodyVerdict
from tests.support.cli import ED25519, failed_json, run_cli, run_json
from tests.support.ministack import REGION, account
from tests.support.oddkeys import make_extractable

if TYPE_CHECKING:
    from pathlib import Path

    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import SoftHsm, TestToken

__all__ = ["account"]  # pytest finds the fixture here

pytestmark = pytest.mark.program


@pytest.fixture
def _token(token: TestToken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))


def report(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command, and return its exit code and its keys by name."""
    import json

    done = run_cli("custody", *arguments, "--output", "json")
    told = json.loads(done.stdout)
    assert told["in_custody"] is (done.returncode == 0)
    return done.returncode, {entry["name"]: entry for entry in told["keys"]}


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_a_key_in_the_token_is_in_custody_and_a_pem_is_not(sandbox: SandboxServer) -> None:
    enrolled = run_json("enroll", "--name", "prod", *ED25519, "--scope", "read", "--scope", "write::trade")
    before = set(sandbox.state.keys)
    code, keys = report()
    assert code == 5
    prod, bootstrap = keys["prod"], keys["bootstrap"]
    assert (prod["in_custody"], prod["verdict"], prod["proved_live"], prod["made"]) == (
        True,
        "in custody",
        True,
        "in the store",
    )
    assert prod["api_key_id"] == enrolled["api_key_id"]
    assert prod["custody"]["private_half_readable"] is False
    assert prod["location"].startswith('token "kalshi" (serial ')
    assert prod["allows"] == ["see everything of the account", "trade"]
    assert (bootstrap["in_custody"], bootstrap["verdict"]) == (False, ELSEWHERE)
    assert any("transfer money" in what for what in bootstrap["allows"])
    assert set(sandbox.state.keys) == before
    assert {seen.method for seen in sandbox.requests} == {"GET", "POST"}  # the POST enrolled

    sandbox.state.delete_key(sandbox.bootstrap_key_id)
    code, keys = report("--auth", "prod")
    assert (code, set(keys)) == (0, {"prod"})


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_without_kalshi_the_stores_keys_alone_are_judged(token: TestToken) -> None:
    with open_store(token.uri) as store:
        store.generate("good", KeyType.ED25519)
    assert report("--offline")[0] == 0
    with open_store(token.uri) as store:
        make_extractable(store, "bad")
    code, keys = report("--offline")
    assert code == 5
    assert keys["good"]["in_custody"] is True
    assert "extractable" in keys["bad"]["verdict"]
    assert keys["good"]["proved_live"] is None


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_what_kalshi_made_was_imported_and_says_so(sandbox: SandboxServer) -> None:
    run_json("generate", "bot")
    _, keys = report()
    assert (keys["bot"]["made"], keys["bot"]["in_custody"]) == ("imported", False)
    assert "copies may exist" in keys["bot"]["verdict"]


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_an_id_of_another_pair_and_one_that_is_gone_are_found(sandbox: SandboxServer, token: TestToken) -> None:
    with open_store(token.uri) as store:
        other = sandbox.add_key("other", store.generate("other", KeyType.ED25519).public_pem())
        store.bind(store.generate("wrong", KeyType.ED25519), other.api_key_id, environment_name(sandbox.base_url))
        store.bind(
            store.generate("gone", KeyType.ED25519),
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            environment_name(sandbox.base_url),
        )
    _, keys = report()
    assert "another one" in keys["wrong"]["verdict"]
    assert "doesn't list" in keys["gone"]["verdict"]


@pytest.mark.softhsm
@pytest.mark.kms
@pytest.mark.usefixtures("_token")
def test_an_account_over_a_token_and_kms(sandbox: SandboxServer, account: str) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    run_json("enroll", "--name", "cloud", *ED25519, "--store", f"awskms:///?region={REGION}")
    _, keys = report("--token", "kalshi", "--store", f"awskms:///?region={REGION}")
    assert keys["prod"]["in_custody"] is keys["cloud"]["in_custody"] is True
    assert keys["cloud"]["location"] == f"AWS KMS in {REGION}"
    assert keys["cloud"]["created"].startswith("20")
    assert (keys["cloud"]["age_days"], keys["prod"]["age_days"]) == (0, None)


@pytest.mark.softhsm
@pytest.mark.parametrize("command", ["list", "custody", "reconcile"])
@pytest.mark.parametrize("named", [True, False])
def test_a_key_of_any_of_several_stores_asks_kalshi(
    softhsm: SoftHsm, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, command: str, *, named: bool
) -> None:
    one, two = softhsm.init_token("one"), softhsm.init_token("two")
    boss = run_json("enroll", "--name", "boss", "--key-type", "ed25519", "--store", two.uri)
    for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
        monkeypatch.delenv(name)
    before = len(sandbox.requests)
    auth = ["--auth", "boss"] if named else []
    done = run_cli(command, *auth, "--store", one.uri, "--store", two.uri)
    assert done.returncode == (0 if command == "list" else 5), done.stderr  # the bootstrap key is in no store
    assert {seen.api_key_id for seen in sandbox.requests[before:] if seen.path.endswith("/api_keys")} == {
        boss["api_key_id"]
    }
    assert (
        "no key called 'nobody'"
        in failed_json(5, command, "--auth", "nobody", "--store", one.uri, "--store", two.uri)["message"]
    )


@pytest.mark.softhsm
@pytest.mark.usefixtures("_token")
def test_the_page_is_written_whole_and_loads_nothing(sandbox: SandboxServer, tmp_path: Path) -> None:
    run_json("enroll", "--name", "prod", *ED25519)
    path = tmp_path / "custody.html"
    path.write_text("old")
    done = run_cli("custody", "--html", str(path))
    assert done.returncode == 5
    page = path.read_text()
    assert "1 of 2 keys are not in custody." in page
    assert not re.search(r"(?:src|href)=|url\(|<script|@import", page)
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix == ".html"] == ["custody.html"]
    assert "there is no folder" in failed_json(2, "custody", "--html", str(tmp_path / "no" / "x.html"))["message"]


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</table><h1>ok</h1>"])
def test_names_from_kalshi_are_text_and_nothing_else(evil: str) -> None:
    listed = ApiKey(api_key_id=evil, name=evil, scopes=[evil])
    entry = CustodyEntry(evil, evil, listed, evil, evil, evil, evil, None, None, evil)
    page = custody_page([entry], made_at="now", environment="https://external-api.kalshi.com/trade-api/v2")
    parser = _Text()
    parser.feed(page)
    assert not parser.tags & {"script", "img"}
    assert page.count("<h1>") == 1
    assert evil not in page


def entry(**changes: Any) -> CustodyEntry:
    listed = ApiKey(api_key_id="id", name="prod", scopes=["read", "write"])
    plain = CustodyEntry("prod", "id", listed, "a token", "rsa-2048", "in the store", None, None, True, "")
    return replace(plain, **changes)


def test_the_page_tells_full_access_and_sets_what_was_tried_apart() -> None:
    facts = (
        CustodyFact("extractable", value=False, verdict=CustodyVerdict.GOOD),
        CustodyFact(
            "private_half_readable", value=False, verdict=CustodyVerdict.GOOD, note="tried to read it: Refused"
        ),
        CustodyFact(
            "private_half_wrappable", value=True, verdict=CustodyVerdict.BAD, note="tried to wrap it: given out"
        ),
    )
    page = custody_page([entry(custody=CustodyReport(facts))], made_at="now", environment=None)
    assert "full access includes transfers" in page
    said, tried = page.split("What was tried against it")
    assert "extractable" in said.split("What the store says")[1]
    assert "private half readable" not in said
    assert "refused</span>: tried to read it: Refused" in tried
    assert "IT CAN BE DONE</span>: tried to wrap it: given out" in tried


def test_a_page_without_a_key_does_not_call_every_key_in_custody() -> None:
    page = custody_page([], made_at="now", environment=None, where=["host <1>", "SoftHSM, version 2.6"])
    assert "host &lt;1&gt; · SoftHSM, version 2.6" in page
    assert "There is no key." in page
    assert "Every key" not in page


WEEK = datetime.now(UTC) - timedelta(days=7, hours=1)


@pytest.mark.parametrize(
    ("said", "age"),
    [
        (WEEK.timestamp(), 7),
        (int(WEEK.timestamp() * 1000), 7),
        (str(int(WEEK.timestamp())), 7),
        (WEEK.isoformat(), 7),
        (WEEK.replace(tzinfo=None).isoformat() + "Z", 7),
        ((WEEK + timedelta(days=30)).timestamp(), 0),
        ("last week", None),
        (1e300, None),
        (None, None),
    ],
    ids=["seconds", "milliseconds", "text", "iso", "iso-z", "future", "words", "huge", "none"],  # alike in every worker
)
def test_the_age_is_told_where_kalshi_tells_it(said: float | str | None, age: int | None) -> None:
    listed = [ApiKey(api_key_id="id", name="prod", scopes=["read"], created_ts=said)]
    (found,) = examine_account([], listed, None)
    assert found.age_days == age
    assert found.as_dict()["age_days"] == age
    page = custody_page([found], made_at="now", environment=None)
    assert ("unknown: neither the store nor Kalshi tells" in page) is (age is None)


def test_a_scope_that_is_new_is_shown_as_it_is() -> None:
    assert what_scopes_allow(["read", "write::new"]) == [
        "see everything of the account",
        "write::new (unknown to this version)",
    ]
