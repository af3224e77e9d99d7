"""Statements of the embedded engine: sessions that read, and write transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw

from onymous.store import sql
from onymous.store.finding import find_in
from onymous.store.port import Found, Kept, Probe, Row

#: the value itself, where somebody holds it
_HELD = "SELECT ?1, ?2 FROM identity WHERE slot = ?1 AND value = ?2 LIMIT 1"


def roll_back(db: apsw.Connection) -> None:
    """Roll back what a connection has begun; what went wrong before is told, not this."""
    with contextlib.suppress(apsw.Error):  # of a store that is closed, for example
        if db.in_transaction:
            db.execute("ROLLBACK")


class SqliteSession:
    """Plain statements on one connection."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    async def rows(self, statement: str, *args: object) -> list[Row]:
        """Return all rows of a statement."""
        return list(self._db.execute(statement, args))

    async def each(self, statement: str, keys: Sequence[Sequence[object]]) -> list[list[Row]]:
        """Run a SELECT once per key; rows in order of keys."""
        # making a cursor costs as much as a lookup
        execute: Callable[..., Any] = self._db.cursor().execute
        return [execute(statement, key).fetchall() for key in keys]

    async def run(self, statement: str, *args: object) -> None:
        """Run a statement that returns nothing."""
        self._db.execute(statement, args)

    async def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once per row."""
        self._db.executemany(statement, rows)


class SqliteTransaction(SqliteSession):
    """A write transaction; holding SQLite's one write lock is what claims everything."""

    async def find(self, probes: Sequence[Probe]) -> list[Found]:
        """Find; nothing can change before the transaction ends."""
        cursor = self._db.cursor()
        return [find_in(cursor, probe) for probe in probes]

    async def held(self, values: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """Return the values that somebody holds."""
        return set(self._db.executemany(_HELD, values))

    async def append(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a plain INSERT once per row."""
        self._db.executemany(statement, rows)

    async def replays(self, keys: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], Kept]:
        """Return the kept answers of requests."""
        out: dict[tuple[int, bytes], Kept] = {}
        execute: Callable[..., Any] = self._db.cursor().execute
        for key in keys:
            for digest, answer in execute(sql.REPLAY_GET, key).fetchall():
                out[key] = Kept(digest, answer)
        return out

    async def numbers(self, name: str, count: int) -> list[int]:
        """Return new increasing numbers of a sequence."""
        statement = "UPDATE counter SET next = next + ? WHERE name = ? RETURNING next"
        end: int = self._db.execute(statement, (count, name)).get
        return list(range(end - count, end))

    async def skip(self, name: str, to: int) -> None:
        """Never again give a number below `to` of a sequence."""
        self._db.execute("UPDATE counter SET next = ? WHERE name = ? AND next < ?", (to, name, to))
