"""``sandbox``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.extras import import_extra
from hsm_keys.cli.options import output_option
from hsm_keys.cli.output import print_json

if TYPE_CHECKING:
    from hsm_keys.cli.settings import Settings

__all__ = ["DEFAULT_PORT", "sandbox"]

DEFAULT_PORT: Final = 8960
"""A key belongs to the environment in which it was enrolled, and here that is the port: so it is the same each time."""


@command(epilog="Example: hsm-keys sandbox --port 8080 --fault 'POST /api_keys:drop-after:1'")
@click.option(
    "--port",
    type=int,
    default=DEFAULT_PORT,
    show_default=True,
    metavar="P",
    help="Port on 127.0.0.1; 0 takes a free one. Keys enrolled at one port are unknown at another.",
)
@click.option(
    "--ws-port",
    type=int,
    metavar="P",
    help="Port of the WebSockets (Kalshi has a separate host for them); by default the one after --port.",
)
@click.option("--list", "only_list", is_flag=True, help="Print the operations that the sandbox serves, and exit.")
@click.option(
    "--tier",
    type=click.Choice(["basic", "premier"]),
    default="premier",
    help="The account's usage level; only premier registers keys by API.",
)
@click.option("--key-type", type=click.Choice(["rsa", "ed25519"]), default="rsa", help="The type of the bootstrap key.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="SPEC",
    help="A fault to make: 'METHOD PATH:ACTION[=NUMBER][:TIMES]', where ACTION is drop-before, drop-after, "
    "truncate, status=CODE or latency=MS. Also over POST /_sandbox/faults while it runs.",
)
@output_option
@click.pass_obj
def sandbox(
    settings: Settings,
    *,
    port: int,
    ws_port: int | None,
    only_list: bool,
    tier: str,
    key_type: str,
    faults: tuple[str, ...],
) -> None:
    """Run a strict stand-in for Kalshi on loopback, until Ctrl-C.

    Prints `export` lines for its base URL and a bootstrap key. The key's PEM is in a temporary folder that only you can
    read, as long as the sandbox runs. Requests are checked as Kalshi checks them: signature, salt, clock, scopes. All
    data is forgotten when the sandbox stops.
    """
    if only_list:
        _list(settings)
        return
    if ws_port is None:
        ws_port = port + 1 if port else 0
    package = import_extra("sandbox", "hsm_keys.sandbox")

    def report(variables: dict[str, str]) -> None:
        if settings.as_json:
            print_json(variables)
        else:
            click.echo(package.export_lines(variables))

    package.run_forever(port=port, ws_port=ws_port, tier=tier, key_type=key_type, faults=faults, report=report)


def _list(settings: Settings) -> None:
    from hsm_keys.sandbox.routes import SERVED

    if settings.as_json:
        served = [{"method": each.method, "path": each.route, "gone": bool(each.instead)} for each in SERVED]
        print_json({"operations": served})
        return
    for operation in SERVED:
        click.echo(f"{operation.method:6} {operation.route}" + (" (410: gone)" if operation.instead else ""))
