"""``proxy freeze``, ``status``, ``limits`` and the other requests to running proxies. Its imports are light."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import key_name, settings_options
from hsm_keys.cli.output import print_json, print_rows, print_table
from hsm_keys.errors import HsmKeysError, StoreNotFoundError, UsageError
from hsm_keys.proxy.controlling import ProxyChoice, ask_all, ask_one

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings
    from hsm_keys.proxy.controlling import ControlAnswer

__all__ = ["cancel_all", "freeze", "limits", "status", "thaw"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_WAIT_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.1
_LIMITS: Final = ("client", "cap", "most", "left", "more from (UTC)", "market")


def _which_options(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Add the options that say which proxies are meant."""
    for option in (
        click.option("--all", "everyone", is_flag=True, help="Every running proxy."),
        click.option(
            "--socket",
            type=click.Path(path_type=Path),
            help="The proxy with this socket: its control socket, or its clients' socket.",
        ),
        key_name("The key that the proxy signs with.", required=False),
    ):
        function = option(function)
    return function


def _wanted(name: str | None, socket: Path | None, *, everyone: bool) -> ProxyChoice:
    if (name is not None) + (socket is not None) + everyone != 1:
        raise UsageError(
            "exactly one of --name, --socket and --all is needed", hint="give --name NAME, --socket PATH or --all"
        )
    return ProxyChoice(name, socket, everyone)


@command(uses_profile=False, epilog="Example: hsm-keys proxy freeze --name prod --cancel-all")
@_which_options
@click.option("--cancel-all", "cancels", is_flag=True, help="Then cancel all resting orders of the account.")
@settings_options
@click.pass_obj
def freeze(settings: Settings, *, name: str | None, socket: Path | None, everyone: bool, cancels: bool) -> None:
    """Stop all signing at once, in every proxy with that name. The freeze holds over restarts.

    The proxies' sockets are looked for in XDG_RUNTIME_DIR, /run/user, /run/hsm-keys-proxy-*, /tmp and the state folder.
    """
    target = "/freeze/cancel-all" if cancels else "/freeze"
    _change(settings, ask_all(_wanted(name, socket, everyone=everyone), "POST", target), everyone=everyone)


@command(uses_profile=False, epilog="Example: hsm-keys proxy cancel-all --name prod")
@_which_options
@settings_options
@click.pass_obj
def cancel_all(settings: Settings, *, name: str | None, socket: Path | None, everyone: bool) -> None:
    """Cancel all resting orders of the account. Clients may go on, unless the proxy is frozen.

    The proxy sends the request itself. While clients send orders, it keeps this request signed in advance.
    """
    _change(settings, ask_all(_wanted(name, socket, everyone=everyone), "POST", "/cancel-all"), everyone=everyone)


@command(uses_profile=False, epilog="Example: hsm-keys proxy thaw --name prod")
@_which_options
@settings_options
@click.pass_obj
def thaw(settings: Settings, *, name: str | None, socket: Path | None, everyone: bool) -> None:
    """Sign again after a freeze."""
    wanted = _wanted(name, socket, everyone=everyone)
    if not everyone:
        _print_frozen(settings, ask_one(wanted, "POST", "/thaw"))
        return
    _change(settings, ask_all(wanted, "POST", "/thaw"), everyone=True)


def _change(settings: Settings, answers: list[ControlAnswer], *, everyone: bool) -> None:
    """Say what became of each proxy; raise the first error, where one wasn't frozen or thawed for good."""
    errors = [answer.error for answer in answers if answer.error is not None]
    done = [answer for answer in answers if answer.error is None]
    if not settings.as_json:
        for answer in done:
            _print_frozen(settings, answer.said, of=f"{answer.said['name']} (process {answer.said['pid']})")
        for error in errors[1:]:
            click.echo(f"error: {error}", err=True)
    if errors:
        raise errors[0]
    if settings.as_json and not everyone:
        _print_frozen(settings, done[0].said)
    elif settings.as_json:
        proxies = [{**answer.said, "socket": str(answer.socket)} for answer in done]
        print_json({"frozen": all(one["frozen"] for one in proxies), "proxies": proxies})


def _print_frozen(settings: Settings, state: dict[str, Any], *, of: str = "") -> None:
    subject = f"{of}: " if of else ""
    cancelled = state.get("cancelled")
    if settings.as_json:
        print_json({"frozen": state["frozen"]} | ({"cancelled": cancelled} if cancelled else {}))
        return
    if state["frozen"]:
        click.echo(f"{subject}frozen: nothing is signed until `hsm-keys proxy thaw`")
    elif cancelled is None:
        click.echo(f"{subject}thawed: requests are signed again")
    if cancelled is not None:
        status, resting = cancelled["status"], cancelled["resting"]
        click.echo(f"{subject}Kalshi cancelled all orders (status {status}); resting now: {resting}")


@command(uses_profile=False, epilog="Example: hsm-keys proxy status --name prod --wait")
@_which_options
@click.option("--wait", is_flag=True, help="Wait until the proxy serves its clients, at most a minute.")
@settings_options
@click.pass_obj
def status(settings: Settings, *, name: str | None, socket: Path | None, everyone: bool, wait: bool) -> int:
    """Show what a running proxy does. In a terminal, and without --wait, the status is live until Ctrl-C."""
    wanted = _wanted(name, socket, everyone=everyone)
    if wait:
        _wait(wanted)
    if everyone:
        return _show_all(settings, ask_all(wanted, "GET", "/status"))
    if settings.as_json:
        print_json(ask_one(wanted, "GET", "/status"))
        return 0
    answer = ask_one(wanted, "GET", "/status")
    if wait or not sys.stdout.isatty():
        print_rows(_rows(answer))
        return 0
    with suppress(KeyboardInterrupt):
        while True:
            click.clear()
            print_rows(_rows(answer))
            time.sleep(1)
            answer = ask_one(wanted, "GET", "/status")
    return 0


@command(uses_profile=False, epilog="Example: hsm-keys proxy limits --name prod")
@_which_options
@settings_options
@click.pass_obj
def limits(settings: Settings, *, name: str | None, socket: Path | None, everyone: bool) -> None:
    """Show what is left of the caps on money: dollars and contracts, for each client and for all together."""
    wanted = _wanted(name, socket, everyone=everyone)
    answers = ask_all(wanted, "GET", "/limits") if everyone else []
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    replies = [{"socket": str(answer.socket), **answer.said} for answer in answers] or [
        ask_one(wanted, "GET", "/limits")
    ]
    if settings.as_json:
        print_json({"proxies": replies} if everyone else replies[0])
        return
    for one in replies:
        if one["limits"]:
            print_table(_LIMITS, map(_limit, one["limits"]))
        else:
            click.echo("the policy has no caps, or nothing counts for them yet")


def _limit(row: dict[str, Any]) -> list[str]:
    left = row.get("left") or f"buy {row['left_to_buy']}, sell {row['left_to_sell']}"
    market, back_at = row.get("market", ""), (row.get("back_at") or "")[:16]
    return [row["client"] or "(all)", row["cap"], row["most"], left, back_at, market]


def _wait(wanted: ProxyChoice) -> None:
    """Wait until all proxies that are meant, at least one, serve their clients."""
    deadline = time.monotonic() + _WAIT_S
    while True:
        problem: HsmKeysError = StoreNotFoundError(
            "the proxy doesn't serve its clients yet", hint="see the proxy's log"
        )
        try:
            answers = ask_all(wanted, "GET", "/identity")
        except StoreNotFoundError as error:
            problem = error
        else:
            if all(answer.said.get("serves_at") for answer in answers):
                return
            problem = next((answer.error for answer in answers if answer.error is not None), problem)
        if time.monotonic() > deadline:
            raise problem
        time.sleep(_LOOK_EVERY_S)


def _show_all(settings: Settings, answers: list[ControlAnswer]) -> int:
    """Show the status of each proxy; one that can't be asked is named, and the exit code is its error's."""
    shown = [{**answer.said, "socket": str(answer.socket)} for answer in answers if answer.error is None]
    errors = [(answer.socket, answer.error) for answer in answers if answer.error is not None]
    if errors and not shown:
        raise errors[0][1]
    if settings.as_json:
        silent = [{"socket": str(path), "code": error.code, "message": error.message} for path, error in errors]
        print_json({"proxies": shown} | ({"errors": silent} if silent else {}))
    else:
        for _, error in errors:
            click.echo(f"error: {error}", err=True)
        for one in shown:
            print_rows(_rows(one))
    return errors[0][1].exit_code if errors else 0


def _rows(status: dict[str, Any]) -> list[tuple[str, str]]:
    """Return name and value of each part of a status; further lines of a value have no name."""
    rows = []
    for name, value in status.items():
        first, *rest = (_said(value) or "-").splitlines()
        rows += [(name.replace("_", " "), first), *(("", line) for line in rest)]
    return rows


def _said(value: Any) -> str:
    """Return a value of the status as people read it."""
    if isinstance(value, dict) and "p50_ms" in value:
        times = "" if value["p50_ms"] is None else f", p50 {value['p50_ms']} ms, p99 {value['p99_ms']} ms"
        return f"{value['count']}{times}"
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_said(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return ", ".join(value) if isinstance(value, list) else str(value)
