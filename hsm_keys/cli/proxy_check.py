"""``proxy check`` and ``proxy policy diff``: judge requests by policies, without a proxy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.commands import command, group
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.errors import HsmKeysError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from hsm_keys.cli.settings import Settings
    from hsm_keys.proxy.judge import Verdict
    from hsm_keys.proxy.ledgers import Ledger
    from hsm_keys.proxy.policy_pairs import Difference
    from hsm_keys.proxy.whatif import SupposedRequest

__all__ = ["check", "policy"]

_path = click.Path(path_type=Path)


@command(
    epilog="Example: hsm-keys proxy check policy.toml GET /trade-api/v2/portfolio/balance --client maker --explain"
)
@click.argument("policy", type=_path)
@click.argument("method", required=False)
@click.argument("path", required=False)
@click.option("--client", metavar="NAME", help="The client that sends the request.  [default: default]")
@click.option("--body", metavar="JSON", help="The body, for rules about orders.")
@click.option("--requests", type=click.File(encoding="utf-8"), help="A file of requests, JSON a line; - for stdin.")
@click.option("--explain", is_flag=True, help="Name the setting that decides, and what is left of each limit.")
@settings_options
@click.pass_obj
def check(settings: Settings, /, *, policy: Path, requests: Any, explain: bool, **one: str | None) -> int:
    """Say whether a policy allows a request, and by which rule. Exit code 0: allowed; 1: denied (one of several).

    PATH may leave out /trade-api/v2, as rules do. A line of a file has method and path, and may have client, body
    and at (a time). The requests are judged in their order, and each uses up its part of the limits.
    """
    import_extra("proxy", "hsm_keys.proxy.judge")
    from hsm_keys.proxy.whatif import read_asked

    if (requests is None) == (one["method"] is None or one["path"] is None) or (requests and any(one.values())):
        raise UsageError(
            "either one request or a file of requests is needed", hint="give METHOD and PATH, or --requests FILE"
        )
    checking = _Checking(policy, explain=explain)
    if requests is None:
        return _print_one(settings, checking.judged(_asked(checking, one)))
    try:
        judged = [{"line": number, **checking.judged(supposed)} for number, supposed in read_asked(requests)]
    except (OSError, UnicodeDecodeError):
        raise UsageError("the file of requests can't be read", hint="give JSON lines in UTF-8") from None
    denied = sum(not verdict["allowed"] for verdict in judged)
    if settings.as_json:
        print_json({"allowed": len(judged) - denied, "denied": denied, "verdicts": judged})
        return int(denied > 0)
    for verdict in judged:
        click.echo(f"{verdict['line']}: {_sentence(verdict)}")
        _echo_reasons(verdict)
    return int(denied > 0)


def _asked(checking: _Checking, one: dict[str, str | None]) -> SupposedRequest:
    from hsm_keys.kalshi.operations import find_operation
    from hsm_keys.proxy.paths import UnclearPathError, split_target, whole_path
    from hsm_keys.proxy.whatif import SupposedRequest

    method, target, body = one["method"] or "", one["path"] or "", one["body"]
    client = one["client"] or "default"
    try:
        path, _ = split_target(whole_path(target))
    except UnclearPathError as error:
        raise UsageError(
            f"the path is refused: {error}", hint="give the path as it is sent to Kalshi, percent-encoded"
        ) from None
    trades = find_operation(method, path).counts_as_trade
    if trades and body is None and checking.judge.needs_body(client, method, path):
        raise UsageError(
            "the policy judges the body of this request, and none was given", hint="give it: --body '{...}'"
        )
    return SupposedRequest(client, method, target, None if body is None else body.encode())


class _Checking:
    """Judges requests one after the other.

    Args:
        path: The policy's file.
        explain: Whether verdicts come with reasons.
    """

    def __init__(self, path: Path, *, explain: bool) -> None:
        import tomllib
        from datetime import UTC, datetime

        from hsm_keys.proxy.judge import Judge
        from hsm_keys.proxy.policy import load_policy

        self.judge = Judge(load_policy(path))
        self._written = tomllib.loads(path.read_text(encoding="utf-8"))
        self._proxies = _limits_of_proxies() if explain else []
        self._ledgers = _ledgers({proxy["name"] for proxy in self._proxies}) if explain else []
        self._explain = explain
        self._at: datetime = datetime.now(UTC)

    def judged(self, request: SupposedRequest) -> dict[str, Any]:
        """Return a verdict as JSON has it."""
        from hsm_keys.proxy.whatif import explain, verdict_of

        self._at = request.at or self._at
        verdict: Verdict = verdict_of(self.judge, request, at=self._at)
        said = {"allowed": verdict.allowed, "rule": verdict.rule, "message": verdict.message}
        if not verdict.allowed:
            said["status"] = 400 if verdict.rule == "path" else verdict.status
        if self._explain:
            said |= explain(self._written, request, verdict)
            said["left"] = self._left(request.client)
        return said

    def _left(self, client: str) -> dict[str, dict[str, Any]]:
        """Return what a client has left, by proxies that run and by the ledgers of others."""
        left = {proxy["name"]: _left_of(proxy, client) for proxy in self._proxies}
        for ledger in self._ledgers:
            left[ledger.name] = {"from": "ledger", "rates": {}, "caps": ledger.left(self.judge.policy, client)}
        return left


def _limits_of_proxies() -> list[dict[str, Any]]:
    """Return what the proxies that are found say of their limits."""
    from hsm_keys.proxy.controlling import ProxyChoice, ask_all

    try:
        answers = ask_all(ProxyChoice(everyone=True), "GET", "/limits")
    except HsmKeysError:  # none runs
        return []
    return [answer.said for answer in answers if answer.error is None]


def _left_of(proxy: dict[str, Any], client: str) -> dict[str, Any]:
    """Return what a client has left: of its rates by their names, and rows of caps on money, its own and all's."""
    rates = proxy["rates"].get(client, proxy["rates"].get("default", {}))
    caps = [row for row in proxy["limits"] if row["client"] in {client, None}]
    return {"from": "proxy", "rates": rates, "caps": caps}


def _ledgers(running: set[str]) -> list[Ledger]:
    """Return the ledgers of proxies that don't run."""
    from hsm_keys.proxy.ledgers import ledgers

    return list(ledgers(without=running))


def _print_one(settings: Settings, verdict: dict[str, Any]) -> int:
    if settings.as_json:
        print_json(verdict)
    else:
        click.echo(_sentence(verdict))
        _echo_reasons(verdict)
    return 0 if verdict["allowed"] else 1


def _sentence(verdict: dict[str, Any]) -> str:
    if verdict["allowed"]:
        return "allowed: nothing denies it" if verdict["rule"] == "allowed" else f"allowed, by {verdict['rule']}"
    return f"denied ({verdict['status']}), by {verdict['rule']}: {verdict['message']}"


def _echo_reasons(verdict: dict[str, Any]) -> None:
    if "operation" not in verdict:
        return
    import json

    click.echo(f"  operation: {verdict['operation']} ({verdict['kind']})")
    click.echo(f"  rules: {verdict['rules_of'] or 'none for this client, and no default'}")
    if verdict["setting"]:
        written = "isn't set" if verdict["value"] is None else f"= {json.dumps(verdict['value'])}"
        click.echo(f"  decided by: {verdict['setting']} {written}")
    if not verdict["left"]:
        click.echo("  left: not known, because no proxy runs and there is no journal of caps")
    for name, left in verdict["left"].items():
        where = (
            f"left in proxy {name}" if left["from"] == "proxy" else f"left by the ledger of {name}, which doesn't run"
        )
        for rate, numbers in left["rates"].items():
            click.echo(f"  {where}: {rate} {numbers['left']:g} of {numbers['limit']:g}")
        for row in left["caps"]:
            whose = "" if row["client"] else " of all"
            market = f" in {row['market']}" if "market" in row else ""
            remains = row.get("left") or f"buy {row['left_to_buy']}, sell {row['left_to_sell']}"
            click.echo(f"  {where}: {row['cap']}{whose}{market} {remains} of {row['most']}")


@group(epilog="Example: hsm-keys proxy policy diff old.toml new.toml")
def policy() -> None:
    """Compare policies."""


@policy.command(epilog="Example: hsm-keys proxy policy diff old.toml new.toml")
@click.argument("old", type=_path)
@click.argument("new", type=_path)
@settings_options
@click.pass_obj
def diff(settings: Settings, *, old: Path, new: Path) -> int:
    """Find requests that one policy allows and the other denies. Exit code 0: none found; 1: printed.

    Every operation, rule and client is tried, and the edges of hours, limits and caps. At most two requests are
    printed: one that only the old policy allows, and one that only the new one allows.
    """
    import_extra("proxy", "hsm_keys.proxy.judge")
    from hsm_keys.proxy.differing import compare
    from hsm_keys.proxy.policy import load_policy

    comparison = compare(load_policy(old), load_policy(new))
    if settings.as_json:
        differences = [_difference(one) for one in comparison.differences]
        print_json({"same": not differences, "tried": comparison.tried, "differences": differences})
    elif not comparison.differences:
        click.echo(f"no difference between the policies was found ({comparison.tried:,} requests were tried)")
    for one in [] if settings.as_json else comparison.differences:
        _echo_difference(_difference(one), old, new)
    return int(bool(comparison.differences))


def _difference(one: Difference) -> dict[str, Any]:
    """Return a difference as JSON has it; the request as ``--requests`` takes it."""
    asked = one.asked
    request: dict[str, Any] = {"client": asked.client, "method": asked.method, "path": asked.target}
    if asked.body is not None:
        request["body"] = asked.body.decode()
    request["at"] = one.at.isoformat()
    old, new = (
        {"allowed": verdict.allowed, "rule": verdict.rule, "message": verdict.message, "status": verdict.status}
        for verdict in (one.old, one.new)
    )
    return {"request": request, "before": one.before, "others": [*one.others], "old": old, "new": new}


def _echo_difference(difference: dict[str, Any], old: Path, new: Path) -> None:
    request = difference["request"]
    click.echo(f"{request['method']} {request['path']}")
    click.echo(f"  by {request['client']}, at {request['at']}")
    if difference["others"]:
        click.echo(f"  after {', '.join(difference['others'])} asked for as much as both allow")
    if difference["before"]:
        plural = "" if difference["before"] == 1 else "s"
        click.echo(f"  after {difference['before']} such request{plural}, of which both say the same")
    if "body" in request:
        click.echo(f"  body: {request['body']}")
    for path, verdict in ((old, difference["old"]), (new, difference["new"])):
        click.echo(f"  {path}: {_sentence(verdict)}")
