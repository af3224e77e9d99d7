"""Every identity change as one ordered feed that can be followed and taken up again.

Ledger numbers are not enough: a transaction that took its number early may commit late. So the
job promised by each change appends to the feed, one process at a time; a reader who has seen
number n has seen every change before it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable

import msgspec

from onymous.flows.history import Changed, Happened, Historian
from onymous.flows.retrying import retried
from onymous.rules.errors import ChangesForgotten
from onymous.rules.ledger import Entry, Line
from onymous.store import history_sql as sql
from onymous.store.port import Row, Session, Store, Transaction
from onymous.store.sql import META_GET, META_PUT

_entries = msgspec.msgpack.Decoder(Entry)
_numbers = msgspec.msgpack.Decoder(list[int])
#: seconds between looks while someone waits
LOOK_S = 0.2
MOST, MOST_WAIT_S = 1_000, 60
#: up to where the table for readers of SQL has everything
TABLE = "feed_table"
#: changes written into it afterwards: in one transaction, and such transactions at a time
CATCH_UP, CATCH_UPS = 500, 40
#: entries appended in one transaction: it must not hold requests up
TOGETHER = 64


class Followed(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One change as followers see it; `cursor` is where to go on."""

    cursor: str
    mpid: str
    at_ms: int
    operation: str
    workspace: str
    input: str
    request_id: str | None = None
    changes: list[Changed]


class Page(msgspec.Struct, kw_only=True):
    """Changes in order, and where to go on."""

    changes: list[Followed]
    next: str


async def publish(store: Store, bodies: list[bytes], teller: Historian | None = None) -> None:
    """Append ledger entries to the feed; those that are there already are left out.

    With a `teller` they are also written readable, for those who read the database, unless the
    table lacks some before them: then they come with those (`Changes.catch_up`).
    """
    wanted = sorted({number for body in bodies for number in _numbers.decode(body)})
    for start in range(0, len(wanted), TOGETHER):
        some = wanted[start : start + TOGETHER]
        await retried(functools.partial(_append, store, some, teller))
        await asyncio.sleep(0)


async def _append(store: Store, wanted: list[int], teller: Historian | None) -> None:
    async def work(tx: Transaction) -> None:
        await tx.run(sql.FEED_START, b"0")
        first = last = int(bytes((await tx.rows(sql.FEED_LOCK))[0][0]))
        known = await tx.each(sql.CHANGE_KNOWN, [(n,) for n in wanted])
        fresh = [n for n, rows in zip(wanted, known, strict=True) if not rows]
        rows: list[tuple[int, ...]] = []
        told: list[tuple[object, ...]] = []
        for found in await tx.each(sql.CHANGE_SOURCE, [(n,) for n in fresh]):
            for seq, pid, at, pool, body in found:
                last += 1
                rows.append((last, seq, pool, pid, at))
                if teller is not None:
                    line = Line(seq, at, _entries.decode(bytes(body)))
                    told.append(_readable(teller, last, pool, pid, line))
        if rows:
            await tx.many(sql.CHANGE_ADD, rows)
            await tx.run(sql.FEED_SET, b"%d" % last)
        if told and await _table_to(tx) == first:
            await tx.many(sql.FEED_ADD, told)
            await tx.run(META_PUT, TABLE, b"%d" % last)

    await store.share("changes", work)


async def _table_to(session: Session) -> int:
    rows = await session.rows(META_GET, TABLE)
    return int(bytes(rows[0][0])) if rows else 0


def _readable(
    teller: Historian, number: int, pool: int, pid: int, line: Line
) -> tuple[object, ...]:
    told = teller.tell(line)
    return (
        number,
        told.at_ms,
        "development" if pool % 2 else "production",
        teller.scope(pool // 2),
        told.workspace,
        told.input,
        told.operation,
        teller.mpid(pid),
        told.request_id,
        msgspec.json.encode(told.changes).decode(),
        pid,
    )


class Changes:
    """Reads the feed of one pool; with `table`, keeps the one for readers of SQL whole."""

    def __init__(self, store: Store, historian: Historian, *, table: bool = False) -> None:
        self._store, self._historian, self._table = store, historian, table

    async def catch_up(self) -> None:
        """Write into the table, in order, what came while it was off; a piece at a time."""
        for _ in range(CATCH_UPS if self._table else 0):
            if not await retried(self._catch_up):
                break
            await asyncio.sleep(0)

    async def _catch_up(self) -> bool:
        async with self._store.read() as session:
            newest = await session.rows(META_GET, "change_feed")
            if not newest or await _table_to(session) >= int(bytes(newest[0][0])):
                return False
        async with self._store.write("changes.table") as tx:
            last = int(bytes((await tx.rows(sql.FEED_LOCK))[0][0]))
            rows = await tx.rows(sql.CHANGES_FROM, await _table_to(tx), CATCH_UP)
            told = [
                _readable(self._historian, number, pool, pid, Line(seq, at, _entries.decode(body)))
                for number, pool, pid, at, seq, body in rows
            ]
            await tx.many(sql.FEED_ADD, told)
            full = len(rows) == CATCH_UP
            await tx.run(META_PUT, TABLE, b"%d" % (rows[-1][0] if full else last))
        return full

    async def page(
        self,
        pool: int,
        after: int | None,
        limit: int,
        wait_s: float,
        ending: Callable[[], bool] = lambda: False,
    ) -> Page:
        """Return changes after a cursor (None: only what comes from now on).

        Waits up to `wait_s` seconds for the first one, unless the server is `ending`. Raises
        `ChangesForgotten` for a cursor older than what is kept.
        """
        if after is None:
            after = await self.newest(pool)
        give_up = time.monotonic() + min(wait_s, MOST_WAIT_S)
        while True:
            rows = await self._rows(pool, after, limit)
            if rows or time.monotonic() >= give_up or ending():
                break
            await asyncio.sleep(LOOK_S)
        told = [self._told(row) for row in rows]
        return Page(changes=told, next=str(rows[-1][0] if rows else after))

    async def newest(self, pool: int) -> int:
        """Return the cursor of the latest change."""
        async with self._store.read() as session:
            return int((await session.rows(sql.CHANGES_NEWEST, pool))[0][0] or 0)

    async def _rows(self, pool: int, after: int, limit: int) -> list[Row]:
        async with self._store.read() as session:
            rows = await session.rows(sql.CHANGES_AFTER, pool, after, min(limit, MOST))
            kept_from = await session.rows(META_GET, "feed_from") if after else []
        if kept_from and after < int(bytes(kept_from[0][0])):
            raise ChangesForgotten()
        return rows

    def _told(self, row: Row) -> Followed:
        line = Line(row[3], row[2], _entries.decode(bytes(row[4])))
        told: Happened = self._historian.tell(line)
        return Followed(
            cursor=str(row[0]),
            mpid=self._historian.mpid(row[1]),
            at_ms=told.at_ms,
            operation=told.operation,
            workspace=told.workspace,
            input=told.input,
            request_id=told.request_id,
            changes=told.changes,
        )


async def forget_changes(store: Store, before_ms: int) -> None:
    """Forget the feed before a time, and remember up to where."""
    async with store.write("changes.forget") as tx:
        rows = await tx.rows(sql.CHANGES_LAST_BEFORE, before_ms)
        if rows[0][0] is not None:
            await tx.run(META_PUT, "feed_from", b"%d" % rows[0][0])
            await tx.run(sql.CHANGES_FORGET, before_ms)
            await tx.run(sql.FEED_FORGET, before_ms)
