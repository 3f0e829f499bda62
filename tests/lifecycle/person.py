"""Somebody with the bootstrap key of a sandbox's account, and with stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hsm_keys import KalshiClient, KeyType, RequestSigner
from hsm_keys.kalshi.account import Account
from hsm_keys.lifecycle.enroll import enroll
from hsm_keys.signing.environments import environment_name
from hsm_keys.signing.pem import PemKey

if TYPE_CHECKING:
    from hsm_keys import KeyStore
    from hsm_keys.lifecycle.enroll import Enrollment
    from hsm_keys.sandbox import SandboxServer


class Person:
    """What every command is given; each test's own kind of person carries out one of them.

    Args:
        sandbox: Kalshi.
        stores: The first is the one that commands for a single store work on.
    """

    def __init__(self, sandbox: SandboxServer, *stores: KeyStore) -> None:
        self.sandbox = sandbox
        self.stores = list(stores)
        self.said: list[str] = []
        self.environment = environment_name(sandbox.base_url)
        self.bootstrap = RequestSigner(PemKey(sandbox.bootstrap_key_id, sandbox.bootstrap_pem))

    @property
    def store(self) -> KeyStore:
        return self.stores[0]

    def connect(self, signer: RequestSigner) -> KalshiClient:
        return KalshiClient(signer, base_url=self.sandbox.base_url)

    def management(self) -> KalshiClient:
        """Return a client that the bootstrap key signs for."""
        return self.connect(self.bootstrap)

    def enroll(self, name: str = "prod", **options: Any) -> Enrollment:
        """Enroll a key: Ed25519, without scopes or subaccount, unless an option says otherwise."""
        chosen = {"key_type": KeyType.ED25519, "scopes": None, "subaccount": None, **options}
        with self.management() as management:
            return enroll(
                self.store, name, account=Account(management, self.connect), report=self.said.append, **chosen
            )

    def registered(self, name: str) -> list[str]:
        """Return the ids of the API keys of that name that live at Kalshi."""
        return [key.api_key_id for key in self.sandbox.state.keys.values() if key.name == name]
