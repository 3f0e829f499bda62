"""What proves that an API key is dead, as a table of answers; and everything else, which proves nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import stamina
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsm_keys import KalshiClient, RequestSigner
from hsm_keys.errors import (
    EndNotProvedError,
    HsmKeysError,
    KalshiError,
    NetworkError,
    OutcomeUnknownError,
    WrongEnvironmentError,
)
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle import ending
from hsm_keys.lifecycle.ending import end_api_key
from hsm_keys.lifecycle.to_file import PemFileKey
from hsm_keys.signing.environments import environment_name
from hsm_keys.signing.pem import PemKey
from tests.support.kalshi_stub import Stub, hang_up, send

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

PEM = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OURS, BOSS = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d", "8a1e2b3c-0c53-4b5e-9d43-0d1a5a1b2c3d"

_PAGE = b"<html><head><title>Request blocked</title></head><body>gateway</body></html>"


def _said(status: int, code: str, details: str = "") -> tuple[int, Any]:
    return status, {"error": {"code": code, "message": code, "details": details, "service": "auth"}}


def listing(*ids: str) -> tuple[int, Any]:
    return 200, {"api_keys": [{"api_key_id": each, "name": "n", "scopes": ["read", "write"]} for each in ids]}


TAKEN: Any = (200, {"balance": 1})
UNKNOWN: Any = _said(401, "authentication_error", "NOT_FOUND")
NO_SUCH_KEY: Any = (404, {"code": "not_found", "message": "API key not found"})
DELETED: Any = (204, b"")
WITH, WITHOUT = listing(BOSS, OURS), listing(BOSS)

# What may come with the statuses that mean an end, and isn't Kalshi's word for it.
NO_PROOF: dict[str, Any] = {
    "a wrong signature": _said(401, "authentication_error", "INCORRECT_API_KEY_SIGNATURE"),
    "a 401 that says no more": _said(401, "authentication_error"),
    "another error with the same details": _said(401, "session_error", "NOT_FOUND"),
    "the clock": _said(401, "header_timestamp_expired"),
    "a page with 401": (401, _PAGE),
    "a page with 403": (403, _PAGE),
    "a page with 404": (404, _PAGE),
    "a page with 200": (200, _PAGE),
    "a gateway's 401": (401, {"message": "Unauthorized"}),
    "a gateway's 404": (404, {"detail": "Not Found"}),
    "another server's success": (200, {"status": "ok"}),
    "too many requests": (429, {"error": "too many requests"}),
    "Kalshi in trouble": (500, {"code": "internal", "message": "oops"}),
    "nobody": hang_up,
}


@dataclass
class Answers:
    """What a Kalshi answers, each in turn, and the last one for ever."""

    lists: list[Any]
    delete: Any = DELETED
    signed: list[Any] = field(default_factory=lambda: [UNKNOWN])

    def give(self, handler: BaseHTTPRequestHandler) -> None:
        def next_of(answers: list[Any]) -> Any:
            return answers.pop(0) if len(answers) > 1 else answers[0]

        path = handler.path.partition("?")[0]
        answer = self.delete if handler.command == "DELETE" else None
        answer = answer or next_of(self.lists if path.endswith("/api_keys") else self.signed)
        if callable(answer):
            answer(handler)
        else:
            send(handler, *answer)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stamina.set_testing(True, attempts=1)
    monkeypatch.setattr(ending, "SETTLE_S", 0)
    yield
    stamina.set_testing(False)


@dataclass
class Kalshi:
    """A stub that answers in place of Kalshi, and the end of one API key there."""

    stub: Stub
    said: list[str] = field(default_factory=list)

    def connect(self, signer: RequestSigner) -> KalshiClient:
        return KalshiClient(signer, base_url=self.stub.base_url)

    def end(self, *, by: str = BOSS, private_half: bool = True, environment: str = "", begun: bool = False) -> None:
        key = PemFileKey("k", Path("/k"), PEM, OURS, environment or environment_name(self.stub.base_url))
        with self.connect(RequestSigner(PemKey(by, PEM))) as management:
            end_api_key(
                Account(management, self.connect), OURS, key if private_half else None, self.said.append, begun=begun
            )

    @property
    def proved(self) -> bool:
        return any("proved it" in line for line in self.said)

    def sent(self) -> list[str]:
        return [arrived.method for arrived in self.stub.arrived]


@pytest.mark.parametrize(
    ("lists", "delete"),
    [
        ([WITH, WITHOUT], DELETED),
        ([WITH, WITHOUT], NO_SUCH_KEY),  # somebody else deleted it at the same moment
        ([WITH, WITHOUT], hang_up),
        ([WITH, WITHOUT], (404, _PAGE)),
        ([WITHOUT], NO_SUCH_KEY),  # an earlier run deleted it
        ([WITHOUT, WITHOUT], DELETED),  # it was too new to be listed
    ],
)
def test_the_list_and_kalshis_own_words_together_prove_an_end(lists: list[Any], delete: Any) -> None:
    with Stub(Answers(list(lists), delete).give) as stub:
        kalshi = Kalshi(stub)
        kalshi.end()
    assert kalshi.proved
    assert kalshi.sent().count("DELETE") == 1


@pytest.mark.parametrize("answer", NO_PROOF.values(), ids=NO_PROOF)
@pytest.mark.parametrize("lists", [[WITH, WITHOUT], [WITHOUT]], ids=["lived", "gone already"])
def test_any_other_answer_to_the_keys_signature_proves_nothing(answer: Any, lists: list[Any]) -> None:
    delete = DELETED if len(lists) > 1 else NO_SUCH_KEY
    with Stub(Answers(list(lists), delete, [answer]).give) as stub:
        kalshi = Kalshi(stub)
        with pytest.raises(EndNotProvedError, match="Nothing was destroyed") as caught:
            kalshi.end()
    assert not kalshi.proved
    assert (caught.value.exit_code, caught.value.code) == (7, "end_not_proved")


def test_the_error_says_what_answered() -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.version_string = lambda: "CloudFront"  # type: ignore[method-assign]
        send(handler, 404, _PAGE)

    with Stub(Answers([WITH, WITHOUT], DELETED, [page]).give) as stub, pytest.raises(EndNotProvedError) as caught:
        Kalshi(stub).end()
    assert "CloudFront" in caught.value.message
    assert "Request blocked" in caught.value.message


@pytest.mark.parametrize("answer", NO_PROOF.values(), ids=NO_PROOF)
def test_any_other_answer_than_the_list_ends_it_before_anything_is_deleted(answer: Any) -> None:
    with Stub(Answers([answer]).give) as stub:
        kalshi = Kalshi(stub)
        with pytest.raises((KalshiError, NetworkError)):
            kalshi.end()
        with pytest.raises((KalshiError, NetworkError)):
            kalshi.end(private_half=False)
    assert "DELETE" not in kalshi.sent()
    assert kalshi.said == []


@pytest.mark.parametrize("answer", NO_PROOF.values(), ids=NO_PROOF)
def test_a_deletion_that_kalshi_did_not_confirm_proves_nothing_while_the_key_is_listed(answer: Any) -> None:
    with Stub(Answers([WITH], answer).give) as stub:
        kalshi = Kalshi(stub)
        with pytest.raises((KalshiError, OutcomeUnknownError)):
            kalshi.end()
    assert kalshi.said == []


def test_a_list_that_is_not_the_accounts_proves_nothing() -> None:
    """It doesn't name the API key that signed for it: an empty object reads like an empty list."""
    for wrong in (listing(), listing("another"), (200, {}), (200, {"api_keys": None})):
        with Stub(Answers([wrong], NO_SUCH_KEY).give) as stub:
            kalshi = Kalshi(stub)
            with pytest.raises(EndNotProvedError, match="doesn't have"):
                kalshi.end()
        assert "DELETE" not in kalshi.sent()


def test_a_key_that_is_still_taken_or_listed_is_not_dead() -> None:
    for lists, signed in (([WITH, WITHOUT], TAKEN), ([WITHOUT], TAKEN), ([WITH], UNKNOWN)):
        with Stub(Answers(list(lists), NO_SUCH_KEY, [signed]).give) as stub:
            kalshi = Kalshi(stub)
            with pytest.raises(KalshiError, match="isn't dead"):
                kalshi.end()
        assert not kalshi.proved


def test_a_key_that_is_not_known_everywhere_yet_is_not_taken_for_dead() -> None:
    """It was registered a moment ago: the first looks miss it, the next ones don't."""
    looks: list[tuple[list[Any], list[Any]]] = [
        ([WITHOUT, WITHOUT, WITH], [UNKNOWN]),
        ([WITHOUT], [UNKNOWN, TAKEN]),
    ]
    for (lists, signed), delete in itertools.product(looks, (NO_SUCH_KEY, DELETED)):  # DELETED, and carried out later
        with Stub(Answers(list(lists), delete, list(signed)).give) as stub:
            kalshi = Kalshi(stub)
            with pytest.raises(KalshiError, match="isn't dead"):
                kalshi.end()


def test_of_another_environment_nothing_is_asked() -> None:
    with Stub(Answers([WITHOUT], NO_SUCH_KEY).give) as stub:
        kalshi = Kalshi(stub)
        with pytest.raises(WrongEnvironmentError) as caught:
            kalshi.end(environment="demo")
    assert kalshi.sent() == []
    assert "demo" in caught.value.message
    assert environment_name(stub.base_url) in caught.value.message


def test_a_key_that_signs_its_own_end_is_proved_dead_after_kalshi_listed_it() -> None:
    with Stub(Answers([WITH, UNKNOWN]).give) as stub:
        kalshi = Kalshi(stub)
        kalshi.end(by=OURS)
    assert kalshi.proved


def test_a_key_that_signs_its_own_end_and_was_never_listed_is_not_proved_dead() -> None:
    """A sandbox that was started anew says the same, and a Kalshi that doesn't know the key yet."""
    for answer in (UNKNOWN, *(each for each in NO_PROOF.values() if each is not hang_up and each[0] == 401)):
        with Stub(Answers([answer], NO_SUCH_KEY).give) as stub:
            kalshi = Kalshi(stub)
            with pytest.raises(HsmKeysError) as caught:
                kalshi.end(by=OURS)
        assert caught.value.exit_code == 7
        assert "DELETE" not in kalshi.sent()


def test_what_an_earlier_run_had_marked_is_proved_dead_by_kalshis_words_alone() -> None:
    with Stub(Answers([UNKNOWN], UNKNOWN).give) as stub:
        kalshi = Kalshi(stub)
        kalshi.end(by=OURS, begun=True)
    assert kalshi.proved
    with Stub(Answers([UNKNOWN], UNKNOWN, [TAKEN]).give) as stub, pytest.raises(KalshiError, match="isn't dead"):
        Kalshi(stub).end(by=OURS, begun=True)


def test_an_unknown_api_key_without_its_private_half_may_belong_to_another_environment() -> None:
    with Stub(Answers([WITHOUT], NO_SUCH_KEY).give) as stub:
        kalshi = Kalshi(stub)
        with pytest.raises(EndNotProvedError, match="belongs to another environment"):
            kalshi.end(private_half=False)
    assert not kalshi.proved
    for lists, delete in (([WITH, WITHOUT], DELETED), ([WITH, WITHOUT], NO_SUCH_KEY), ([WITHOUT], DELETED)):
        with Stub(Answers(list(lists), delete).give) as stub:
            kalshi = Kalshi(stub)
            kalshi.end(private_half=False)
        assert not kalshi.proved  # nobody signed
