"""What stands, as metrics: queues, jobs, limits, what is written behind; read when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from onymous.app import Core
from onymous.flows.jobs import waiting
from onymous.flows.journal import MOST_HELD
from onymous.later import module
from onymous.limits import Limits
from onymous.observe import Metrics
from onymous.settings import TABLE
from onymous.store import review_sql, schema, sql

metadata = module("importlib.metadata")

#: counting rows is done once in so many seconds at most
EVERY_S = 5.0
#: settings that bound something
LIMITS = [
    s.name for s in TABLE if s.name.startswith(("max_", "address_", "value_", "head_", "body_"))
]


class Measuring:
    """Reads what stands in a core into its metrics."""

    def __init__(
        self, core: Core, metrics: Metrics, limits: Limits, connections: Callable[[], int]
    ) -> None:
        self._core, self._metrics, self._limits = core, metrics, limits
        self._connections = connections
        self._counted = -EVERY_S
        for name in LIMITS:
            value = float(getattr(core.settings, name))
            metrics.gauge("limit", "Limits as set; 0: none.", value, limit=name)

    async def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        core, gauge = self._core, self._metrics.gauge
        version, at = metadata.version("onymous"), str(schema.SCHEMA_VERSION)
        gauge("build", "Version and schema.", 1, version=version, schema=at)
        gauge("waiting_requests", "Requests waiting for an answer.", core.desk.waiting)
        gauge("connections", "Open connections of clients.", self._connections())
        for kind, count in core.diagnostics.counts.items():
            gauge("diagnostics", "Diagnostics noted, by kind.", count, kind=kind)
        for name, total in self._limits.exceeded.items():
            self._metrics.hits(name, total)
        behind = "Entries waiting to be written behind."
        gauge("written_behind", behind, core.journal.held, what="journal")
        gauge("written_behind", behind, core.diagnostics.held, what="diagnostics")
        gauge("written_behind", behind, core.reads.held, what="reads")
        gauge("written_behind", behind, core.journal.held_back.held, what="review")
        dropped = core.journal.held_back.dropped
        gauge("review_dropped", "Values held back left out of the review.", dropped)
        gauge("journal_most", "Entries the journal holds at most between writes.", MOST_HELD)
        gauge("journal_dropped", "Requests left out of the journal.", core.journal.dropped)
        if time.monotonic() - self._counted >= EVERY_S:
            self._counted = time.monotonic()
            await self._count()
        return self._metrics.text()

    async def _count(self) -> None:
        """Count what waits in the database; without an answer of it only that is told."""
        gauge = self._metrics.gauge
        now = time.time_ns() // 1_000_000
        try:
            jobs = await waiting(self._core.store, now)
            async with self._core.store.read() as session:
                spooled = await session.rows(sql.SPOOL_COUNTED)
                conflicts = (await session.rows(review_sql.CONFLICTS_COUNTED))[0][0]
                values = (await session.rows(review_sql.HELD_COUNTED))[0][0]
        except Exception:
            gauge("store_up", "Whether the database answers.", 0)
            return
        gauge("store_up", "Whether the database answers.", 1)
        for name in ("jobs", "job_oldest_seconds", "set_aside"):
            self._metrics.forget(name)
        for job in jobs:
            states = {"open": job.open - job.held, "held": job.held, "given_up": job.given_up}
            for state, count in states.items():
                gauge("jobs", "Jobs in the database.", count, kind=job.kind, state=state)
            age = max(0.0, (now - job.oldest_ms) / 1000) if job.oldest_ms is not None else 0.0
            gauge("job_oldest_seconds", "How long the oldest open job is due.", age, kind=job.kind)
        for kind, count in (("conflict", conflicts), ("value", values)):
            gauge("review_waiting", "Entries of the review nobody decided.", count, kind=kind)
        for kind, count in spooled:
            gauge("set_aside", "Batches set aside or waiting.", count, kind=kind)
