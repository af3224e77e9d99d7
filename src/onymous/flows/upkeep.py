"""What history needs now and then: better dictionaries, retention, what was left in the spool."""

from __future__ import annotations

import asyncio

from onymous.flows.changes import forget_changes
from onymous.flows.events import Events
from onymous.flows.held import MOST_KEPT
from onymous.flows.tenants import Directory
from onymous.store import history_sql, review_sql, rules_sql, sql
from onymous.store.compression import FIRST, SAMPLES, Bodies, says_events, train
from onymous.store.port import Session, Store

DAY_MS = 86_400_000
#: a repeat of a batch is known for at least this long
ONCE_DAYS = 60
#: entries of diagnostics are kept this long
DIAGNOSTIC_DAYS = 30
#: rows deleted in one transaction
PIECE = 5_000
#: batches looked at to learn how many have events; and how often so many as a dictionary is trained
#: on are looked through for those that have
PROBES, LOOKS = 100, 10


class Upkeep:
    """Runs beside the traffic; each step is short and may be repeated."""

    def __init__(
        self,
        store: Store,
        events: Events,
        directory: Directory,
        *,
        retention_days: int,
        feed_days: int,
        journal_days: int,
        review_days: int,
        quarantine_days: int,
        explain_requests: int,
    ) -> None:
        self._store, self._events, self._directory = store, events, directory
        self._retention_days, self._feed_days = retention_days, feed_days
        self._journal_days, self._quarantine_days = journal_days, quarantine_days
        self._review_days = review_days
        self._explain_requests = explain_requests
        self._piece = 0

    async def run(self, now_ms: int) -> None:
        """Do what is due."""
        days = self._retention_days
        await self._store.upkeep(now_ms, now_ms - days * DAY_MS if days else 0)
        await learn(self._store, self._events.bodies, now_ms)
        await self._forget(now_ms)

    async def _forget(self, now_ms: int) -> None:
        """Forget batches beyond retention, and repeats beyond `ONCE_DAYS`."""
        if self._retention_days:
            before = now_ms - self._retention_days * DAY_MS
            await forget_batches(self._store, before)
        async with self._store.write("diagnostics.forget") as tx:
            await tx.run(history_sql.JOURNAL_FORGET, now_ms - self._journal_days * DAY_MS)
            await tx.run(history_sql.ASKED_FORGET, PIECE, now_ms - self._journal_days * DAY_MS)
            await tx.run(history_sql.ASKED_TRIM, 4 * PIECE, self._explain_requests)
            await tx.run(review_sql.HELD_FORGET, now_ms - self._review_days * DAY_MS)
            await tx.run(review_sql.HELD_TRIM, PIECE, MOST_KEPT)
            await tx.run(review_sql.CONFLICTS_AGAIN)
            await tx.run(sql.DIAGNOSTICS_FORGET, now_ms - DIAGNOSTIC_DAYS * DAY_MS)
            await tx.run(sql.QUARANTINE_FORGET, now_ms - self._quarantine_days * DAY_MS)
            await tx.run(rules_sql.PLAN_KEYS_OLD, f"{now_ms - DAY_MS:015d}")
        await forget_changes(self._store, now_ms - self._feed_days * DAY_MS)
        # one of 255 pieces at a time: nobody waits for the whole table
        self._piece = self._piece % 255 + 1
        low, high = bytes([self._piece - 1]), bytes([self._piece])
        high = high if self._piece < 255 else b"\xff" * 13
        before = now_ms - ONCE_DAYS * DAY_MS
        rows = [(c.input, low, high, before) for c in self._directory.callers()]
        async with self._store.write("once.forget") as tx:
            await tx.many(history_sql.ONCE_FORGET, sorted(rows))


async def forget_batches(store: Store, before_ms: int) -> None:
    """Delete batches received before a time, in pieces that hold nobody up."""
    while True:
        async with store.read() as session:
            if not await session.rows(history_sql.BATCHES_ANY_OLD, before_ms):
                return
        async with store.write("batches.forget") as tx:
            await tx.run(history_sql.BATCHES_OLD, before_ms, PIECE)
        await asyncio.sleep(0)


async def learn(store: Store, bodies: Bodies, now_ms: int) -> bool:
    """Train a dictionary once there are enough batches; returns whether a new one is in use.

    The next one is trained when there are sixteen times as many. Only batches with events count:
    rows of files say nothing about them, and there may be millions.
    """
    bodies.plain = 0
    async with store.read() as session:
        await bodies.load(session)
        newest = (await session.rows(history_sql.BATCH_NEWEST))[0][0] or 0
        if newest < FIRST or bodies.current >= 3:
            return False
        if bodies.current:
            known = newest * await _share(session, bodies, newest)
            if known < SAMPLES * 16**bodies.current:
                return False
        samples = await _samples(session, bodies, newest)
    if len(samples) < min(FIRST, SAMPLES) // 2:
        return False
    try:
        trained = await asyncio.get_running_loop().run_in_executor(None, train, samples)
    except ValueError:
        return False
    async with store.write("dictionary") as tx:
        await tx.run(history_sql.DICTIONARY_ADD, bodies.current + 1, now_ms, trained)
    async with store.read() as session:
        await bodies.load(session)
    return True


async def _share(session: Session, bodies: Bodies, newest: int) -> float:
    """Return about which share of all batches there were has events and is still there."""
    numbers = [(1 + (newest - 1) * n // (PROBES - 1),) for n in range(PROBES)]
    found = 0
    for rows in await session.each(history_sql.BATCH_BY_ID, numbers):
        for row in rows:
            found += says_events(await bodies.unpack(session, row[8], row[9]))
    return found / PROBES


async def _samples(session: Session, bodies: Bodies, newest: int) -> list[bytes]:
    """Return the latest batches with events, as far as they are among the latest of all."""
    samples: list[bytes] = []
    high = newest
    for _ in range(LOOKS):
        low = max(0, high - SAMPLES)
        for row in await session.rows(history_sql.BATCHES_AFTER, low, high - low):
            body = await bodies.unpack(session, row[8], row[9])
            if row[0] <= high and says_events(body):
                samples.append(body)
        await asyncio.sleep(0)
        high = low
        if len(samples) >= SAMPLES or not high:
            break
    return samples[:SAMPLES]


async def promise_drain(store: Store, now_ms: int) -> None:
    """Promise to apply what is left in the spool, if anything is; done by one process."""
    async with store.read() as session:
        if not await session.rows(sql.SPOOL_AFTER, 0, 1):
            return
        if await session.rows(sql.JOB_OF_KIND, "drain_spool"):
            return
    async with store.write("spool.promise") as tx:
        await tx.run(sql.JOB_ADD, "drain_spool", now_ms, b"")
