"""Words that people try before they look at the help: ``help``, ``version`` and ``import``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hsm_keys._version import __version__
from hsm_keys.cli.commands import command
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.errors import UsageError
from hsm_keys.values import shown_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.cli.settings import Settings

__all__ = ["import_key", "show_help", "version"]


@command(name="help", epilog="Example: hsm-keys help enroll")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def show_help(ctx: click.Context, /, words: Sequence[str]) -> None:
    """Print the help of the program, or of a command."""
    about = ctx.find_root()
    for word in words:
        group = about.command
        subcommand = group.get_command(about, word) if isinstance(group, click.Group) else None
        if subcommand is None:
            names = group.list_commands(about) if isinstance(group, click.Group) else []
            raise UsageError(f"there is no command {shown_word(word, names)}", hint="`hsm-keys help` lists them")
        about = click.Context(subcommand, about, word)
    click.echo(about.get_help())


@command(uses_profile=False, epilog="Example: hsm-keys version")
@settings_options
@click.pass_obj
def version(settings: Settings) -> None:
    """Print the version."""
    if settings.as_json:
        print_json({"version": __version__})
    else:
        print_line(f"hsm-keys {__version__}")


@command(
    name="import",
    context_settings={"ignore_unknown_options": True},
    epilog="Example: KALSHI_KEY_ID=ID KALSHI_PRIVATE_KEY_PATH=bot.pem hsm-keys migrate prod",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[PEM]")
def import_key(words: Sequence[str]) -> None:  # noqa: ARG001 - whatever is given, there is one answer
    """Say why a private key can't be imported, and what to do instead."""
    raise UsageError(
        "private keys can't be imported: one that has been in a file may have been copied, and no token mends that",
        hint="let the store make a new one, with the old one as bootstrap key (KALSHI_KEY_ID, "
        "KALSHI_PRIVATE_KEY_PATH): `hsm-keys migrate prod`; then end the old one: `hsm-keys migrate prod --finish`. "
        "Without an old one, begin with `hsm-keys init`",
    )
