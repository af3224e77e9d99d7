"""The trace of a decision: what was looked up, who fell out by which rule, and what was changed.

A trace names identity *types*, never values, and profiles by number; `public` turns the numbers
into MPIDs. It holds enough to derive the decision again without any other data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec

from onymous.rules.identifiers import BY_CODE

#: why a candidate fell out
REASONS: dict[str, str] = {
    "protected": "known person, and the request names none of its login ids",
    "conflict": "a higher ranked login id of the record differs from the request's",
    "immutable": "the record has an immutable id that the request does not name",
    "needs_immutable": "search must name an immutable id in this scope",
    "hot": "found only through a value that is shared by too many people",
    "unranked": "found only through types outside the priority",
    "erased": "erased",
}

#: why an identity of the request was not attached
SKIPS: dict[str, str] = {
    "held_by_another": "unique, and another record holds it; only modify moves it",
    "stale_value": "the record has another value; use modify",
    "profile_full": "the record holds as many values as allowed",
    "ignored_on_logout": "login and unique ids do not count in a logout",
    "batch_never_adds": "a batch with an MPID never adds this type",
    "batch_on_anonymous": "no batch puts a login id on an anonymous record here",
    "null": "null",
    "empty": "empty after trimming",
    "placeholder": "a placeholder, not an identity",
    "zero_guid": "an all-zero id, not an identity",
    "too_long": "longer than 256 characters",
    "blocked": "on the block list of the scope",
    "not_text": "not a text value",
    "inexact_number": "a number that is not exact",
    "other_spelling": "another spelling of the type was given too",
    "unknown_type": "not an identity type",
    "invalid": "not valid text",
}

#: what decided between several records
TIES: dict[str, str] = {
    "previous_mpid": "previous_mpid names it",
    "last_seen": "most recently seen",
    "created": "most recently created",
    "number": "created last, by number",
}


def name_of(code: int) -> str:
    """Return the Identity API spelling of a type code."""
    return BY_CODE[code].name


def names_of(bits: int) -> list[str]:
    """Return the Identity API spellings of the types in a bit mask, in code order."""
    return list(_names(bits))


@functools.lru_cache(4_096)
def _names(bits: int) -> tuple[str, ...]:
    """Return the names of a mask: there are 64 types, and hardly ever new combinations."""
    return tuple(t.name for code, t in BY_CODE.items() if bits >> code & 1)


class Candidate(msgspec.Struct, omit_defaults=True):
    """A record that held at least one of the given identities."""

    mpid: int | str
    known: bool
    matched_on: list[str]
    differs_on: list[str]
    created_ms: int
    last_seen_ms: int
    #: types through which the record may be found
    reachable_by: list[str] = []
    fell_out: str | None = None
    why: str | None = None


class Step(msgspec.Struct, omit_defaults=True):
    """One type of the priority looked up."""

    type: str
    found: list[int | str]
    left: list[int | str]


class Skip(msgspec.Struct, omit_defaults=True):
    """An identity of the request that changed nothing, and why."""

    type: str
    reason: str
    why: str
    held_by: int | str | None = None


class Tie(msgspec.Struct):
    """What decided between several records that were left."""

    between: list[int | str]
    by: str
    why: str


class Trace(msgspec.Struct, omit_defaults=True):
    """Why an answer is what it is."""

    operation: str
    strategy: str
    order: list[str] = []
    given: list[str] = []
    login_ids: list[str] = []
    hot: list[str] = []
    previous: int | str | None = None
    candidates: list[Candidate] = []
    steps: list[Step] = []
    tie: Tie | None = None
    outcome: str = ""
    why: str = ""
    mpid: int | str | None = None
    source: int | str | None = None
    attached: list[str] = []
    replaced: list[str] = []
    removed: list[str] = []
    taken: list[Skip] = []
    skipped: list[Skip] = []

    def skip(self, code: int, reason: str, held_by: int | None = None) -> None:
        """Note an identity of the request that changes nothing."""
        self.skipped.append(Skip(name_of(code), reason, SKIPS[reason], held_by))


def public(trace: Trace, mpid: Callable[[int], str]) -> Trace:
    """Replace the internal numbers of a trace by MPIDs, in place, and return it."""

    def say(value: int | str | None) -> int | str | None:
        return mpid(value) if isinstance(value, int) else value

    def many(values: list[int | str]) -> list[int | str]:
        return [mpid(v) if isinstance(v, int) else v for v in values]

    trace.mpid, trace.source, trace.previous = (
        say(trace.mpid),
        say(trace.source),
        say(trace.previous),
    )
    for candidate in trace.candidates:
        candidate.mpid = say(candidate.mpid) or ""
    for step in trace.steps:
        step.found, step.left = many(step.found), many(step.left)
    if trace.tie is not None:
        trace.tie.between = many(trace.tie.between)
    for skip in (*trace.skipped, *trace.taken):
        skip.held_by = say(skip.held_by)
    return trace


def lines(trace: Trace) -> list[str]:
    """Return the trace as sentences a person can read, in the order things happened."""
    out = [f"{trace.operation} under {trace.strategy}: given {', '.join(trace.given) or 'nothing'}"]
    if trace.order:
        out.append(f"looked up in the order {' > '.join(trace.order)}")
    for name in trace.hot:
        out.append(f"{name}: shared by too many people, does not resolve")
    for c in trace.candidates:
        kind = "known" if c.known else "anonymous"
        fate = f"fell out: {c.why}" if c.fell_out else f"may be found by {_and(c.reachable_by)}"
        out.append(f"candidate {c.mpid} ({kind}), same {_and(c.matched_on)}: {fate}")
    for s in trace.steps:
        out.append(f"{s.type}: finds {_and(s.found)}, leaves {_and(s.left)}")
    if trace.tie is not None:
        out.append(f"tie between {_and(trace.tie.between)}: {trace.tie.why}")
    out.append(f"outcome: {trace.outcome} {trace.mpid or ''} ({trace.why})".replace("  ", " "))
    if trace.source:
        out.append(f"made beside {trace.source}")
    for label, names in (
        ("attached", trace.attached),
        ("replaced", trace.replaced),
        ("removed", trace.removed),
    ):
        if names:
            out.append(f"{label}: {', '.join(names)}")
    out.extend(f"taken: {t.type} from {t.held_by}" for t in trace.taken)
    for k in trace.skipped:
        by = f" ({k.held_by})" if k.held_by else ""
        out.append(f"skipped {k.type}: {k.why}{by}")
    return out


def _and(parts: list[str] | list[int | str]) -> str:
    return ", ".join(str(p) for p in parts) or "nobody"
