"""``proxy check``: what a policy makes of requests."""

from __future__ import annotations

from pathlib import Path

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import Settings, settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.errors import UsageError

__all__ = ["check"]

_path = click.Path(path_type=Path)


@command(epilog="Example: hsm-keys proxy check policy.toml GET /trade-api/v2/portfolio/balance --client maker")
@click.argument("policy", type=_path)
@click.argument("method")
@click.argument("path")
@click.option("--client", default="default", show_default=True, help="The client that asks.")
@click.option("--body", metavar="JSON", help="The body, for rules about orders.")
@settings_options
@click.pass_obj
def check(settings: Settings, *, policy: Path, method: str, path: str, client: str, body: str | None) -> int:
    """Say what a policy makes of a request, and by which rule. Exit code 0: allowed; 1: denied.

    PATH may leave out /trade-api/v2, as rules do.
    """
    import time
    from datetime import UTC, datetime

    import_extra("proxy", "hsm_keys.proxy.judge")
    from hsm_keys.kalshi.operations import find_operation
    from hsm_keys.proxy.judge import Judge
    from hsm_keys.proxy.paths import UnclearPathError, split_target, whole_path
    from hsm_keys.proxy.policy import load_policy

    judge = Judge(load_policy(policy))
    try:
        wanted, _ = split_target(whole_path(path))
    except UnclearPathError as error:
        raise UsageError(f"the path is refused: {error}", hint="give it as it goes over the wire") from None
    trades = find_operation(method, wanted).counts_as_trade
    if trades and body is None and judge.needs_body(client, method, wanted):
        raise UsageError("the policy judges the body of this request", hint="give it: --body '{...}'")
    content = None if body is None else body.encode()
    verdict = judge.judge(client, method, wanted, content, at=datetime.now(UTC), now=time.monotonic())
    if verdict.allowed:
        said = "allowed: nothing denies it" if verdict.rule == "allowed" else f"allowed, by {verdict.rule}"
    else:
        said = f"denied ({verdict.status}), by {verdict.rule}: {verdict.message}"
    if settings.as_json:
        print_json({"allowed": verdict.allowed, "rule": verdict.rule, "message": verdict.message})
    else:
        click.echo(said)
    return 0 if verdict.allowed else 1
