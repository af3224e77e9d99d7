"""Logs and metrics. Neither carries identity values, keys or secrets."""

from __future__ import annotations

import json
import logging
import sys
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: one in so many hot requests is timed; all are counted
SAMPLE = 16


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "onymous_requests",
            "Requests answered.",
            ["operation", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "onymous_request_seconds",
            "Time from request to answer (identity requests: a sample).",
            ["operation"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self._commits = Counter(
            "onymous_commits", "Write transactions.", ["transaction"], registry=self.registry
        )
        self._works = Counter(
            "onymous_commit_requests", "Requests in write transactions.", registry=self.registry
        )
        self.waiting = Gauge(
            "onymous_waiting_requests", "Requests waiting for an answer.", registry=self.registry
        )
        self.diagnostics = Gauge(
            "onymous_diagnostics", "Diagnostics noted, by kind.", ["kind"], registry=self.registry
        )
        self._plain: dict[tuple[str, int], int] = {}

    def request(self, operation: str, status: int, seconds: float) -> None:
        """Count a request; `seconds` below zero: not timed."""
        key = (operation, status)
        self._plain[key] = self._plain.get(key, 0) + 1
        if seconds >= 0:
            self._seconds.labels(operation).observe(seconds)

    def commit(self, transaction: str, works: int) -> None:
        """Count a write transaction and the requests that shared it."""
        self._commits.labels(transaction).inc()
        self._works.inc(works)

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        plain, self._plain = self._plain, {}
        for (operation, status), count in plain.items():
            self._requests.labels(operation, str(status)).inc(count)
        return generate_latest(self.registry)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(form: str) -> None:
    """Log to standard error as text or JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger("onymous")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False
