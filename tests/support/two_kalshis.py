"""Two sandboxes that stand for two environments of Kalshi, a person with an account in each, and a store."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hsm_keys import KalshiClient, KeyType, RequestSigner
from hsm_keys.signing.environments import environment_name
from hsm_keys.signing.pem import PemKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hsm_keys import KeyStore, StoredKey
    from hsm_keys.sandbox import SandboxServer

__all__ = ["Side"]


@dataclass
class Side:
    """One environment, seen by somebody who has its bootstrap key, and a store that both environments' keys may be in.

    Args:
        sandbox: Kalshi there.
        store: The store.
    """

    sandbox: SandboxServer
    store: KeyStore
    said: list[str] = field(default_factory=list)

    @property
    def environment(self) -> str:
        return environment_name(self.sandbox.base_url)

    @property
    def variables(self) -> dict[str, str]:
        """What the sandbox has its user export."""
        return {
            "KALSHI_API_BASE_URL": self.sandbox.base_url,
            "KALSHI_KEY_ID": self.sandbox.bootstrap_key_id,
            "KALSHI_PRIVATE_KEY": self.sandbox.bootstrap_pem,
        }

    def connect(self, signer: RequestSigner) -> KalshiClient:
        return KalshiClient(signer, base_url=self.sandbox.base_url)

    @contextmanager
    def management(self) -> Iterator[KalshiClient]:
        """Give the client of the bootstrap key."""
        with self.connect(RequestSigner(PemKey(self.sandbox.bootstrap_key_id, self.sandbox.bootstrap_pem))) as client:
            yield client

    def add(self, name: str, *, api_key_name: str | None = None) -> StoredKey:
        """Enroll a key here, without the steps that don't matter."""
        key = self.store.generate(name, KeyType.ED25519)
        registered = self.sandbox.add_key(api_key_name or name.partition("+")[0], key.public_pem())
        return self.store.bind(key, registered.api_key_id, self.environment)

    def living(self) -> set[str]:
        """Return the API keys that live here, without the bootstrap key."""
        return set(self.sandbox.state.keys) - {self.sandbox.bootstrap_key_id}

    def writes(self) -> list[str]:
        """Return what was asked to change something here."""
        return [f"{seen.method} {seen.path}" for seen in self.sandbox.requests if seen.method != "GET"]
