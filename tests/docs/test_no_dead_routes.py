"""Kalshi switched its first order routes off in June 2026: nothing shows them to a reader any more."""

from __future__ import annotations

import re

import pytest

from tests.support.cli import ROOT

_PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md")))]
_CODE = [
    str(path.relative_to(ROOT))
    for folder in ("hsm_keys", "benchmarks", "contrib", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file()
    and path.suffix in {".py", ".md", ".toml", ".json", ".txt", ".js", ".ts", ".sh", ".service", ".socket"}
]
_EXCEPTIONS = {
    "hsm_keys/kalshi/operations.py": "the list of all routes says what has taken their place",
    "hsm_keys/kalshi/errors.py": "the hint of a 410 says what to send",
    "tests/kalshi/test_not_kalshi.py": "the same",
    "tests/proxy/verdicts.txt": "what a policy makes of them",
    "tests/proxy/test_orders.py": "the same",
    "tests/kalshi/test_operations.py": "their rows",
    "tests/sandbox/test_orders.py": "the sandbox answers 410",
    "tests/docs/test_no_dead_routes.py": "this file",
}
_WRITE = re.compile(
    r"""(?:POST|PUT|DELETE|\*)\ +(?:/trade-api/v2)?/portfolio/orders   # a rule, a command or a sentence
    |   (?:POST|PUT|DELETE)["'],\s*f?["'][^"']*/portfolio/orders         # a call
    |   \.(?:post|put|delete)\([^)]*/portfolio/orders
    |   ["']side["']:\s*["'](?:yes|no)["'],\s*["']action["']              # a body
    |   ["'](?:yes|no)_price["']:\ *[0-9]""",
    re.VERBOSE,
)
_HISTORY = "No limit can judge orders of the form before June 2026 (`POST /portfolio/orders`)"


@pytest.mark.parametrize("name", [*_PAGES, *(name for name in _CODE if name not in _EXCEPTIONS)])
def test_nothing_shows_how_orders_were_written(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace(_HISTORY, "")
    found = [match[0] for match in _WRITE.finditer(text)]
    assert found == []


@pytest.mark.parametrize("name", _EXCEPTIONS)
def test_what_may_name_them_does(name: str) -> None:
    assert _WRITE.search((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "hsm-keys request POST /portfolio/orders --json '{}'",
        'allow = ["DELETE /portfolio/orders/{order_id}"]',
        'client.request("POST", "/portfolio/orders", json=order)',
        'client.request("DELETE", f"{base}/portfolio/orders/{order_id}")',
        'session.post(base + "/portfolio/orders")',
        'client.request(\n    "POST",\n    "/portfolio/orders",\n)',
        '{"side": "yes", "action": "buy"}',
        '{"yes_price": 5}',
    ],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert _WRITE.search(line)
    assert not _WRITE.search(line.replace("/portfolio/orders", "/portfolio/events/orders")) or "/portfolio" not in line
