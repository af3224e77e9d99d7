"""A record as it was before a request of the past, from its ledger."""

from __future__ import annotations

from collections.abc import Iterable

from onymous.rules.ledger import ATTACHED, DETACHED, ERASED, GAVE, TAKEN, Entry, Line
from onymous.rules.records import KNOWN, Record, Value
from onymous.rules.strategies import Plan


def record_then(
    record: Record, lines: Iterable[Line], at_ms: int, request: str, plan: Plan
) -> Record | None:
    """Return a record as the request of an id found it, or None where it was not there yet.

    `lines` are all of its entries. When it was last seen is known from its changes only.
    """
    before = [line for line in lines if _before(line, at_ms, request)]
    if not before:
        return None
    sights = (line.at_ms for line in before if line.entry.op != "modify")
    seen = max(sights, default=record.created_ms)
    if record.seen_ms < at_ms:
        seen = max(seen, record.seen_ms)
    out = Record(record.pid, record.pool, record.created_ms, seen, 0, record.source, [])
    held: dict[tuple[int, str], Value] = {}
    for line in sorted(before, key=lambda e: e.seq):
        _follow(line, held)
        if any(plan.login >> code & 1 for code, _ in held):
            out.flags |= KNOWN
    out.values = list(held.values())
    return out


def _before(line: Line, at_ms: int, request: str) -> bool:
    return line.at_ms <= at_ms and line.entry.request != request


def _follow(line: Line, held: dict[tuple[int, str], Value]) -> None:
    at, entry = line.at_ms, line.entry
    for c in entry.changes:
        if c.kind in (ATTACHED, TAKEN):
            value = Value(c.code, c.key, c.shown, at, at, entry.workspace, entry.input)
            held[c.code, c.key] = value
        elif c.kind in (DETACHED, GAVE):
            held.pop((c.code, c.key), None)
        elif c.kind == ERASED:
            held.clear()


def parted(lines: Iterable[Line], at_ms: int, values: set[tuple[int, str]]) -> set[int]:
    """Return whom a record gave one of these values to, or took it from, since a time."""
    return {
        change.other
        for line in lines
        if line.at_ms >= at_ms
        for change in line.entry.changes
        if change.kind in (GAVE, TAKEN)
        and change.other is not None
        and (change.code, change.key) in values
    }


def of_request(lines: Iterable[Line], request: str) -> list[Line]:
    """Return the entries a request made."""
    return [line for line in lines if line.entry.request == request]


def created_by(entries: Iterable[Entry], kind: int) -> bool:
    """Return whether one of the entries holds a change of a kind."""
    return any(change.kind == kind for entry in entries for change in entry.changes)
