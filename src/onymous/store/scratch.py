"""A file without a name for what does not fit memory: nobody else sees it, and it goes with us."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apsw

from onymous.store import scratch_sql
from onymous.store.port import Row

#: pages kept in memory
_CACHED = 16 << 20


class Scratch:
    """Tables of `scratch_sql`; the engine removes the file as soon as it is opened."""

    def __init__(self) -> None:
        self._db = db = apsw.Connection("")
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            db.execute(f"PRAGMA {pragma}")
        db.execute(f"PRAGMA cache_size = -{_CACHED >> 10}")
        db.execute("BEGIN")
        for statement in scratch_sql.TABLES:
            db.execute(statement)

    def rows(self, statement: str, *args: object) -> Iterator[Row]:
        """Return the rows of a statement one by one."""
        return iter(self._db.execute(statement, args))

    def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once per row."""
        self._db.executemany(statement, rows)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
