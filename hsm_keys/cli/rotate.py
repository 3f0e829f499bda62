"""``rotate``."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.confirming import confirm, yes_option
from hsm_keys.cli.enroll import key_object
from hsm_keys.cli.options import auth_option, key_name, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.progress import count_down
from hsm_keys.cli.session import connector, management_client, opened_store, reporting
from hsm_keys.values import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings
    from hsm_keys.lifecycle.rotate import Rotation, Rotator
    from hsm_keys.lifecycle.rotation_marks import Stage

__all__ = ["rotate"]

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_LONGEST_GRACE_S: Final = 365 * 86400


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the seconds of a time such as 90s, 10m or 2h."""
    if value is None:
        return None
    parts = _DURATION.fullmatch(value)
    if not parts:
        # A number without a unit could be meant as seconds or minutes, and the old key ends after it.
        what = "a number without a unit" if value.isdecimal() else describe(value)
        raise click.BadParameter(f"{what} is not a time: write 90s, 10m, 2h or 1d", ctx, param)
    seconds = int(parts[1]) * _SECONDS[parts[2]]
    if seconds > _LONGEST_GRACE_S:
        raise click.BadParameter("that is longer than a year: leave --grace out, and give --finish then", ctx, param)
    return seconds


@command(epilog="Example: hsm-keys rotate prod --slot 0")
@key_name("The key to rotate.")
@click.option(
    "--grace", callback=_seconds, metavar="D", help="Wait for this time (90s, 10m, 2h), then end the old key."
)
@click.option("--finish", is_flag=True, help="End the old key now.")
@click.option("--abort", is_flag=True, help="Go back: give the old key its name again, and end the new one.")
@click.option("--keep-old", is_flag=True, help="Keep the old private half, as NAME+kept-XXXXXXXX.")
@yes_option
@auth_option
@settings_options
@click.pass_obj
def rotate(
    settings: Settings,
    *,
    name: str,
    grace: int | None,
    finish: bool,
    abort: bool,
    keep_old: bool,
    yes: bool,
    auth: str | None,
) -> None:
    """Replace the key NAME with a new key.

    The new key is made in the same store, registered with the same scopes and subaccount, and proved with a signed
    request; then it gets the name. The old key still works, so that programs can change to the new one, until --grace,
    --finish or a second call ends it: its API key is deleted at Kalshi and proved dead, and its private half destroyed.

    If rotate is killed or refused half way, the same command continues from there.
    """
    if abort and (finish or keep_old or grace is not None):
        raise click.UsageError("--abort can't be combined with --finish, --grace or --keep-old: give it alone.")
    if finish and grace is not None:
        raise click.UsageError("--finish ends the old key now, --grace later: give one of them.")
    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle.rotate import Rotator
    from hsm_keys.lifecycle.rotation_marks import Stage
    from hsm_keys.stores.key_names import check_new_name

    check_new_name(name)
    connect = connector(settings)
    with reporting(settings) as report, opened_store(settings, report) as store:
        stage = Stage.read(store, name)
        leaver = _about_to_end(stage, abort=abort)
        with management_client(connect, [store], auth, report, prefer=name, avoid=leaver) as management:
            rotator = Rotator(store, Account(management, connect), report)
            if abort:
                rotation = rotator.abort(name)
            else:
                ending = finish or grace is not None or stage.handed_over
                wait = partial(count_down, text="until the old API key ends", quiet=settings.as_json)
                rotation = _forward(
                    rotator, name, stage, report, ending=ending, grace=grace, wait=wait, keep_old=keep_old, yes=yes
                )
    _print(settings, rotation)


def _about_to_end(stage: Stage, *, abort: bool) -> str | None:
    """Return the API key that another one should delete, if there is another."""
    newer = stage.current if stage.handed_over else stage.successor
    key = newer if abort else stage.retired
    return key.api_key_id if key else None


def _forward(
    rotator: Rotator,
    name: str,
    stage: Stage,
    report: Callable[[str], None],
    *,
    ending: bool,
    grace: int | None,
    wait: Callable[[int], None],
    keep_old: bool,
    yes: bool,
) -> Rotation:
    if not ending or grace is not None:
        rotation = rotator.advance(name)
    if not ending:
        option = " --keep-old" if keep_old else ""
        report(
            f"next, when all programs use the new key: hsm-keys rotate {name} --finish{option} (or --abort, to go back)"
        )
        if keep_old:
            report("give --keep-old again with --finish, or the old private half is destroyed")
        return rotation
    if grace:
        report(f"the old key works for {grace} seconds more")
        wait(grace)
    if grace is None and sys.stdin.isatty():  # in a script, the second call is the consent
        confirm([_consequences(stage, keep_old=keep_old)], yes=yes, report=report)
    return rotator.finish(name, keep_old=keep_old)


def _consequences(stage: Stage, *, keep_old: bool) -> str:
    old = stage.retired or stage.current
    destroyed = "" if keep_old else " and its private half is destroyed"
    name = "the old API key" if old is None else f"API key {old.api_key_id}"
    return f"{name} is deleted at Kalshi{destroyed}: programs that still sign with it get 401"


def _print(settings: Settings, done: Rotation) -> None:
    if settings.as_json:
        retired = done.retired.api_key_id if done.retired else None
        rotation = {"stage": done.stage, "retired_api_key_id": retired}
        print_json({**key_object(done.key, done.custody, done.key.api_key_id), "rotation": rotation})
    else:
        print_line(f"{done.key.name}  {done.key.api_key_id}  {done.key.uri}")
