"""``bench``."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.commands import command
from hsm_keys.cli.options import key_name, settings_options
from hsm_keys.cli.output import print_json
from hsm_keys.cli.pages import write_page
from hsm_keys.cli.progress import progress
from hsm_keys.cli.session import opened_store, reporting
from hsm_keys.errors import UsageError
from hsm_keys.files import check_place_for
from hsm_keys.stores import backend_of
from hsm_keys.values import shown_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.bench.measure import Result
    from hsm_keys.cli.settings import Settings
    from hsm_keys.signing.signer import RequestSigner
    from hsm_keys.stores.base import KeyStore, StoredKey

__all__ = ["bench"]


@command(epilog="Example: hsm-keys bench --name prod --slot 0")
@key_name("The key to measure; by default the only one of the store.", required=False)
@click.option(
    "--seconds", type=click.FloatRange(0.05, 600), default=2.0, show_default=True, help="Seconds for each measurement."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Measure with 1, 2, 4... up to this many threads.",
)
@click.option("--presign", is_flag=True, help="Measure headers that are signed ahead, too.")
@click.option("--html", "html_path", metavar="PATH", help="Write an HTML page with the plots, too.")
@settings_options
@click.pass_obj
def bench(
    settings: Settings, *, name: str | None, seconds: float, threads: int, presign: bool, html_path: str | None
) -> None:
    """Measure how fast the store signs, compared with a key in memory and, for a token, with the module's own C_Sign.

    Nothing is sent to Kalshi. A cloud's service bills each signature.
    """
    from hsm_keys.bench import presentation
    from hsm_keys.bench.page import page
    from hsm_keys.surroundings import surroundings

    if html_path:
        _check_free(Path(html_path))
    with reporting(settings) as report, opened_store(settings, report) as store:
        key = _chosen(store, name)
        for remark in key.remarks():
            report(remark)
        with progress(quiet=settings.as_json) as show:
            results = _measured(store, key, seconds, threads, report=report, show=show)
            if presign:
                show(f"measuring headers that are signed ahead, {seconds:g} s")
                results.append(_ahead(key, seconds, report))
        described, key_type = store.describe(), key.key_type.value
        circumstances = [datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), *surroundings([store.software()])]
        billed = backend_of(store.uri).bills_signatures
    words = [f"{described}, {key_type}", presentation.orders(results), *presentation.compared(results)]
    if presign:
        words.append(presentation.cost(billed=billed))
    if html_path:
        write_page(Path(html_path), page("hsm-keys bench", results, words, surroundings=circumstances))
        report(f"wrote {html_path}")
    if settings.as_json:
        print_json(presentation.as_object(described, key_type, results))
        return
    click.echo("\n".join([*presentation.table(results), "", *presentation.histogram(results[0]), "", *words]))


def _check_free(path: Path) -> None:
    check_place_for(path, "--html")
    if os.path.exists(path):
        raise UsageError(f"{shown_path(path)} is there already", hint="choose another path, or remove it")


def _chosen(store: KeyStore, name: str | None) -> StoredKey:
    if name is not None:
        return store.key(name)
    keys = store.keys()
    if len(keys) != 1:
        names = ", ".join(key.name for key in keys) or "none"
        raise UsageError(f"{store.describe()} has {len(keys)} keys: {names}", hint="say which: --name NAME")
    return keys[0]


def _measured(
    store: KeyStore,
    key: StoredKey,
    seconds: float,
    threads: int,
    *,
    report: Callable[[str], None],
    show: Callable[[str], None],
) -> list[Result]:
    from hsm_keys.bench.measure import in_memory, measure, measure_in_turns, order_headers

    counts = [1]
    while counts[-1] * 2 <= threads:
        counts.append(counts[-1] * 2)
    results = []
    for count in counts:
        show(f"measuring the store on {count} of {threads} threads, {seconds:g} s")
        results.append(measure("store", key.sign, threads=count, seconds=seconds))
    with _raw_loop(store, key) as raw:
        calls: dict[str, Callable[[bytes], object]] = {"headers": order_headers(_signer(key))}
        if raw is not None:
            calls[raw[0]] = raw[1]
        calls["in memory"] = in_memory(key.key_type.value)
        show(f"measuring {', '.join(calls)} in turns, {seconds * len(calls):g} s")
        results += measure_in_turns(calls, seconds=seconds)
    report(f"the interpreter switches threads every {sys.getswitchinterval() * 1000:g} ms (sys.setswitchinterval)")
    return results


def _signer(key: StoredKey) -> RequestSigner:
    """Return a signer also for a key that isn't registered: nothing is sent."""
    return key.signer(api_key_id=key.api_key_id or "00000000-0000-0000-0000-000000000000")


def _ahead(key: StoredKey, seconds: float, report: Callable[[str], None]) -> Result:
    from hsm_keys.bench.measure import measure_ahead

    result, missed = measure_ahead(_signer(key), seconds=seconds)
    if missed:
        report(f"{missed} of {len(result.latencies_us)} headers weren't ready, and were signed at once")
    return result


@contextmanager
def _raw_loop(store: KeyStore, key: StoredKey) -> Iterator[tuple[str, Callable[[bytes], bytes]] | None]:
    """Give the name and the signing call of the store's own library; None where there is none in this process."""
    from hsm_keys.stores.abilities import RawSigning

    if isinstance(store, RawSigning):
        with store.raw(key) as call:
            yield store.raw_call, call
    else:
        yield None
