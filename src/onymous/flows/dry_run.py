"""What importing a file would do, asked row by row; nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from onymous.flows.answers import Answer, Question
from onymous.flows.desk import MOST_TOGETHER
from onymous.flows.files import Job, Rejected, Rejects, Report, Row
from onymous.flows.identity import Resolver
from onymous.rules.errors import Refusal
from onymous.rules.events import Batch, read_batch
from onymous.store import sql
from onymous.store.port import Store

#: values a dry run remembers, to tell newcomers of the file from people it met before
MOST_REMEMBERED = 2_000_000


class DryRun:
    """Asks what rows would do."""

    def __init__(
        self, store: Store, resolver: Resolver, job: Job, rejects: Rejects, report: Report
    ) -> None:
        self._store, self._resolver, self._job = store, resolver, job
        self._rejects, self._report = rejects, report
        self._known: set[int] = set()

    async def look(self, rows: Sequence[Row]) -> int:
        """Ask what the first of these rows would do; return how many."""
        some = rows[:MOST_TOGETHER]
        rejected: list[Rejected] = []
        for row in some:
            why, mpids = (row.why, []) if row.why else await self._seen(row)
            if why:
                rejected.append(Rejected(row.line, why, mpids))
        self._report.count(rejected)
        self._rejects.keep(rejected)
        return len(some)

    async def _seen(self, row: Row) -> tuple[str, list[str]]:
        """Return why a row would be rejected; count it where it would not."""
        job = self._job
        try:
            batch = read_batch(row.raw, job.now_ms, at_ms=row.at_ms)
            answer = await self._ask(batch)
        except Refusal as refusal:
            return refusal.code.lower(), []
        if answer.conflict:
            return "conflict", answer.conflict
        if answer.refusal is not None:
            return "no_usable_identity", []
        self._report.applied += 1
        looked = row.newcomer.looked if row.newcomer is not None else []
        known = {hash(pair) for pair in looked}
        met = not known.isdisjoint(self._known)
        if len(self._known) < MOST_REMEMBERED:
            self._known |= known
        self._report.created += answer.created and not met
        return "", []

    async def _ask(self, batch: Batch) -> Answer:
        job, mpid = self._job, batch.mpid
        question = Question(
            op="feed",
            caller=job.caller,
            environment="development" if batch.development else "production",
            known=batch.identities,
            now_ms=job.now_ms,
            fold_keys=True,
            read_only=True,
            replace_values=job.replace_values,
        )
        resolver = self._resolver
        pid = resolver.mpids.parse(mpid) if mpid is not None else None
        if pid is not None:
            async with self._store.read() as session:
                rows = await session.rows(sql.POOL_OF, pid)
            if rows and rows[0][0] == job.caller.pool(question.environment):
                return Answer(mpid=str(mpid))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        resolver.ask(question, future.set_result)
        return await future
