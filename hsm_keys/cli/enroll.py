"""``enroll`` and ``adopt``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import check_new_key, creation_options, key_name, new_key_options, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.session import connector, is_environment_named, management_client, opened_store, reporting
from hsm_keys.errors import CloudError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings
    from hsm_keys.inspecting.custody import CustodyReport
    from hsm_keys.lifecycle.enroll import Enrollment
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["KEY_TYPES", "adopt", "enroll", "key_object", "print_enrollment"]

# The names of hsm_keys.signing.algorithms.KeyType; importing it here would load cryptography for --help.
KEY_TYPES = ("rsa-2048", "rsa-3072", "rsa-4096", "ed25519")


def key_object(key: StoredKey, custody: CustodyReport, api_key_id: str | None) -> dict[str, Any]:
    """Return the JSON object that enroll, show and adopt give."""
    return {
        "name": key.name,
        "api_key_id": api_key_id,
        "key_type": key.key_type.value,
        "state": "registered" if api_key_id else key.state.value,
        "uri": key.uri,
        "public_key_pem": _public_pem(key),
        "custody": custody.as_dict(),
    }


def _public_pem(key: StoredKey) -> str | None:
    """Return the PEM; None where a cloud's service hides it, as that of a key which is disabled or about to end."""
    try:
        return key.public_pem()
    except CloudError:
        return None


def print_enrollment(settings: Settings, enrollment: Enrollment) -> None:
    """Print the key as enroll, adopt and generate do."""
    if settings.as_json:
        print_json(key_object(enrollment.key, enrollment.custody, enrollment.api_key_id))
    else:
        print_line(f"{enrollment.key.name}  {enrollment.api_key_id}  {enrollment.key.uri}")


@command(epilog="Example: hsm-keys enroll --slot 0 --name prod")
@key_name("What to call the key, in the store and at Kalshi.")
@click.option("--key-type", type=click.Choice(KEY_TYPES), help="The key's type; rsa-2048 by default.")
@new_key_options
@click.option("--offline", is_flag=True, help="Make the key and print its PEM, to register on Kalshi's account page.")
@creation_options
@settings_options
@click.pass_obj
def enroll(
    settings: Settings,
    *,
    name: str,
    key_type: str | None,
    scopes: tuple[str, ...],
    subaccount: int | None,
    auth: str | None,
    offline: bool,
) -> None:
    """Make a key pair in the store, prove custody, register the public half, store the API key id, send a request.

    The private half never leaves the store. If enroll is killed or refused half way, the same command continues
    from there.
    """
    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle import enroll as lifecycle
    from hsm_keys.signing.algorithms import KeyType

    kind = KeyType(key_type) if key_type else None
    if offline and (scopes or subaccount is not None or auth):
        raise click.UsageError("--offline sends nothing: choose scopes and subaccount on the account page")
    check_new_key(name, scopes, subaccount)
    connect = connector(settings)
    with reporting(settings) as report, opened_store(settings, report) as store:
        if offline:
            minted = lifecycle.enroll_offline(
                store, name, kind, report, environment=connect.environment, named=is_environment_named(settings)
            )
            _print_offline(settings, store, minted, report)
            return
        with management_client(connect, [store], auth, report) as management:
            enrollment = lifecycle.enroll(
                store,
                name,
                key_type=kind,
                scopes=list(scopes) or None,
                subaccount=subaccount,
                account=Account(management, connect),
                report=report,
            )
        print_enrollment(settings, enrollment)


def _print_offline(settings: Settings, store: KeyStore, minted: Enrollment, report: Callable[[str], None]) -> None:
    if settings.as_json:
        print_json(key_object(minted.key, minted.custody, None))
    else:
        click.echo(minted.key.public_pem(), nl=False)
    where = f" in the environment {minted.key.environment}" if minted.key.environment else ""
    report(
        f"next: paste the PEM on Kalshi's account page{where} (API keys, own public key), copy the API key id, and run"
    )
    report(f"  hsm-keys adopt {minted.key.name} --api-key-id ID --store {shlex.quote(store.uri)}")


@command(epilog="Example: hsm-keys adopt prod --slot 0 --api-key-id 3f8a4f1e-0c53-4b5e-9d43-0d1a5a1b2c3d")
@key_name("The key in the store.")
@click.option("--api-key-id", required=True, metavar="ID", help="The id that Kalshi's account page shows.")
@settings_options
@click.pass_obj
def adopt(settings: Settings, *, name: str, api_key_id: str) -> None:
    """Bind an API key id that was registered by hand to the key NAME, after proving that they belong together."""
    from hsm_keys.lifecycle import enroll as lifecycle
    from hsm_keys.signing.api_key_ids import check_api_key_id

    api_key_id = check_api_key_id(api_key_id, "--api-key-id")
    connect = connector(settings)
    with reporting(settings) as report, opened_store(settings, report) as store:
        enrollment = lifecycle.adopt(
            store, name, api_key_id, environment=connect.environment, connect=connect, report=report
        )
        print_enrollment(settings, enrollment)
