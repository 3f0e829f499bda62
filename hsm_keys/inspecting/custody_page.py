"""The custody report as one page for a browser or a printer; it loads nothing from anywhere."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Final

from hsm_keys._version import __version__
from hsm_keys.inspecting.custody_report import scopes_against_use, what_scopes_allow
from hsm_keys.stores.custody_verdicts import CustodyVerdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hsm_keys.inspecting.custody_report import CustodyEntry
    from hsm_keys.kalshi.models import ApiKey
    from hsm_keys.stores.custody_verdicts import CustodyFact

__all__ = ["custody_page"]

_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--good:#1a7f4b;--bad:#b3261e;--open:#8a6d00}
@media(prefers-color-scheme:dark){:root{--good:#5dd39e;--bad:#ff8a80;--open:#f0c94a}}
body{font:16px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1.2rem}
h1{margin:0;line-height:1.25}h2{margin:2.6rem 0 .2rem;border-top:2px solid var(--line);padding-top:1rem}
h2,td,p{overflow-wrap:anywhere}h3{font-size:1rem;margin:1.2rem 0 0}
.when{opacity:.75;margin:.3rem 0}.verdict{font-size:1.25rem;font-weight:600;margin:1.2rem 0 .2rem}
.good{color:var(--good)}.bad{color:var(--bad)}.unknown{color:var(--open)}
table{border-collapse:collapse;width:100%;margin:.4rem 0}
td,th{text-align:left;vertical-align:top;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line)}
tbody th{font-weight:600;width:13rem}.id{font-family:ui-monospace,monospace;font-size:.85em}
dl{max-width:46rem}dt{font-weight:600;margin-top:.6rem}dd{margin-left:1rem}
@media(min-width:60rem){.all .id{white-space:nowrap}}
@media(max-width:44rem){thead{display:none}tr,td,tbody th{display:block;width:auto}
td,tbody th{border:0;padding:.05rem 0}tr{border-bottom:1px solid var(--line);padding:.4rem 0}}
@media print{body{margin:0;max-width:none;font-size:10pt}h2,h3{break-after:avoid}tr{break-inside:avoid}}
"""

_GLOSSARY: Final = {
    "private half": "The secret part of a key pair. Whoever has it can sign in its name.",
    "in custody": "The store says that it made the private half, keeps it and has never let it out; reading it "
    "was tried and refused.",
    "imported": "The private half was made elsewhere and put into the store. It stays in now; copies from "
    "before may exist.",
    "API key": "What Kalshi knows the public half by. Its scopes say what a signature may do.",
    "accepted": "Whoever made this report says that this API key's private half is elsewhere on purpose.",
    "proved live": "At the time of this report Kalshi took a request that was signed in the store for this API key.",
    "extractable, sensitive": "What a PKCS#11 token says: whether the private half may be wrapped and taken out, "
    "and whether it may be read in the clear (PKCS#11 v2.40, section 4.9).",
    "refused": "What it takes to get the private half out was tried for this report, and the store didn't do it. The "
    "word after it is the store's own.",
    "scopes against use": "Kalshi doesn't tell what a key was used for: compare its scopes with what its program does.",
}
_UNNAMED: Final = "(no name)"


def custody_page(
    entries: Sequence[CustodyEntry], *, made_at: str, environment: str | None, where: Sequence[str] = ()
) -> str:
    """Return the page.

    Args:
        entries: What was found.
        made_at: When, in UTC.
        environment: Kalshi's base URL; None if it wasn't asked.
        where: The host, and versions of what took part.
    """
    source = f"Kalshi at {environment}" if environment else "Kalshi was not asked: these are the stores' keys alone"
    glossary = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in _GLOSSARY.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Custody of Kalshi API keys</title>'
        f"<style>{_STYLE}</style></head><body><h1>Custody of Kalshi API keys</h1>"
        f'<p class="when">{escape(made_at)} · {escape(source)} · hsm-keys {escape(__version__)}</p>'
        f'<p class="when">{escape(" · ".join(where))}</p>{_whole(entries)}'
        '<table class="all"><thead><tr><th>Key</th><th>API key id</th><th>Private half</th><th>Verdict</th></tr>'
        f"</thead><tbody>{''.join(map(_line, entries))}</tbody></table>{''.join(map(_section, entries))}"
        f"<h2>Words</h2><dl>{glossary}</dl></body></html>\n"
    )


def _whole(entries: Sequence[CustodyEntry]) -> str:
    bad = sum(bool(entry.problem) and not entry.accepted for entry in entries)
    if not entries:
        return '<p class="verdict">There is no key.</p>'
    counted = Counter(entry.short_verdict for entry in entries)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in counted.most_common())
    accepted = ", but those that are accepted elsewhere" if any(entry.accepted for entry in entries) else ""
    verdict = f"{bad} of {len(entries)} keys are not in custody." if bad else f"Every key is in custody{accepted}."
    return f'<p class="verdict {"bad" if bad else "good"}">{verdict}</p><p class="when">{escape(counts)}</p>'


def _line(entry: CustodyEntry) -> str:
    api_key_id = f'<td class="id">{escape(entry.api_key_id)}</td>' if entry.api_key_id else "<td>not registered</td>"
    return (
        f"<tr><td>{escape(entry.name or _UNNAMED)}</td>{api_key_id}"
        f'<td>{escape(entry.location)}</td><td class="{_shade(entry)}">{escape(entry.short_verdict)}</td></tr>'
    )


def _shade(entry: CustodyEntry) -> str:
    if entry.accepted:
        return "unknown"
    return "bad" if entry.problem else "good"


def _verdict(entry: CustodyEntry) -> str:
    return f"{entry.verdict}; accepted: it is there on purpose" if entry.accepted else entry.verdict


def _section(entry: CustodyEntry) -> str:
    scopes = entry.scopes or []
    rows = [
        ("API key id", entry.api_key_id or "none: it was never registered"),
        ("Environment", entry.environment or "unknown"),
        ("Private half", entry.location),
        ("Type", entry.key_type or "unknown"),
        ("Made", entry.made),
        ("Age", _age(entry)),
        ("Proved live", _LIVE[entry.proved_live]),
    ]
    if entry.listed is not None:
        rows += [
            ("Scopes", f"{', '.join(scopes) or 'none listed'}; {_subaccount(entry.listed)}"),
            ("They allow to", "; ".join(what_scopes_allow(scopes)) or "unknown"),
            ("Scopes against use", scopes_against_use(scopes) or "nothing is wider than what programs usually need"),
        ]
    plain = "".join(f"<tr><th>{escape(what)}</th><td>{escape(value)}</td></tr>" for what, value in rows)
    facts = entry.custody.facts if entry.custody else ()
    said = [_row(fact.name.replace("_", " "), _answer(fact), fact) for fact in facts if fact.name not in _TRIED]
    tried = [_row(_TRIED[fact.name], _outcome(fact), fact) for fact in facts if fact.name in _TRIED]
    return (
        f'<h2>{escape(entry.name or _UNNAMED)}</h2><p class="{_shade(entry)}">{escape(_verdict(entry))}</p>'
        f"<table><tbody>{plain}</tbody></table>{_facts('What the store says', said)}"
        f"{_facts('What was tried against it', tried)}"
    )


_LIVE: Final = {True: "yes", False: "no: Kalshi refused it", None: "not tried"}
_TRIED: Final = {
    "private_half_readable": "read it",
    "private_half_copyable": "copy it unprotected",
    "private_half_wrappable": "wrap it, and take it out",
}


def _age(entry: CustodyEntry) -> str:
    if entry.created is None or entry.age_days is None:
        return "unknown: neither the store nor Kalshi tells"
    return f"{entry.age_days} {'day' if entry.age_days == 1 else 'days'}: made on {entry.created}"


def _subaccount(listed: ApiKey) -> str:
    if listed.fcm_subtrader_id is not None:
        return f"FCM subtrader {listed.fcm_subtrader_id}"
    return "all subaccounts" if listed.subaccount is None else f"subaccount {listed.subaccount}"


def _facts(heading: str, rows: Sequence[str]) -> str:
    return f"<h3>{heading}</h3><table><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _answer(fact: CustodyFact) -> str:
    if isinstance(fact.value, bool):
        return "yes" if fact.value else "no"
    return fact.value or "it doesn't say"


def _outcome(fact: CustodyFact) -> str:
    if fact.value:
        return "IT CAN BE DONE"
    return "refused" if fact.note.startswith("tried") else "can't be done"


def _row(what: str, answer: str, fact: CustodyFact) -> str:
    shade = {CustodyVerdict.GOOD: "good", CustodyVerdict.BAD: "bad", CustodyVerdict.UNKNOWN: "unknown"}[fact.verdict]
    note = f": {escape(fact.note)}" if fact.note else ""
    return f'<tr><th>{escape(what)}</th><td><span class="{shade}">{escape(answer)}</span>{note}</td></tr>'
