"""Local variables of raised errors, which error trackers send home, hold no secret."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

from hsm_keys import AsyncKalshiClient, KalshiClient, RequestSigner, open_store
from hsm_keys.cli.asking import TerminalPerson
from hsm_keys.errors import HsmKeysError, NetworkError, UsageError
from hsm_keys.kalshi.bootstrap import bootstrap_key_from_env
from hsm_keys.onboarding.choosing_store import choose_store
from hsm_keys.profiles.file import chosen_profile
from hsm_keys.running.programs import find_program
from hsm_keys.signing.environments import is_named, resolve
from hsm_keys.signing.pem import PemKey, load_private_key
from hsm_keys.stores.awskms.uri import AwsKmsUri
from hsm_keys.stores.isolated.process import _environment
from hsm_keys.stores.pins import PinWanted, resolve_pin
from hsm_keys.stores.pkcs11.softhsm_conf import tokens_folder
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support import ministack
from tests.support.canaries import CANARIES, PEM, PIN, pieces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from types import TracebackType

pytestmark = pytest.mark.softhsm

ID: Final = "3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d"
DEPTH: Final = 3


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if not any(one is other for other in seen):
            seen.append(one)
            left += [other for other in (one.__cause__, one.__context__) if other is not None]
    yield from seen


def _frames(traceback: TracebackType | None) -> Iterator[Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _written(value: object, depth: int = DEPTH) -> str:
    """Return what an error tracker sends of a value: its repr, and that of what our own objects hold."""
    parts = [repr(value)]
    if depth and isinstance(value, dict):
        parts += [_written(part, depth - 1) for part in value.values()]
    elif depth and isinstance(value, list | tuple | set):
        parts += [_written(part, depth - 1) for part in value]
    elif depth and type(value).__module__.startswith("hsm_keys") and type(value).__name__ not in {"Secret", "Pin"}:
        names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
        parts += [_written(getattr(value, name, None), depth - 1) for name in names]
    return "\n".join(parts)


def check(call: Callable[[], object], secret: str) -> None:
    with pytest.raises(HsmKeysError) as caught:
        call()
    for error in _chain(caught.value):
        said = "\n".join([repr(error), str(error), *map(repr, vars(error).values())])
        assert not [piece for piece in pieces(secret) if piece in said]
        for frame in _frames(error.__traceback__):
            if "/hsm_keys/" not in frame.f_code.co_filename:
                continue
            for name, value in frame.f_locals.items():
                shown = _written(value)
                place = f"{frame.f_code.co_name}: {name}"
                assert not [piece for piece in pieces(secret) if piece in shown], place


URIS = [
    "pkcs11:token=none?pin-value={}",
    "pkcs11:token=none;token=x?pin-value={}",
    "pkcs11:token=none?pin-value={}&pin-source=file:/x",
    "pkcs11:token=none?pin-value={}&module-path=/no/such.so",
    "pkcs11:token=none?pin-value={}&module-name=x",
    "pkcs11:token=none?pin-value={}%0A",
    "pkcs11:nonsense?pin-value={}",
    "pkcs11:token=x?pin-value={}%",
    "{}",
    "awskms:///{}",
    "nothing:{}",
]


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("isolated", [False, True])
def test_a_store_that_does_not_open(uri: str, isolated: bool) -> None:
    check(lambda: open_store(uri.format(PIN), isolated=isolated), PIN)


def test_a_pin_that_the_token_refuses(monkeypatch: pytest.MonkeyPatch, token_variables: dict[str, str]) -> None:
    plain = token_variables["HSM_KEYS_STORE"].partition("&pin-source")[0]
    check(lambda: open_store(f"{plain}&pin-value={PIN}"), PIN)
    monkeypatch.setenv("HSM_KEYS_PIN", PIN)
    check(lambda: open_store(plain), PIN)


@pytest.mark.parametrize("what", CANARIES)
def test_a_uri_or_a_pin_that_cannot_be_one(what: str) -> None:
    secret = CANARIES[what]
    check(lambda: Pkcs11Uri.parse(f"pkcs11:token={secret};%"), secret)
    check(lambda: AwsKmsUri.parse(f"awskms:///?region={secret}%"), secret)
    env = {"HSM_KEYS_PIN": f"{secret}\nmore"}
    check(lambda: resolve_pin(PinWanted("t"), pin_file=None, uri=Pkcs11Uri(), ask=None, env=env), secret)
    env = {"HSM_KEYS_PIN_FILE": secret}
    check(lambda: resolve_pin(PinWanted("t"), pin_file=None, uri=Pkcs11Uri(), ask=None, env=env), secret)


def test_a_private_key_in_the_wrong_place(tmp_path: Path) -> None:
    cut = PEM[:-60]
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    path.write_text(cut)
    check(lambda: load_private_key(cut), PEM)
    check(lambda: PemKey(ID, cut), PEM)
    check(lambda: PemKey(PEM, PEM), PEM)
    check(lambda: KalshiClient.from_private_key(ID, cut), PEM)
    check(lambda: KalshiClient.from_private_key(ID, PEM, base_url="http://example.com"), PEM)
    for env in (
        {"KALSHI_KEY_ID": ID, "KALSHI_PRIVATE_KEY": cut},
        {"KALSHI_KEY_ID": PEM, "KALSHI_PRIVATE_KEY": PEM},
        {"KALSHI_KEY_ID": ID, "KALSHI_PRIVATE_KEY_PATH": PEM},
        {"KALSHI_KEY_ID": ID, "KALSHI_PRIVATE_KEY_PATH": str(path)},
        {"KALSHI_PRIVATE_KEY": PEM},
        {"KALSHI_KEY_ID": ID, "KALSHI_PRIVATE_KEY": PEM, "KALSHI_PRIVATE_KEY_PATH": "x"},
    ):
        check(partial(bootstrap_key_from_env, env), PEM)
        check(partial(KalshiClient.from_env, env), PEM)
    check(lambda: resolve(env={"KALSHI_DEMO": "perhaps", "KALSHI_PRIVATE_KEY": PEM}), PEM)


def test_a_private_key_where_a_name_an_id_or_a_path_belongs(token_variables: dict[str, str]) -> None:
    """It is refused before anything is sent or looked up, and no frame of ours holds it."""
    sent: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(str(request.url))
        return httpx2.Response(500)

    with open_store(token_variables["HSM_KEYS_STORE"]) as store:
        signer = RequestSigner(PemKey(ID, PEM))
        client = KalshiClient(signer, base_url="http://127.0.0.1:9", transport=httpx2.MockTransport(answer))
        keys = client.api_keys
        for wrong in (
            lambda: keys.create("x", PEM),
            lambda: keys.create("x", public_key=PEM.encode()),
            lambda: keys.create(PEM, "x"),
            lambda: keys.generate(PEM),
            lambda: keys.prepare_create("x", PEM),
            lambda: keys.delete(PEM),
            lambda: keys.prepare_generate(PEM),
            lambda: keys.prepare_delete(PEM),
            lambda: keys.list(fcm_subtrader_id=PEM),
            lambda: client.request("GET", PEM),
            lambda: client.request(PEM, "/x"),
            lambda: client.request("GET", "/x", params={"id": PEM}),
            lambda: client.request("POST", "/api_keys", json={"public_key": PEM}),
            lambda: client.request("POST", "/api_keys", content=PEM.encode()),
            lambda: client.prepare("GET", PEM),
            lambda: client.get_json(PEM),
            lambda: KalshiClient(signer, base_url=PEM),
            lambda: KalshiClient(signer, environment=PEM),
            lambda: RequestSigner(PemKey(ID, PEM), api_key_id=PEM),
            lambda: signer.headers("GET", PEM),
            lambda: signer.websocket_headers(PEM),
            lambda: signer.auth(base_url=PEM),
            lambda: store.key(PEM),
            lambda: store.generate(PEM),
        ):
            with pytest.raises(UsageError, match="PRIVATE key"):
                wrong()
            check(wrong, PEM)
    assert sent == []


def test_a_private_key_in_the_wrong_place_of_an_asynchronous_client() -> None:
    signer = RequestSigner(PemKey(ID, PEM))

    async def use(call: Callable[[AsyncKalshiClient], Awaitable[object]]) -> None:
        async with AsyncKalshiClient(signer, base_url="http://127.0.0.1:9") as client:
            await call(client)

    calls: list[Callable[[AsyncKalshiClient], Awaitable[object]]] = [
        lambda client: client.api_keys.create("x", PEM),
        lambda client: client.api_keys.delete(PEM),
        lambda client: client.request("GET", PEM),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="PRIVATE key"):
            asyncio.run(use(call))
        check(lambda it=call: asyncio.run(use(it)), PEM)  # type: ignore[misc]


def test_the_environment_when_no_store_can_be_chosen(tmp_path: Path) -> None:
    env = {"HSM_KEYS_PIN": PIN, "AWS_SECRET_ACCESS_KEY": PIN, "PATH": "/nowhere", "KALSHI_DEMO": "perhaps"}
    check(lambda: choose_store({"module": "/no/such.so"}, tmp_path, TerminalPerson(print, yes=True), env), PIN)
    check(lambda: find_program("nothing-like-it", env), PIN)
    check(lambda: is_named(env=env), PIN)


def test_aws_credentials_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"secret-{PIN}"
    ministack.credentials(monkeypatch, "http://127.0.0.1:9", secret=secret)
    with open_store("awskms:///?region=us-east-1&attempts=1") as store, pytest.raises(NetworkError) as caught:
        store.key("prod")
    frames = [frame for error in _chain(caught.value) for frame in _frames(error.__traceback__)]
    shown = [repr(frame.f_locals) for frame in frames if "/hsm_keys/" in frame.f_code.co_filename]
    assert shown
    assert not [each for each in shown if secret in each]


def test_the_environment_when_a_variable_of_it_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, token_variables: dict[str, str]
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "/nowhere/softhsm2.conf")
    monkeypatch.setenv("HSM_KEYS_PROFILE", "nobody")
    monkeypatch.setenv("HSM_KEYS_PIN", PIN)
    check(lambda: open_store(token_variables["HSM_KEYS_STORE"]), PIN)
    check(tokens_folder, PIN)
    check(lambda: chosen_profile(None), PIN)


def test_no_child_gets_a_pin_or_a_key_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HSM_KEYS_STORE", "HSM_KEYS_PIN", "KALSHI_PRIVATE_KEY", "KALSHI_PERPS_PRIVATE_KEY"):
        monkeypatch.setenv(name, f"pkcs11:token=x?pin-value={PIN}")
    assert PIN not in repr(_environment())


def test_a_store_that_is_not_open_yet_can_be_shown() -> None:
    from hsm_keys.stores.awskms.store import AwsKmsStore
    from hsm_keys.stores.isolated.store import IsolatedStore
    from hsm_keys.stores.pkcs11.store import Pkcs11Store

    for kind in (AwsKmsStore, IsolatedStore, Pkcs11Store):
        assert repr(kind.__new__(kind)).startswith(kind.__name__)
