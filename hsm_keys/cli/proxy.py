"""``proxy`` and ``audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.commands import group
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import Settings, settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.errors import StoreNotFoundError, UsageError
from hsm_keys.values import may_be_shown, shown, shown_path

if TYPE_CHECKING:
    from hsm_keys.proxy.run import Options

__all__ = ["audit", "proxy"]

_NAME = click.option("--name", metavar="NAME", required=True, help="The key that the proxy signs with.")
_path = click.Path(path_type=Path)


@group(
    invoke_without_command=True,
    epilog="Example: hsm-keys proxy --name prod --policy policy.toml",
)
@click.option("--name", metavar="NAME", help="The key to sign with.")
@click.option("--socket", type=_path, help="The Unix socket; by default one in XDG_RUNTIME_DIR/hsm-keys.")
@click.option("--listen", metavar="HOST:PORT", help="Listen on loopback TCP instead; needs --clients.")
@click.option("--clients", type=_path, help="Folder with a token file (0600) for each client, for --listen.")
@click.option("--policy", type=_path, help="What each client may do (TOML); without it all but API keys and transfers.")
@click.option("--allow-uid", type=int, multiple=True, help="A further user who may use the socket; can be repeated.")
@click.option("--unsafe-listen", is_flag=True, help="Let --listen be no loopback address; needs TLS.")
@click.option("--tls-cert", type=_path, help="Certificate for --listen, PEM.")
@click.option("--tls-key", type=_path, help="The certificate's private key, PEM.")
@click.option("--audit", type=_path, help="Folder of the audit trail; by default in XDG_STATE_HOME/hsm-keys/NAME.")
@click.option("--audit-may-fail", is_flag=True, help="Sign also when the audit trail can't be written.")
@click.option("--presign", type=click.IntRange(0, 64), default=0, metavar="N", help="Sign ahead for N busy routes.")
@click.option(
    "--presign-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="Signatures a second that are made ahead, at most; KMS bills each.  [default: 50]",
)
@click.option("--metrics", metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz on loopback.")
@settings_options
@click.pass_context
def proxy(ctx: click.Context, /, **given: Any) -> None:
    """Sign for local programs that hold no key, within a policy, until Ctrl-C.

    They speak plain HTTP or WebSocket to the socket. API keys and transfers are denied, whatever is asked.
    """
    if ctx.invoked_subcommand is not None:
        return
    from hsm_keys.cli.session import kalshi_base_url, opened_store, signing_key
    from hsm_keys.kalshi.surroundings import check_authorities

    settings = ctx.ensure_object(Settings)
    options = _options(given)
    base_url = kalshi_base_url(settings)
    if base_url.startswith("https:"):
        check_authorities()
    runner = import_extra("proxy", "hsm_keys.proxy.run")
    checked = runner.check_options(options)
    say = _say_json if settings.as_json else _say
    import_extra("proxy", "hsm_keys.proxy.logs").hear_libraries(say)
    with opened_store(settings, say) as store:
        runner.run(signing_key(store, options.name, settings), base_url, checked, say, ws_url=settings.ws_url)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_json(line: str) -> None:
    """Say a line as a log that programs read; what the library warns of begins with its level."""
    import json
    from datetime import UTC, datetime

    level, _, message = line.partition(": ")
    if level not in {"warning", "error", "critical"}:
        level, message = "info", line
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    click.echo(json.dumps({"time": time, "level": level, "message": message}), err=True)


def _options(given: dict[str, Any]) -> Options:
    if not given["name"]:
        raise UsageError("the proxy has to know its key", hint="give --name, such as: hsm-keys proxy --name prod")
    cert, key = given.pop("tls_cert"), given.pop("tls_key")
    if (cert is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key go together", hint="give both")
    made: Options = import_extra("proxy", "hsm_keys.proxy.run").Options(
        allow_uids=frozenset(given.pop("allow_uid")),
        ahead=given.pop("presign"),
        ahead_rate=given.pop("presign_rate"),
        tls=(cert, key) if cert is not None else None,
        **given,
    )
    return made


@proxy.command(epilog="Example: hsm-keys proxy check policy.toml GET /trade-api/v2/portfolio/balance --client maker")
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


@proxy.command(epilog="Example: hsm-keys proxy freeze --name prod")
@_NAME
@settings_options
@click.pass_obj
def freeze(settings: Settings, *, name: str) -> None:
    """Stop all signing at once, also over a restart."""
    _tell("POST", "/freeze", name)
    _say_frozen(settings, frozen=True)


@proxy.command(epilog="Example: hsm-keys proxy thaw --name prod")
@_NAME
@settings_options
@click.pass_obj
def thaw(settings: Settings, *, name: str) -> None:
    """Sign again after freeze."""
    _tell("POST", "/thaw", name)
    _say_frozen(settings, frozen=False)


def _say_frozen(settings: Settings, *, frozen: bool) -> None:
    if settings.as_json:
        print_json({"frozen": frozen})
    elif frozen:
        click.echo("frozen: nothing is signed until `hsm-keys proxy thaw`")
    else:
        click.echo("thawed: requests are signed again")


@proxy.command(epilog="Example: hsm-keys proxy status --name prod")
@_NAME
@settings_options
@click.pass_obj
def status(settings: Settings, *, name: str) -> None:
    """Show what a running proxy does; in a terminal, live until Ctrl-C."""
    if settings.as_json:
        print_json(_tell("GET", "/status", name))
        return
    import sys

    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not sys.stdout.isatty():
        console.print(_table(_tell("GET", "/status", name)))
        return
    import time
    from contextlib import suppress

    with (
        suppress(KeyboardInterrupt),
        Live(_table(_tell("GET", "/status", name)), console=console, auto_refresh=False) as live,
    ):
        while True:
            time.sleep(1)
            live.update(_table(_tell("GET", "/status", name)), refresh=True)


def _table(told: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a hash that was cut short would be of no use
    for name, value in told.items():
        table.add_row(name.replace("_", " "), _said(value) or "-")
    return table


def _said(value: Any) -> str:
    """Return a value of the status as people read it."""
    if isinstance(value, dict) and "p50_ms" in value:
        times = "" if value["p50_ms"] is None else f", p50 {value['p50_ms']} ms, p99 {value['p99_ms']} ms"
        return f"{value['count']}{times}"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_said(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _tell(method: str, path: str, name: str) -> dict[str, Any]:
    """Ask a running proxy on its control socket, with what Python has itself: a kill switch waits for no library."""
    import json
    import socket
    from http.client import HTTPConnection, HTTPException

    from hsm_keys.proxy.places import control_socket

    where = control_socket(name)
    connection = HTTPConnection("localhost")
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(where))
        connection.request(method, path)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, HTTPException):
        # The path ends in the name; in pieces between slashes a secret looks like none.
        place = f" at {shown_path(where)}" if may_be_shown(name) else ""
        raise StoreNotFoundError(
            f"no proxy for {shown(name)} answers{place}", hint="start one: hsm-keys proxy --name NAME"
        ) from None
    finally:
        connection.close()
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise UsageError(f"the proxy refuses: status {answer.status}", hint="run it as the proxy's user")
    told: dict[str, Any] = json.loads(content)
    return told


@group(epilog="Example: hsm-keys audit verify ~/.local/state/hsm-keys/prod/audit")
def audit() -> None:
    """Audit trails of the proxy."""


@audit.command(epilog="Example: hsm-keys audit verify FOLDER --public-key prod.pem")
@click.argument("folder", type=_path)
@click.option("--public-key", type=_path, multiple=True, help="A key that signed it (PEM); one for each rotation.")
@click.option("--head", metavar="HASH", help="A line that has to be there: what `proxy status` said earlier.")
@settings_options
@click.pass_obj
def verify(settings: Settings, *, folder: Path, public_key: tuple[Path, ...], head: str | None) -> int:
    """Find lines that were changed, left out, put in or cut. Exit code 0: none; 1: some.

    Without --public-key, signatures are checked with the keys that the trail names itself.
    """
    verifying = import_extra("proxy", "hsm_keys.proxy.verifying")
    keys = []
    for path in public_key:
        try:
            keys.append(verifying.read_public_key(path.read_text(encoding="ascii")))
        except (OSError, UnicodeDecodeError):
            raise UsageError(
                f"{shown_path(path)} can't be read", hint="`hsm-keys public-key NAME` prints one"
            ) from None
    report = verifying.verify(folder, keys, head=head)
    if settings.as_json:
        from dataclasses import asdict

        print_json(asdict(report))
    else:
        for finding in report.findings:
            click.echo(f"{finding.file}:{finding.line}: {finding.what}")
        click.echo(f"{report.lines} lines, {report.checkpoints} checkpoints verified; head {report.head}")
        if not report.closed:
            click.echo("not closed: a proxy writes it, or was killed, or the end was cut off; --head tells")
        if report.unsigned > 1:
            click.echo(f"the last {report.unsigned} lines aren't signed yet")
        if not keys:
            click.echo("checked with the keys that the trail names itself; --public-key checks that too")
    return 1 if report.findings else 0
