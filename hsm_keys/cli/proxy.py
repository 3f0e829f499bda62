"""``proxy``: serving. What is asked of running proxies and of policies has modules of its own."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.commands import Group
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import api_key_id_option, settings_options
from hsm_keys.cli.profile import add_profile
from hsm_keys.cli.proxy_check import check, policy
from hsm_keys.cli.proxy_control import cancel_all, freeze, limits, status, thaw
from hsm_keys.cli.proxy_install import install
from hsm_keys.cli.settings import Settings
from hsm_keys.errors import UsageError
from hsm_keys.processes import keep_to_itself

if TYPE_CHECKING:
    from hsm_keys.proxy.options import Options

__all__ = ["proxy"]

_path = click.Path(path_type=Path)


class _NamedGroup(Group):
    """Takes a first word that is no subcommand, nor close to one, for the key's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments into the context."""
        if args and not args[0].startswith("-") and not get_close_matches(args[0], self.commands):
            args = ["--name", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_NamedGroup,
    invoke_without_command=True,
    epilog="Example: hsm-keys proxy --name prod --policy policy.toml",
)
@click.option("--name", metavar="NAME", help="The key that signs; or give it as the first word: hsm-keys proxy prod.")
@api_key_id_option
@click.option("--socket", type=_path, help="The Unix socket; by default one in XDG_RUNTIME_DIR/hsm-keys.")
@click.option("--listen", metavar="HOST:PORT", help="Listen on loopback TCP instead; needs --clients.")
@click.option("--clients", type=_path, help="Folder with a token file (0600) for each client, for --listen.")
@click.option(
    "--policy", type=_path, help="What each client may do (TOML); without it, all but API keys and transfers."
)
@click.option("--allow-uid", type=int, multiple=True, help="Another user who may use the socket; can be repeated.")
@click.option("--unsafe-listen", is_flag=True, help="Allow --listen with an address that isn't loopback; needs TLS.")
@click.option("--tls-cert", type=_path, help="Certificate for --listen, PEM.")
@click.option("--tls-key", type=_path, help="The certificate's private key, PEM.")
@click.option("--audit", type=_path, help="Folder of the audit trail; by default in XDG_STATE_HOME/hsm-keys/NAME.")
@click.option("--audit-may-fail", is_flag=True, help="Sign also when the audit trail can't be written.")
@click.option("--presign", type=click.IntRange(0, 64), default=0, metavar="N", help="Sign ahead for N busy routes.")
@click.option(
    "--presign-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATE",
    help="At most so many signatures a second ahead; a cloud's service bills each.  [default: 50]",
)
@click.option("--isolated", is_flag=True, help="Sign in a process of its own, for many clients at once on a token.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz on loopback.")
@settings_options
@click.pass_context
def proxy(ctx: click.Context, /, **arguments: Any) -> None:
    """Sign requests of local programs that hold no key, within a policy, until Ctrl-C.

    The programs send plain HTTP or WebSocket requests to the socket. Requests for API keys and transfers are denied
    unless the policy allows them explicitly.
    """
    if ctx.invoked_subcommand is not None:
        return
    from hsm_keys.cli.session import kalshi_base_url, opened_store, signing_key
    from hsm_keys.kalshi.surroundings import check_authorities

    settings = ctx.ensure_object(Settings)
    add_profile(settings)
    if arguments["policy"] is None and settings.policy:
        arguments["policy"] = Path(settings.policy)
    isolated, api_key_id = arguments.pop("isolated"), arguments.pop("api_key_id")
    options = _options(arguments)
    keep_to_itself()
    base_url = kalshi_base_url(settings)
    if base_url.startswith("https:"):
        check_authorities()
    runner = import_extra("proxy", "hsm_keys.proxy.run")
    checked = import_extra("proxy", "hsm_keys.proxy.options").check_options(options)
    report = _report_json if settings.as_json else _report
    import_extra("proxy", "hsm_keys.proxy.logs").report_libraries(report)
    with opened_store(settings, report, isolated=isolated) as store:
        signer = signing_key(store, options.name, settings, api_key_id)
        runner.run(signer, base_url, checked, report, ws_url=settings.ws_url)


def _report(line: str) -> None:
    with suppress(OSError):  # a log that is full or that nobody reads must not stop the proxy or the kill switch
        click.echo(line, err=True)


def _report_json(line: str) -> None:
    """Say a line as a log that programs read; what the library warns of begins with its level."""
    import json
    from datetime import UTC, datetime

    level, _, message = line.partition(": ")
    if level not in {"warning", "error", "critical"}:
        level, message = "info", line
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    _report(json.dumps({"time": time, "level": level, "message": message}))


def _options(arguments: dict[str, Any]) -> Options:
    if not arguments["name"]:
        raise UsageError(
            "no key is named for the proxy to sign with", hint="give --name, such as: hsm-keys proxy --name prod"
        )
    cert, key = arguments.pop("tls_cert"), arguments.pop("tls_key")
    if (cert is None) != (key is None):
        raise UsageError("--tls-cert and --tls-key need each other", hint="give both")
    options: Options = import_extra("proxy", "hsm_keys.proxy.options").Options(
        allow_uids=frozenset(arguments.pop("allow_uid")),
        ahead=arguments.pop("presign"),
        ahead_rate=arguments.pop("presign_rate"),
        tls=(cert, key) if cert is not None else None,
        **arguments,
    )
    return options


for _command in (freeze, thaw, cancel_all, status, limits, check, policy, install):
    proxy.add_command(_command)
