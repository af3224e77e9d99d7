"""Batches that were set aside: to read, to try again, to throw away; and what the spool holds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from onymous.flows.events import Events, Incoming, Taken
from onymous.flows.journal import value_marks
from onymous.flows.merging import Actor
from onymous.flows.retrying import retried
from onymous.flows.tenants import Directory
from onymous.rules.errors import NotFound, Refusal
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

    def count(self, taken: Taken | None) -> None:
        """Count what became of one batch."""
        if taken is not None and taken.mpid is not None:
            self.applied += 1
        elif taken is not None and taken.dropped is not None:
            self.dropped += 1
        else:
            self.left += 1


class Where(msgspec.Struct, frozen=True):
    """The workspace and environment whose batches somebody may see."""

    workspace: int
    development: bool


class Spool:
    """Batches set aside: to read, to try again, to throw away."""

    def __init__(self, store: Store, events: Events, directory: Directory) -> None:
        self._store, self._events, self.directory = store, events, directory

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
                if numbers is None or row.id in numbers:
                    out.count(await self._take(row, aside=True))
        return out

    async def replay_row(self, pool: int, keys: dict[int, str]) -> Replayed:
        """Try what a feed said of two people once more: the batches with exactly these values."""
        out, after = Replayed(), 0
        while rows := await self.quarantined(after):
            after = rows[-1].id
            for row in rows:
                if row.reason == "conflict" and self._keys(row, pool) == keys:
                    out.count(await self._take(row, aside=True))
        return out

    async def page(self, where: Where, after: int, limit: int) -> tuple[list[Spooled], int | None]:
        """Return batches of a workspace set aside, oldest first, and the last if more follow."""
        async with self._store.read() as session:
            args = (after, where.workspace, int(where.development), limit + 1)
            rows = [_spooled(row) for row in await session.rows(sql.QUARANTINE_OF, *args)]
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    async def show(self, where: Where, number: int, actor: Actor) -> Spooled:
        """Return one batch of a workspace, and write down who looked; raises `NotFound`."""
        found, _ = await self.page(where, number - 1, 1)
        if not found or found[0].id != number:
            raise NotFound()
        await self._audit("quarantine_show", f"batch {number}", actor, {})
        return found[0]

    async def replay_of(
        self, where: Where, numbers: list[int] | None, after: int, limit: int, actor: Actor
    ) -> tuple[Replayed, int | None]:
        """Try batches of a workspace once more: these, or those after one; as `page`."""
        if numbers is None:
            rows, more = await self.page(where, after, limit)
        else:
            pages = [await self.page(where, n - 1, 1) for n in sorted(set(numbers))]
            rows, more = [r for found, _ in pages for r in found if r.id in numbers], None
        out = Replayed()
        detail = {"batches": [row.id for row in rows], "reason": actor.reason}
        await self._audit("quarantine_replay", f"{len(rows)} batches", actor, detail)
        for row in rows:
            out.count(await self._take(row, aside=True))
        return out, more

    async def drop_of(self, where: Where, numbers: list[int], actor: Actor) -> list[int]:
        """Throw batches of a workspace away; returns those that were there."""
        args = [(n, where.workspace, int(where.development)) for n in sorted(set(numbers))]

        async def work() -> list[int]:
            async with self._store.write("quarantine.drop") as tx:
                found = [row[0] for a in args for row in await tx.rows(sql.QUARANTINE_DROP_OF, *a)]
                detail = msgspec.json.encode({"batches": found, "reason": actor.reason})
                what = (actor.now_ms, actor.name, "quarantine_drop", f"{len(found)} batches")
                await tx.run(sql.AUDIT_ADD, *what, detail)
            return found

        return await retried(work)

    async def _audit(self, action: str, subject: str, actor: Actor, detail: object) -> None:
        what = (actor.now_ms, actor.name, action, subject, msgspec.json.encode(detail))

        async def work() -> None:
            async with self._store.write("quarantine.audit") as tx:
                await tx.run(sql.AUDIT_ADD, *what)

        await retried(work)

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
        keys, raw = self._keys(row, pool), row.content()
        if keys is None or raw is None:
            return False
        if self._events.resolver.mpids.parse(raw.get("mpid")) in pids:
            return True
        return not marks.isdisjoint(value_marks(pool, [*keys.items()]))

    def _keys(self, row: Spooled, pool: int) -> dict[int, str] | None:
        """Return the identities a batch states, by type code; None for one of another pool."""
        caller, raw = self.directory.by_id(row.input), row.content()
        environment = "development" if row.development else "production"
        if caller is None or raw is None or caller.pool(environment) != pool:
            return None
        given = clean(identities_of(raw), strict=False, folding=caller.plan.folding)
        return {BY_NAME[name].code: key for name, key in given.keys.items()}

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
        caller, raw = self.directory.by_id(row.input), row.content()
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
