"""A signer that follows its name from key to key."""

from __future__ import annotations

import logging
import threading

import pytest

from hsm_keys import KalshiClient, RequestSigner
from hsm_keys.errors import KeyNotFoundError, SigningError, StoreUnavailableError, WrongEnvironmentError
from hsm_keys.signing.headers import KEY_HEADER
from tests.support.kalshi_stub import Stub

PATH = "/trade-api/v2/portfolio/balance"


class Key:
    """Signs with its own name, so that a signature can be told from another key's."""

    def __init__(self, api_key_id: str, *, broken: bool = False, environment: str | None = None) -> None:
        self.name = "prod"
        self.environment = environment
        self.api_key_id: str | None = api_key_id
        self.broken = broken

    def sign(self, message: bytes, /) -> bytes:
        if self.broken:
            raise SigningError("destroyed")
        return f"{self.api_key_id}:".encode() + message


class Name:
    """What a store answers for a name, and how often it was asked."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.looks = 0
        self.error: Exception | None = None

    def __call__(self) -> Key:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.key


@pytest.fixture
def name() -> Name:
    return Name(Key("old"))


@pytest.fixture
def signer(name: Name) -> RequestSigner:
    return RequestSigner(name.key, follow=name)


def test_nothing_is_looked_up_as_long_as_nothing_is_refused(signer: RequestSigner, name: Name) -> None:
    for _ in range(100):
        assert signer.headers("GET", PATH)[KEY_HEADER] == "old"
    assert name.looks == 0


def test_a_refused_key_is_looked_up_and_its_successor_signs(signer: RequestSigner, name: Name) -> None:
    name.key = Key("new")
    assert signer.moved_on("old")
    assert signer.headers("GET", PATH)[KEY_HEADER] == "new"
    assert (signer.api_key_id, signer.key) == ("new", name.key)
    assert signer.moved_on("old")  # told without another look
    assert name.looks == 1


def test_a_look_just_before_the_rotation_does_not_hide_it(signer: RequestSigner, name: Name) -> None:
    assert not signer.moved_on("old")
    name.key = Key("new")
    assert signer.moved_on("old")


def test_a_dead_key_is_not_looked_up_for_every_refusal(signer: RequestSigner, name: Name) -> None:
    for _ in range(50):
        assert not signer.moved_on("old")
    assert name.looks <= 4


def test_requests_that_are_refused_together_share_a_look(name: Name) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> Key:
        entered.set()
        assert go_on.wait(10)
        return name()

    signer = RequestSigner(name.key, follow=slow)
    name.key = Key("new")
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(signer.moved_on("old"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert results == [True] * 8
    assert name.looks == 1


@pytest.mark.parametrize("error", [KeyNotFoundError("gone"), StoreUnavailableError("unplugged")])
def test_a_store_that_does_not_answer_changes_nothing(signer: RequestSigner, name: Name, error: Exception) -> None:
    name.error = error
    assert not signer.moved_on("old")
    assert signer.headers("GET", PATH)[KEY_HEADER] == "old"


def test_a_key_without_id_is_no_successor(signer: RequestSigner, name: Name) -> None:
    name.key = Key("x")
    name.key.api_key_id = None
    assert not signer.moved_on("old")


def test_a_key_that_was_destroyed_is_left_before_anything_is_sent(signer: RequestSigner, name: Name) -> None:
    assert isinstance(signer.key, Key)
    signer.key.broken = True
    name.key = Key("new")
    assert signer.headers("GET", PATH)[KEY_HEADER] == "new"


def test_a_key_that_cannot_sign_and_has_no_successor_fails_as_it_did(signer: RequestSigner, name: Name) -> None:
    name.key.broken = True
    with pytest.raises(SigningError, match="destroyed"):
        signer.headers("GET", PATH)


def test_with_time_it_looks_aside_and_whoever_signs_does_not_wait(name: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("hsm_keys.signing.signer.time.monotonic", lambda: now[0])
    looked = threading.Event()

    def follow() -> Key:
        looked.set()
        return name()

    signer = RequestSigner(name.key, follow=follow)
    name.key = Key("new")
    now[0] += 29.0
    assert signer.headers("GET", PATH)[KEY_HEADER] == "old"
    assert name.looks == 0
    now[0] += 2.0
    signer.headers("GET", PATH)
    assert looked.wait(10)
    for thread in threading.enumerate():
        if thread.name == "hsm-keys-follow":
            thread.join(10)
    assert signer.headers("GET", PATH)[KEY_HEADER] == "new"
    assert name.looks == 1


def test_a_signer_without_follow_stays_with_its_key(name: Name) -> None:
    name.key.broken = False
    signer = RequestSigner(name.key)
    assert not signer.moved_on("old")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_sends_what_was_refused_again_with_the_new_key(signer: RequestSigner, name: Name, method: str) -> None:
    name.key = Key("new")
    with Stub((401, {"error": {"code": "authentication_error"}}), (200, {"balance": 1})) as stub:
        with KalshiClient(signer, base_url=stub.base_url) as client:
            answer = client.request(method, "/portfolio/events/orders", content=b'{"count":1}')
        assert answer.status_code == 200
        assert [seen.headers[KEY_HEADER] for seen in stub.arrived] == ["old", "new"]
        assert {seen.body for seen in stub.arrived} == {b'{"count":1}'}


def test_a_client_hands_out_the_refusal_where_there_is_no_new_key(signer: RequestSigner, name: Name) -> None:
    with Stub((401, {}), (200, {})) as stub, KalshiClient(signer, base_url=stub.base_url) as client:
        assert client.request("POST", "/portfolio/events/orders").status_code == 401
        assert len(stub.arrived) == 1


def test_without_a_thread_to_look_in_requests_are_signed_as_before(
    signer: RequestSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    signer._look_at = 0.0
    assert signer.headers("GET", PATH)[KEY_HEADER] == "old"


def test_a_key_of_another_environment_that_took_the_name_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    name = Name(Key("old", environment="prod"))
    signer = RequestSigner(name.key, follow=name)
    name.key = Key("new", environment="demo")
    for _ in range(2):
        assert not signer.moved_on("old")
    assert signer.headers("GET", PATH)[KEY_HEADER] == "old"
    (said,) = (record.getMessage() for record in caplog.records)  # once, and not at each look
    assert "demo" in said
    assert "prod" in said
    name.key = Key("newer", environment="prod")
    assert signer.moved_on("old")


def test_an_environment_is_said_of_the_stores_id_and_of_no_other() -> None:
    key = Key("id", environment="demo")
    assert RequestSigner(key).environment == "demo"
    assert RequestSigner(key, api_key_id="id").environment == "demo"
    assert RequestSigner(key, api_key_id="another").environment is None
    with pytest.raises(WrongEnvironmentError, match=r"demo.*prod"):
        RequestSigner(key).auth(environment="prod")
    perps = RequestSigner(Key("id", environment="demo-perps"))
    assert perps.auth(environment="demo").base_url.startswith("https://")  # one origin serves both exchanges
    with pytest.raises(WrongEnvironmentError):
        perps.auth(environment="prod")
