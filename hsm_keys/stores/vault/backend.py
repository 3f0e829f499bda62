"""What OpenBao and HashiCorp Vault offer to the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hsm_keys.stores.abilities import ImportsKeys, RenamesKeys
from hsm_keys.stores.access import Access
from hsm_keys.stores.candidates import Candidate
from hsm_keys.stores.policies import PolicyText, PrintsPolicies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hsm_keys.stores.base import KeyStore
    from hsm_keys.values import Secret

__all__ = ["BACKEND"]


class _Vault(PrintsPolicies):
    scheme = "vault"
    title = "OpenBao or Vault"
    example = "--store vault:///transit"
    access = Access(variables=("BAO_", "VAULT_"), in_home=(".bao-token", ".vault-token"))
    abilities = (RenamesKeys, ImportsKeys)

    command = "vault"
    policy_help = """Print the policy, as HCL, that allows exactly a workflow's calls.

    Nothing is sent. The mounts are those of --store or HSM_KEYS_STORE, else transit and secret.
    """
    policy_example = "hsm-keys vault policy --for sign --name prod | bao policy write prod-sign -"

    def candidates(
        self, options: Mapping[str, Any], env: Mapping[str, str], report: Callable[[str], None]
    ) -> list[Candidate]:
        """Return the server that the environment names."""
        del options, report
        variable = next((name for name in ("BAO_ADDR", "VAULT_ADDR") if env.get(name)), None)
        return [Candidate(f"{self.scheme}:///transit", f"the Vault that {variable} names")] if variable else []

    def open(
        self,
        uri: str | Secret,
        options: Mapping[str, Any],
        ask: Callable[[str], str] | None,
        creation: Mapping[str, Any],
    ) -> KeyStore:
        """Open the engine's keys; nothing is sent yet."""
        from hsm_keys.stores.vault import open_vault

        del options, ask, creation  # the URI and the environment say all
        return open_vault(uri)

    def policy(
        self, purpose: str, name: str | None, uri: str | None, options: Mapping[str, Any], env: Mapping[str, str]
    ) -> PolicyText:
        """Return the policy in HCL."""
        from hsm_keys.stores.vault.policy import policy
        from hsm_keys.stores.vault.uri import VaultUri

        del options, env
        mounts = VaultUri.parse(uri or f"{self.scheme}:///")
        text = policy(purpose, name, mount=mounts.mount, kv=mounts.kv)
        return PolicyText({"policy": text}, text)


BACKEND: Final = _Vault()
