"""What undoing one ledger entry would change, and when it is refused.

An entry that attached, detached or took values can be taken back exactly as long as nothing later
touched the same values. Creations, aliases, merges and erasures have undoings of their own or none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from onymous.rules.ledger import (
    ALIASED,
    ATTACHED,
    CREATED,
    DETACHED,
    ERASED,
    GAVE,
    MERGED,
    TAKEN,
    Line,
)
from onymous.rules.records import Record

_VALUES = {ATTACHED, DETACHED, TAKEN}
_OTHERWISE = {
    CREATED: "a profile that was created stays; erase it, or merge it into another",
    GAVE: "the value was taken by the profile it names; undo the entry there",
    ALIASED: "an alias is undone by its own number",
    MERGED: "a merge is undone by its own number",
    ERASED: "what was erased is gone",
}


class Inverse(msgspec.Struct, kw_only=True):
    """What takes an entry back; `why` says why it is refused."""

    why: str = ""
    #: values the record loses
    remove: list[tuple[int, str]] = []
    #: values the record gets back, with their spelling
    add: list[tuple[int, str, str | None]] = []
    #: values that go back to the record they were taken from
    give: list[tuple[int, str, str | None, int]] = []


def invert(
    line: Line,
    record: Record,
    others: dict[int, Record],
    holder: Callable[[int, str], int | None],
    lines: Sequence[Line],
    unique: int,
) -> Inverse:
    """Return what undoes `line` of a record; `lines` are all of the record's, any order.

    `holder` names who else holds a unique value now."""
    kinds = {c.kind for c in line.entry.changes}
    for kind, text in _OTHERWISE.items():
        if kind in kinds:
            return Inverse(why=text)
    if not kinds & _VALUES:
        return Inverse(why="it changed no identity")
    touched = {
        (c.code, c.key) for other in lines if other.seq > line.seq for c in other.entry.changes
    }
    out = Inverse()
    for change in line.entry.changes:
        value = (change.code, change.key)
        if change.kind not in _VALUES:
            continue
        if value in touched:
            return Inverse(why="one of its values was changed later")
        if change.kind == DETACHED:
            if record.holds(*value) or (unique >> change.code & 1 and holder(*value) is not None):
                return Inverse(why="a removed value belongs to somebody else now")
            out.add.append((*value, _spelling(lines, line.seq, value)))
        elif not record.holds(*value):
            return Inverse(why="a value it attached is not there any more")
        elif change.kind == ATTACHED:
            out.remove.append(value)
        elif change.other is None or change.other not in others:
            return Inverse(why="the profile a value was taken from is gone")
        else:
            out.give.append((*value, change.shown, change.other))
    return out


def concerns_values(line: Line) -> bool:
    """Return whether an entry changed values, and nothing that is undone in another way."""
    kinds = {c.kind for c in line.entry.changes}
    return bool(kinds & _VALUES) and not kinds & set(_OTHERWISE)


def _spelling(lines: Sequence[Line], before: int, value: tuple[int, str]) -> str | None:
    """Return how a value was spelled when the record got it last before an entry."""
    for line in sorted(lines, key=lambda e: -e.seq):
        if line.seq < before:
            for c in line.entry.changes:
                if c.kind in (ATTACHED, TAKEN) and (c.code, c.key) == value:
                    return c.shown
    return None
