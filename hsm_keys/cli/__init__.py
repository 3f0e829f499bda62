"""The command line: parse, call one function, print. Subcommands load when they run."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from hsm_keys._version import __version__
from hsm_keys.cli.commands import Group
from hsm_keys.cli.help_pages import write_commands
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import fail, fail_interrupted, fail_usage, wants_json
from hsm_keys.cli.streams import SIGPIPE_EXIT, claim_streams, end_streams
from hsm_keys.stores import backends
from hsm_keys.stores.policies import PrintsPolicies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main", "program"]

_RULED: Final = {backend.command: backend for backend in backends() if isinstance(backend, PrintsPolicies)}
"""Command to the back-end whose policies it prints."""

_COMMANDS: Final = {
    "init": ("init", "Set up a first key: token, key, registration, profile."),
    "enroll": ("enroll", "Make a key in the store, register it at Kalshi, prove both."),
    "migrate": ("migrate", "Move a bot from a PEM to a key in the store."),
    "adopt": ("enroll", "Bind an API key id that was registered by hand."),
    "rotate": ("rotate", "Replace a key with a new one, without an interruption."),
    "generate": ("generate", "Let Kalshi make a key, and put it into the store."),
    "doctor": ("doctor", "Find problems of the set-up."),
    "custody": ("custody", "Report, for auditors, where each private half is."),
    "list": ("keys", "List the API keys at Kalshi and the keys in the store."),
    "show": ("keys", "Show one key: attributes, URI, state, custody."),
    "public-key": ("keys", "Print a key's SubjectPublicKeyInfo PEM."),
    "sign": ("sign", "Print the headers that sign one request."),
    "fix-logon": ("sign", "Print the fields that sign a FIX Logon."),
    "request": ("request", "Send a signed request and print the answer."),
    "revoke": ("revoke", "End an API key; with --destroy, its private half too."),
    "reconcile": ("reconcile", "Compare Kalshi and the stores, and find differences."),
    "replicate": ("replicate", "Make a key usable in another Region."),
    **{name: ("policy", f"Policies for {backend.title}.") for name, backend in _RULED.items()},
    "bench": ("bench", "Measure how fast the store signs."),
    "run": ("run", "Run a program that holds no key, behind a proxy of its own."),
    "proxy": ("proxy", "Sign for local programs that hold no key, within a policy."),
    "audit": ("audit", "Verify the proxy's audit trail."),
    "sandbox": ("sandbox", "Run a strict stand-in for Kalshi on loopback."),
    "demo": ("demo", "Enroll, sign, trade and rotate on a throwaway sandbox."),
    "config": ("config", "Print every setting and its source."),
    "explain": ("explain", "Say what an error code means, and what to do."),
}
"""Command to the module that holds it, and its short help: ``--help`` imports none of them."""

_GROUPS: Final = {
    "Start here": ("demo", "init", "doctor", "enroll", "migrate", "sandbox"),
    "Use a key": ("sign", "request", "fix-logon", "public-key", "run", "proxy"),
    "Look": ("list", "show", "custody", "reconcile", "bench", "explain"),
    "Change": ("adopt", "generate", "rotate", "revoke", "replicate"),
    "Operate": ("audit", *_RULED, "config"),
}
"""The commands as people look for them."""

_SIGNPOSTS: Final = ("help", "version", "import")
"""Words that people try; the module ``signposts`` has them, and the list of commands hasn't."""


class _LazyGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of their use."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command and return it."""
        if cmd_name in _RULED:
            from hsm_keys.cli.policy import policy_group

            return policy_group(_RULED[cmd_name])
        if cmd_name in _SIGNPOSTS:
            home = "signposts"
        elif cmd_name in _COMMANDS:
            home = _COMMANDS[cmd_name][0]
        else:
            return None
        module = import_module(f"hsm_keys.cli.{home}")
        # A function with such a name would hide a builtin, or isn't possible.
        builtin = {"list": "list_keys", "help": "show_help", "import": "import_key"}
        attribute = builtin.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = getattr(module, attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the short helps from the table, in groups."""
        write_commands(_GROUPS, {name: short for name, (_, short) in _COMMANDS.items()}, formatter)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments, or print the help."""
        with _noticing_readers():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _noticing_readers():
            return super().invoke(ctx)


class _UnreadError(Exception):
    """Nobody reads the output any more."""


@contextmanager
def _noticing_readers() -> Iterator[None]:
    """Tell a pipe that nobody reads from other errors: click itself ends the program then, with 1."""
    try:
        yield
    except BrokenPipeError:
        raise _UnreadError from None


@click.group(
    cls=_LazyGroup,
    name="hsm-keys",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: hsm-keys enroll --slot 0 --name prod",
)
@settings_options
@click.version_option(__version__, prog_name="hsm-keys", message="%(prog)s %(version)s")
def program() -> None:
    """Keep Kalshi API keys in hardware: a PKCS#11 token, AWS KMS or Vault makes them, signs, and never gives them out.

    `hsm-keys COMMAND --help` explains a command, `hsm-keys explain CODE` an error.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, else the exit code of the error's class; never a traceback.

    Args:
        arguments: What follows the program's name; by default this process's, whose standard streams are claimed then.
    """
    if "_HSM_KEYS_COMPLETE" in os.environ:
        from hsm_keys.cli.bash_words import complete_words_with_colons

        complete_words_with_colons()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    as_json = wants_json(argv)
    if arguments is None:
        _leave_trio_out()
        claim_streams(quiet=as_json)
    sys.exit(end_streams(_exit_code(argv, as_json=as_json)))


def _leave_trio_out() -> None:
    """Let httpcore2 find no trio: it imports it wherever it is installed, and no command runs on it.

    That is a fifth of the processor time of a command that asks Kalshi.
    """
    sys.modules.setdefault("trio", None)  # type: ignore[arg-type]  # Python itself marks a module that can't be imported with None


def _exit_code(argv: list[str], *, as_json: bool) -> int:
    try:
        outcome: Any = program.main(args=argv, prog_name="hsm-keys", standalone_mode=False)
    except click.UsageError as error:
        return fail_usage(error, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return fail_interrupted(as_json=as_json)
    except _UnreadError:
        return SIGPIPE_EXIT
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user
        return fail(error, as_json=as_json)
    return outcome if isinstance(outcome, int) else 0
