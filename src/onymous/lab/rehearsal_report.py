"""A rehearsal as one HTML page that needs nothing else: numbers, plots, examples with traces."""

from __future__ import annotations

from html import escape

from onymous.lab.rehearsed import RISKS, Deciding, Example, Listed, Rehearsal

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#6b7280;--line:#8884;
--before:#9aa5b1;--after:#2f6fde;--warn:#c2410c}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--soft:#9aa5b1;
--after:#6ea8ff;--warn:#fb923c}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}p{max-width:46rem}
table{border-collapse:collapse;margin:.5rem 0}td,th{border-bottom:1px solid var(--line);
padding:.35rem .8rem;text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{height:.9rem}.pair{display:grid;grid-template-columns:9rem 1fr 5rem;gap:.2rem .6rem;
align-items:center;max-width:46rem}.warn{color:var(--warn);font-weight:600}
details{border:1px solid var(--line);border-radius:6px;padding:.4rem .8rem;margin:.4rem 0}
pre{white-space:pre-wrap;font:13px ui-monospace,monospace}.soft{color:var(--soft)}
"""


def page(rehearsals: list[Rehearsal], file: str) -> str:
    """Return the report of all scopes of a document."""
    body = "".join(map(_scope, rehearsals))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Rehearsal of {escape(file)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Rehearsal of {escape(file)}</h1>"
        "<p>Today's rules and these rules, each replayed on the same recorded requests in a store"
        " of their own. Nothing real was changed.</p>"
        f"{body}</body></html>"
    )


def verdict(r: Rehearsal) -> str:
    """Return in one sentence what the rules would do."""
    if not r.requests:
        return "The journal holds no requests of this scope: nothing can be said."
    if not r.merges and not r.splits:
        return "Everybody stays who they are."
    parts = []
    if r.merges:
        parts.append(f"{r.merges} groups of people would become one each")
    if r.splits:
        parts.append(f"{r.splits} people would become several")
    text = " and ".join(parts) + "."
    if r.risky:
        text += f" {r.risky} of these groups may put two people together: look at them."
    if r.merged_known:
        text += f" {r.merged_known} of them join people who have logged in."
    if r.split_known:
        text += f" {r.split_known} of those who become several have logged in on both sides."
    return text


def _scope(r: Rehearsal) -> str:
    warn = ' class="warn"' if r.merged_known else ""
    return (
        f"<h2>{escape(r.scope)} ({r.environment})</h2><p{warn}>{escape(verdict(r))}</p>"
        f"{_pair('people', r.people_before, r.people_after)}"
        f"{_pair('known people', r.known_before, r.known_after)}"
        f"<h3>What decides</h3>{_bars(r.by)}{_values(r.values)}"
        f"<h3>Risk of mixing</h3>{_risks(r)}"
        "<table><tr><th></th><th>today</th><th>then</th></tr>"
        f"<tr><td>people with several values of a login or unique type</td>"
        f'<td class="n">{r.several_before}</td><td class="n">{r.several_after}</td></tr>'
        f"{_shared(r)}</table>"
        f"<h3>Examples</h3>{''.join(map(_example, r.examples)) or '<p>None.</p>'}"
    )


def _pair(label: str, before: int, after: int) -> str:
    most = max(before, after, 1)
    rows = ""
    for name, count, colour in (("today", before, "before"), ("then", after, "after")):
        width = max(1, round(100 * count / most))
        rows += (
            f'<span>{escape(label)}, {name}</span><svg class="bar" viewBox="0 0 100 10"'
            f' preserveAspectRatio="none" role="img" aria-label="{count}"><rect width="{width}"'
            f' height="10" rx="1" fill="var(--{colour})"/></svg><span>{count}</span>'
        )
    return f'<div class="pair">{rows}</div>'


def _bars(by: dict[str, int]) -> str:
    if not by:
        return '<p class="soft">Nothing changes.</p>'
    most = max(by.values())
    rows = ""
    for name, count in sorted(by.items(), key=lambda item: -item[1]):
        width = max(1, round(100 * count / most))
        rows += (
            f'<span>{escape(name)}</span><svg class="bar" viewBox="0 0 100 10"'
            f' preserveAspectRatio="none" role="img" aria-label="{count}"><rect width="{width}"'
            f' height="10" rx="1" fill="var(--after)"/></svg><span>{count}</span>'
        )
    return f'<div class="pair">{rows}</div>'


def through(one: Listed) -> str:
    """Return the values that decide a merge or a split."""
    return ", ".join(f"{v.type} {v.value}" for v in one.values) or "no identity"


def _values(values: list[Deciding]) -> str:
    if not values:
        return ""
    rows = "".join(
        f'<tr><td>{escape(v.type)}</td><td>{escape(v.value)}</td><td class="n">{v.merges}</td>'
        f'<td class="n">{v.splits}</td><td class="n">{v.shared_by or ""}</td></tr>'
        for v in values
    )
    return (
        "<table><tr><th>type</th><th>value</th><th>merges</th><th>splits</th>"
        f"<th>known people who share it</th></tr>{rows}</table>"
    )


def _risks(r: Rehearsal) -> str:
    if not r.merges:
        return '<p class="soft">Nobody is put together with anybody.</p>'
    rows = "".join(
        f'<tr><td>{escape(RISKS[name])}</td><td class="n">{count}</td></tr>'
        for name, count in r.risks.items()
    )
    return (
        f"<p>{r.risky} of {r.merges} merges may put two people together.</p><table>{rows}</table>"
    )


def _shared(r: Rehearsal) -> str:
    out = ""
    for name in sorted({*r.shared_before, *r.shared_after}):
        before, after = r.shared_before.get(name, 0), r.shared_after.get(name, 0)
        out += (
            f"<tr><td>values of {escape(name)} on more than three known people</td>"
            f'<td class="n">{before}</td><td class="n">{after}</td></tr>'
        )
    return out


def _example(e: Example) -> str:
    people = ", ".join(map(escape, e.people)) or "unknown"
    what = "become one" if e.kind == "merge" else f"becomes {e.into}"
    risks = "".join(f'<p class="warn">{escape(RISKS[risk])}</p>' for risk in e.risks)
    return (
        f"<details><summary>{people} {what}, through {escape(through(e))}</summary>"
        f"{risks}<pre>{escape(chr(10).join(e.trace))}</pre></details>"
    )
