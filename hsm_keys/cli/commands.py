"""Commands whose errors say what is wrong with a value without repeating it, where click's own repeat it."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import click

from hsm_keys.cli.help_pages import write_commands, write_examples, write_options

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Command", "Group", "command", "group"]

_WHOLE: Final = 1000
"""Characters of a short help: more than any has."""

_MAY_BE_EMPTY: Final = frozenset({"--token", "--json", "--body"})
"""Options that take an empty text for what it is: a token without a label, a body that isn't JSON."""

# A private key begins with dashes, too.
_OPTION: Final = re.compile(r"--?[a-z][a-z-]{0,30}")


def _checked(
    command: click.Command, parse: Callable[[click.Context, list[str]], list[str]], ctx: click.Context, args: list[str]
) -> list[str]:
    """Parse the arguments; what click says of a bad one is said without it."""
    arguments = list(args)
    try:
        rest = parse(ctx, args)
    except click.UsageError as error:
        reworded = _reworded(command, ctx, arguments, error)
    else:
        _check_none_empty(command, ctx, arguments)
        return rest
    raise reworded


def _check_none_empty(command: click.Command, ctx: click.Context, arguments: list[str]) -> None:
    """Refuse an option with an empty text, as an unset variable of the shell leaves it.

    It isn't as if it weren't given: what would count without it may be another store, another PIN or another folder.
    """
    if not any(not word or word.endswith("=") for word in arguments):
        return
    values, _, _ = command.make_parser(ctx).parse_args(arguments)
    for param in command.params:
        value = values.get(param.name or "")
        texts = value if isinstance(value, list) else [value]
        if isinstance(param, click.Option) and "" in texts and not _MAY_BE_EMPTY.intersection(param.opts):
            raise click.BadParameter("it is an empty text; give it a value, or leave it out.", ctx, param)


def _reworded(
    command: click.Command, ctx: click.Context, arguments: list[str], error: click.UsageError
) -> click.UsageError:
    if isinstance(error, click.NoSuchOption) and not _OPTION.fullmatch(error.option_name):
        from hsm_keys.values import describe

        message = f"{describe(error.option_name)} stands where an option, or a value without dashes, belongs."
        return click.UsageError(message, error.ctx)
    if isinstance(error, click.MissingParameter):
        return _missing(error)
    if isinstance(error, click.BadParameter):
        return _bad_value(command, ctx, arguments, error)
    if type(error) is click.UsageError:  # click raises no other one of this very class while it parses
        return click.UsageError("There are more arguments than this command takes.", error.ctx)
    return error


def _missing(error: click.MissingParameter) -> click.UsageError:
    """Return the error with its choices in the line, where click has a line for each."""
    param = error.param
    if param is None or not isinstance(param.type, click.Choice):
        return error
    return click.UsageError(f"Missing option '{param.opts[0]}': give {_wanted(param.type)}.", error.ctx)


def _bad_value(
    command: click.Command, ctx: click.Context, arguments: list[str], error: click.BadParameter
) -> click.BadParameter:
    param = error.param
    if param is None or param.type is click.STRING:  # no text is refused but by our own callbacks
        return error
    from hsm_keys.values import describe

    values, _, _ = command.make_parser(ctx).parse_args(arguments)
    value = values.get(param.name or "")
    what = describe(value) if isinstance(value, str) else "one of the values"
    return click.BadParameter(f"{what} is not {_wanted(param.type)}.", error.ctx, param)


def _wanted(kind: click.ParamType[Any]) -> str:
    """Return what a type takes, in words for people."""
    if isinstance(kind, click.Choice):
        return f"one of {', '.join(kind.choices)}"
    if isinstance(kind, click.IntRange | click.FloatRange):
        noun = "a whole number" if isinstance(kind, click.IntRange) else "a number"
        low = f" {'above' if kind.min_open else 'from'} {kind.min}" if kind.min is not None else ""
        return noun + low + (f" to {kind.max}" if kind.max is not None else "")
    return {click.INT: "a whole number", click.FLOAT: "a number"}.get(kind, "what this takes")


class _Page:
    """Lays a command's help out; a mix-in for click's classes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        write_options(cast("click.Command", self), ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the examples."""
        write_examples(cast("click.Command", self).epilog, formatter)


class Command(_Page, click.Command):
    """A command that repeats no value in its errors, and that finds in the shared options what a profile adds.

    Args:
        uses_profile: Whether it does that: a command that explains what is wrong works beside a profile that is, and so
            does a kill switch.
    """

    def __init__(self, *args: Any, uses_profile: bool = True, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._uses_profile = uses_profile and any(param.name == "profile" for param in self.params)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if self._uses_profile:
            from hsm_keys.cli.profile import add_profile
            from hsm_keys.cli.settings import Settings

            add_profile(ctx.ensure_object(Settings))
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments into the context."""
        return _checked(self, super().parse_args, ctx, args)


class Group(_Page, click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence of each command's help, whole."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        helps = {name: one.get_short_help_str(_WHOLE) for name, one in commands.items() if one is not None}
        write_commands({"Commands": helps}, helps, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's own arguments into the context."""
        return _checked(self, super().parse_args, ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a slip of the keyboard, say which one may be meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from hsm_keys.values import shown_word

            raise click.UsageError(f"There is no command {shown_word(args[0], self.list_commands(ctx))}.", ctx)
        return super().resolve_command(ctx, args)


command: Callable[..., Callable[[Callable[..., Any]], Command]] = partial(click.command, cls=Command)
"""Makes a ``Command`` of a function; takes what ``click.command`` takes."""

group: Callable[..., Callable[[Callable[..., Any]], Group]] = partial(click.group, cls=Group)
"""Makes a ``Group`` of a function; takes what ``click.group`` takes."""
