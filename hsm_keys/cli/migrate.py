"""``migrate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.asking import TerminalPerson
from hsm_keys.cli.commands import command
from hsm_keys.cli.confirming import confirm, require_consent, yes_option
from hsm_keys.cli.enroll import KEY_TYPES, key_object
from hsm_keys.cli.init import fields_of_key
from hsm_keys.cli.options import api_key_id_option, check_new_key, key_name, rights_options, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.session import bootstrap_signer, connector, opened_store, reporting
from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hsm_keys.cli.session import Connector
    from hsm_keys.cli.settings import Settings
    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.lifecycle.enroll import Enrollment
    from hsm_keys.signing.pem import PemKey
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore

__all__ = ["migrate"]


@command(epilog="Example: hsm-keys migrate prod --slot 0\nhsm-keys migrate prod --slot 0 --finish --copy ~/old-bot.pem")
@key_name("What to call the new key, in the store and at Kalshi.")
@click.option("--key-type", type=click.Choice(KEY_TYPES), help="The new key's type; by default that of the bot's PEM.")
@rights_options("Left out, it may do what the PEM's may.")
@api_key_id_option
@click.option("--finish", is_flag=True, help="End the PEM's API key, once the bot runs with the new key.")
@click.option(
    "--copy",
    "copies",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="With --finish: a copy of the PEM, to be listed at the end; can be repeated.",
)
@yes_option
@settings_options
@click.pass_obj
def migrate(
    settings: Settings,
    *,
    name: str,
    key_type: str | None,
    scopes: tuple[str, ...],
    subaccount: int | None,
    api_key_id: str | None,
    finish: bool,
    copies: tuple[Path, ...],
    yes: bool,
) -> None:
    """Move a bot from its PEM to a new key in the store; with --finish, end the PEM's API key.

    KALSHI_KEY_ID and KALSHI_PRIVATE_KEY_PATH (or KALSHI_PRIVATE_KEY) name the PEM's API key, as for the bot. This key
    registers the new one, which gets the same rights unless --scope gives others. If migrate is killed half way, the
    same command continues from there.
    """
    from hsm_keys.onboarding.migrating import CUSTODY_BEGINS

    require_consent(yes=yes)
    if copies and not finish:
        raise UsageError("--copy goes with --finish", hint="first run it without, and change the bot")
    if not finish:
        check_new_key(name, scopes, subaccount)
    connect = connector(settings)
    signer, pem = _pem(settings.exchange)
    with reporting(settings) as report, opened_store(settings, report) as store, connect(signer) as management:
        if finish:
            _finish(settings, _Move(store, name, connect, management, pem), copies, report, yes=yes)
            return
        report(CUSTODY_BEGINS)
        move = _Move(store, name, connect, management, pem)
        rights = (list(scopes) or None, subaccount)
        enrollment = _begin(move, key_type, rights, api_key_id, TerminalPerson(report, yes=yes))
        _print_change(settings, move, enrollment, report)


@dataclass(frozen=True, slots=True)
class _Move:
    """From what to what.

    Args:
        store: Where the new key lives.
        name: Its name.
        connect: Makes clients of the environment.
        management: Signs with the PEM's key.
        pem: The PEM's key.
    """

    store: KeyStore
    name: str
    connect: Connector
    management: KalshiClient
    pem: PemKey


def _pem(exchange: str | None) -> tuple[RequestSigner, PemKey]:
    from hsm_keys.kalshi.bootstrap_variables import VARIABLES
    from hsm_keys.signing.pem import PemKey

    signer = bootstrap_signer(exchange)
    if signer is None or not isinstance(signer.key, PemKey):
        raise UsageError(
            "there is no PEM to migrate from",
            hint=f"set {VARIABLES[exchange].to_set} to the bot's; without any, begin with `hsm-keys init`",
        )
    return signer, signer.key


def _begin(
    move: _Move,
    key_type: str | None,
    rights: tuple[list[str] | None, int | None],
    api_key_id: str | None,
    person: TerminalPerson,
) -> Enrollment:
    """Make and register the new key, or go on where an earlier run stopped."""
    from hsm_keys.onboarding.first_key import WantedKey, find_key, first_key
    from hsm_keys.onboarding.migrating import key_type_like, rights_like
    from hsm_keys.signing.algorithms import KeyType

    there = find_key(move.store, move.name)
    kind = key_type_like(move.pem, KeyType(key_type) if key_type else None)
    if rights == (None, None):
        rights = rights_like(move.pem.api_key_id, move.management.api_keys.list().api_keys)
    wanted = WantedKey(move.name, kind if there is None or key_type else None, *rights)
    if there is None or there.api_key_id is None:
        scopes = f" with the scopes {', '.join(rights[0])}" if rights[0] else ""
        begin = f"make the {kind} key {move.name!r} in {move.store.describe()}" if there is None else "go on"
        person.agree(f"Next: {begin}, then register {move.name!r} at Kalshi{scopes}. Go on?")
    return first_key(
        move.store,
        wanted,
        environment=move.connect.environment,
        connect=move.connect,
        management=move.management,
        api_key_id=api_key_id,
        person=person,
    )


def _print_change(settings: Settings, move: _Move, enrollment: Enrollment, report: Callable[[str], None]) -> None:
    """Print what to change in the bot."""
    from hsm_keys.onboarding.bot_lines import python_lines

    fields = fields_of_key(settings, move.store, move.connect)
    if enrollment.key.api_key_id is None:
        fields["api-key-id"] = str(enrollment.api_key_id)
    lines = python_lines(move.name, fields)
    if settings.as_json:
        print_json(key_object(enrollment.key, enrollment.custody, enrollment.api_key_id) | {"python": lines})
        return
    report("in your bot, replace the PEM with these lines (docs/bots.md has others):")
    for line in lines:
        print_line(line)
    report("then remove the PEM and its variables from the bot, check that the bot trades, and end the PEM's key with")
    report(f"  hsm-keys migrate {move.name} --finish")


def _finish(
    settings: Settings, move: _Move, copies: Sequence[Path], report: Callable[[str], None], *, yes: bool
) -> None:
    """End the PEM's API key, and say where its copies may lie."""
    from hsm_keys.inspecting.proof_of_possession import Standing
    from hsm_keys.kalshi.bootstrap import bootstrap_places
    from hsm_keys.kalshi.bootstrap_variables import VARIABLES
    from hsm_keys.onboarding.migrating import PemInMemory, Successor, where_copies_lie

    successor = Successor(move.store.key(move.name), move.connect, move.connect.environment, report)
    pem = PemInMemory(move.pem, move.connect.environment)
    standing = successor.check_end(pem)
    with move.connect(successor.key.signer()) as own:
        management = successor.manager(move.management, own)
        lines = [
            f"API key {pem.api_key_id}, the PEM's, is going to end at {management.base_url}",
            f"every program that signs with the PEM gets 401 from then on; {move.name!r} signs, which was just proved",
        ]
        if standing is Standing.TAKEN:
            confirm(lines, yes=yes, report=report)
        successor.end(pem, standing, move.store, management)
    copied = where_copies_lie(bootstrap_places(exchange=settings.exchange), copies)
    if settings.as_json:
        own_id = successor.key.api_key_id
        print_json({"name": move.name, "api_key_id": own_id, "ended": pem.api_key_id, "copies": copied})
        return
    print_line(f"{pem.api_key_id}  ended; {move.name!r} ({successor.key.api_key_id}) takes its place")
    report("Kalshi refuses the PEM now; copies of it may be in:")
    for place in copied:
        report(f"  {place}")
    variable = VARIABLES[settings.exchange].id
    report(f"take {variable} and the PEM's variable out of the environment: Kalshi refuses what is signed with them")
