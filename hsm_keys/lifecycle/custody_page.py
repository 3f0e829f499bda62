"""The custody report as one page for a browser or a printer; it loads nothing from anywhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from hsm_keys._version import __version__
from hsm_keys.lifecycle.custody_report import what_scopes_allow
from hsm_keys.stores.base import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.lifecycle.custody_report import Entry
    from hsm_keys.stores.base import CustodyFact

__all__ = ["custody_page"]

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8885;--good:#1a7f4b;--bad:#b3261e;--open:#8a6d00}
@media(prefers-color-scheme:dark){:root{--good:#5dd39e;--bad:#ff8a80;--open:#f0c94a}}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1.2rem}
h1{margin-bottom:0}h2{margin:2.5rem 0 .3rem;border-top:2px solid var(--line);padding-top:1rem;overflow-wrap:anywhere}
.when{opacity:.75;margin-top:.2rem}.verdict{font-size:1.25rem;font-weight:600;margin:1.2rem 0}
.good{color:var(--good)}.bad{color:var(--bad)}.unknown{color:var(--open)}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}
td{overflow-wrap:anywhere}td:first-child{min-width:6rem}.plain th{width:13rem;font-weight:600}
dt{font-weight:600;margin-top:.6rem}
@media print{body{margin:0;max-width:none;font-size:11pt}h2{break-after:avoid}table,tr{break-inside:avoid}}
"""

_GLOSSARY: Final = {
    "private half": "The secret part of a key pair. Whoever has it can sign in its name.",
    "in custody": "The store says that it made the private half, keeps it and has never let it out; reading it "
    "was tried and refused.",
    "imported": "The private half was made elsewhere and put into the store. It stays in now; copies from "
    "before may exist.",
    "API key": "What Kalshi knows the public half by. Its scopes say what a signature may do.",
    "proved live": "At the time of this report Kalshi took a request that was signed in the store for this API key.",
    "extractable, sensitive": "What a PKCS#11 token says: whether the private half may be wrapped and taken out, "
    "and whether it may be read in the clear (PKCS#11 v2.40, section 4.9).",
}
_UNNAMED: Final = "(no name)"


def custody_page(entries: Sequence[Entry], *, made_at: str, environment: str | None) -> str:
    """Return the page.

    Args:
        entries: What was found.
        made_at: When, in UTC.
        environment: Kalshi's base URL; None if it wasn't asked.
    """
    bad = sum(bool(entry.problem) for entry in entries)
    asked = f"Kalshi at {environment}" if environment else "Kalshi was not asked: these are the stores' keys alone"
    verdict = f"{bad} of {len(entries)} keys are not in custody." if bad else "Every key is in custody."
    glossary = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in _GLOSSARY.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Custody of Kalshi API keys</title>'
        f"<style>{_STYLE}</style></head><body><h1>Custody of Kalshi API keys</h1>"
        f'<p class="when">{escape(made_at)} · {escape(asked)} · hsm-keys {escape(__version__)}</p>'
        f'<p class="verdict {"bad" if bad else "good"}">{verdict}</p>'
        "<table><thead><tr><th>Key</th><th>API key id</th><th>Private half</th><th>Verdict</th></tr></thead>"
        f"{''.join(map(_line, entries))}</table>{''.join(map(_section, entries))}"
        f"<h2>Words</h2><dl>{glossary}</dl></body></html>\n"
    )


def _line(entry: Entry) -> str:
    cells = (entry.name or _UNNAMED, entry.api_key_id or "not registered", entry.location)
    plain = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr>{plain}<td class="{_shade(entry)}">{escape(entry.verdict)}</td></tr>'


def _shade(entry: Entry) -> str:
    return "bad" if entry.problem else "good"


def _section(entry: Entry) -> str:
    scopes = entry.scopes or []
    rows = [
        ("API key id", entry.api_key_id or "none: it was never registered"),
        ("Private half", entry.location),
        ("Type", entry.key_type or "unknown"),
        ("Made", entry.made),
        ("Made on", entry.created or "unknown: neither Kalshi nor the store tells"),
        ("Scopes", ", ".join(scopes) or "unknown: Kalshi doesn't list it"),
        ("They allow to", "; ".join(what_scopes_allow(scopes)) or "unknown"),
        ("Subaccount", _subaccount(entry)),
        ("Proved live", _LIVE[entry.proved_live]),
    ]
    plain = "".join(f"<tr><th>{escape(what)}</th><td>{escape(value)}</td></tr>" for what, value in rows)
    facts = "".join(map(_fact, entry.custody.facts)) if entry.custody else ""
    head = "<thead><tr><th>The store says, or was asked to do</th><th>Answer</th><th></th></tr></thead>"
    return (
        f'<h2>{escape(entry.name or _UNNAMED)}</h2><p class="{_shade(entry)}">{escape(entry.verdict)}</p>'
        f'<table class="plain">{plain}</table>{f"<table>{head}{facts}</table>" if facts else ""}'
    )


_LIVE: Final = {True: "yes", False: "no: Kalshi refused it", None: "not tried"}


def _subaccount(entry: Entry) -> str:
    if entry.listed is None:
        return "unknown"
    return "all" if entry.listed.subaccount is None else str(entry.listed.subaccount)


def _fact(fact: CustodyFact) -> str:
    shade = {Verdict.GOOD: "good", Verdict.BAD: "bad", Verdict.UNKNOWN: "unknown"}[fact.verdict]
    value = "doesn't say" if fact.value is None else str(fact.value)
    return (
        f'<tr><td>{escape(fact.name.replace("_", " "))}</td><td class="{shade}">{escape(value)}</td>'
        f"<td>{escape(fact.note)}</td></tr>"
    )
