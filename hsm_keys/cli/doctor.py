"""``doctor``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import settings_options
from hsm_keys.cli.output import print_json, print_line, print_verdict
from hsm_keys.cli.session import bootstrap_signer, connector, kalshi_base_url, opened_store, reporting
from hsm_keys.cli.store_uri import store_uri
from hsm_keys.stores import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings
    from hsm_keys.stores.base import KeyStore
    from hsm_keys.stores.checks import Check

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": "white"}
_SUMMARY = {"ok": "all is well", "warning": "it works, with warnings", "problem": "there are problems"}


@command(epilog="Example: hsm-keys doctor --slot 0")
@settings_options
@click.pass_obj
def doctor(settings: Settings) -> int:
    """Check module, token, PIN, clock, Kalshi, credentials and permissions for problems. Nothing is changed.

    It logs in only if a PIN is given and the token has counted no wrong one. Exits with 0 if it finds no problem, else
    with the exit code of the first.
    """
    from hsm_keys.inspecting.doctor import check_variables, outcome

    with reporting(settings) as report:
        checks = [*check_variables(os.environ), *_kalshi(settings), *_store(settings, report)]
        verdict, exit_code = outcome(checks)
        if settings.as_json:
            print_json({"checks": [check.as_dict() for check in checks], "verdict": verdict})
        else:
            for check in checks:
                print_verdict(f"{check.verdict:<8}", f" {check.name}: {check.message}", colour=_COLOURS[check.verdict])
                if check.remedy:
                    print_line(f"         {check.remedy}")
            print_verdict(_SUMMARY[verdict], colour=_COLOURS[verdict])
    return exit_code


def _kalshi(settings: Settings) -> list[Check]:
    from hsm_keys.inspecting.doctor import check_bootstrap, check_clock, check_network, check_websocket
    from hsm_keys.signing.environments import websocket_url
    from hsm_keys.stores.checks import checked

    def clock() -> list[Check]:
        return check_clock(kalshi_base_url(settings))

    def ws_url() -> str:
        return websocket_url(base_url=kalshi_base_url(settings), exchange=settings.exchange, ws_url=settings.ws_url)

    def network() -> list[Check]:
        return check_network([kalshi_base_url(settings), ws_url()])

    def websocket() -> Check:
        return check_websocket(ws_url())

    def bootstrap() -> list[Check]:
        return check_bootstrap(bootstrap_signer(settings.exchange), connector(settings), settings.exchange)

    checks = [*checked("network", network), *checked("kalshi", clock), *checked("websocket", websocket)]
    return checks + checked("bootstrap", bootstrap)


def _store(settings: Settings, report: Callable[[str], None]) -> list[Check]:
    from hsm_keys.inspecting.doctor import check_own_key, check_store
    from hsm_keys.kalshi.bootstrap_variables import VARIABLES
    from hsm_keys.stores.checks import checked

    uris: list[str] = []

    def name() -> list[Check]:
        uris.append(store_uri(settings, report))
        return []

    def opened() -> list[Check]:
        with opened_store(settings, report, asks=False) as store:
            checks = check_store(store)
            if not os.environ.get(VARIABLES[settings.exchange].id):
                checks += checked("credentials", lambda: own_key(store))
            return checks

    def own_key(store: KeyStore) -> list[Check]:
        connect = connector(settings)
        return check_own_key(store, connect, connect.environment)

    checks = checked("store", name)
    if not uris:
        return checks
    uri = uris[0]
    return checks + backend_of(uri).look(uri, settings.store_options, os.environ, opened)
