"""Jobs: work promised in the transaction that caused it; done at least once, or given up loudly."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import msgspec

from onymous.store import sql
from onymous.store.port import Row, Store, Transaction

log = logging.getLogger("onymous.jobs")

#: tries before a job is given up; it stays in the table with its error
MOST_TRIES = 8
#: how long a worker may be silent about a job before another one tries
LEASE_MS = 60_000
#: jobs taken at once
TOGETHER = 200

Handler = Callable[[bytes], Awaitable[None]]
#: does all due jobs of a kind at once
Together = Callable[[list[bytes]], Awaitable[None]]
#: lasts as long as jobs of a kind are done
Around = Callable[[str, "list[Job]"], AbstractContextManager[None]]


class Job(msgspec.Struct, frozen=True):
    """A promised piece of work, held until a time."""

    id: int
    kind: str
    tries: int
    body: bytes
    until: int
    #: of the request it was promised in, where that was traced
    trace: str | None = None


class Waiting(msgspec.Struct, frozen=True):
    """How the jobs of a kind stand."""

    kind: str
    #: neither done nor given up
    open: int
    #: held by a worker now
    held: int
    given_up: int
    #: since when the oldest open one is due
    oldest_ms: int | None


class GivenUp(msgspec.Struct, frozen=True):
    """A job nobody tries any more."""

    id: int
    kind: str
    due_ms: int
    tries: int
    #: kind of the last error; none where the workers died over it
    error: str | None


def end_if_asked() -> None:
    """Raise `CancelledError` if this task was cancelled and an error took the place of that.

    What fails while something is tidied up hides the cancellation it was tidied up for.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def take(
    store: Store, now_ms: int, kinds: Iterable[str], lease_ms: int = LEASE_MS
) -> list[Job]:
    """Take due jobs of these kinds, so that no other worker does them meanwhile.

    Kinds that are not named are left alone: a newer version beside this one may know them.
    """
    asked = [(kind, now_ms, now_ms, MOST_TRIES) for kind in sorted(set(kinds))]
    async with store.read() as session:
        if not any(await session.each(sql.JOBS_DUE, [(*ask, 1) for ask in asked])):
            return []
    # a lease is recognised by its exact end, so two workers must not choose the same one
    until = now_ms + lease_ms + random.randrange(1000)

    async def claim(tx: Transaction) -> list[Row]:
        found = await tx.each(sql.JOBS_DUE, [(*ask, TOGETHER) for ask in asked])
        rows = sorted(row for some in found for row in some)[:TOGETHER]
        await tx.many(sql.JOB_TAKE, [(until, row[0], now_ms) for row in rows])
        held = await tx.each(sql.JOB_TAKEN, [(row[0], until) for row in rows])
        return [row for row, is_mine in zip(rows, held, strict=True) if is_mine]

    mine = await store.share("jobs.take", claim)
    return [Job(row[0], row[1], row[2] + 1, bytes(row[3]), until, row[4]) for row in mine]


async def work(
    store: Store,
    handlers: dict[str, Handler],
    now_ms: int,
    together: dict[str, Together] | None = None,
    on: Callable[[str, str, int, float], None] = lambda kind, outcome, count, seconds: None,
    around: Around = lambda kind, jobs: nullcontext(),
) -> int:
    """Do the jobs that are due and return how many were taken.

    A job that fails is tried again later, each time after a longer pause; one that failed
    `MOST_TRIES` times stays with its error. Where jobs done together fail, each is tried alone:
    a bad one among them keeps none of the others. `on` hears (kind, outcome, jobs, seconds).
    """
    together = together or {}
    jobs = await take(store, now_ms, {*handlers, *together})
    if not jobs:
        return 0
    round_ = _Round(store, handlers, together, now_ms, on, around)
    async with _held(store, jobs) as until:
        for kind in dict.fromkeys(job.kind for job in jobs):
            await round_.do(kind, [job for job in jobs if job.kind == kind])

        async def note(tx: Transaction) -> None:
            await tx.many(sql.JOB_DONE, round_.done)
            await tx.many(sql.JOB_FAILED, [(*row, end) for row in round_.failed for end in until])

        await store.share("jobs.done", note)
    return len(jobs)


class _Round:
    """One round of work: what came of each job."""

    def __init__(
        self,
        store: Store,
        handlers: dict[str, Handler],
        together: dict[str, Together],
        now_ms: int,
        on: Callable[[str, str, int, float], None],
        around: Around,
    ) -> None:
        self._around = around
        self._store, self._handlers, self._together = store, handlers, together
        self._now_ms, self._on = now_ms, on
        self.done: list[tuple[int]] = []
        self.failed: list[tuple[int, str, int]] = []

    async def do(self, kind: str, jobs: list[Job]) -> None:
        """Do the jobs of a kind: all at once where that is possible, else one by one."""
        at_once = self._together.get(kind)
        if at_once is not None and len(jobs) > 1:
            bodies = [job.body for job in jobs]
            if await self._try(kind, jobs, functools.partial(at_once, bodies), last=False):
                return
        for job in jobs:
            doing = (
                functools.partial(at_once, [job.body])
                if at_once is not None
                else functools.partial(self._handlers[kind], job.body)
            )
            await self._try(kind, [job], doing)

    async def _try(
        self,
        kind: str,
        jobs: list[Job],
        doing: Callable[[], Awaitable[None]],
        *,
        last: bool = True,
    ) -> bool:
        started = time.monotonic()
        try:
            with self._around(kind, jobs):
                await doing()
        except Exception as error:
            name = type(error).__name__
            if last:
                self._fail(jobs[0], name, time.monotonic() - started)
            else:
                log.warning("%s jobs (%s) failed together: %s", len(jobs), kind, name)
            return False
        self.done += [(job.id,) for job in jobs]
        self._on(kind, "done", len(jobs), time.monotonic() - started)
        return True

    def _fail(self, job: Job, name: str, seconds: float) -> None:
        pause = min(1000 * 4**job.tries, 3_600_000)
        given_up = job.tries >= MOST_TRIES
        self.failed.append((self._now_ms + (0 if given_up else pause), name, job.id))
        outcome = "given_up" if given_up else "failed"
        log.log(
            logging.ERROR if given_up else logging.WARNING,
            "job %s (%s) %s after %s tries: %s",
            job.id,
            job.kind,
            outcome.replace("_", " "),
            job.tries,
            name,
        )
        self._on(job.kind, outcome, 1, seconds)


async def _keep(store: Store, rows: list[tuple[int, int, int]]) -> None:
    await store.share("jobs.keep", lambda tx: tx.many(sql.JOB_KEEP, rows))


@asynccontextmanager
async def _held(store: Store, jobs: list[Job]) -> AsyncIterator[list[int]]:
    """Hold jobs for as long as they take: only who dies over them loses them to others.

    Yields the end of the lease; also the next one, from before it is written: who comes into the
    same transaction meets that already.
    """
    until = [jobs[0].until]

    async def keep() -> None:
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            later = time.time_ns() // 1_000_000 + LEASE_MS + random.randrange(1000)
            until.append(later)
            try:
                await _keep(store, [(later, job.id, until[0]) for job in jobs])
                until[:] = [later]
            except Exception as error:
                until.pop()
                log.warning("holding jobs failed: %s", type(error).__name__)

    keeper = asyncio.create_task(keep())
    try:
        yield until
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def waiting(store: Store, now_ms: int) -> list[Waiting]:
    """Return how the jobs stand, by kind."""
    async with store.read() as session:
        rows = await session.rows(sql.JOBS_COUNTED, now_ms, MOST_TRIES, now_ms, MOST_TRIES)
    return [
        Waiting(kind, int(count - given_up), int(held), int(given_up), oldest)
        for kind, count, held, given_up, oldest in rows
    ]


async def given_up(store: Store, now_ms: int, limit: int = 100) -> list[GivenUp]:
    """Return jobs nobody tries any more, oldest first."""
    async with store.read() as session:
        return [
            GivenUp(*row)
            for row in await session.rows(sql.JOBS_GIVEN_UP, MOST_TRIES, now_ms, limit)
        ]


async def again(store: Store, numbers: list[int], now_ms: int) -> None:
    """Let jobs that were given up be tried from the start."""
    async with store.write("jobs.again") as tx:
        await tx.many(sql.JOB_AGAIN, [(number, MOST_TRIES, now_ms) for number in numbers])
