"""``custody``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.accepting import accept_option, report_unused
from hsm_keys.cli.commands import command
from hsm_keys.cli.options import auth_option, settings_options
from hsm_keys.cli.output import print_json, print_line, print_table, print_verdict, report_attestation
from hsm_keys.cli.pages import write_page
from hsm_keys.cli.session import account_to_look_at, connector, no_manager, opened_stores, reporting
from hsm_keys.errors import KeyProblemError
from hsm_keys.files import check_place_for
from hsm_keys.surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.cli.settings import Settings
    from hsm_keys.inspecting.custody_report import CustodyEntry

__all__ = ["custody"]


@command(epilog="Example: hsm-keys custody --slot 0 --html custody.html")
@click.option("--html", "html_path", metavar="PATH", help="Write the report as an HTML page, too.")
@click.option("--offline", is_flag=True, help="Don't ask Kalshi: report only on the stores' keys.")
@accept_option
@auth_option
@settings_options
@click.pass_obj
def custody(
    settings: Settings, *, html_path: str | None, offline: bool, accepted: frozenset[str], auth: str | None
) -> int:
    """Report where the private half of every API key is, what proves it, and which tries to read it were refused.

    With several --store, the report is about all of them. Nothing is changed, at Kalshi or in a store. Keys of other
    programs are in the report only if Kalshi accepts their signature.
    Exits with 0 only if every key is in custody or accepted, else with 5.
    """
    from datetime import UTC, datetime

    from hsm_keys.inspecting.custody_page import custody_page
    from hsm_keys.inspecting.custody_report import account_in_custody, examine_account
    from hsm_keys.kalshi.attestation import attestation_of

    if offline and auth:
        raise click.UsageError("--offline asks nobody: leave --auth out")
    if html_path:
        check_place_for(Path(html_path), "--html")
    connect = None if offline else connector(settings)
    base_url, attestation = None, None
    with reporting(settings) as report, opened_stores(settings, report) as stores:
        if connect is None:
            entries = examine_account(stores, None, None)
        else:
            with account_to_look_at(connect, stores, auth, report) as account:
                if account is None:
                    raise no_manager(connect, stores)
                base_url, listed, attestation = connect.base_url, account.listed, attestation_of(account.answer)
            entries = examine_account(stores, listed, connect, environment=connect.environment, accepted=accepted)
        made_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        if html_path:
            where = surroundings([store.software() for store in stores])
            page = custody_page(entries, made_at=made_at, environment=base_url, where=where)
            write_page(Path(html_path), page)
            report(f"wrote {html_path}")
        whole, used = account_in_custody(entries), {str(entry.api_key_id) for entry in entries if entry.accepted}
        if settings.as_json:
            print_json(
                {
                    "in_custody": whole,
                    "made_at": made_at,
                    "environment": base_url,
                    **({"accepted": sorted(used)} if accepted else {}),
                    **({"api_key_region_expiration_ts": attestation.expires_ts} if attestation else {}),
                    "keys": [entry.as_dict() for entry in entries],
                }
            )
        else:
            _print(entries, whole=whole)
        if attestation:
            report_attestation(attestation, report)
        report_unused(accepted, used, report)
    return 0 if whole else KeyProblemError.exit_code


def _print(entries: Sequence[CustodyEntry], *, whole: bool) -> None:
    rows = [
        (
            entry.name,
            entry.api_key_id or "not registered",
            entry.environment or "",
            entry.short_verdict,
            entry.made,
            "" if entry.age_days is None else f"{entry.age_days} d",
            entry.location,
        )
        for entry in entries
    ]
    headings = ("NAME", "API KEY ID", "ENVIRONMENT", "VERDICT", "MADE", "AGE", "PRIVATE HALF")
    print_table(headings, rows, verdicts=(3, _colour_of))
    for entry in entries:
        click.echo()
        _print_entry(entry)
    accepted = ", but those that are accepted elsewhere" if any(entry.accepted for entry in entries) else ""
    click.echo()
    if whole:
        print_verdict("every key is in custody", accepted, colour="green")
    else:
        print_verdict("not every key is in custody", colour="red")


def _colour_of(verdict: str) -> str:
    if verdict == "in custody":
        return "green"
    return "yellow" if verdict.endswith("(accepted)") else "red"


def _print_entry(entry: CustodyEntry) -> None:
    from hsm_keys.inspecting.custody_report import scopes_against_use, what_scopes_allow
    from hsm_keys.stores.custody_verdicts import CustodyVerdict

    accepted = "; accepted: it is there on purpose" if entry.accepted else ""
    print_line(f"{entry.name}  {entry.api_key_id or 'not registered'}: {entry.verdict}{accepted}")
    if entry.scopes:
        print_line(f"  scopes: {', '.join(entry.scopes)}: {'; '.join(what_scopes_allow(entry.scopes))}")
        if advice := scopes_against_use(entry.scopes):
            print_line(f"  scopes against use: {advice}")
    if entry.proved_live is not None:
        print_line(f"  proved live: {'yes' if entry.proved_live else 'no'}")
    facts = entry.custody.facts if entry.custody else ()
    plain = [f"{fact.name} {fact.value}" for fact in facts if fact.verdict is CustodyVerdict.GOOD and not fact.note]
    if plain:
        print_line(f"  the store says: {', '.join(plain)}")
    for fact in facts:
        if fact.note:
            print_line(f"  {fact.name}: {'not said' if fact.value is None else fact.value} ({fact.note})")
