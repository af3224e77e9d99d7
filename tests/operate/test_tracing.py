"""Traces arrive at a real OTLP receiver, hang together, and name nobody."""

from __future__ import annotations

import asyncio
import http.server
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.web.serving import running

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver:
    """Takes traces over OTLP/HTTP, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.raw = b""
        taken = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                taken.raw += body
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        taken.spans += scope.spans
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def of(self, trace: str) -> dict[str, Any]:
        """The spans of a trace by name."""
        return {s.name: s for s in self.spans if s.trace_id.hex() == trace}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def attributes(span: Any) -> dict[str, str]:
    return {a.key: a.value.string_value or str(a.value.int_value) for a in span.attributes}


async def no_jobs(it: Any) -> None:
    for _ in range(300):
        if not (await it.counts())["job"]:
            return
        await asyncio.sleep(0.05)
    pytest.fail("jobs stay undone")


async def test_a_request_its_flow_its_transaction_and_its_job_are_one_trace(
    place: Any, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    async with running(place, tmp_path, otlp_endpoint=receiver.url) as it:
        given = {"customerid": "known-customer-1", "email": "anna.known@x.io"}
        it.client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
        reply = await it.ask("login", given, request_id="r1")
        assert reply.status_code == 200
        mpid = reply.json()["mpid"]
        del it.client.headers["traceparent"]
        await no_jobs(it)
        assert (await it.ask("login", given)).status_code == 200
        history = await it.client.get(f"/v1/{mpid}/history", headers=it.basic())
        assert history.status_code == 200
        assert (await it.ask("identify", {"nonsense": "x"})).status_code == 400
        assert (await it.client.get("/readyz")).status_code == 200
        secret = it.secrets["server"]
    spans = receiver.of(TRACE)
    request, flow = spans["POST login"], spans["flow identity"]
    wrote, job = spans["transaction identity"], spans["job identity_changed"]
    assert request.parent_span_id.hex() == PARENT
    assert flow.parent_span_id == request.span_id
    assert wrote.parent_span_id == flow.span_id
    assert job.parent_span_id == wrote.span_id
    assert spans["transaction changes"].parent_span_id == job.span_id
    assert attributes(request)["http.response.status_code"] == "200"
    assert attributes(flow)["onymous.outcome"] == "written"
    names = {s.name for s in receiver.spans}
    assert {"GET history", "POST identify"} <= names
    assert "GET ready" not in names
    refused = next(s for s in receiver.spans if s.name == "POST identify")
    assert attributes(refused)["onymous.refused"] == "UnknownIdentityType"
    reads = [s for s in receiver.spans if attributes(s).get("onymous.outcome") == "read"]
    assert reads, "who is known is answered by a read"
    for value in ("known-customer", "anna.known", secret, mpid, "server-api-key", "nonsense"):
        assert value.encode() not in receiver.raw


async def test_requests_that_share_a_commit_have_a_transaction_each(
    place: Any, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    async with running(place, tmp_path, otlp_endpoint=receiver.url) as it:
        asked = [it.ask("login", {"customerid": str(n)}) for n in range(20)]
        assert {r.status_code for r in await asyncio.gather(*asked)} == {200}
    flows = {s.span_id for s in receiver.spans if s.name == "flow identity"}
    wrote = [s for s in receiver.spans if s.name == "transaction identity"]
    assert len(flows) == 20 and {s.parent_span_id for s in wrote} == flows


async def test_callers_decide_whether_they_are_traced(
    place: Any, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    async with running(place, tmp_path, otlp_endpoint=receiver.url, trace_share=0) as it:
        assert (await it.ask("login", {"customerid": "1"})).status_code == 200
        it.client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
        assert (await it.ask("login", {"customerid": "2"})).status_code == 200
    assert {s.trace_id.hex() for s in receiver.spans} == {TRACE}


async def test_a_receiver_that_is_gone_disturbs_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, otlp_endpoint="http://127.0.0.1:9") as it:
        assert (await it.ask("login", {"customerid": "1"})).status_code == 200


def test_without_the_setting_nothing_of_it_is_loaded() -> None:
    code = "import sys, onymous.cli; print([m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
