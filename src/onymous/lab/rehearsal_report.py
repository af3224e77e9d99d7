"""A rehearsal as one HTML page that needs nothing else: numbers, plots, examples with traces."""

from __future__ import annotations

from html import escape

from onymous.lab.rehearsed import RISKS, Deciding, Example, Listed, Rehearsal
from onymous.rules.identity_types import BY_NAME

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1e2b;--paper:#f4f5f9;--card:#fff;--quiet:#5d6377;
--line:#dfe2ec;--soft:#eef0f7;--before:#9aa1b5;--after:#3b4cca;--warn:#7a4b00;
--warn-soft:#fdf0d5;--good:#17693a;--good-soft:#dcf3e4}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaf2;--paper:#11131b;--card:#191c27;
--quiet:#a2a9be;--line:#2d3242;--soft:#222635;--before:#747c93;--after:#94a3ff;
--warn:#f6c76b;--warn-soft:#3a2c10;--good:#7fe0a3;--good-soft:#173524}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;color:var(--ink);
background:var(--paper);max-width:64rem;margin:0 auto;padding:1.6rem 1rem 4rem;
overflow-wrap:anywhere}
h1{font-size:1.45rem;margin:0}h2{font-size:1.15rem;margin:0 0 .6rem}
h3{font-size:.78rem;margin:1.5rem 0 .4rem;text-transform:uppercase;letter-spacing:.06em;
color:var(--quiet)}
p{margin:.4rem 0;max-width:46rem}.quiet{color:var(--quiet)}
section{background:var(--card);border:1px solid var(--line);border-radius:16px;
padding:1.2rem 1.3rem;margin-top:1.1rem}
.say{border-radius:10px;padding:.5rem .9rem;background:var(--soft);max-width:none}
.say.warn{background:var(--warn-soft);color:var(--warn);font-weight:600}
.say.good{background:var(--good-soft);color:var(--good);font-weight:600}
.pair{display:grid;grid-template-columns:minmax(6rem,2fr) minmax(5rem,3fr) auto;
gap:.3rem .8rem;align-items:center}
.pair b{font-weight:600;font-variant-numeric:tabular-nums;text-align:right}
.bar{display:block;width:100%;height:.85rem;background:var(--soft);border-radius:4px}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);
padding:.35rem .8rem .35rem 0;text-align:left;font-weight:400;vertical-align:top}
thead th{color:var(--quiet);font-size:.85em}td.n,th.n{text-align:right;padding-right:0;
width:4.5rem;font-variant-numeric:tabular-nums}
details{border:1px solid var(--line);border-radius:10px;padding:.45rem .8rem;margin:.4rem 0}
summary{cursor:pointer}summary:focus-visible{outline:3px solid #c2410c;outline-offset:4px;
border-radius:4px}
ul{margin:.5rem 0;padding-left:1.2rem}code,pre{font:13px/1.5 ui-monospace,Menlo,Consolas,monospace}
pre{white-space:pre-wrap;background:var(--soft);border-radius:8px;padding:.7rem .9rem;
margin:.5rem 0}
"""
#: how many MPIDs of an example are named
_MOST_NAMED = 20


def page(rehearsals: list[Rehearsal], file: str) -> str:
    """Return the report of all scopes of a document."""
    body = "".join(map(_scope, rehearsals)) or (
        "<section><p>No scope of this file holds anything yet.</p></section>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Rehearsal of {escape(file)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Rehearsal of {escape(file)}</h1>"
        '<p class="quiet">Today\'s rules and these rules, each replayed on the same recorded'
        " requests in a store of their own. Nothing real was changed.</p>"
        f"{body}</main></body></html>"
    )


def verdict(r: Rehearsal) -> str:
    """Return in one sentence what the rules would do."""
    if not r.requests:
        return "The journal holds no requests of this scope: nothing can be said."
    if not r.merges and not r.splits:
        return "Everybody stays who they are."
    parts = []
    if r.merges:
        parts.append(
            "one group of people would become one person"
            if r.merges == 1
            else f"{r.merges} groups of people would become one each"
        )
    if r.splits:
        some = "one person" if r.splits == 1 else f"{r.splits} people"
        parts.append(f"{some} would become several")
    text = " and ".join(parts) + "."
    if r.risky:
        text += f" {_some(r.risky, r.merges)} may put two people together: look at them."
    if r.merged_known:
        text += f" {_some(r.merged_known, r.merges)} would join people who have logged in."
    if r.split_known:
        text += f" {r.split_known} of those who become several have logged in on both sides."
    return text[0].upper() + text[1:]


def _some(count: int, of: int) -> str:
    """Return so many of the groups, in words that fit one as well."""
    return "It" if count == of == 1 else f"{count} of these groups"


def _scope(r: Rehearsal) -> str:
    head = f"<h2>{escape(r.scope)} <span class='quiet'>{escape(r.environment)}</span></h2>"
    mood = "warn" if r.merged_known or r.risky else "good" if not r.merges and not r.splits else ""
    if not r.requests:
        return f"<section>{head}<p class='say'>{escape(verdict(r))}</p></section>"
    return (
        f"<section>{head}<p class='say {mood}'>{escape(verdict(r))}</p>"
        f"<p class='quiet'>{r.requests:,} distinct requests were replayed.</p>"
        f"<h3>People</h3>{_people(r)}"
        f"<h3>What decides who is joined or parted</h3>{_bars(r.by)}{_values(r.values)}"
        f"<h3>Risk of mixing</h3>{_risks(r)}"
        "<table><thead><tr><th></th><th class='n'>today</th>"
        "<th class='n'>then</th></tr></thead><tbody>"
        "<tr><td>people with several values of a login or unique type</td>"
        f'<td class="n">{r.several_before:,}</td><td class="n">{r.several_after:,}</td></tr>'
        f"{_shared(r)}</tbody></table>"
        f"<h3>Examples</h3>{''.join(map(_example, r.examples)) or '<p class=quiet>None.</p>'}"
        "</section>"
    )


def _people(r: Rehearsal) -> str:
    most = max(r.people_before, r.people_after, r.known_before, r.known_after)
    rows = "".join(
        _bar(f"{label}, {name}", count, most, colour)
        for label, before, after in (
            ("all", r.people_before, r.people_after),
            ("known", r.known_before, r.known_after),
        )
        for name, count, colour in (("today", before, "before"), ("then", after, "after"))
    )
    return f'<div class="pair">{rows}</div>'


def _bars(by: dict[str, int]) -> str:
    if not by:
        return '<p class="quiet">Nothing changes.</p>'
    most = max(by.values())
    rows = "".join(
        _bar(_named(name), count, most, "after")
        for name, count in sorted(by.items(), key=lambda item: (-item[1], item[0]))
    )
    return f'<div class="pair">{rows}</div>'


def _bar(label: str, count: int, most: int, colour: str) -> str:
    width = round(100 * count / max(most, 1), 2)
    return (
        f'<span>{escape(label)}</span><svg class="bar" viewBox="0 0 100 10"'
        f' preserveAspectRatio="none" aria-hidden="true"><rect width="{width}" height="10"'
        f' fill="var(--{colour})"/></svg><b>{count:,}</b>'
    )


def _named(name: str) -> str:
    """Return the name of an identity type for people."""
    return BY_NAME[name].label if name in BY_NAME else "no identity"


def through(one: Listed) -> str:
    """Return the values that decide a merge or a split."""
    return ", ".join(f"{v.type} {v.value}" for v in one.values) or "no identity"


def _values(values: list[Deciding]) -> str:
    if not values:
        return ""
    rows = "".join(
        f"<tr><td>{escape(_named(v.type))}<br><code>{escape(v.value)}</code></td>"
        f'<td class="n">{v.merges:,}</td><td class="n">{v.splits:,}</td>'
        f'<td class="n">{v.shared_by or ""}</td></tr>'
        for v in values
    )
    return (
        "<details><summary>The values that decide most</summary><table><thead><tr><th>value</th>"
        "<th class='n'>merges</th><th class='n'>splits</th><th class='n'>known people who share"
        f" it</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )


def _risks(r: Rehearsal) -> str:
    if not r.merges:
        return "<p class='quiet'>Nobody is put together with anybody.</p>"
    rows = "".join(
        f'<tr><td>{escape(RISKS[name])}</td><td class="n">{count:,}</td></tr>'
        for name, count in r.risks.items()
    )
    table = (
        f"<table><thead><tr><th></th><th class='n'>merges</th></tr></thead>{rows}</table>"
        if rows
        else ""
    )
    return f"<p>{r.risky:,} of {r.merges:,} merges may put two people together.</p>{table}"


def _shared(r: Rehearsal) -> str:
    out = ""
    for name in sorted({*r.shared_before, *r.shared_after}):
        before, after = r.shared_before.get(name, 0), r.shared_after.get(name, 0)
        out += (
            f"<tr><td>values of {escape(_named(name))} on more than three known people</td>"
            f'<td class="n">{before:,}</td><td class="n">{after:,}</td></tr>'
        )
    return out


def _example(e: Example) -> str:
    count = len(e.people)
    some = f"{count} people" if count > 1 else "One person"
    what = "become one" if e.kind == "merge" else f"becomes {e.into}"
    values = ", ".join(f"{_named(v.type)} {v.value}" for v in e.values)
    why = f", through {values}" if values else ": no identity decides"
    risks = "".join(f"<p class='say warn'>{escape(RISKS[risk])}</p>" for risk in e.risks)
    people = "".join(f"<li><code>{escape(mpid)}</code></li>" for mpid in e.people[:_MOST_NAMED])
    more = f"<li>and {count - _MOST_NAMED} more</li>" if count > _MOST_NAMED else ""
    trace = escape("\n".join(e.trace))
    return (
        f"<details><summary>{some} {what}{escape(why)}</summary>{risks}"
        f"<ul aria-label='MPIDs today'>{people or '<li>not known any more</li>'}{more}</ul>"
        f"<pre>{trace}</pre></details>"
    )
