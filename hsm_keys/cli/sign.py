"""``sign`` and ``fix-logon``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import settings_options, shared_options, signing_key_options
from hsm_keys.cli.output import print_json
from hsm_keys.cli.session import kalshi_base_url, opened_store, reporting, signing_key
from hsm_keys.cli.target import checked_target
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.cli.settings import Settings

__all__ = ["fix_logon", "sign"]


@command(epilog="Example: hsm-keys sign GET /trade-api/v2/portfolio/balance --name prod --slot 0")
@click.argument("method")
@click.argument("path")
@signing_key_options
@click.option("--timestamp-ms", type=click.IntRange(min=0), metavar="T", help="Unix time in ms; now by default.")
@shared_options("table", "json", "headers", "env", "curl")
@click.pass_obj
def sign(
    settings: Settings,
    *,
    method: str,
    path: str,
    name: str,
    api_key_id: str | None,
    timestamp_ms: int | None,
) -> None:
    """Print the three headers that sign one request. Kalshi accepts them for a few seconds.

    PATH is the path as it goes over the wire, with its /trade-api/v2 prefix; a query is not signed.

    --output headers prints `NAME: value` lines, env prints `export` lines, and curl prints a whole request for
    `curl --config -`, which keeps the signature out of the process list.
    """
    with reporting(settings) as report:
        signed_path = _full_path(method, path, report)
        with opened_store(settings, report) as store:
            signer = signing_key(store, name, settings, api_key_id)
            headers = signer.headers(method, signed_path, timestamp_ms=timestamp_ms)
        if settings.as_json:
            print_json(headers)
        else:
            for line in _written(settings, headers, method, signed_path):
                click.echo(line)


def _written(settings: Settings, headers: dict[str, str], method: str, path: str) -> list[str]:
    if settings.output == "env":
        return [f"export {name.replace('-', '_')}={shlex.quote(value)}" for name, value in headers.items()]
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if settings.output != "curl":
        return lines
    from hsm_keys.signing.message import canonical_method, canonical_path

    bare, mark, query = path.partition("?")
    url = f"{_origin(settings, canonical_path(bare))}{canonical_path(bare)}{mark}{query}"
    return [
        f"request = {canonical_method(method)}",
        f"url = {_quoted(url)}",
        *(f"header = {_quoted(h)}" for h in lines),
    ]


def _origin(settings: Settings, path: str) -> str:
    """Return the origin that serves a path."""
    from hsm_keys.signing.environments import PERPS, websocket_url
    from hsm_keys.signing.message import MARGIN_WEBSOCKET_PATH, REST_PREFIX, WEBSOCKET_PATH

    base_url = kalshi_base_url(settings)
    if path not in {WEBSOCKET_PATH, MARGIN_WEBSOCKET_PATH}:
        return base_url.removesuffix(REST_PREFIX)
    exchange = PERPS if path == MARGIN_WEBSOCKET_PATH else None
    return websocket_url(base_url=base_url, exchange=exchange, ws_url=settings.ws_url).removesuffix(path)


def _quoted(value: str) -> str:
    """Return the value as curl's configuration files quote it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _full_path(method: str, path: str, report: Callable[[str], None]) -> str:
    """Return the path with Kalshi's prefix; a bad method or path is refused before the token is touched."""
    from hsm_keys.signing.message import REST_PREFIX

    checked_target(method, path)
    if path.startswith("/trade-api/"):
        return path
    report(f"signing {shown_path(f'{REST_PREFIX}{path}')}: Kalshi verifies the whole path")
    return f"{REST_PREFIX}{path}"


_SOME_TIME: Final = "20260102-03:04:05.678"


@command(name="fix-logon", epilog="Example: hsm-keys fix-logon --name prod --target KalshiNR --seq 1 --slot 0")
@signing_key_options
@click.option("--target", required=True, metavar="ID", help="TargetCompID (56), such as KalshiNR.")
@click.option("--seq", required=True, type=click.IntRange(min=1), metavar="N", help="MsgSeqNum (34) of the Logon.")
@click.option("--sending-time", metavar="T", help="SendingTime (52), UTC as YYYYMMDD-HH:MM:SS.sss; now by default.")
@settings_options
@click.pass_obj
def fix_logon(
    settings: Settings, *, name: str, api_key_id: str | None, target: str, seq: int, sending_time: str | None
) -> None:
    """Print the fields that sign a FIX Logon, and where the gateway is. Kalshi accepts them for 30 seconds."""
    from hsm_keys.signing import fix

    address = fix.fix_address(target, base_url=kalshi_base_url(settings), exchange=settings.exchange)
    fix.logon_message(sending_time or _SOME_TIME, seq, "checked-before-the-token-is-touched", target)
    with reporting(settings) as report, opened_store(settings, report) as store:
        signer = signing_key(store, name, settings, api_key_id)
        logon = fix.fix_logon(signer, target, seq, sending_time=sending_time)
        if address is not None:
            report(f"{target} listens at {address[0]}:{address[1]}, over TLS")
    fields: dict[str, str | int] = {
        "SendingTime": logon.sending_time,
        "MsgSeqNum": logon.msg_seq_num,
        "SenderCompID": logon.sender_comp_id,
        "TargetCompID": logon.target_comp_id,
        "RawDataLength": len(logon.raw_data),
        "RawData": logon.raw_data,
    }
    if settings.as_json:
        print_json(fields | ({} if address is None else {"host": address[0], "port": address[1]}))
    else:
        for field, value in fields.items():
            click.echo(f"{field}: {value}")
