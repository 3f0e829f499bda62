"""How a help page is laid out: shared options by name alone, and examples that no width breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SharedOption", "show_shared_options", "write_commands", "write_examples", "write_options"]


_STORE_EXAMPLES: Final = """
hsm-keys list --slot 0 --module /usr/lib/softhsm/libsofthsm2.so --env demo
hsm-keys list --store 'pkcs11:token=LABEL?module-path=/usr/lib/softhsm/libsofthsm2.so'
hsm-keys list --kms --region us-east-1
hsm-keys list --store vault:///transit
"""


class SharedOption(click.Option):
    """An option that names the store or the environment: ``--help-store`` explains it, other pages only name it."""


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the options that are the command's own, then the names of the shared ones."""
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    with formatter.section("Options"):
        formatter.write_dl(_records(ctx, [option for option in options if not isinstance(option, SharedOption)]))
    shared = [option.opts[-1] for option in options if isinstance(option, SharedOption)]
    if shared:
        with formatter.section("Store and environment, before or after the command (--help-store explains them)"):
            formatter.write_text(" ".join(shared))


def _records(ctx: click.Context, options: Iterable[click.Option]) -> list[tuple[str, str]]:
    return [record for option in options if (record := option.get_help_record(ctx))]


def show_shared_options(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
    """Print what the shared options of a command are, and end."""
    if not value or ctx.resilient_parsing:
        return
    formatter = ctx.make_formatter()
    shared = [param for param in ctx.command.get_params(ctx) if isinstance(param, SharedOption)]
    with formatter.section("Options for the store and the environment, before or after the command"):
        formatter.write_dl(_records(ctx, shared))
    write_examples(
        "Example: hsm-keys list --store 'pkcs11:token=LABEL?module-path=/path/module.so' --env demo", formatter
    )
    click.echo(formatter.getvalue().strip("\n"))
    ctx.exit()


def write_commands(
    groups: Mapping[str, Iterable[str]], helps: Mapping[str, str], formatter: click.HelpFormatter
) -> None:
    """Write the short helps of commands, in groups.

    Args:
        groups: The commands of each group, by its heading.
        helps: The short help of each command that there is.
        formatter: What it is written to.
    """
    for heading, names in groups.items():
        with formatter.section(heading):
            # One width for all groups, so that the helps stand below each other.
            width = max(map(len, helps))
            formatter.write_dl([(f"{name:<{width}}", helps[name]) for name in names if name in helps])


def write_examples(epilog: str | None, formatter: click.HelpFormatter) -> None:
    """Write the examples, a command a line: one that is folded can't be copied."""
    if not epilog:
        return
    lines = [line.strip() for line in epilog.replace("\b", "").replace("Example:", "").strip().splitlines()]
    with formatter.section("Example" if len(lines) == 1 else "Examples"):
        for line in lines:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
