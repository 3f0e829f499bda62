"""``sandbox``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["import_sandbox", "sandbox"]


@click.command(epilog="Example: hsm-keys sandbox --port 8080 --fault 'POST /api_keys:drop-after:1'")
@click.option("--port", type=int, default=0, metavar="P", help="Port on 127.0.0.1; any free one by default.")
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
    help="Something to go wrong: 'METHOD PATH:ACTION[=NUMBER][:TIMES]', where ACTION is drop-before, drop-after, "
    "truncate, status=CODE or latency=MS. Also over POST /_sandbox/faults while it runs.",
)
def sandbox(*, port: int, tier: str, key_type: str, faults: tuple[str, ...]) -> None:
    """Run a strict stand-in for Kalshi on loopback, until Ctrl-C.

    Prints `export` lines for its base URL and a bootstrap key, whose PEM lies in a temporary folder, readable by
    you alone, as long as the sandbox runs. Signatures are checked as Kalshi checks them: salt, clock, scopes.
    """
    import_sandbox().run_forever(port=port, tier=tier, key_type=key_type, faults=faults, announce=click.echo)


def import_sandbox() -> ModuleType:
    """Import the sandbox.

    Raises:
        UsageError: If its extra isn't installed.
    """
    try:
        return import_module("hsm_keys.sandbox")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the sandbox needs {error.name}, which isn't installed", hint="pip install 'hsm-keys[sandbox]'"
        ) from None
