"""``--accept``: API keys whose private halves are elsewhere on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["accept_option", "report_unused"]

_F = TypeVar("_F", bound="Callable[..., Any]")


def _checked(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> frozenset[str]:
    from hsm_keys.signing.api_key_ids import check_api_key_id

    return frozenset(map(check_api_key_id, values))


def accept_option(function: _F) -> _F:
    """Add ``--accept``, which can be repeated; the function is given ``accepted``, a set of API key ids."""
    return click.option(
        "--accept",
        "accepted",
        multiple=True,
        metavar="ID",
        callback=_checked,
        help="An API key whose private half is elsewhere on purpose: reported, but no problem; can be repeated.",
    )(function)


def report_unused(accepted: Collection[str], used: Collection[str], report: Callable[[str], None]) -> None:
    """Say of accepted ids that they are accepted for nothing: a mistyped one, or a key that ended or moved."""
    for api_key_id in sorted(set(accepted) - set(used)):
        report(f"note: --accept {api_key_id}: no API key with this id has its private half elsewhere")
