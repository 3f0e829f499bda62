"""``hsm-keys bench``: what it measures, and how it tells it."""

from __future__ import annotations

import platform
import re
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys import KeyType, __version__, open_store
from hsm_keys.bench.measure import Result, in_memory, measure
from hsm_keys.bench.page import page
from hsm_keys.bench.presentation import as_object, compared, cost, histogram, orders, ratios, table
from hsm_keys.errors import KeyNotFoundError, SigningError
from hsm_keys.stores.pkcs11.store import Pkcs11Key, Pkcs11Store
from hsm_keys.surroundings import surroundings
from tests.support.cli import failed_json, run_cli, run_json
from tests.support.verify import openssl_verifies

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.softhsm import TestToken

pytestmark = pytest.mark.program

TIMES = st.lists(st.floats(0.1, 1e7), min_size=1, max_size=300).map(lambda times: tuple(sorted(times)))


@given(TIMES, st.sampled_from([50, 95, 99, 100]))
def test_a_percentile_is_the_smallest_time_that_so_many_were_within(times: tuple[float, ...], percent: int) -> None:
    taken = Result("x", 1, 1.0, times).percentile(percent)
    assert sum(time <= taken for time in times) >= percent / 100 * len(times)
    assert sum(time < taken for time in times) < percent / 100 * len(times)


@given(TIMES)
def test_a_histogram_holds_every_signature(times: tuple[float, ...]) -> None:
    lines = histogram(Result("x", 1, 1.0, times))
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == len(times)
    assert max(len(line) for line in lines) < 80


@pytest.mark.parametrize(("rate", "words"), [(5, "fewer orders than"), (10, "tier Basic"), (2000, "tier Prestige")])
def test_what_a_rate_means_for_orders(rate: int, words: str) -> None:
    best, worse = Result("store", 2, 1.0, (1.0,) * rate), Result("store", 1, 1.0, (1.0,))
    assert words in orders([worse, best, Result("in memory", 1, 1.0, (1.0,) * 9999)])


def test_what_results_are_to_each_other() -> None:
    results = [
        Result("store", 1, 1.0, (500.0, 520.0, 530.0)),
        Result("store", 2, 1.0, (500.0,) * 6),
        Result("headers", 1, 1.0, (500.0, 525.0, 9000.0)),
        Result("C_Sign", 1, 1.0, (500.0,)),
        Result("in memory", 1, 1.0, (260.0,)),
    ]
    assert ratios(results) == {"headers_to_c_sign": 1.05, "store_to_in_memory": 2.0, "two_threads_to_one": 2.0}
    assert compared(results)[0] == "signer.headers() takes 1.05 times the module's own C_Sign, at p50"
    results.append(Result("ahead", 1, 1.0, (2.1,)))
    assert (ratios(results)["headers_to_ahead"], ratios(results)["in_memory_to_ahead"]) == (250.0, 123.81)
    assert as_object("token", "rsa-2048", results)["ahead_signatures_per_hour"] == 19_200
    assert "19,200 signatures an hour when idle" in cost(billed=False)
    assert "1.92 times what KMS bills for 10,000" in cost(billed=True)


def test_the_page_shows_a_name_as_text() -> None:
    result = Result("<script>", 2, 1.0, (1.0, 2.0))
    shown = page("<b>", [result], ["<i>"])
    assert "<script>" not in shown
    assert "&lt;script&gt;, 2 threads" in shown
    assert "http" not in shown
    assert table([result])[1].startswith("<script>")


def test_the_page_has_one_axis_percentiles_threads_and_where_it_was_made() -> None:
    quick, slow = Result("store", 1, 1.0, (10.0, 20.0, 30.0)), Result("store", 2, 1.0, (100.0, 200.0, 3000.0))
    shown = page("bench", [quick, slow], [], surroundings=["2026-11-28", "host <1>"])
    plots = shown.split("<svg")[2:]
    axes = [re.findall(r'text-anchor="middle">([\d,.]+)<', plot) for plot in plots]
    assert axes[0] == axes[1] == ["10.0", "20.0", "50.0", "100", "200", "500", "1,000", "2,000"]
    assert all(f">p{percent} " in plot for plot in plots for percent in (50, 95, 99))
    assert "3 a second" in shown.split("<svg")[1]
    assert "2026-11-28 · host &lt;1&gt;" in shown
    assert "@media print" in shown
    assert "@media(max-width" in shown


def test_surroundings_name_host_and_versions_once() -> None:
    lines = surroundings(["SoftHSM 2.6", "SoftHSM 2.6", ""])
    assert lines[0].startswith(platform.node())
    assert f"hsm-keys {__version__}, Python {platform.python_version()}" in lines
    assert lines.count("SoftHSM 2.6") == 1
    assert "" not in lines


def test_every_thread_signs_and_a_failure_is_told() -> None:
    seen: set[int] = set()
    result = measure("x", lambda _: seen.add(threading.get_ident()), threads=3, seconds=0.05)
    assert len(seen) == 4  # the warm-up is ours
    assert result.rate == pytest.approx(len(result.latencies_us) / result.seconds)

    calls = iter(range(10))

    def fail(_: bytes) -> None:
        if next(calls) > 3:
            raise SigningError("unplugged")

    with pytest.raises(SigningError, match="unplugged"):
        measure("x", fail, threads=1, seconds=1)


@pytest.mark.parametrize("key_type", [KeyType.RSA_2048, KeyType.ED25519])
@pytest.mark.softhsm
def test_the_raw_loop_signs_what_openssl_verifies(token: TestToken, tmp_path: Path, key_type: KeyType) -> None:
    with open_store(token.uri) as store:
        key = store.generate("prod", key_type)
        assert isinstance(store, Pkcs11Store)
        assert isinstance(key, Pkcs11Key)
        with store.raw(key) as raw:
            assert openssl_verifies(tmp_path, key.public_pem(), b"message", raw(b"message"))
        store.destroy(key)
        with pytest.raises(KeyNotFoundError), store.raw(key):
            pass


@pytest.mark.parametrize("key_type", ["rsa-3072", "ed25519"])
def test_the_key_in_memory_is_of_the_same_type(key_type: str) -> None:
    assert len(in_memory(key_type)(b"m")) == (64 if key_type == "ed25519" else 384)


@pytest.mark.softhsm
def test_the_command(token: TestToken, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HSM_KEYS_STORE", token.uri_without_pin)
    monkeypatch.setenv("HSM_KEYS_PIN_FILE", str(token.pin_file))
    assert "0 keys" in failed_json(2, "bench")["message"]
    with open_store(token.uri) as store:
        store.generate("prod")
    path = tmp_path / "bench.html"
    told = run_json("bench", "--seconds", "0.1", "--threads", "2", "--presign", "--html", str(path))
    assert [(entry["what"], entry["threads"]) for entry in told["results"]] == [
        ("store", 1),
        ("store", 2),
        ("headers", 1),
        ("C_Sign", 1),
        ("in memory", 1),
        ("ahead", 1),
    ]
    assert all(entry["p50_us"] <= entry["p99_us"] <= entry["max_us"] for entry in told["results"])
    assert "SoftHSM" in path.read_text()
    assert path.read_text().count("<svg") == 7
    assert set(told["ratios"]) >= {"headers_to_c_sign", "two_threads_to_one", "in_memory_to_ahead"}
    assert told["ahead_signatures_per_hour"] == 19_200
    assert "is there already" in failed_json(2, "bench", "--html", str(path))["message"]
    assert "no folder" in failed_json(2, "bench", "--html", str(tmp_path / "nowhere" / "x.html"))["message"]
    assert "in memory" in run_cli("bench", "--name", "prod", "--seconds", "0.05").stdout
