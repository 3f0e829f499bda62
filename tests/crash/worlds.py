"""An account at Kalshi and a store, that are put back to the same state before each kill."""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import botocore.session  # type: ignore[import-untyped]  # botocore has no annotations
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from hsm_keys.signing.environments import environment_name
from tests.crash.softhsm_files import torn
from tests.crash.witness import Contents, Half, in_kms, in_vault
from tests.support import ministack
from tests.support import vault as vault_support
from tests.support.killing import Effects, Killer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

    from hsm_keys.sandbox import SandboxServer
    from hsm_keys.sandbox.state import SandboxKey
    from tests.support.softhsm import SoftHsm, TestToken

NAME: Final = "prod"
KEY_TYPES: Final = ("ed25519", "rsa-2048")
_PATH: Final = "/trade-api/v2/portfolio/balance"

ENROLL: Final = ["enroll", "--name", NAME, "--output", "json"]
ROTATE: Final = ["rotate", NAME, "--output", "json"]


def _remove(folder: Path) -> None:
    """Remove a token's folder. A run that was killed may have a child that looks at the token for a moment longer."""
    for _ in range(100):
        with suppress(OSError):
            shutil.rmtree(folder)
            return
        time.sleep(0.02)
    shutil.rmtree(folder)


class World(ABC):
    """Kalshi, a store, and the process in which commands are killed.

    Args:
        sandbox: Kalshi.
        stage: How many of the commands ``enroll`` and ``rotate`` have been run when the killing begins.
        alone: The account has no bootstrap key: the store's keys sign the management calls.
    """

    effects: tuple[Effects, ...]

    def __init__(self, sandbox: SandboxServer, stage: int, *, alone: bool) -> None:
        self.sandbox = sandbox
        self.old = ""
        """The API key that was enrolled; empty if none was."""
        self.environment: dict[str, str] = {}
        """What the commands are given besides the environment."""
        self._stage = stage
        self._alone = alone
        self._bootstrap = dict(sandbox.state.keys)

    @abstractmethod
    def restore(self, key_type: str) -> None:
        """Put everything back to the state before the killing."""

    @abstractmethod
    def contents(self, message: str) -> Contents:
        """Return what is in the store, and its signatures of a message."""

    def close(self) -> None:  # noqa: B027 - nothing to do for some
        """Let go of what the world needs itself."""

    def damaged(self) -> list[str]:
        """Return what the store itself was writing when it was killed, and can't read any more."""
        return []

    def muddled(self) -> bool:
        """Tell whether runs at once have left the store itself with files that it can't show."""
        return False

    def start(self, **environment: str) -> Killer:
        """Start a process in which commands are run."""
        return Killer(Effects.KALSHI, *self.effects, **environment)

    def _set_keys(self, keys: dict[str, SandboxKey]) -> None:
        self.sandbox.faults.clear()
        self.sandbox._recorder._requests.clear()
        kept = {key_id: key for key_id, key in keys.items() if not (self._alone and key_id in self._bootstrap)}
        with self.sandbox.state._lock:
            self.sandbox.state._keys = kept

    def live(self) -> set[str]:
        """Return the API keys that live at Kalshi, without the bootstrap key."""
        return set(self.sandbox.state.keys) - set(self._bootstrap)

    def look(self) -> tuple[list[Half], list[str], set[str]]:
        """Return the store's private halves, what else is wrong there, and for which live API keys a half signs."""
        timestamp = str(time.time_ns() // 1_000_000)
        contents = self.contents(f"{timestamp}GET{_PATH}")
        works = {
            api_key_id
            for half in contents.halves
            for api_key_id in self.live()
            if half.bound == api_key_id.replace("-", "") and self._taken(api_key_id, timestamp, half.signature)
        }
        return contents.halves, contents.litter, works

    def _taken(self, api_key_id: str, timestamp: str, signature: str) -> bool:
        """Tell whether Kalshi takes a signature."""
        headers = {
            "KALSHI-ACCESS-KEY": api_key_id,
            "KALSHI-ACCESS-TIMESTAMP": timestamp,
            "KALSHI-ACCESS-SIGNATURE": signature,
        }
        url = self.sandbox.base_url + _PATH.removeprefix("/trade-api/v2")
        try:
            with urlopen(Request(url, headers=headers), timeout=10) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except HTTPError:
            return False

    def proved(self) -> set[str]:
        """Return the API keys of which Kalshi has taken a signature since the killing began."""
        return {str(seen.api_key_id) for seen in self.sandbox.requests if seen.verified and seen.status == 200}


class TokenWorld(World):
    """A SoftHSM token, put back as files."""

    effects = (Effects.TOKEN,)

    def __init__(
        self,
        sandbox: SandboxServer,
        stage: int,
        *,
        alone: bool,
        softhsm: SoftHsm,
        token: TestToken,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        super().__init__(sandbox, stage, alone=alone)
        monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
        monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
        self._token = token
        self._tokens = softhsm.tokens
        self._copies = softhsm.folder / "copies"
        self._witness = Killer()
        self._prepared = {key_type: self._prepare(key_type) for key_type in (KEY_TYPES if stage else ("",))}

    def _prepare(self, key_type: str) -> tuple[Path, dict[str, SandboxKey]]:
        copy = self._copies / (key_type or "empty")
        if not self._copies.exists():
            shutil.copytree(self._tokens, self._copies / "new")
        self._put_back(self._copies / "new", self._bootstrap)
        for command in ([*ENROLL, "--key-type", key_type], ROTATE)[: self._stage]:
            done = self._witness.run(command)
            assert done.status == 0, done.error
        assert not self.damaged()
        shutil.copytree(self._tokens, copy)
        return copy, self.sandbox.state.keys

    def _put_back(self, copy: Path, keys: dict[str, SandboxKey]) -> None:
        _remove(self._tokens)
        shutil.copytree(copy, self._tokens)
        with self.sandbox.state._lock:
            self.sandbox.state._keys = dict(keys)

    def restore(self, key_type: str) -> None:
        copy, keys = self._prepared[key_type if self._stage else ""]
        self._put_back(copy, keys)
        self._set_keys(keys)
        self.old = next((key_id for key_id in keys if key_id not in self._bootstrap), "")

    def contents(self, message: str) -> Contents:
        arguments = (self._token.module, self._token.label, self._token.pin, message)
        for _ in range(5):  # SoftHSM may be writing the token's file: what a killed run has begun may still look at it
            seen = self._witness.ask("tests.crash.witness:in_token", *arguments)
            if seen is not None:
                break
            time.sleep(0.1)
        assert seen is not None, "the token can't be read any more"
        return Contents([Half(**half) for half in seen["halves"]], seen["litter"])

    def damaged(self) -> list[str]:
        return torn(self._tokens)

    def muddled(self) -> bool:
        """One process writes an object in place while another one removes it: then it has a file, and no label."""
        files = [path for path in self._tokens.rglob("*.object") if path.name != "token.object"]
        arguments = (self._token.module, self._token.label, self._token.pin)
        return bool(len(files) != self._witness.ask("tests.crash.witness:objects_in_token", *arguments))

    def close(self) -> None:
        self._witness.__exit__(None, None, None)


class KmsWorld(World):
    """An account of KMS, new each time, that is given its keys as the README describes them."""

    effects = (Effects.KMS,)

    def __init__(self, sandbox: SandboxServer, stage: int, *, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(sandbox, stage, alone=alone)
        monkeypatch.setenv("HSM_KEYS_STORE", f"awskms:///?region={ministack.REGION}")
        self._monkeypatch = monkeypatch
        ministack.credentials(monkeypatch, ministack.endpoint())
        self._session = botocore.session.get_session()

    def restore(self, key_type: str) -> None:
        account = ministack.credentials(self._monkeypatch, ministack.endpoint())
        self.environment = {"AWS_ACCESS_KEY_ID": account}
        self._client: Any = self._session.create_client(
            "kms", region_name=ministack.REGION, aws_access_key_id=account, aws_secret_access_key="test"
        )
        with self.sandbox.state._lock:
            self.sandbox.state._keys = dict(self._bootstrap)
        names = ((), (NAME,), (NAME + "/retired", NAME))[self._stage]
        made = [self._make(name, key_type) for name in names]
        self.old = next(iter(made), "")
        self._set_keys(self.sandbox.state.keys)

    def _make(self, name: str, key_type: str) -> str:
        """Make a registered key; return its API key id."""
        spec = {"ed25519": "ECC_NIST_EDWARDS25519", "rsa-2048": "RSA_2048"}[key_type]
        key_id = self._client.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        public_key: Any = load_der_public_key(self._client.get_public_key(KeyId=key_id)["PublicKey"])
        registered = self.sandbox.state.register(NAME, public_key)
        tags = {
            "hsm-keys:name": name.replace("/", "+"),
            "hsm-keys:api-key-id": registered.api_key_id,
            "hsm-keys:environment": environment_name(self.sandbox.base_url),
        }
        self._client.tag_resource(
            KeyId=key_id, Tags=[{"TagKey": tag, "TagValue": value} for tag, value in tags.items()]
        )
        self._client.create_alias(AliasName=f"alias/hsm-keys/{name}", TargetKeyId=key_id)
        return registered.api_key_id

    def contents(self, message: str) -> Contents:
        return in_kms(self._client, message)


class VaultWorld(World):
    """A Transit and a KV engine on the real server, emptied each time, and given keys as the docs describe them.

    What is sent there is seen as what is sent to Kalshi is: both go through httpx2.
    """

    effects = ()

    def __init__(self, sandbox: SandboxServer, stage: int, *, alone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(sandbox, stage, alone=alone)
        vault_support.surround(monkeypatch)
        self._vault = vault_support.Vault()
        monkeypatch.setenv("HSM_KEYS_STORE", self._vault.uri)

    def restore(self, key_type: str) -> None:
        vault = self._vault
        for key in vault.transit_keys():
            vault.ask("POST", f"{vault.mount}/keys/{key}/config", {"deletion_allowed": True})
            vault.ask("DELETE", f"{vault.mount}/keys/{key}")
        vault.ask("DELETE", f"{vault.kv}/metadata/hsm-keys/{NAME}")
        with self.sandbox.state._lock:
            self.sandbox.state._keys = dict(self._bootstrap)
        names = ((), (NAME,), (NAME + "+retired", NAME))[self._stage]
        made = {name: self._make(name, key_type) for name in names}
        if made:
            vault.ask("POST", f"{vault.kv}/data/hsm-keys/{NAME}", {"data": {"keys": made}})
        self.old = next((str(record["api_key_id"]) for record in made.values()), "")
        self._set_keys(self.sandbox.state.keys)

    def _make(self, name: str, key_type: str) -> dict[str, Any]:
        """Make a registered key; return its record."""
        vault, transit_key = self._vault, f"hsm-keys-{NAME}_-{len(name):016x}"
        said = vault.ask("POST", f"{vault.mount}/keys/{transit_key}", {"type": key_type})["data"]["keys"]["1"]
        public_key: Any = (
            Ed25519PublicKey.from_public_bytes(b64decode(said["public_key"]))
            if key_type == "ed25519"
            else load_pem_public_key(said["public_key"].encode())
        )
        return {
            "transit_key": transit_key,
            "version": 1,
            "api_key_id": self.sandbox.state.register(NAME, public_key).api_key_id,
            "environment": environment_name(self.sandbox.base_url),
        }

    def contents(self, message: str) -> Contents:
        return in_vault(self._vault, NAME, message)


def names_of(halves: Sequence[Half]) -> list[str]:
    return sorted(half.name for half in halves)
