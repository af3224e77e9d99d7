"""Decisions derived again from their traces alone.

A trace is evidence only if whoever reads it comes to the same answer. So this takes from a trace
nothing but facts (what was given, who held what, who is known, when they were seen) and from the
scope its configuration, decides by itself, and compares: who may be found and by what, each step,
the tie, the answer, what was attached and what was left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onymous.flows.answers import Answer
from onymous.lab.auditor_types import Config
from onymous.rules.trace import Candidate, Trace

_CREATING = ("profile_link", "profile_isolation")
#: reasons to fall out that are facts of the record, not of the question
_FACTS = ("erased", "immutable")


@dataclass
class _Derived:
    """What follows from the facts of a trace."""

    order: list[str] = field(default_factory=list)
    reach: dict[str, list[str]] = field(default_factory=dict)
    steps: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    tie: tuple[list[str], str] | None = None
    outcome: str = ""
    mpid: str | None = None
    source: str | None = None
    attached: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


def contradictions(op: dict[str, Any], answer: Answer, config: dict[str, Any]) -> list[str]:
    """Return where the public trace of an answer does not lead to the answer."""
    trace = answer.trace
    if trace is None or op["op"] not in ("identify", "login", "logout", "search"):
        return []
    rules = Config.from_dict(config)
    mine = _derive(trace, rules, op)
    out = []
    told: list[tuple[str, Any, Any]] = [
        ("who may be found", _reach_told(trace), mine.reach),
        ("the steps", [(s.type, _all(s.found), _all(s.left)) for s in trace.steps], mine.steps),
        ("the tie", trace.tie and (_all(trace.tie.between), trace.tie.by), mine.tie),
        ("the outcome", trace.outcome, mine.outcome),
        ("what was attached", sorted(trace.attached), sorted(mine.attached)),
        ("what was replaced", sorted(trace.replaced), sorted(mine.replaced)),
        ("the record it was made beside", trace.source, mine.source),
    ]
    out += [f"{what}: told {a}, derived {b}" for what, a, b in told if a != b]
    if answer.refusal is None and mine.outcome == "found" and answer.mpid != mine.mpid:
        out.append(f"{answer.mpid} was answered, {mine.mpid} follows")
    if (answer.refusal is None) != (mine.outcome in ("found", "created")):
        out.append(f"refused: {answer.refusal!r}, though {mine.outcome} follows")
    if answer.refusal is None and mine.outcome == "created" and trace.mpid != answer.mpid:
        out.append("the trace names another profile than the answer")
    return out


def _all(mpids: list[int | str]) -> list[str]:
    return sorted(map(str, mpids))


def _reach_told(trace: Trace) -> dict[str, list[str]]:
    return {
        str(c.mpid): sorted(c.reachable_by) for c in trace.candidates if c.fell_out not in _FACTS
    }


def _derive(trace: Trace, config: Config, op: dict[str, Any]) -> _Derived:
    out = _Derived()
    single = {*config.login, *config.unique, *config.immutable}
    leaves = op["op"] == "logout" and config.strategy != "best_match"
    given = [t for t in trace.given if not (leaves and t in single)]
    ranked = [t for t in config.priority if t in given]
    out.order = [t for t in ranked if t in config.login]
    out.order += [t for t in ranked if t not in config.login]
    logins = [t for t in given if t in config.login]
    isolated_login = op["op"] == "login" and config.strategy == "profile_isolation"
    if not given or (isolated_login and not logins):
        out.outcome = "refused"
        return out
    people = {str(c.mpid): c for c in trace.candidates}
    for mpid, c in people.items():
        if c.fell_out not in _FACTS:
            out.reach[mpid] = _reach(c, trace, config, out.order, op["op"])
    if leaves and config.strategy != "profile_isolation":
        _made(out, people, given, config)
        return out
    found = _walk(out, trace, people)
    if op["op"] == "search":
        out.outcome, out.mpid = ("found", found) if found else ("not_found", None)
    elif found is None:
        _made(out, people, given, config)
    elif logins and not people[found].known and config.strategy in _CREATING:
        out.source = found
        _made(out, people, given, config)
    else:
        out.outcome, out.mpid = "found", found
        _attached(out, people, given, config, op)
    return out


def _reach(c: Candidate, trace: Trace, config: Config, order: list[str], op: str) -> list[str]:
    """Return through which types a candidate may be found."""
    cold = [t for t in c.matched_on if t not in trace.hot]
    visitor = str(c.mpid) == str(trace.previous) and not c.known
    usable = [t for t in order if t in (c.matched_on if visitor else cold)]
    shown = [t for t in usable if t in config.immutable]
    if any(t in config.immutable for t in c.differs_on) and not shown:
        return []
    if op == "search" and config.search_requires_immutable and config.immutable and not shown:
        return []
    if not c.known:
        return sorted(usable)
    open_by: list[str] = []
    contradicted = False
    for kind in (t for t in order if t in config.login and t not in trace.hot):
        if kind in usable and not contradicted:
            open_by.append(kind)
        elif kind in c.differs_on and config.login_conflict == "new_record":
            contradicted = True
    return sorted({*open_by, *(t for t in usable if t not in config.login)}) if open_by else []


def _walk(out: _Derived, trace: Trace, people: dict[str, Candidate]) -> str | None:
    for kind in out.order:
        hit = sorted(m for m, reach in out.reach.items() if kind in reach)
        both = [m for m in out.left if m in hit]
        if hit:
            out.left = both or out.left or hit
        out.steps.append((kind, hit, list(out.left)))
        if len(out.left) == 1:
            return out.left[0]
    if not out.left:
        return None
    return _decide_tie(out, trace, people)


def _decide_tie(out: _Derived, trace: Trace, people: dict[str, Candidate]) -> str:
    if str(trace.previous) in out.left:
        out.tie = (out.left, "previous_mpid")
        return str(trace.previous)
    seen = max(people[m].last_seen_ms for m in out.left)
    latest = [m for m in out.left if people[m].last_seen_ms == seen]
    if len(latest) == 1:
        out.tie = (out.left, "last_seen")
        return latest[0]
    made = max(people[m].created_ms for m in latest)
    newest = [m for m in latest if people[m].created_ms == made]
    if len(newest) == 1:
        out.tie = (out.left, "created")
        return newest[0]
    out.tie = (out.left, "number")
    # which of two records of one moment has the later number is told, but cannot be derived
    told = [str(m) for m in (trace.mpid, trace.source) if str(m) in newest]
    return told[0] if told else newest[0]


def _made(out: _Derived, people: dict[str, Candidate], given: list[str], config: Config) -> None:
    held = {t for c in people.values() if c.fell_out != "erased" for t in c.matched_on}
    out.attached = [t for t in given if not (t in config.unique and t in held)]
    out.outcome = "created" if out.attached else "refused"
    if not out.attached:
        out.source = None


def _attached(
    out: _Derived,
    people: dict[str, Candidate],
    given: list[str],
    config: Config,
    op: dict[str, Any],
) -> None:
    record = people[out.mpid or ""]
    others = [c for c in people.values() if c is not record and c.fell_out != "erased"]
    single = {*config.login, *config.unique, *config.immutable}
    for kind in given:
        if kind in record.matched_on:
            continue
        if kind in config.unique and any(kind in c.matched_on for c in others):
            continue
        if kind not in single or kind not in record.differs_on:
            out.attached.append(kind)
        elif (
            config.identify_may_replace
            and op["op"] != "logout"
            and kind not in config.immutable
            and not (op.get("key_only") and kind in config.login)
        ):
            out.replaced.append(kind)
