"""Metrics of one process. They carry no identity values, keys or secrets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

from prometheus_client.metrics import Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from onymous.later import module
from onymous.store.port import LostRace, Store, T, Transaction, Writes

exposition = module("prometheus_client.exposition")

FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SLOW = (0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60, 300)
#: reasons of refusals -> the setting that bounds it
BOUNDS = {
    "TooManyIdentities": "max_identities_per_request",
    "Busy": "max_waiting",
    "BatchTooLarge": "max_batch_bytes",
}

#: operations whose bodies are bounded as events
EVENTS = {"event_body", "events", "bulkevents", "historical", "web_events", "native_events"}


class Answered(Protocol):
    """What of an answer is counted."""

    status: int
    #: kind of the refusal, or nothing
    reason: str


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "Requests answered.", ("operation", "status"))
        self._refusals = self._counter(
            "refusals", "Requests refused, by why.", ("operation", "reason")
        )
        self._seconds = self._histogram(
            "request_seconds",
            "Time from request to answer (of hot requests: one in 64).",
            ("operation",),
        )
        self._commits = self._counter(
            "commits", "Write transactions of requests.", ("transaction",)
        )
        self._works = self._counter("commit_requests", "Requests in those transactions.")
        self._commit_seconds = self._histogram(
            "commit_seconds", "Time of write transactions, to durable.", ("transaction",)
        )
        self._failed = self._counter(
            "transactions_failed", "Write transactions that did not commit.", ("transaction", "why")
        )
        self._jobs_done = self._counter("jobs_done", "Jobs tried.", ("kind", "outcome"))
        self._job_seconds = self._histogram(
            "job_seconds", "Time of jobs (those done together: of all).", ("kind",), SLOW
        )
        self._hit = self._counter(
            "limit_exceeded", "Requests that met a limit, by its setting.", ("limit",)
        )
        self._gauges: dict[str, Gauge] = {}
        self._plain: dict[tuple[str, int], int] = {}
        self._hits: dict[str, int] = {}

    def _counter(self, name: str, about: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"onymous_{name}", about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float] = FAST
    ) -> Histogram:
        full = f"onymous_{name}"
        return Histogram(full, about, labels, buckets=tuple(buckets), registry=self.registry)

    # -- what happens -----------------------------------------------------------------------

    def request(self, operation: str, reply: Answered, seconds: float) -> None:
        """Count a request; `seconds` below zero: not timed."""
        key = (operation, reply.status)
        self._plain[key] = self._plain.get(key, 0) + 1
        if seconds >= 0:
            self._seconds.labels(operation).observe(seconds)
        if reply.reason:
            self._refused(operation, reply.reason)

    def _refused(self, operation: str, reason: str) -> None:
        self._refusals.labels(operation, reason).inc()
        bound = BOUNDS.get(reason)
        if reason == "BodyTooLarge":
            large = "event" if operation in EVENTS else "identity"
            bound = f"max_{large}_body_bytes"
        if reason == "RequestTooSlow":
            bound = f"{operation}_timeout_s"
        if bound is not None:
            self._hit.labels(bound).inc()

    def commit(self, transaction: str, works: int) -> None:
        """Count a write transaction of requests and the requests that shared it."""
        self._commits.labels(transaction).inc()
        self._works.inc(works)

    def job(self, kind: str, outcome: str, count: int, seconds: float) -> None:
        """Count jobs of a kind that were tried together."""
        self._jobs_done.labels(kind, outcome).inc(count)
        self._job_seconds.labels(kind).observe(seconds)

    def wrote(self, transaction: str, seconds: float) -> None:
        """Count the time of a write transaction that is durable."""
        self._commit_seconds.labels(transaction).observe(seconds)

    def failed(self, transaction: str, why: str) -> None:
        """Count a write transaction that did not commit."""
        self._failed.labels(transaction, why).inc()

    # -- what stands ------------------------------------------------------------------------

    def gauge(self, name: str, about: str, value: float, **labels: str) -> None:
        """Set a gauge; it is made at the first time."""
        found = self._gauges.get(name)
        if found is None:
            full = f"onymous_{name}"
            found = Gauge(full, about, sorted(labels), registry=self.registry)
            self._gauges[name] = found
        (found.labels(**labels) if labels else found).set(value)

    def forget(self, name: str) -> None:
        """Forget all values of a gauge whose labels come and go."""
        if name in self._gauges:
            self._gauges[name].clear()

    def hits(self, limit: str, total: int) -> None:
        """Take over a count kept elsewhere of how often a limit was met."""
        self._hit.labels(limit).inc(total - self._hits.get(limit, 0))
        self._hits[limit] = total

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        plain, self._plain = self._plain, {}
        for (operation, status), count in plain.items():
            self._requests.labels(operation, str(status)).inc(count)
        text: bytes = exposition.generate_latest(self.registry)
        return text

    def watch(self, store: Store) -> Store:
        """Time the store's write transactions by name, and return it."""
        share = store.share

        async def shared(name: str, work: Writes[T], *, behind: bool = True) -> T:
            with self.timed(name):
                return await share(name, work, behind=behind)

        store.write = timed_write(store, self)  # type: ignore[method-assign, assignment]
        store.share = shared  # type: ignore[method-assign]
        return store

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a transaction, and count it where it fails."""
        started = time.perf_counter()
        try:
            yield
        except LostRace:
            self.failed(name, "lost_race")
            raise
        except Exception:
            self.failed(name, "error")
            raise
        self.wrote(name, time.perf_counter() - started)


def timed_write(store: Store, metrics: Metrics) -> Callable[[str], Any]:
    """Return the store's `write`, timed; finding and reading stay the engine's own."""
    write = store.write

    @asynccontextmanager
    async def timed(name: str) -> AsyncIterator[Transaction]:
        with metrics.timed(name):
            async with write(name) as tx:
                yield tx

    return timed
