"""What only looks reads Kalshi's list of API keys once, whoever signs for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from hsm_keys.kalshi.account import Account, unclaimed
from hsm_keys.kalshi.models import ApiKey, ListApiKeysResponse
from tests.support.cli import run_cli, run_json

if TYPE_CHECKING:
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

LIST = "/trade-api/v2/api_keys"


@pytest.mark.softhsm
@pytest.mark.program
@pytest.mark.parametrize("words", [("list",), ("custody",), ("reconcile",)])
@pytest.mark.parametrize("by_bootstrap", [True, False])
def test_a_command_that_looks_reads_the_list_once(
    token: TestToken,
    sandbox: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    by_bootstrap: bool,
) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri)
    run_json("enroll", "prod", "--key-type", "ed25519")
    run_json("enroll", "other", "--key-type", "ed25519")
    if not by_bootstrap:
        for name in ("KALSHI_KEY_ID", "KALSHI_PRIVATE_KEY"):
            monkeypatch.delenv(name)
    before = len(sandbox.requests)
    done = run_cli(*words)
    assert done.returncode in {0, 5}, done.stderr
    assert sum((seen.method, seen.path) == ("GET", LIST) for seen in sandbox.requests[before:]) == 1


def test_unclaimed_are_those_that_no_key_is_bound_to() -> None:
    listed = [ApiKey(api_key_id=each, name="n") for each in ("a", "b", "c")]
    assert [key.api_key_id for key in unclaimed(listed, ["b", None, "x"])] == ["a", "c"]
    assert unclaimed([], ["b"]) == []


OWN = ListApiKeysResponse(api_keys=[ApiKey(api_key_id="own", name="n")])


class Listing:
    """A client of an account with one API key, which signs for the list."""

    api_keys = property(lambda self: self)
    signer = SimpleNamespace(api_key_id="own")


def test_a_list_that_was_read_is_not_read_again() -> None:
    class Client(Listing):
        """Counts what it is asked."""

        asked = 0

        def list(self) -> object:
            self.asked += 1
            return OWN

    client = Client()
    account = Account(client, lambda _: client)  # type: ignore[arg-type, return-value]
    assert account.answer is account.answer
    assert client.asked == 1


def test_one_account_doesnt_wait_for_the_answer_to_another_one() -> None:
    begun, asked = threading.Event(), threading.Event()

    class Slow(Listing):
        """Answers once the other account has its answer."""

        def list(self) -> object:
            begun.set()
            return OWN if asked.wait(20) else None

    class Fast(Listing):
        """Answers at once."""

        def list(self) -> object:
            asked.set()
            return OWN

    slow = Account(Slow(), lambda _: None)  # type: ignore[arg-type, return-value]
    fast = Account(Fast(), lambda _: None)  # type: ignore[arg-type, return-value]
    with ThreadPoolExecutor(1) as others:
        first = others.submit(lambda: slow.answer)
        assert begun.wait(20)
        outcomes: list[object] = [fast.answer, first.result()]
    assert outcomes == [OWN, OWN]
