"""``request``: sends one signed request, like curl."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

import click

from hsm_keys.cli.answers import TimedAnswer, answers_object, refusal_text, timing
from hsm_keys.cli.commands import command
from hsm_keys.cli.options import settings_options, signing_key_options
from hsm_keys.cli.request_body import read_body
from hsm_keys.cli.request_headers import read_headers
from hsm_keys.cli.session import connector, opened_store, reporting, signing_key
from hsm_keys.cli.target import checked_target, with_query
from hsm_keys.errors import HsmKeysError, OutcomeUnknownError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from hsm_keys.cli.settings import Settings
    from hsm_keys.kalshi.client import KalshiClient

__all__ = ["request"]

_SAFE: Final = frozenset({"GET", "HEAD"})
_METHODS: Final = (*sorted(_SAFE), "POST", "PUT", "PATCH", "DELETE")  # TRACE would send the signature back
_EXAMPLES: Final = """\b
Example: hsm-keys request GET /portfolio/balance --name prod
         hsm-keys request GET /portfolio/orders --query status=resting --all --name prod
         hsm-keys request POST /portfolio/events/orders --json @order.json --name prod
         hsm-keys request GET /exchange/status --repeat 10 --name prod > /dev/null
"""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, and how the answer is printed."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    include: bool
    repeat: int | None
    all_pages: bool

    def send(self, client: KalshiClient, path: str | None = None) -> httpx2.Response:
        """Send it, freshly signed; to another path if one is given."""
        return client.request(self.method, path or self.path, content=self.body, headers=self.headers)


@command(epilog=_EXAMPLES)
@click.argument("method")
@click.argument("path")
@signing_key_options
@click.option("--query", multiple=True, metavar="NAME=VALUE", help="A query parameter; percent-encoded for you.")
@click.option("--json", "body", metavar="BODY", help="A JSON body; @FILE reads it from a file, - from stdin.")
@click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="A further header.")
@click.option("--include", is_flag=True, help="Print the answer's status line and headers before its body.")
@click.option("--all", "all_pages", is_flag=True, help="Follow the cursor to the end; print all pages as one object.")
@click.option("--repeat", type=click.IntRange(min=1), metavar="N", help="Send it N times, one after the other.")
@click.option(
    "--yes", is_flag=True, help="Repeat also a request that changes something: Kalshi carries it out N times."
)
@settings_options
@click.pass_obj
def request(
    settings: Settings,
    *,
    method: str,
    path: str,
    name: str,
    api_key_id: str | None,
    query: tuple[str, ...],
    body: str | None,
    header: tuple[str, ...],
    include: bool,
    all_pages: bool,
    repeat: int | None,
    yes: bool,
) -> None:
    """Send a request signed in the store and print the answer's body.

    PATH may leave out /trade-api/v2, and may have a query. The body is sent byte for byte as it is given.

    An answer other than 2xx is an error, and goes to stderr. With --output json, stdout is the JSON object that Kalshi
    sent; for any other body, and always with --include, it is {"status", "headers", "body"} ("headers" only with
    --include), and with --repeat {"answers": [{"status", "elapsed_ms", "body"}]}.

    --repeat signs each request anew, prints each answer as it comes, stops at the first error, and prints the
    requests' times on stderr.
    """
    method = checked_target(method, path)
    _check_options(settings, method, body, include=include, all_pages=all_pages, repeat=repeat, yes=yes)
    path = with_query(path, query)
    headers = read_headers(header, has_body=body is not None)
    payload = None if body is None else read_body(settings, body)
    wanted = _Request(method, path, headers, payload, include, repeat, all_pages)
    _rehearse(wanted)
    connect = connector(settings)
    with reporting(settings) as report, opened_store(settings, report) as store:
        signer = signing_key(store, name, settings, api_key_id)
        with connect(signer) as client:
            _carry_out(client, wanted, settings, report)


def _check_options(
    settings: Settings,
    method: str,
    body: str | None,
    *,
    include: bool,
    all_pages: bool,
    repeat: int | None,
    yes: bool,
) -> None:
    if method not in _METHODS:
        raise UsageError(f"{method} is not a method of Kalshi's", hint=f"use one of {', '.join(_METHODS)}")
    if body is not None and method in _SAFE:
        raise UsageError(f"a {method} has no body", hint="use --query for parameters, or another method")
    if all_pages and method != "GET":
        raise UsageError(f"--all follows the pages of a list, and a {method} has none", hint="use it with GET")
    if all_pages and (repeat is not None or include):
        raise UsageError(
            "--all prints one object from many answers, so it can't be combined with --repeat or --include",
            hint="leave --all or the other option out",
        )
    if repeat is None or repeat == 1 or method in _SAFE:
        return
    if settings.as_json:
        raise UsageError(
            f"--output json prints nothing if a {method} fails, and would lose the answers to those before it",
            hint="leave --output json out: each answer is printed as it comes",
        )
    if not yes:
        raise UsageError(f"the {method} would be carried out {repeat} times", hint="give --yes if that is meant")


class _Nobody:
    """Signs nothing: for a request that goes nowhere."""

    name = api_key_id = "nobody"

    def sign(self, message: bytes, /) -> bytes:  # noqa: ARG002 - a signer's signature
        return b""


def _rehearse(wanted: _Request) -> None:
    """Send the request nowhere, signed by nobody: what the client refuses, it refuses before a token is touched."""
    import httpx2

    from hsm_keys.kalshi.client import KalshiClient
    from hsm_keys.signing.environments import ENVIRONMENTS
    from hsm_keys.signing.signer import RequestSigner

    nowhere = httpx2.MockTransport(lambda _: httpx2.Response(204))
    with KalshiClient(RequestSigner(_Nobody()), base_url=ENVIRONMENTS["prod"].base_url, transport=nowhere) as client:
        wanted.send(client)


def _carry_out(client: KalshiClient, wanted: _Request, settings: Settings, report: Callable[[str], None]) -> None:
    try:
        if wanted.all_pages:
            from hsm_keys.cli.paging import all_pages

            _echo(all_pages(lambda path: _answered(client, wanted, report, path).response, wanted.path))
        elif wanted.repeat is None:
            _print(settings, wanted, _answered(client, wanted, report))
        else:
            _repeat(client, wanted, settings, report)
    except KeyboardInterrupt:
        if wanted.method in _SAFE:
            raise
        raise OutcomeUnknownError(
            f"interrupted: the last {wanted.method} may have been carried out",
            hint="look at Kalshi whether it was, before you send it again",
        ) from None


def _repeat(client: KalshiClient, wanted: _Request, settings: Settings, report: Callable[[str], None]) -> None:
    """Send it as often as was asked for, and print each answer at once, unless one object is to hold them all."""
    answers: list[TimedAnswer] = []
    times_ms: list[float] = []
    for number in range(1, (wanted.repeat or 1) + 1):
        try:
            answer = _answered(client, wanted, report)
        except HsmKeysError as error:
            where = f"request {number} of {wanted.repeat}; those before it succeeded"
            error.amend(message=f"{error.message} ({where})")
            raise
        times_ms.append(answer.elapsed_ms)
        if settings.as_json:
            answers.append(answer)
        else:
            _print(settings, wanted, answer)
    if settings.as_json:
        _echo(answers_object(answers, include=wanted.include))
    report(timing(times_ms))


def _answered(
    client: KalshiClient, wanted: _Request, report: Callable[[str], None], path: str | None = None
) -> TimedAnswer:
    """Send it once and return the answer, if it is a success; people hear what any other says."""
    from hsm_keys.kalshi.errors import error_of

    start = perf_counter()
    response = wanted.send(client, path)
    elapsed_ms = (perf_counter() - start) * 1000
    if not response.is_success:
        for line in refusal_text(response, include=wanted.include):
            report(line)
        raise error_of(response)
    return TimedAnswer(response, elapsed_ms)


def _print(settings: Settings, wanted: _Request, answer: TimedAnswer) -> None:
    if settings.as_json:
        _echo(answer.as_object(include=wanted.include))
    else:
        click.echo(answer.as_bytes(include=wanted.include), nl=False)


def _echo(text: str) -> None:
    """Print a text as UTF-8: the locale may not hold all of it."""
    click.echo(text.encode())
