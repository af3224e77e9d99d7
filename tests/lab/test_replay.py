import asyncio
import base64
import json
import ssl
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace as changed

import pytest
import trustme
import uvloop

from onymous.lab.replay import Credentials, Refused, Replay, ServerUnreachable, replay
from onymous.lab.score import score
from onymous.lab.simulate import Step, World, simulate

CREDENTIALS = Credentials("app", "app-secret", "feed", "feed-secret")
APP = "Basic " + base64.b64encode(b"app:app-secret").decode()
FEED = "Basic " + base64.b64encode(b"feed:feed-secret").decode()

Answer = tuple[int, dict[str, str], bytes]


class Stub:
    """A tiny HTTP server on a real socket: remembers requests, answers as `reply` says."""

    def __init__(self, reply: Callable[["Stub", str, dict], Answer] | None = None) -> None:
        self.reply = reply or (lambda stub, path, body: stub.ok(body))
        self.requests: list[tuple[str, dict[str, str], dict]] = []
        self.mpids: dict[str, str] = {}
        self.connections = self.busy = self.most_busy = 0
        self.pause = 0.0

    def ok(self, body: dict, **more: object) -> Answer:
        """One MPID per customer id, or else per device stamp."""
        ids = body.get("known_identities") or {}
        customer = ids.get("customerid")
        who = customer or ids.get("device_application_stamp") or "?"
        mpid = self.mpids.setdefault(who, str(-(9_007_199_254_740_993 + len(self.mpids))))
        answer = {"mpid": mpid, "is_logged_in": customer is not None, **more}
        return 200, {}, json.dumps(answer).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                start, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.requests.append((start, headers, body))
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                await asyncio.sleep(self.pause)
                status, more, data = self.reply(self, start.split()[1], body)
                self.busy -= 1
                extra = "".join(f"{k}: {v}\r\n" for k, v in more.items())
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n".encode())
                writer.write(extra.encode() + b"\r\n" + data)
                if more.get("Connection") == "close":
                    return
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return
        finally:
            writer.close()


def drive(stub: Stub, steps: list[Step], prefix: str = "", **options: object) -> Replay:
    async def main() -> Replay:
        server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            url = f"http://127.0.0.1:{port}{prefix}"
            return await replay(steps, url, CREDENTIALS, **options)  # type: ignore[arg-type]

    return asyncio.run(main())


def step(op: str, client: str, person: str, number: int = 0, **ids: str | None) -> Step:
    name = f"{client}-{person}-{op}-{number}"
    return Step(number, op, client, person, "web", name, dict(ids), [], "")


def change(client: str, person: str) -> Step:
    entry = {"identity_type": "email", "old_value": "a@b.c", "new_value": "d@e.f"}
    return changed(step("modify", client, person), changes=[entry])


def test_wire_shapes():
    stub = Stub()
    steps = [
        step("identify", "web", "ann", 7, device_application_stamp="d", email=None),
        step("login", "web", "ann", customerid="c1"),
        change("web", "ann"),
        step("feed", "crm/0", "ann", customerid="c1", email="a@b.c"),
        step("logout", "web", "ann", device_application_stamp="d2"),
    ]
    result = drive(stub, steps, prefix="/identity", environment="production")
    starts = [start for start, _, _ in stub.requests]
    known = stub.mpids["c1"]
    assert starts == [
        "POST /identity/v1/identify HTTP/1.1",
        "POST /identity/v1/login HTTP/1.1",
        f"POST /identity/v1/{known}/modify HTTP/1.1",
        "POST /identity/v1/login HTTP/1.1",
        "POST /identity/v1/logout HTTP/1.1",
    ]
    assert [h["authorization"] for _, h, _ in stub.requests] == [APP, APP, APP, FEED, APP]
    first, second, modify, feed, _ = [body for _, _, body in stub.requests]
    assert first == {
        "client_sdk": {"platform": "web", "sdk_vendor": "onymous-lab", "sdk_version": "1"},
        "environment": "production",
        "context": None,
        "request_id": "web-ann-identify-7",
        "request_timestamp_ms": 7,
        "previous_mpid": None,
        "known_identities": {"device_application_stamp": "d", "email": None},
    }
    assert second["previous_mpid"] == stub.mpids["d"]
    assert modify["identity_changes"] == steps[2].changes and "known_identities" not in modify
    assert "previous_mpid" not in feed
    assert result.statuses == {200: 5} and result.steps == 5
    assert result.observations[1] == ("ann", known, True)
    assert result.observations[0] == ("ann", stub.mpids["d"], False)
    assert 0 < result.p50_ms <= result.p99_ms


def test_a_feed_leaves_no_mpid_behind_and_an_early_modify_is_not_sent():
    stub = Stub()
    result = drive(stub, [step("feed", "crm", "ann", customerid="c"), change("crm", "ann")])
    assert (result.skipped, result.statuses.total(), result.steps) == (1, 1, 2)


def test_order_within_client_and_person_and_parallel_otherwise():
    stub = Stub()
    stub.pause = 0.001
    steps = list(simulate(World(crm_feed=0.2), 5, 60, 1500))
    seen: list[int] = []
    result = drive(stub, steps, concurrency=16, on_progress=seen.append)
    assert result.steps == len(steps) == seen[-1]
    assert stub.most_busy > 4
    assert stub.connections == 16
    sent = [body["request_id"] for _, _, body in stub.requests]
    by_id = {s.request_id: s for s in steps}
    for key in ("client", "person"):
        expected, real = defaultdict(list), defaultdict(list)
        for s in steps:
            expected[getattr(s, key)].append(s.request_id)
        for request_id in sent:
            real[getattr(by_id[request_id], key)].append(request_id)
        assert real == expected
    assert result.mismatches == 0
    assert result.repeats == len(steps) - len(by_id)
    assert result.skipped == 0


def test_the_result_does_not_depend_on_the_number_of_connections():
    steps = list(simulate(World(), 9, 40, 600))
    results = []
    for concurrency in (1, 20):
        stub = Stub()
        found = drive(stub, steps, concurrency=concurrency)
        named = {mpid: who for who, mpid in stub.mpids.items()}
        results.append(sorted((p, named[m], k) for p, m, k in found.observations))
        assert score(found.observations).known_mixed == 0
    assert results[0] == results[1]


def test_a_repeat_is_the_same_request_and_must_get_the_same_answer():
    one = step("identify", "web", "ann", device_application_stamp="d")
    two = step("login", "web", "ann", customerid="c")
    stub = Stub()
    result = drive(stub, [one, two, one, two])
    bodies = [body for _, _, body in stub.requests]
    assert bodies[2] == bodies[0] and bodies[3] == bodies[1]
    assert (result.repeats, result.mismatches, len(result.observations)) == (2, 0, 2)
    forgetful = Stub(lambda stub, path, body: stub.ok(body, n=len(stub.requests)))
    assert drive(forgetful, [one, two, one, two]).mismatches == 2


@pytest.mark.parametrize("status", [429, 503])
def test_throttled_requests_come_again_after_the_pause(status: int):
    def reply(stub: Stub, path: str, body: dict) -> Answer:
        if len(stub.requests) < 3:
            return status, {"Retry-After": "0"}, b""
        return stub.ok(body)

    stub = Stub(reply)
    result = drive(stub, [step("identify", "web", "ann", device_application_stamp="d")])
    assert (result.retries, result.statuses) == (2, {status: 2, 200: 1})
    assert len(result.observations) == 1
    assert stub.requests[0][2] == stub.requests[2][2]


def test_retries_end():
    stub = Stub(lambda stub, path, body: (429, {"Retry-After": "0"}, b""))
    result = drive(stub, [step("identify", "web", "ann", device_application_stamp="d")])
    assert (result.statuses, result.steps, result.observations) == ({429: 6}, 1, [])


def test_other_failures_are_counted_and_the_rest_goes_on():
    def reply(stub: Stub, path: str, body: dict) -> Answer:
        which = len(stub.requests)
        return {1: (400, {}, b"{}"), 2: (200, {}, b"oops"), 3: (200, {}, b"\xff")}.get(
            which
        ) or stub.ok(body)

    steps = [step("identify", "w", "ann", n, device_application_stamp="d") for n in range(4)]
    result = drive(Stub(reply), steps)
    assert (result.statuses, result.unreadable) == ({400: 1, 200: 3}, 2)
    assert len(result.observations) == 1


def test_numbers_are_read_exactly():
    stub = Stub(lambda stub, path, body: (200, {}, b'{"mpid": -9007199254740993}'))
    result = drive(stub, [step("identify", "w", "ann", device_application_stamp="d")])
    assert result.observations == [("ann", "-9007199254740993", False)]


def test_wrong_credentials_stop_the_replay_without_naming_them():
    stub = Stub(lambda stub, path, body: (401, {}, b""))
    steps = [step("identify", f"w{n}", f"p{n}", device_application_stamp="d") for n in range(99)]
    with pytest.raises(Refused, match=r"app traffic \(401\)") as caught:
        drive(stub, steps, concurrency=2)
    assert "secret" not in str(caught.value).replace("key and secret", "")
    assert "app-secret" not in repr(CREDENTIALS)
    assert len(stub.requests) < 99


def test_a_server_that_closes_each_connection_works():
    def reply(stub: Stub, path: str, body: dict) -> Answer:
        status, _, data = stub.ok(body)
        return status, {"Connection": "close"}, data

    stub = Stub(reply)
    steps = [step("identify", "w", "ann", n, device_application_stamp="d") for n in range(5)]
    assert drive(stub, steps, concurrency=1).statuses == {200: 5}
    assert stub.connections == 5


def test_it_runs_on_uvloop_too():
    async def main() -> Replay:
        stub = Stub()
        server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            return await replay(simulate(World(), 1, 20, 200), url, CREDENTIALS)

    assert uvloop.run(main()).statuses == {200: 200}


def test_nobody_there():
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"):
        asyncio.run(replay([step("identify", "w", "a")], "http://127.0.0.1:1", CREDENTIALS))


def test_a_silent_server_and_one_that_speaks_no_http():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"what?\r\n\r\n")
        await reader.read()
        writer.close()

    async def main(handler, text: str) -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            with pytest.raises(ServerUnreachable, match=text):
                await replay([step("identify", "w", "a")], url, CREDENTIALS, timeout_s=0.3)

    asyncio.run(main(silent, r"within 0\.3 s"))
    asyncio.run(main(rude, "not HTTP"))


@pytest.mark.parametrize("url", ["ftp://x", "localhost:80", "http://"])
def test_bad_addresses(url: str):
    with pytest.raises(ValueError, match="http://127"):
        asyncio.run(replay([], url, CREDENTIALS))


def test_tls():
    authority = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def main() -> Replay:
        stub = Stub()
        server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, ssl=serving)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            return await replay([step("identify", "w", "a", x="y")], url, CREDENTIALS, tls=trusting)

    assert asyncio.run(main()).statuses == {200: 1}
