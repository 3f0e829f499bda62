"""The module under test: SoftHSM, unless HSM_KEYS_TEST_STORE names another set-up or has a PKCS#11 URI."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hsm_keys import open_store
from hsm_keys.stores.pkcs11.probing import TokenReport, look_at
from hsm_keys.stores.uri import Pkcs11Uri
from tests.support import more_modules, opencryptoki, p11kit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys import KeyStore, StoredKey
    from tests.support.softhsm import SoftHsm, TestToken

KNOWN = ("softhsm", "opencryptoki", "p11-kit", *more_modules.NAMES)
NAMED = os.environ.get("HSM_KEYS_TEST_STORE") or "softhsm"

# It needs a token that locks and can be unlocked again.
collect_ignore = [] if NAMED == "opencryptoki" else ["test_pin_guard.py"]


@dataclass(frozen=True)
class Subject:
    """A module and a token.

    Args:
        uri: Names both, and where the PIN is.
        stop: Makes the back-end go away; None where nobody says how.
        start: Brings it back.
        wrong_pins: Whether a try of the PIN may be wasted on it.
        existing: A key that the token holds, where it makes none itself; empty otherwise.
        custody: Whether the token keeps its keys to itself.
    """

    uri: str
    stop: Callable[[], object] | None = None
    start: Callable[[], object] | None = None
    wrong_pins: bool = True
    existing: str = ""
    custody: bool = True

    def state(self) -> TokenReport:
        """Return what the token says without a login."""
        return look_at(Pkcs11Uri.parse(self.uri))


@pytest.fixture(scope="session")
def _opencryptoki() -> None:
    opencryptoki.set_up()


@pytest.fixture(scope="session")
def _another_makers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[more_modules.Setup]:
    with more_modules.set_up(NAMED, tmp_path_factory.mktemp("module")) as ready:
        yield ready


def _softhsm(request: pytest.FixtureRequest) -> Subject:
    token: TestToken = request.getfixturevalue("token")
    softhsm: SoftHsm = request.getfixturevalue("softhsm")
    away = softhsm.tokens.with_name("away")
    return Subject(token.uri, lambda: softhsm.tokens.rename(away), lambda: away.rename(softhsm.tokens))


def _runs(variable: str) -> Callable[[], object] | None:
    command = os.environ.get(variable)
    if not command:
        return None
    return lambda: subprocess.run(command, shell=True, check=True)  # noqa: S602 - whoever runs the tests wrote it


def _foreign() -> Subject:
    wrong_pins = os.environ.get("HSM_KEYS_TEST_WRONG_PINS") == "yes"
    existing = os.environ.get("HSM_KEYS_TEST_KEY", "")
    return Subject(NAMED, _runs("HSM_KEYS_TEST_STOP"), _runs("HSM_KEYS_TEST_START"), wrong_pins, existing)


@pytest.fixture
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Subject]:
    """The module and the token under test."""
    if NAMED == "softhsm":
        yield _softhsm(request)
    elif NAMED == "opencryptoki":
        request.getfixturevalue("_opencryptoki")
        yield Subject(opencryptoki.uri(), opencryptoki.stop_daemon, opencryptoki.start_daemon)
    elif NAMED == "p11-kit":
        lacking = p11kit.missing()
        assert lacking is None, lacking
        # The client module reads the address once a process: so it is the same for all tests of one.
        with p11kit.P11KitServer(request.getfixturevalue("token"), tmp_path_factory.getbasetemp() / "p11") as server:
            monkeypatch.setenv("P11_KIT_SERVER_ADDRESS", server.address)
            yield Subject(server.uri, server.kill, server.start)
    elif NAMED in more_modules.NAMES:
        ready: more_modules.Setup = request.getfixturevalue("_another_makers")
        for variable, value in ready.environment.items():
            monkeypatch.setenv(variable, value)
        yield Subject(ready.uri, existing=ready.existing, custody=ready.custody)
    else:
        yield _foreign()


@pytest.fixture
def store(subject: Subject) -> Iterator[KeyStore]:
    """The token, logged in. It is left as it was found."""
    with open_store(subject.uri) as opened:
        before = {(key.name, key.public_pem()) for key in opened.keys()}
        yield opened
    with open_store(subject.uri) as opened:
        for key in opened.keys():
            if (key.name, key.public_pem()) not in before:
                opened.destroy(key)
        assert {(key.name, key.public_pem()) for key in opened.keys()} == before


@pytest.fixture
def key(subject: Subject, store: KeyStore, name: str) -> StoredKey:
    """A key of the token that signs: made for the test, or one that the token's own tools made."""
    return store.key(subject.existing) if subject.existing else store.generate(name)


@pytest.fixture
def makes_keys(subject: Subject) -> None:
    """For tests of what a token makes itself."""
    if subject.existing:
        pytest.skip("the keys of this token are made by its own tools")


@pytest.fixture
def name() -> str:
    """A name that no key of the token has."""
    return f"conformance-{secrets.token_hex(6)}"
