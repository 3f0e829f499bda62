"""``explain``."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.completing import complete_codes
from hsm_keys.cli.explanations import KALSHI, OURS, PROXY, find
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.errors import UsageError
from hsm_keys.values import shown_word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hsm_keys.cli.explanations.explanation import Explanation
    from hsm_keys.cli.settings import Settings

__all__ = ["explain"]

_LISTS = (
    ("hsm-keys", OURS, "The command line and the library"),
    ("proxy", PROXY, "The signing proxy (it passes on codes of the list above, too)"),
    ("kalshi", KALSHI, "Kalshi"),
)


@command(uses_profile=False, epilog="Example: hsm-keys explain kalshi_tier")
@click.argument("code", nargs=-1, metavar="[CODE]", shell_complete=complete_codes)
@settings_options
@click.pass_obj
def explain(settings: Settings, *, code: tuple[str, ...]) -> None:
    """Say what an error code means: its cause, what to do, and an example. Without CODE, list all codes.

    CODE is in brackets after an error, and in "code" of errors in JSON. Codes of the proxy and of Kalshi work, too.
    """
    if not code:
        _list(settings)
        return
    word = " ".join(code)
    explanation = find(word)
    if explanation is None:
        raise _unknown(word)
    if settings.as_json:
        print_json(_as_object(*explanation))
        return
    known, explained = explanation
    ends = "" if explained.exit_code is None else f" (exit code {explained.exit_code})"
    print_line(f"{known}{ends}")
    for heading, text in (("cause", explained.cause), ("remedy", explained.remedy), ("example", explained.example)):
        print_line(f"{heading + ':':<9}{text}")


def _list(settings: Settings) -> None:
    if settings.as_json:
        print_json({"codes": [_as_object(*each) for _, codes, _ in _LISTS for each in codes.items()]})
        return
    for _, codes, heading in _LISTS:
        print_line(f"{heading}:")
        for line in _lines(codes):
            print_line(line)
        print_line("")
    print_line("hsm-keys explain CODE says more of one")


def _lines(codes: Mapping[str, Explanation]) -> list[str]:
    width = max(map(len, codes))
    return [f"  {code:<{width}}  {explained.cause.partition('. ')[0].rstrip('.')}" for code, explained in codes.items()]


def _as_object(code: str, explained: Explanation) -> dict[str, Any]:
    origin = next(name for name, codes, _ in _LISTS if code in codes)
    return {
        "code": code,
        "from": origin,
        "exit_code": explained.exit_code,
        "cause": explained.cause,
        "remedy": explained.remedy,
        "example": explained.example,
    }


def _unknown(word: str) -> UsageError:
    codes_in_lists = [code for _, codes, _ in _LISTS for code in codes]
    near = get_close_matches(word, codes_in_lists, n=3)
    hint = f"near it: {', '.join(near)}" if near else "`hsm-keys explain` lists all codes"
    return UsageError(f"there is no error code {shown_word(word, codes_in_lists)}", hint=hint)
