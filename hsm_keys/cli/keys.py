"""``list``, ``show`` and ``public-key``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.enroll import key_object
from hsm_keys.cli.options import api_key_id_option, auth_option, key_name, settings_options
from hsm_keys.cli.output import print_json, print_line, print_table, report_attestation
from hsm_keys.cli.session import account_to_look_at, connector, opened_store, opened_stores, reporting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.cli.settings import Settings
    from hsm_keys.inspecting.inventory import InventoryEntry, UnusableObject

__all__ = ["list_keys", "public_key", "show"]

_STATE_COLOURS: Final = {
    "registered": "green",
    "minted": "yellow",
    "elsewhere": "yellow",
    "gone": "red",
    "unusable": "red",
}


@command(name="list", epilog="Example: hsm-keys list --slot 0 --output json")
@auth_option
@settings_options
@click.pass_obj
def list_keys(settings: Settings, *, auth: str | None) -> None:
    """List the API keys at Kalshi and the keys in the store in one table: where each private half is.

    With several --store, all of them are listed. Keys that a store holds but can't use (unreadable, without a label, or
    without their public half) are counted and named after the table.
    """
    from hsm_keys.inspecting.inventory import take_inventory
    from hsm_keys.kalshi.attestation import attestation_of
    from hsm_keys.kalshi.bootstrap_variables import bootstrap_variables

    connect = connector(settings)
    with reporting(settings) as report, opened_stores(settings, report) as stores:
        listed, attestation = None, None
        with account_to_look_at(connect, stores, auth, report) as account:
            if account is None:
                report(
                    f"no key to ask Kalshi with in the environment {connect.environment}: showing only the store (set "
                    f"{bootstrap_variables(connect.environment).id}, or enroll a key)"
                )
            else:
                listed, attestation = account.listed, attestation_of(account.answer)
        inventory = take_inventory(stores, listed, connect.environment)
        if settings.as_json:
            unusable = {"unusable": [each.as_dict() for each in inventory.unusable]} if inventory.unusable else {}
            expires = {"api_key_region_expiration_ts": attestation.expires_ts} if attestation else {}
            print_json({"keys": [entry.as_dict() for entry in inventory.entries], **unusable, **expires})
        else:
            _print_table(inventory.entries)
            _print_unusable(inventory.unusable)
        if attestation:
            report_attestation(attestation, report)


def _print_table(entries: Sequence[InventoryEntry]) -> None:
    headings = ("NAME", "API KEY ID", "ENVIRONMENT", "SCOPES", "STATE", "TYPE", "PRIVATE HALF")
    rows = [
        (
            entry.name,
            entry.api_key_id or "",
            entry.environment or "",
            ", ".join(entry.scopes or ()),
            entry.state,
            entry.key_type or "",
            entry.location,
        )
        for entry in entries
    ]
    print_table(headings, rows, verdicts=(4, _STATE_COLOURS.get))


def _print_unusable(unusable: Sequence[UnusableObject]) -> None:
    if unusable:
        print_line(f"private halves that can't be used: {len(unusable)}; the other keys work")
    for each in unusable:
        print_line(f"  {each.name} in {each.location}: {each.problem}")


@command(epilog="Example: hsm-keys show prod --slot 0")
@key_name("The key in the store.")
@api_key_id_option
@settings_options
@click.pass_obj
def show(settings: Settings, *, name: str, api_key_id: str | None) -> None:
    """Show the key NAME: URI, state, type and attributes, and which tries to read it the store refuses."""
    from hsm_keys.inspecting.custody import examine_custody

    with reporting(settings) as report, opened_store(settings, report) as store:
        key = store.key(name)
        custody = examine_custody(key)
        shown = key_object(key, custody, api_key_id or key.api_key_id)
        shown["custody"]["attributes"] = key.attributes()
        shown["environment"] = key.environment
        if settings.as_json:
            print_json(shown)
        else:
            _print_key(shown, key.remarks())


def _print_key(shown: dict[str, Any], remarks: Sequence[str]) -> None:
    for name in ("name", "api_key_id", "environment", "key_type", "state", "uri"):
        print_line(f"{name + ':':<14} {shown[name] or '-'}")
    custody = shown["custody"]
    click.echo(f"{'custody:':<14} {custody['verdict']}")
    for line in (*custody["problems"], *custody["unconfirmed"]):
        print_line(f"{'':<14} {line}")
    for remark in remarks:
        print_line(f"{'note:':<14} {remark}")
    for attribute, value in custody["attributes"].items():
        print_line(f"  {attribute + ':':<20} {'not said' if value is None else value}")
    click.echo(shown["public_key_pem"] or "", nl=False)


@command(name="public-key", epilog="Example: hsm-keys public-key prod --slot 0 > prod.pub.pem")
@key_name("The key in the store.")
@settings_options
@click.pass_obj
def public_key(settings: Settings, *, name: str) -> None:
    """Print the public half of the key NAME, as Kalshi gets it (SubjectPublicKeyInfo PEM).

    First the store signs a random text, and the signature is verified with this public half.
    """
    from hsm_keys.inspecting.custody import prove_possession

    with reporting(settings) as report, opened_store(settings, report) as store:
        key = store.key(name)
        prove_possession(key)
        pem = key.public_pem()
        if settings.as_json:
            print_json({"name": name, "public_key_pem": pem})
        else:
            click.echo(pem, nl=False)
