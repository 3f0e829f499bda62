"""Enroll, rotate and revoke, killed before and after every effect and (on KMS) at random moments, and run again.

SIGKILL each time, on a token and on KMS, with Kalshi's answers lost in turn before and after the work. What is left
is read by python-pkcs11 and botocore, and judged by what the sandbox verifies.

``HSM_KEYS_TEST_KILLS=1000`` kills so many times more, a workflow and store.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pkcs11.constants import Attribute, ObjectClass

from hsm_keys import open_store
from hsm_keys.sandbox import parse_fault
from tests.support import ministack
from tests.support.cli import run_cli
from tests.support.killing import Killer
from tests.support.oddkeys import session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys import KeyStore
    from hsm_keys.sandbox import SandboxServer
    from tests.support.softhsm import TestToken

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(7200 if "HSM_KEYS_TEST_KILLS" in os.environ else 400),
]

AT_LEAST = 40
RANDOM_KILLS = int(os.environ.get("HSM_KEYS_TEST_KILLS", "0"))
FAULTS = (
    None,
    "POST /api_keys:drop-before:1",
    "POST /api_keys:drop-after:1",
    "DELETE /api_keys/{api_key}:drop-before:1",
    "DELETE /api_keys/{api_key}:drop-after:1",
)
MODULES = [
    "hsm_keys.lifecycle.registering",
    "hsm_keys.lifecycle.rotate",
    "hsm_keys.lifecycle.ending",
    "hsm_keys.lifecycle.revoke",
    "hsm_keys.stores.pkcs11.generate",
    "hsm_keys.stores.awskms.creation",
    "hsm_keys.stores.awskms.handover",
    "hsm_keys.stores.awskms.replicas",
]
EFFECTS = [
    "api_keys.create(",
    "api_keys.delete(",
    "bind(self._store",
    "generate_keypair(",
    "[Attribute.ID] = ",
    "[Attribute.LABEL] = ",
    "destroy()",
    "_store.destroy(",
    "client.create_key",
    "client.create_alias(",
    "client.schedule_key_deletion",
    "client.delete_alias",
    "client.update_alias",
    "client.tag_resource",
]


class Place(ABC):
    """A store, looked at from outside."""

    survives_any_moment = True

    def __init__(self, store: KeyStore) -> None:
        self.store = store

    @abstractmethod
    def mend(self) -> None:
        """Mend what a kill broke in the store's own software, so that the test can go on."""

    @abstractmethod
    def left_of(self, name: str) -> Counter[str]:
        """Return what the store holds under the name and its marks: labels or aliases, and how many of each."""

    def whole(self, name: str) -> Counter[str]:
        """Return what it holds of a name in order."""
        return Counter({f"private {name}": 1, f"public {name}": 1})

    def works(self, sandbox: SandboxServer, name: str) -> bool:
        """Tell whether the name signs what the sandbox verifies, as any program would use it."""
        headers = self.store.key(name).signer().headers("GET", "/trade-api/v2/portfolio/balance")
        return httpx2.get(f"{sandbox.base_url}/portfolio/balance", headers=headers).status_code == 200


class InToken(Place):
    """A token of SoftHSM, which writes its files in place: token.object at a login, an object when it is relabelled.

    Killed inside such a write, SoftHSM loses what it was writing. So in CI a token's kills fall between the calls of
    the module, and at any moment only when many kills are asked for.
    """

    survives_any_moment = False

    def __init__(self, store: KeyStore) -> None:
        super().__init__(store)
        folder = Path(os.environ["SOFTHSM2_CONF"]).parent
        (self._file,) = folder.rglob("token.object")
        self._whole = self._file.read_bytes()
        self.mended = 0

    def mend(self) -> None:
        if len(self._file.read_bytes()) < len(self._whole):
            self._file.write_bytes(self._whole)
            self.mended += 1
            print(f"SoftHSM lost token.object, {self.mended} times by now")  # noqa: T201 - shown on demand

    def left_of(self, name: str) -> Counter[str]:
        left: Counter[str] = Counter()
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            for found in session_of(self.store).get_objects({Attribute.CLASS: kind}):
                if found[Attribute.LABEL].partition("+")[0] in {name, ""}:  # "": half destroyed
                    left[f"{kind.name.partition('_')[0].lower()} {found[Attribute.LABEL]}"] += 1
        return left


class InKms(Place):
    def mend(self) -> None:
        """Nothing: the server isn't killed."""

    def left_of(self, name: str) -> Counter[str]:
        store: Any = self.store
        client = store.caller().manage(ministack.REGION)
        left: Counter[str] = Counter()
        for key in client.list_keys(Limit=1000)["Keys"]:
            if client.describe_key(KeyId=key["KeyId"])["KeyMetadata"]["KeyState"] == "Enabled":
                tags = {tag["TagKey"]: tag["TagValue"] for tag in client.list_resource_tags(KeyId=key["KeyId"])["Tags"]}
                if tags["hsm-keys:name"].partition("+")[0] == name:
                    left[f"private {tags['hsm-keys:name']}"] += 1
        for alias in client.list_aliases(Limit=100)["Aliases"]:
            parts = alias["AliasName"].split("/")
            if parts[1] == "hsm-keys" and parts[2] == name:
                left[f"public {'+'.join(parts[2:])}"] += 1
        return left


@pytest.fixture(params=[pytest.param("token", marks=pytest.mark.softhsm), pytest.param("KMS", marks=pytest.mark.kms)])
def place(request: pytest.FixtureRequest, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "token":
        token: TestToken = request.getfixturevalue("token")
        uri = token.uri_without_pin
        monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    else:
        ministack.credentials(monkeypatch, ministack.endpoint())
        uri = f"awskms:///?region={ministack.REGION}"
    monkeypatch.setenv("HSM_KEYS_STORE", uri)
    with open_store(uri) as store:
        yield (InToken if request.param == "token" else InKms)(store)


class Kills:
    """Kills a command at every place and at random moments, each time on a name of its own."""

    def __init__(self, killer: Killer, place: Place, sandbox: SandboxServer) -> None:
        self.killer = killer
        self.place = place
        self.sandbox = sandbox
        self.hit = 0
        seed = secrets.randbits(32)
        print(f"seed {seed}")  # noqa: T201 - shown when a test fails
        self._random = random.Random(seed)  # noqa: S311 - moments to be found again, not secrets

    def every(self, command: list[str], *, places: int) -> Iterator[tuple[int, str, int | None, float | None]]:
        """Run the command once, undisturbed; then give a number, a name, and where or when to kill, again and again.

        Args:
            command: Acts on the name ``whole``.
            places: What it must go through at least.
        """
        begun = time.monotonic()
        status, found = self.killer.run(command)
        lasted = time.monotonic() - begun
        assert status == 0
        assert found >= places
        number = 0
        for at in range(1, found + 1):
            yield number, f"k{number}", at, None
            number += 1
        while self.hit < AT_LEAST + RANDOM_KILLS:
            if self.place.survives_any_moment or RANDOM_KILLS:
                yield number, f"k{number}", None, self._random.uniform(0, lasted)
            else:
                yield number, f"k{number}", number % found + 1, None
            number += 1
        print(f"{self.hit} kills hit, of {number}")  # noqa: T201 - shown on demand

    def kill(self, command: list[str], number: int, at: int | None, after: float | None) -> None:
        """Run the command, and kill it there or then."""
        fault = FAULTS[number % len(FAULTS)]
        if fault is not None:
            self.sandbox.faults.add(parse_fault(fault))
        status, _ = self.killer.run(command, at, after)
        self.hit += status == -signal.SIGKILL
        self.sandbox.faults.clear()
        self.place.mend()

    def again(self, command: list[str], *, fine: tuple[int, ...] = (0,), runs: int = 3) -> int:
        """Run the command until it says that all is well, as somebody would who reads what it says."""
        for _ in range(runs):
            status, _ = self.killer.run(command)
            if status in fine:
                return status
        told = run_cli(*command)
        raise AssertionError(f"{command} ends with {status}: {told.stderr}")

    def live(self, name: str) -> list[str]:
        """Return the API keys of the name at Kalshi."""
        return [key.api_key_id for key in self.sandbox.state.keys.values() if key.name == name]


@pytest.fixture
def kills(place: Place, sandbox: SandboxServer) -> Iterator[Kills]:
    with Killer(MODULES, EFFECTS) as killer:
        yield Kills(killer, place, sandbox)


@contextmanager
def explained(name: str, at: int | None, after: float | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"{name}: killed at place {at}, or after {after} s")
        raise


def enroll(name: str) -> list[str]:
    return ["enroll", "--name", name, "--key-type", "ed25519"]


def in_order(place: Place, kills: Kills, name: str) -> str:
    """Make sure that there is one of each, and that it works; return the API key id."""
    (api_key_id,) = kills.live(name)
    assert place.left_of(name) == place.whole(name)
    assert place.store.key(name).api_key_id == api_key_id
    assert place.works(kills.sandbox, name)
    return api_key_id


def test_enroll(place: Place, kills: Kills) -> None:
    for number, name, at, after in kills.every(enroll("whole"), places=6):
        with explained(name, at, after):
            kills.kill(enroll(name), number, at, after)
            kills.again(enroll(name), fine=(0, 5))  # 5: it had ended, and says so
            in_order(place, kills, name)


def test_rotate(place: Place, kills: Kills) -> None:
    assert kills.killer.run(enroll("whole"))[0] == 0
    for number, name, at, after in kills.every(["rotate", "whole", "--grace", "0s"], places=12):
        with explained(name, at, after):
            kills.again(enroll(name))
            old = in_order(place, kills, name)
            command = ["rotate", name, "--grace", "0s"]
            kills.kill(command, number, at, after)
            assert place.works(kills.sandbox, name)  # at every moment, one of the two
            kills.again(command)
            assert in_order(place, kills, name) != old


def test_rotate_and_go_back(place: Place, kills: Kills) -> None:
    assert kills.killer.run(enroll("whole"))[0] == 0
    assert kills.killer.run(["rotate", "whole"])[0] == 0
    for number, name, at, after in kills.every(["rotate", "whole", "--abort"], places=4):
        with explained(name, at, after):
            kills.again(enroll(name))
            old = in_order(place, kills, name)
            kills.again(["rotate", name])
            command = ["rotate", name, "--abort"]
            kills.kill(command, number, at, after)
            assert place.works(kills.sandbox, name)
            kills.again(command, fine=(0, 5))  # 5: there is nothing to go back from
            assert in_order(place, kills, name) == old


def test_revoke(place: Place, kills: Kills) -> None:
    assert kills.killer.run(enroll("whole"))[0] == 0
    for number, name, at, after in kills.every(["revoke", "whole", "--destroy", "--yes"], places=3):
        with explained(name, at, after):
            kills.again(enroll(name))
            command = ["revoke", name, "--destroy", "--yes"]
            kills.kill(command, number, at, after)
            kills.again(command, fine=(0, 5))  # 5: there is no such key any more
            assert kills.live(name) == []
            assert place.left_of(name) == Counter()
