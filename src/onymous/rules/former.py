"""Names somebody had and has no more: from when until when, and what ended it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from onymous.rules.ledger import ATTACHED, DETACHED, ERASED, GAVE, TAKEN, Entry, Line


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A value somebody held for a while; `since_ms` 0: from before what was read."""

    code: int
    key: str
    shown: str | None
    since_ms: int
    until_ms: int
    #: the entry that ended it, and the record the value went to, if it went to one
    entry: int
    why: Entry
    went_to: int | None = None


def spans(lines: Iterable[Line]) -> list[Span]:
    """Return the values a ledger says were lost, the latest loss first; `lines` in any order."""
    held: dict[tuple[int, str], tuple[int, str | None]] = {}
    out: list[Span] = []
    for line in sorted(lines, key=lambda e: e.seq):
        for c in line.entry.changes:
            value = (c.code, c.key)
            if c.kind in (ATTACHED, TAKEN):
                held.setdefault(value, (line.at_ms, c.shown))
            elif c.kind == ERASED:
                held, out = {}, []
            elif c.kind in (DETACHED, GAVE) and c.key:
                since, shown = held.pop(value, (0, None))
                ended = Span(
                    code=c.code,
                    key=c.key,
                    shown=shown,
                    since_ms=since,
                    until_ms=line.at_ms,
                    entry=line.seq,
                    why=line.entry,
                    went_to=c.other if c.kind == GAVE else None,
                )
                out.append(ended)
    return out[::-1]
