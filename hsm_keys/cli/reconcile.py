"""``reconcile``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.accepting import accept_option, report_unused
from hsm_keys.cli.commands import command
from hsm_keys.cli.confirming import confirm, require_consent, yes_option
from hsm_keys.cli.options import auth_option, settings_options
from hsm_keys.cli.output import print_json, print_line, print_verdict
from hsm_keys.cli.session import account_to_look_at, connector, no_manager, opened_stores, reporting
from hsm_keys.errors import KeyProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.cli.settings import Settings
    from hsm_keys.inspecting.findings import Finding

__all__ = ["reconcile"]


@command(epilog="Example: hsm-keys reconcile --slot 0 --store 'awskms:///?region=us-east-1'")
@click.option("--fix", "fixing", is_flag=True, help="Repair what is safe: write proved API key ids beside their keys.")
@accept_option
@auth_option
@yes_option
@settings_options
@click.pass_obj
def reconcile(settings: Settings, *, fixing: bool, accepted: frozenset[str], auth: str | None, yes: bool) -> int:
    """Compare Kalshi's API keys with the stores' keys, and find what went wrong.

    For each key it tries for which API key Kalshi accepts its signature. With several --store, they are compared
    together. Nothing is changed without --fix, and nothing is ever deleted. Exits with 0 if all is as it should be or
    accepted, else with 5.
    """
    from hsm_keys.inspecting.reconcile import judge
    from hsm_keys.inspecting.snapshot import observe
    from hsm_keys.lifecycle.repairing import fix

    if fixing:
        require_consent(yes=yes)
    connect = connector(settings)
    with reporting(settings) as report, opened_stores(settings, report) as stores:
        with account_to_look_at(connect, stores, auth, report) as account:
            if account is None:
                raise no_manager(connect, stores)
            judgement = judge(observe(stores, account, report))
            findings = [_in_environment(settings, each) for each in judgement if not _is_accepted(each, accepted)]
            elsewhere = [each for each in judgement if _is_accepted(each, accepted)]
            repairs = [f"will {each.repair}" for each in findings if each.repair]
            fixed: list[Finding] = []
            if fixing and repairs:
                confirm(repairs, yes=yes, report=report)
                fixed = fix(findings, stores, account, report)
        unfixed = [each for each in findings if each not in fixed]
        if settings.as_json:
            shown = {"findings": unfixed, "fixed": fixed} | ({"accepted": elsewhere} if accepted else {})
            print_json({kind: [each.as_dict() for each in some] for kind, some in shown.items()})
        else:
            _print(unfixed, fixed, elsewhere)
        report_unused(accepted, {str(each.api_key_id) for each in elsewhere}, report)
    return KeyProblemError.exit_code if unfixed else 0


def _is_accepted(finding: Finding, accepted: frozenset[str]) -> bool:
    return finding.code == "elsewhere" and finding.api_key_id in accepted


def _in_environment(settings: Settings, finding: Finding) -> Finding:
    """Return the finding with a command that speaks to the same Kalshi."""
    chosen = {"--env": settings.env, "--base-url": settings.base_url}
    words = [word for option, value in chosen.items() if value for word in (option, value)]
    if finding.command is None or not words:
        return finding
    return replace(finding, command=f"{finding.command} {shlex.join(words)}")


def _print(unfixed: Sequence[Finding], fixed: Sequence[Finding], accepted: Sequence[Finding]) -> None:
    for finding in fixed:
        print_verdict("fixed", f" {finding.code}: {finding.repair}", colour="green")
    for finding in accepted:
        print_line(f"accepted: API key {finding.api_key_id} ({finding.name}) is elsewhere on purpose")
    for finding in unfixed:
        print_verdict(f"{finding.code}:", f" {finding.message}", colour="yellow")
        if finding.repair:
            print_line(f"  --fix can {finding.repair}")
        if finding.command:
            print_line(f"  next: {finding.command}")
    if not unfixed:
        print_verdict("all is as it should be", colour="green")
