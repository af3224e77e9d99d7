"""Identity records: the lookup labels of profiles, as the rules see them."""

from __future__ import annotations

import msgspec

KNOWN = 1  #: has held a login value once (sticky; best match: a user-class value)
SHARED = 2  #: some value of the record is also on another record
ORPHANED = 4  #: nothing finds the record any more
ERASED = 8  #: a tombstone: the number stays taken, nothing else is left
MERGED = 16  #: an operator found it to be the same person as another record


class Value(msgspec.Struct, array_like=True, gc=False):
    """One identity value of a record, and where it came from (rulings 10)."""

    code: int
    #: the comparison key: the value after the cleaning pipeline
    key: str
    #: the received spelling for outputs, when it differs from the key
    shown: str | None
    first_ms: int
    last_ms: int
    workspace: int
    input: int

    @property
    def text(self) -> str:
        """Return the value as it was received."""
        return self.shown if self.shown is not None else self.key


class Record(msgspec.Struct):
    """One identity record. `pid` is the internal number; the MPID is a bijection of it."""

    pid: int
    pool: int
    created_ms: int
    seen_ms: int
    flags: int = 0
    #: the anonymous record this one was made beside (profile link), or None
    source: int | None = None
    values: list[Value] = []

    def keys_of(self, code: int) -> list[str]:
        """Return the comparison keys this record holds for one type."""
        return [v.key for v in self.values if v.code == code]

    def holds(self, code: int, key: str) -> bool:
        """Return whether this record holds the value."""
        return any(v.code == code and v.key == key for v in self.values)

    def copy(self) -> Record:
        """Return a copy whose values can be changed without touching this one."""
        return Record(
            self.pid,
            self.pool,
            self.created_ms,
            self.seen_ms,
            self.flags,
            self.source,
            [Value(*msgspec.structs.astuple(v)) for v in self.values],
        )


def mask_of(record: Record) -> int:
    """Return the bit mask of the types a record holds values of."""
    bits = 0
    for value in record.values:
        bits |= 1 << value.code
    return bits
