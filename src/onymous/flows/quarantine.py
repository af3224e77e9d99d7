"""Batches that were set aside: to read, to try again, to throw away; and what the spool holds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from onymous.flows.events import Events, Incoming, Taken
from onymous.flows.journal import value_marks
from onymous.flows.tenants import Directory
from onymous.rules.errors import Refusal
from onymous.rules.events import identities_of
from onymous.rules.identifiers import BY_NAME, clean
from onymous.rules.native_batches import from_native
from onymous.store import sql
from onymous.store.port import Row, Store

log = logging.getLogger("onymous.quarantine")

_json = msgspec.json.Decoder()


class Spooled(msgspec.Struct):
    """A batch that was set aside, or that waited in the spool."""

    id: int
    at_ms: int
    workspace: int
    input: int
    development: bool
    body: bytes
    reason: str | None = None

    def content(self) -> dict[str, Any] | None:
        """Return the batch in the words of the Events API, or None for what is none."""
        try:
            raw = _json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(raw, dict):
            return None
        return from_native(raw) if raw.get("dt") == "h" else raw


class Replayed(msgspec.Struct):
    """What trying batches again came to."""

    #: found their person
    applied: int = 0
    #: were accepted before, or belong to nobody who may be named: gone
    dropped: int = 0
    #: still have nobody
    left: int = 0


class Spool:
    """Batches set aside: to read, to try again, to throw away."""

    def __init__(self, store: Store, events: Events, directory: Directory) -> None:
        self._store, self._events, self._directory = store, events, directory

    async def quarantined(self, after: int = 0, limit: int = 100) -> list[Spooled]:
        """Return batches that were set aside, oldest first."""
        async with self._store.read() as session:
            rows = await session.rows(sql.QUARANTINE_AFTER, after, limit)
        return [_spooled(row) for row in rows]

    async def replay(self, numbers: list[int] | None = None) -> Replayed:
        """Try batches set aside once more: those of these numbers, or all there are now."""
        out, after = Replayed(), 0
        async with self._store.read() as session:
            last = (await session.rows(sql.QUARANTINE_LAST))[0][0] or 0
        while rows := [r for r in await self.quarantined(after) if r.id <= last]:
            after = rows[-1].id
            for row in rows:
                if numbers is not None and row.id not in numbers:
                    continue
                taken = await self._take(row, aside=True)
                if taken is not None and taken.mpid is not None:
                    out.applied += 1
                elif taken is not None and taken.dropped is not None:
                    out.dropped += 1
                else:
                    out.left += 1
        return out

    async def drop(self, numbers: list[int]) -> None:
        """Throw batches away that were set aside."""
        async with self._store.write("quarantine.drop") as tx:
            await tx.many(sql.QUARANTINE_DROP, [(number,) for number in numbers])

    async def erase(self, body: bytes) -> None:
        """Throw away what names an erased person; `body` is that of the job of an erasure."""
        pool, pids, marks = msgspec.msgpack.decode(body, type=tuple[int, set[int], set[bytes]])
        gone, after = [], 0
        while rows := await self.quarantined(after):
            after = rows[-1].id
            gone += [row.id for row in rows if self._names(row, pool, pids, marks)]
        if gone:
            await self.drop(gone)

    def _names(self, row: Spooled, pool: int, pids: set[int], marks: set[bytes]) -> bool:
        caller, raw = self._directory.by_id(row.input), row.content()
        environment = "development" if row.development else "production"
        if caller is None or raw is None or caller.pool(environment) != pool:
            return False
        if self._events.resolver.mpids.parse(raw.get("mpid")) in pids:
            return True
        plan = caller.plan
        given = clean(identities_of(raw), strict=False, folding=plan.folding)
        values = [(BY_NAME[name].code, key) for name, key in given.keys.items()]
        return not marks.isdisjoint(value_marks(pool, values))

    async def drain(self) -> int:
        """Apply what earlier versions accepted into the spool; one process at a time."""
        done = after = 0
        while True:
            async with self._store.read() as session:
                rows = await session.rows(sql.SPOOL_AFTER, after, 100)
            if not rows:
                return done
            for number, at, kind, workspace, source, environment, body in rows:
                after = number
                row = _spooled((number, at, workspace, source, environment, body, None))
                await self._take(row, historical=kind == "historical")
                done += 1

    async def _take(
        self, row: Spooled, *, historical: bool = False, aside: bool = False
    ) -> Taken | None:
        """Try one batch; it leaves the spool in the transaction that applies it."""
        caller, raw = self._directory.by_id(row.input), row.content()
        if caller is None or caller.held or raw is None:
            return None
        item = Incoming(
            caller=caller,
            raw=raw,
            body=msgspec.json.encode(raw) if b'"dt"' in row.body else row.body,
            now_ms=row.at_ms,
            historical=historical,
            most_bytes=len(row.body) * 2,
            spooled=row.id,
            aside=aside,
        )
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        try:
            self._events.take(item, future.set_result)
        except Refusal as refusal:
            log.warning("a batch in the spool cannot be read: %s", type(refusal).__name__)
            return None
        return await future


def _spooled(row: Row) -> Spooled:
    number, at, workspace, source, environment, body, reason = row
    data = msgspec.msgpack.decode(bytes(body), type=bytes)
    return Spooled(number, at, workspace, source, bool(environment), data, reason)
