"""``sign``, ``fix-logon`` and ``request``."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.options import Settings, api_key_id_option, settings_options, shared_options
from hsm_keys.cli.output import print_json
from hsm_keys.cli.session import connector, opened_store, speaking
from hsm_keys.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hsm_keys.kalshi.client import KalshiClient

__all__ = ["fix_logon", "request", "sign"]

_name_option = click.option("--name", required=True, metavar="NAME", help="The key that signs.")


@click.command(epilog="Example: hsm-keys sign GET /trade-api/v2/portfolio/balance --name prod --slot 0")
@click.argument("method")
@click.argument("path")
@_name_option
@api_key_id_option
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
    """Print the three headers that sign one request. Kalshi takes them for a few seconds.

    PATH is the path as it goes over the wire, with its /trade-api/v2 prefix; a query is not signed.

    --output headers prints `NAME: value` lines, env prints `export` lines, and curl prints a whole request for
    `curl --config -`, which keeps the signature out of the process list.
    """
    with speaking(settings) as say:
        signed_path = _full_path(method, path, say)
        with opened_store(settings, say) as store:
            signer = store.key(name).signer(api_key_id=_checked_id(api_key_id))
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
    from hsm_keys.signing.environments import resolve
    from hsm_keys.signing.message import REST_PREFIX, canonical_method, canonical_path

    bare, mark, query = path.partition("?")
    origin = resolve(base_url=settings.base_url, environment=settings.env).removesuffix(REST_PREFIX)
    url = f"{origin}{canonical_path(bare)}{mark}{query}"
    return [
        f"request = {canonical_method(method)}",
        f"url = {_quoted(url)}",
        *(f"header = {_quoted(h)}" for h in lines),
    ]


def _quoted(value: str) -> str:
    """Return the value as curl's configuration files quote it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _checked_id(api_key_id: str | None) -> str | None:
    from hsm_keys.stores.base import check_api_key_id

    return check_api_key_id(api_key_id) if api_key_id else None


def _full_path(method: str, path: str, say: Callable[[str], None]) -> str:
    """Return the path with Kalshi's prefix; a bad method or path is refused before the token is touched."""
    from hsm_keys.signing.message import REST_PREFIX, canonical_method, canonical_path

    canonical_method(method)
    canonical_path(path)
    if not all("!" <= char <= "~" for char in path):
        raise UsageError("the query holds a character that must be percent-encoded")
    if path.startswith("/trade-api/"):
        return path
    say(f"signing {REST_PREFIX}{path}: Kalshi verifies the whole path")
    return f"{REST_PREFIX}{path}"


@click.command(name="fix-logon", epilog="Example: hsm-keys fix-logon --name prod --target KalshiNR --seq 1 --slot 0")
@_name_option
@api_key_id_option
@click.option("--target", required=True, metavar="ID", help="TargetCompID (56), such as KalshiNR.")
@click.option("--seq", required=True, type=click.IntRange(min=1), metavar="N", help="MsgSeqNum (34) of the Logon.")
@click.option("--sending-time", metavar="T", help="SendingTime (52), UTC as YYYYMMDD-HH:MM:SS.sss; now by default.")
@settings_options
@click.pass_obj
def fix_logon(
    settings: Settings, *, name: str, api_key_id: str | None, target: str, seq: int, sending_time: str | None
) -> None:
    """Print the fields that sign a FIX Logon. Kalshi takes them for 30 seconds."""
    from hsm_keys.signing import fix

    if sending_time is not None:
        fix.logon_message(sending_time, seq, "checked-before-the-token-is-touched", target)
    with speaking(settings) as say, opened_store(settings, say) as store:
        signer = store.key(name).signer(api_key_id=_checked_id(api_key_id))
        logon = fix.fix_logon(signer, target, seq, sending_time=sending_time)
    fields: dict[str, str | int] = {
        "SendingTime": logon.sending_time,
        "MsgSeqNum": logon.msg_seq_num,
        "SenderCompID": logon.sender_comp_id,
        "TargetCompID": logon.target_comp_id,
        "RawDataLength": len(logon.raw_data),
        "RawData": logon.raw_data,
    }
    if settings.as_json:
        print_json(fields)
    else:
        for field, value in fields.items():
            click.echo(f"{field}: {value}")


@click.command(epilog="Example: hsm-keys request GET /portfolio/balance --name prod --slot 0")
@click.argument("method")
@click.argument("path")
@_name_option
@api_key_id_option
@click.option("--json", "body", metavar="BODY", help="A JSON body to send.")
@settings_options
@click.pass_obj
def request(settings: Settings, *, method: str, path: str, name: str, api_key_id: str | None, body: str | None) -> None:
    """Send a request signed in the store and print the answer's body."""
    from hsm_keys.signing.message import canonical_method, canonical_path

    canonical_method(method)
    canonical_path(path)
    payload = _checked_body(body)
    connect = connector(settings)
    with speaking(settings) as say, opened_store(settings, say) as store:
        signer = store.key(name).signer(api_key_id=_checked_id(api_key_id))
        content = _send(connect(signer), method, path, payload)
    if content:
        click.echo(content)


def _checked_body(body: str | None) -> bytes | None:
    """Return the body as it was given: parsing and writing it anew could change a number."""
    if body is None:
        return None
    try:
        json.loads(body)
    except ValueError as error:
        raise UsageError(
            f"the body is not JSON: {error}", hint='quote it for the shell: --json \'{"ticker": "..."}\''
        ) from None
    return body.encode()


def _send(client: KalshiClient, method: str, path: str, payload: bytes | None) -> str:
    from hsm_keys.kalshi.errors import error_of

    headers = {"Content-Type": "application/json"} if payload is not None else None
    with client:
        response = client.request(method, path, content=payload, headers=headers)
    if not response.is_success:
        raise error_of(response)
    return response.text
