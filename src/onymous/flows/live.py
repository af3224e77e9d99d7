"""What arrives now in one pool: identity changes and batches as they are committed."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable

import msgspec

from onymous.flows.history import Happened, Historian
from onymous.flows.profiles import sides
from onymous.flows.timeline import Sent, Timeline
from onymous.rules.ledger import Entry, Line
from onymous.store import console_sql, history_sql
from onymous.store.port import Row, Session, Store

_entries = msgspec.msgpack.Decoder(Entry)
#: seconds between looks, and without anything to tell
LOOK_S, QUIET_S = 0.4, 10.0
#: of one look: more than this nobody can read; the newest are told
MOST = 40
#: numbers are given before commits: a batch may appear behind a later one
_BACK = 500


class Arrived(msgspec.Struct, kw_only=True):
    """Something that arrived."""

    at_ms: int
    mpid: str
    change: Happened | None = None
    batch: Sent | None = None


class Live:
    """Follows what arrives."""

    def __init__(self, store: Store, historian: Historian, timeline: Timeline) -> None:
        self._store, self._historian, self._timeline = store, historian, timeline

    async def latest(self, pool: int, limit: int) -> list[Arrived]:
        """Return the newest identity changes, newest first."""
        async with self._store.read() as session:
            rows = await session.rows(console_sql.CHANGES_LATEST, pool, 0, limit)
        return [self._change(row) for row in rows]

    async def follow(
        self, pool: int, ending: Callable[[], bool], of: int | None = None
    ) -> AsyncIterator[list[Arrived]]:
        """Yield what arrives until `ending`, oldest first; an empty list now and then between.

        `of` is the number of the one person it is about; None: everybody.
        """
        async with self._store.read() as session:
            whose = None
            if of is not None:
                whose = [side.pid for side in await sides(session, of) if side.whole]
            newest, top = await self._newest(session, pool)
            seen = dict.fromkeys(await self._numbers(session, pool, top - _BACK))
        told: OrderedDict[int, None] = OrderedDict(seen)
        spoke = time.monotonic()
        yield []
        while not ending():
            await asyncio.sleep(LOOK_S)
            async with self._store.read() as session:
                before = newest, top
                newest, top = await self._newest(session, pool)
                changes = await self._changes(session, pool, before[0], whose)
                out = [self._change(row) for row in changes if row[0] <= newest]
                for row in await self._fresh(session, pool, before[1] - _BACK, told, whose):
                    out.append(await self._batch(session, row))
            while len(told) > 4 * _BACK:
                told.popitem(last=False)
            if out or time.monotonic() - spoke > QUIET_S:
                spoke = time.monotonic()
                yield sorted(out, key=lambda a: a.at_ms)

    async def _newest(self, session: Session, pool: int) -> tuple[int, int]:
        """Return the numbers of the latest change of a pool, and of the latest batch."""
        change = await session.rows(history_sql.CHANGES_NEWEST, pool)
        batch = await session.rows(history_sql.BATCH_NEWEST)
        return change[0][0] or 0, batch[0][0] or 0

    async def _changes(
        self, session: Session, pool: int, after: int, whose: list[int] | None
    ) -> list[Row]:
        if whose is None:
            return await session.rows(console_sql.CHANGES_LATEST, pool, after, MOST)
        asked = [(pool, after, pid, MOST) for pid in whose]
        return [
            r for rows in await session.each(console_sql.CHANGES_LATEST_OF, asked) for r in rows
        ]

    async def _fresh(
        self,
        session: Session,
        pool: int,
        after: int,
        told: OrderedDict[int, None],
        whose: list[int] | None,
    ) -> list[Row]:
        if whose is None:
            rows = await session.rows(console_sql.BATCHES_LATEST, after, pool, MOST)
        else:
            asked = [(after, pid, MOST) for pid in whose]
            found = await session.each(console_sql.BATCHES_LATEST_OF, asked)
            rows = [row for some in found for row in some]
        fresh = [row for row in rows if row[0] not in told]
        for row in fresh:
            told[row[0]] = None
        return fresh

    async def _numbers(self, session: Session, pool: int, after: int) -> list[int]:
        rows = await session.rows(console_sql.BATCHES_LATEST, after, pool, _BACK)
        return sorted(row[0] for row in rows)

    def _change(self, row: Row) -> Arrived:
        told = self._historian.tell(Line(row[3], row[2], _entries.decode(bytes(row[4]))))
        return Arrived(at_ms=row[2], mpid=self._historian.mpid(row[1]), change=told)

    async def _batch(self, session: Session, row: Row) -> Arrived:
        sent = self._timeline.tell(row, await self._timeline.content(session, row))
        return Arrived(at_ms=sent.received_ms, mpid=sent.mpid, batch=sent)
