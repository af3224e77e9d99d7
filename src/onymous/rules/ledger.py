"""Ledger entries: one per decision that changed something and person it changed.

Current state is what lookups read; the ledger explains, travels in time and undoes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

CREATED, ATTACHED, DETACHED, TAKEN, GAVE, ALIASED, ERASED = 1, 2, 3, 4, 5, 6, 7
UNALIASED, MERGED, UNMERGED, UNDONE, MOVED, PARTED = 8, 9, 10, 11, 12, 13
ORPHANED = 14

KINDS = {
    CREATED: "created",
    ATTACHED: "attached",
    DETACHED: "detached",
    TAKEN: "taken_from",
    GAVE: "given_to",
    ALIASED: "aliased",
    ERASED: "erased",
    UNALIASED: "alias_undone",
    MERGED: "merged",
    UNMERGED: "merge_undone",
    UNDONE: "undone",
    MOVED: "moved_to_scope",
    PARTED: "parted_from_scope",
    ORPHANED: "orphaned",
}


class Change(msgspec.Struct, array_like=True, gc=False):
    """One change of a record. `other` is the other record of a move or alias."""

    kind: int
    code: int = 0
    key: str = ""
    shown: str | None = None
    other: int | None = None


class Entry(msgspec.Struct, array_like=True):
    """What one request did to one person, and why."""

    op: str
    workspace: int
    input: int
    request: str | None
    changes: list[Change]
    #: the type that decided, 0 when none did
    by: int = 0
    tie: str | None = None
    #: (type, reason) of given identities that changed nothing
    skipped: list[tuple[int, str]] = []
    source: int | None = None


class Line(msgspec.Struct):
    """A stored entry: its place in the ledger and its time."""

    seq: int
    at_ms: int
    entry: Entry


def as_of(lines: Iterable[Line], at_ms: int) -> list[tuple[int, str, str | None, int, int, int]]:
    """Return the values a person held at a time: (type, key, spelling, since, input, workspace).

    `lines` are all of the person's entries in any order.
    """
    held: dict[tuple[int, str], tuple[int, str, str | None, int, int, int]] = {}
    for line in sorted(lines, key=lambda e: e.seq):
        if line.at_ms > at_ms:
            break
        for c in line.entry.changes:
            if c.kind in (ATTACHED, TAKEN):
                who = line.entry.input, line.entry.workspace
                held[c.code, c.key] = (c.code, c.key, c.shown, line.at_ms, *who)
            elif c.kind in (DETACHED, GAVE):
                held.pop((c.code, c.key), None)
            elif c.kind == ERASED:
                held.clear()
    return list(held.values())
