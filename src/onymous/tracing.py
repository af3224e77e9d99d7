"""Traces for OpenTelemetry: request -> flow -> named transaction -> job.

This module is loaded only when `otlp_endpoint` is set. Spans name operations, transactions, kinds
and counts; never an identity, a key, an MPID or a path.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from onymous.flows.desk import Desk, Work
from onymous.flows.jobs import Job
from onymous.store import sql
from onymous.store.port import Store, T, Transaction, Writes
from onymous.web.calls import Call
from onymous.web.wire import Reply

#: links of a span at most
MOST_LINKS = 64
#: asked for all day by what watches us
QUIET = {"health", "ready", "metrics"}
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """The spans of one process and where they go."""

    def __init__(self, endpoint: str, share: float) -> None:
        version = importlib.metadata.version("onymous")
        about = {"service.name": "onymous", "service.version": version}
        self._provider = TracerProvider(
            resource=Resource.create(about),
            sampler=ParentBased(TraceIdRatioBased(share)),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("onymous", version)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    # -- requests ---------------------------------------------------------------------------

    def request(self, op: str, call: Call) -> Callable[[Reply], None]:
        """Begin the span of a request, as part of its caller's trace, in this context."""
        if op in QUIET:
            return lambda reply: None
        given = {name: call.header(name.encode()) for name in ("traceparent", "tracestate")}
        carrier = {name: value for name, value in given.items() if value}
        span = self._tracer.start_span(
            f"{call.method} {op}",
            context=_propagator.extract(carrier, context.Context()),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": call.method, "onymous.operation": op},
        )
        context.attach(trace.set_span_in_context(span))

        def done(reply: Reply) -> None:
            span.set_attribute("http.response.status_code", reply.status)
            if reply.reason:
                span.set_attribute("onymous.refused", reply.reason)
            if reply.status >= 500:
                span.set_status(trace.StatusCode.ERROR)
            span.end()

        return done

    # -- transactions -----------------------------------------------------------------------

    def store(self, store: Store) -> Store:
        """Give each named transaction of a traced request or job a span; jobs get its trace."""
        write, share = store.write, store.share

        @asynccontextmanager
        async def traced(name: str) -> AsyncIterator[Transaction]:
            if not trace.get_current_span().is_recording():
                async with write(name) as tx:
                    yield tx
                return
            with self._span(f"transaction {name}", {"onymous.transaction": name}):
                async with write(name) as tx:
                    yield _traced_jobs(tx, _traceparent())

        async def shared(name: str, work: Writes[T], *, behind: bool = True) -> T:
            if not trace.get_current_span().is_recording():
                return await share(name, work, behind=behind)
            with self._span(f"transaction {name}", {"onymous.transaction": name}):
                # others run the work: the trace it belongs to is asked for here
                origin = _traceparent()

                async def told(tx: Transaction) -> T:
                    return await work(_traced_jobs(tx, origin))

                return await share(name, told, behind=behind)

        store.write = traced  # type: ignore[method-assign]
        store.share = shared  # type: ignore[method-assign]
        return store

    @contextmanager
    def _span(self, name: str, attributes: dict[str, Any], **more: Any) -> Iterator[trace.Span]:
        """Make a span the current one; of an error only its kind is told."""
        with self._tracer.start_as_current_span(
            name,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
            **more,
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise

    # -- flows ------------------------------------------------------------------------------

    def desk(self, desk: Desk) -> None:
        """Follow works through the desk, where several share one transaction."""
        _TracedDesk(desk, self._tracer)

    # -- jobs -------------------------------------------------------------------------------

    @contextmanager
    def job(self, kind: str, jobs: Sequence[Job]) -> Iterator[None]:
        """Make a span of jobs done together: part of the first one's trace, linked to all."""
        origins = [_origin(job.trace) for job in jobs if job.trace][:MOST_LINKS]
        links = [trace.Link(trace.get_current_span(o).get_span_context()) for o in origins[1:]]
        attributes: dict[str, Any] = {"onymous.job": kind, "onymous.jobs": len(jobs)}
        attributes["onymous.tries"] = max(job.tries for job in jobs)
        parent = origins[0] if origins else context.Context()
        kinds = trace.SpanKind.CONSUMER
        with self._span(f"job {kind}", attributes, context=parent, links=links, kind=kinds):
            yield


def _origin(traceparent: str) -> context.Context:
    return _propagator.extract({"traceparent": traceparent}, context.Context())


def _traceparent() -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def _traced_jobs(tx: Transaction, traceparent: str | None) -> Transaction:
    """Let jobs promised in a transaction know its trace."""
    run = tx.run

    async def traced(statement: str, *args: object) -> None:
        if statement is sql.JOB_ADD:
            await run(sql.JOB_ADD_TRACED, *args, traceparent)
        else:
            await run(statement, *args)

    tx.run = traced  # type: ignore[method-assign]
    return tx


class _TracedDesk:
    """Spans of works: from their arrival to their answer, and the commit they shared."""

    def __init__(self, desk: Desk, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._spans: dict[int, trace.Span] = {}
        self._look, self._transact, self._fail = desk._look, desk._transact, desk._fail
        submit, submit_write, together = desk.submit, desk.submit_write, desk.submit_together
        self._desk = desk
        for name, plain in (("submit", submit), ("submit_write", submit_write)):
            setattr(desk, name, self._entered(plain))

        def tied(works: Sequence[Work]) -> None:
            for work in works:
                self._enter(work)
            together(works)

        desk.submit_together = tied  # type: ignore[method-assign]
        desk._look = self._looked  # type: ignore[method-assign]
        desk._transact = self._transacted  # type: ignore[method-assign]
        desk._fail = self._failed  # type: ignore[method-assign]

    def _entered(self, submit: Callable[[Work], None]) -> Callable[[Work], None]:
        def entered(work: Work) -> None:
            self._enter(work)
            submit(work)

        return entered

    def _enter(self, work: Work) -> None:
        if trace.get_current_span().is_recording():
            self._spans[id(work)] = self._tracer.start_span(f"flow {work.name}")

    def _looked(self, works: list[Work], founds: Any) -> None:
        self._look(works, founds)
        if self._spans:
            waiting = {id(work) for work in self._desk._writing}
            for work in works:
                if id(work) not in waiting:
                    self._end(work, "read")

    async def _transacted(self, works: Any, failed: Any) -> Any:
        traced = [self._spans[id(work)] for work in works if id(work) in self._spans]
        if not traced:
            return await self._transact(works, failed)
        began = time.time_ns()
        token = context.attach(trace.set_span_in_context(traced[0]))
        try:
            spare = await self._transact(works, failed)
        finally:
            context.detach(token)
        for span in traced[1:]:
            shared = self._tracer.start_span(
                "transaction identity",
                context=trace.set_span_in_context(span),
                start_time=began,
                links=[trace.Link(traced[0].get_span_context())],
                attributes={"onymous.transaction": "identity", "onymous.together": len(works)},
            )
            shared.end()
        for work in works:
            self._end(work, "written")
        return spare

    def _failed(self, works: Sequence[Any], error: Exception) -> None:
        for work in works:
            self._end(work, type(error).__name__)
        self._fail(works, error)

    def _end(self, work: Work, outcome: str) -> None:
        span = self._spans.pop(id(work), None)
        if span is not None:
            span.set_attribute("onymous.outcome", outcome)
            span.end()
