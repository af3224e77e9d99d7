"""Jobs: work promised in the transaction that caused it; done at least once, or given up loudly."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from onymous.store import sql
from onymous.store.port import Store

log = logging.getLogger("onymous.jobs")

#: tries before a job is given up; it stays in the table with its error
MOST_TRIES = 8
#: how long a worker may take for a job before another one tries
LEASE_MS = 60_000
#: jobs taken at once
TOGETHER = 200

Handler = Callable[[bytes], Awaitable[None]]
#: does all due jobs of a kind at once
Together = Callable[[list[bytes]], Awaitable[None]]


class Job(msgspec.Struct, frozen=True):
    """A promised piece of work."""

    id: int
    kind: str
    tries: int
    body: bytes


async def take(store: Store, now_ms: int, lease_ms: int = LEASE_MS) -> list[Job]:
    """Take jobs that are due, so that no other worker does them meanwhile."""
    async with store.read() as session:
        if not await session.rows(sql.JOBS_DUE, now_ms, now_ms, MOST_TRIES, 1):
            return []
    # a lease is recognised by its exact end, so two workers must not choose the same one
    until = now_ms + lease_ms + random.randrange(1000)
    async with store.write("jobs.take") as tx:
        rows = await tx.rows(sql.JOBS_DUE, now_ms, now_ms, MOST_TRIES, TOGETHER)
        await tx.many(sql.JOB_TAKE, [(until, row[0], now_ms) for row in rows])
        mine = [row for row in rows if await tx.rows(sql.JOB_TAKEN, row[0], until)]
    return [Job(row[0], row[1], row[2] + 1, bytes(row[3])) for row in mine]


async def work(
    store: Store,
    handlers: dict[str, Handler],
    now_ms: int,
    together: dict[str, Together] | None = None,
) -> int:
    """Do the jobs that are due and return how many were taken.

    A job whose handler fails is tried again later, each time after a longer pause; a job without
    a handler, or that failed `MOST_TRIES` times, stays with its error.
    """
    jobs = await take(store, now_ms)
    done: list[tuple[int]] = []
    failed: list[tuple[int, str, int]] = []
    for some, doing in _grouped(jobs, handlers, together or {}):
        try:
            await doing()
        except Exception as error:
            for job in some:
                pause = min(1000 * 4**job.tries, 3_600_000)
                failed.append((now_ms + pause, type(error).__name__, job.id))
                level = logging.ERROR if job.tries >= MOST_TRIES else logging.WARNING
                log.log(level, "job %s (%s) failed: %s", job.id, job.kind, type(error).__name__)
        else:
            done += [(job.id,) for job in some]
    if jobs:
        async with store.write("jobs.done") as tx:
            await tx.many(sql.JOB_DONE, done)
            await tx.many(sql.JOB_FAILED, failed)
    return len(jobs)


def _grouped(
    jobs: list[Job], handlers: dict[str, Handler], together: dict[str, Together]
) -> Iterator[tuple[list[Job], Callable[[], Awaitable[None]]]]:
    """Yield jobs with what does them: alone, or all of a kind at once."""
    for kind, handler in together.items():
        some = [job for job in jobs if job.kind == kind]
        if some:
            yield some, functools.partial(handler, [job.body for job in some])
    for job in jobs:
        if job.kind not in together:
            yield [job], functools.partial(_one, handlers, job)


async def _one(handlers: dict[str, Handler], job: Job) -> None:
    await handlers[job.kind](job.body)
