"""``generate``."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.enroll import print_enrollment
from hsm_keys.cli.options import check_new_key, key_name, new_key_options, settings_options
from hsm_keys.cli.session import Connector, bootstrap_signer, connector, management_client, opened_store, reporting
from hsm_keys.files import check_place_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.cli.session import Connector
    from hsm_keys.cli.settings import Settings
    from hsm_keys.kalshi.client import KalshiClient

__all__ = ["generate"]

# What Kalshi makes; importing KeyType here would load cryptography for --help.
_KEY_TYPES = ("rsa-2048", "ed25519")


@command(epilog="Example: hsm-keys generate ci-bot --slot 0 --scope read")
@key_name("What to call the key, in the store and at Kalshi.")
@click.option("--key-type", type=click.Choice(_KEY_TYPES), default="rsa-2048", help="The key's type.")
@new_key_options
@click.option(
    "--to-file", metavar="PATH", help="Write the private half to a new file (PEM, 0600) instead: no custody then."
)
@settings_options
@click.pass_obj
def generate(
    settings: Settings,
    *,
    name: str,
    key_type: str,
    scopes: tuple[str, ...],
    subaccount: int | None,
    auth: str | None,
    to_file: str | None,
) -> None:
    """Let Kalshi make the key NAME, and put its private half straight into the store.

    For accounts that may not register public keys of their own. The private half gets into no file and no output, but
    it was made outside of the store: prefer `enroll` where Kalshi allows it. If generate is killed half way, the same
    command continues from there.
    """
    from hsm_keys.kalshi.account import Account
    from hsm_keys.lifecycle.generate import Generator
    from hsm_keys.lifecycle.made_by_kalshi import KalshiGenerator
    from hsm_keys.lifecycle.registering import ApiKeyRequest
    from hsm_keys.signing.algorithms import KeyType

    check_new_key(name, scopes, subaccount)
    if to_file is not None:
        check_place_for(Path(to_file), "--to-file")
    connect = connector(settings)
    wanted, kind = ApiKeyRequest(name, list(scopes) or None, subaccount), KeyType(key_type)
    with reporting(settings) as report:
        if to_file is None:
            with (
                opened_store(settings, report) as store,
                management_client(connect, [store], auth, report) as management,
            ):
                print_enrollment(
                    settings,
                    Generator(store, KalshiGenerator(wanted, kind, Account(management, connect), report)).run(),
                )
            return
        from hsm_keys.lifecycle.to_file import generate_to_file

        with _storeless_management(settings, connect, auth, report) as management:
            print_enrollment(
                settings, generate_to_file(to_file, KalshiGenerator(wanted, kind, Account(management, connect), report))
            )


@contextmanager
def _storeless_management(
    settings: Settings, connect: Connector, auth: str | None, report: Callable[[str], None]
) -> Iterator[KalshiClient]:
    """Give a client that signs management calls, with the bootstrap key; only --auth takes a key of the store."""
    signer = None if auth else bootstrap_signer(connect.exchange)
    if signer is None:
        with (
            opened_store(settings, report) as store,
            management_client(connect, [store], auth, report) as management,
        ):
            yield management
    else:
        with connect(signer) as management:
            yield management
