"""``revoke``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.confirming import confirm, require_consent, yes_option
from hsm_keys.cli.options import auth_option, key_name, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.session import connector, management_signer, no_manager, opened_store, reporting
from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.lifecycle.revocation_plan import Revocation
    from hsm_keys.stores.base import KeyStore

__all__ = ["revoke"]


@command(epilog="Example: hsm-keys revoke old-bot --slot 0 --destroy")
@key_name("The key to revoke, or its API key id.", metavar="NAME_OR_ID")
@click.option(
    "--destroy", is_flag=True, help="Destroy the private half in the store too: at once, or on KMS after 7 days."
)
@click.option("--force", is_flag=True, help="Also end the last key that can manage API keys.")
@click.option(
    "--never-registered",
    is_flag=True,
    help="With --destroy: confirm that the pair was never registered in any environment, if its store can't tell.",
)
@auth_option
@yes_option
@settings_options
@click.pass_obj
def revoke(
    settings: Settings,
    *,
    name: str,
    destroy: bool,
    force: bool,
    never_registered: bool,
    auth: str | None,
    yes: bool,
) -> None:
    """End an API key at Kalshi, and prove that it is dead.

    Give the key's name in the store, its API key id, or its name at Kalshi. If revoke is killed half way, the same
    command continues from there.
    """
    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle.revocation_plan import RevocationPlanner
    from hsm_keys.lifecycle.revoke import Revoker, discard, finish_offline

    if never_registered and not destroy:
        raise UsageError(
            "--never-registered says that there is no API key to revoke, so it needs --destroy",
            hint="give both to destroy the pair in the store",
        )
    require_consent(yes=yes)
    connect = connector(settings)
    with reporting(settings) as report, opened_store(settings, report) as store:
        outcome = finish_offline(store, name, connect.environment, report) if destroy else None
        if outcome is None:
            signer = management_signer(connect, [store], auth, report, avoid=name)
            if signer is None and never_registered:
                lines = [f"the pair {name!r} in {store.describe()}, of which Kalshi isn't asked", _destruction(store)]
                confirm(lines, yes=yes, report=report)
                outcome = discard(store, name, connect.environment, report)
            elif signer is None:
                raise no_manager(connect, [store])
            else:
                with connect(signer) as management:
                    account = Account(management, connect)
                    planner = RevocationPlanner(store, account, report)
                    plan = planner.plan(name, destroy=destroy, force=force, never_registered=never_registered)
                    confirm(_consequences(plan, store, management), yes=yes, report=report)
                    outcome = Revoker(store, account, report).carry_out(plan)
        if settings.as_json:
            print_json(outcome.as_dict())
        else:
            ended = "revoked" if outcome.revoked else "never registered"
            print_line(
                f"{outcome.name or '-'}  {outcome.api_key_id or '-'}  {ended}  private half: {outcome.private_half}"
            )


def _consequences(plan: Revocation, store: KeyStore, management: KalshiClient) -> list[str]:
    """Return what will stop working, for people."""
    target = plan.target
    lines = [target.explanation] if target.explanation else []
    if target.api_key_id is not None:
        lines += _api_key_lines(plan, management)
    if target.key is None:
        lines.append(f"  private half: not in {store.describe()}: elsewhere, such as in a PEM file")
    else:
        lines.append(f"  private half: {target.key.name!r} in {store.describe()}")
    if target.listing is not None:
        lines.append("every program that signs with it gets 401 from then on")
        if target.api_key_id == management.signer.api_key_id:
            lines.append("it is the key that signs this very call: the next one needs another key (--auth)")
    if plan.destroy and target.key is not None:
        lines.append(_destruction(store))
    return lines


def _api_key_lines(plan: Revocation, management: KalshiClient) -> list[str]:
    target, listing = plan.target, plan.target.listing
    lines = [f"API key {target.api_key_id} ({target.name or 'no name'}) at {management.base_url}"]
    if listing is None:
        return [*lines, "  Kalshi doesn't list it: whether it is dead has still to be proved"]
    binding = _bound_to(listing)
    managers = ", ".join(f"{entry.name} ({entry.api_key_id})" for entry in plan.managers)
    return [
        *lines,
        f"  name at Kalshi: {listing.name or '-'}",
        f"  scopes: {', '.join(listing.scopes) or 'not said'}{binding}",
        f"  keys that can manage API keys then: {managers or 'NONE: only the account page'}",
    ]


def _bound_to(listing: ApiKey) -> str:
    if listing.subaccount is not None:
        return f"; subaccount {listing.subaccount}"
    return f"; FCM subtrader {listing.fcm_subtrader_id}" if listing.fcm_subtrader_id else "; all subaccounts"


def _destruction(store: KeyStore) -> str:
    if store.deletion_days:
        return (
            f"the private half will be deleted in {store.deletion_days} days; until then the deletion can be "
            f"cancelled ({store.cancels_deletion}), and after that there is NO WAY BACK"
        )
    return "the private half will be destroyed: there is NO WAY BACK"
