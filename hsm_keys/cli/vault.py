"""``vault policy``: what only OpenBao and HashiCorp Vault need."""

from __future__ import annotations

import os

import click

from hsm_keys.cli.commands import group
from hsm_keys.cli.options import Settings, check_printable_name, key_name, settings_options
from hsm_keys.cli.output import print_json

__all__ = ["vault"]

# The names of hsm_keys.stores.vault.policy.PURPOSES; importing it here would load cryptography for --help.
_PURPOSES = ("sign", "enroll", "generate", "rotate", "revoke")


@group(epilog="Example: hsm-keys vault policy --for sign --name prod | bao policy write prod-sign -")
def vault() -> None:
    """Policies for OpenBao and HashiCorp Vault."""


@vault.command(epilog="Example: hsm-keys vault policy --for rotate --name prod --store vault:///transit?kv=secret")
@click.option("--for", "purpose", type=click.Choice(_PURPOSES), required=True, help="What is to be allowed.")
@key_name("The key; every key of hsm-keys by default.", required=False)
@settings_options
@click.pass_obj
def policy(settings: Settings, *, purpose: str, name: str | None) -> None:
    """Print the policy with what the workflow calls and no more, as HCL.

    Nothing is sent. The mounts are those of --store or HSM_KEYS_STORE, else transit and secret.
    """
    from hsm_keys.stores.vault.policy import policy as policy_of
    from hsm_keys.stores.vault.uri import VaultUri, is_vault

    check_printable_name(name)
    named = os.environ.get("HSM_KEYS_STORE", "")
    store = next(iter(settings.stores), named if is_vault(named) else "vault:///")
    uri = VaultUri.parse(store)
    text = policy_of(purpose, name, mount=uri.mount, kv=uri.kv)
    if settings.as_json:
        print_json({"policy": text})
    else:
        click.echo(text, nl=False)
