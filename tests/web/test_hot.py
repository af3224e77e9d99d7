"""Hot routes answer exactly what the ordinary way answers, however the bytes arrive."""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
from typing import Any

import pytest
from tests.web.serving import TENANTS, Running, running

from onymous.flows import glance
from onymous.flows.tenants import apply
from onymous.rules.obvious import obvious

KEY = "x-mp-key: web-api-key"


def request(body: bytes, *headers: str, path: str = "/v1/identify", version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def identify(known: Any, **more: Any) -> bytes:
    return json.dumps({"environment": "production", "known_identities": known, **more}).encode()


async def exchange(it: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes on one connection and return everything that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2]))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def stripped(answer: bytes) -> bytes:
    """Return an answer without what differs between any two answers."""
    varying = rb'"mpid":"-?\d+"|"matched_identities":\{[^}]*\}|connection: \w+\r\n'
    return re.sub(varying, b"", answer)


BODIES = {
    "fine": identify({"customerid": "1", "email": "a@x.io"}),
    "nobody": identify({}),
    "unknown type": identify({"customer_id": "1"}),
    "number": identify({"customerid": 1}),
    "null": identify(None),
    "not json": b"{nonsense",
    "empty": b"",
    "array": b"[]",
    "bad utf-8": b'{"environment":"production","known_identities":{"email":"\xff"}}',
    "surrogate": b'{"environment":"production","known_identities":{"email":"\\ud800"}}',
    "other environment": json.dumps({"environment": "x", "known_identities": {}}).encode(),
    "large": identify({"email": "x" * 300_000}),
}
HEADERS = {
    "key": [KEY],
    "wrong key": ["x-mp-key: nobody-has-this"],
    "none": [],
    "twice": [KEY, "x-mp-key: other"],
    "basic": ["authorization: Basic %%%"],
}


@pytest.mark.parametrize("path", ["/v1/identify", "/v1/login", "/v1/search", "/v1/logout"])
async def test_both_ways_say_the_same(place: Any, tmp_path: pathlib.Path, path: str) -> None:
    async with running(place, tmp_path) as it:
        for name, body in BODIES.items():
            for headers in HEADERS.values():
                hot = await exchange(it, request(body, *headers, "connection: close", path=path))
                # an unusual header sends a request the ordinary way
                slow = await exchange(
                    it,
                    request(
                        body,
                        *headers,
                        "x-http-method-override: POST",
                        "connection: close",
                        path=path,
                    ),
                )
                one, two = stripped(hot), stripped(slow)
                assert one.partition(b"\r\n")[0] == two.partition(b"\r\n")[0], (name, headers)
                assert one.partition(b"\r\n\r\n")[2] == two.partition(b"\r\n\r\n")[2], name
                assert b" 5" not in one[8:11]


async def test_bytes_may_arrive_in_any_pieces(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        whole = request(BODIES["fine"], KEY, "connection: close")
        for cut in range(1, len(whole), 9):
            answer = await exchange(it, whole[:cut], whole[cut:], pause=0.001)
            assert answer.startswith(b"HTTP/1.1 200"), cut
        bytewise = await exchange(it, *(whole[n : n + 1] for n in range(len(whole))))
        assert bytewise.startswith(b"HTTP/1.1 200")


async def test_pipelined_requests_are_answered_in_order(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        names = [f"p{n}" for n in range(20)]
        made = {}
        for name in names:
            reply = await it.ask("identify", {"customerid": name})
            made[name] = reply.json()["mpid"]
        requests = [request(identify({"customerid": n}), KEY) for n in names]
        last = request(identify({"customerid": "p0"}), KEY, "connection: close")
        answer = await exchange(it, b"".join(requests) + last)
        found = re.findall(rb'"mpid":"(-?\d+)"', answer)
        assert [m.decode() for m in found] == [*(made[n] for n in names), made["p0"]]


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/identify HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked"
        b"\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/identify HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6"
        b"\r\n\r\n12345",
        b"POST /v1/identify HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/identify HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /v1/identify HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET " + b"/" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_strange_framing_is_refused(place: Any, tmp_path: pathlib.Path, raw: bytes) -> None:
    async with running(place, tmp_path) as it:
        try:
            answer = await asyncio.wait_for(exchange(it, raw), 3)
        except TimeoutError:
            answer = b""
        assert b"HTTP/1.1 5" not in answer and b"HTTP/1.1 200" not in answer
        assert (await it.counts())["profile"] == 0
        assert (await it.client.get("/readyz")).status_code == 200


async def test_old_and_slow_clients(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        old = await exchange(it, request(BODIES["fine"], KEY, version="1.0"))
        assert b" 200 " in old.partition(b"\r\n")[0]
        expect = request(BODIES["fine"], KEY, "expect: 100-continue", "connection: close")
        assert b" 200 " in await exchange(it, expect)
        size = len(BODIES["fine"])
        head = f"POST /v1/identify HTTP/1.1\r\nhost: x\r\n{KEY}\r\n"
        chunked = f"{head}transfer-encoding: chunked\r\nconnection: close\r\n\r\n{size:x}\r\n"
        whole = chunked.encode() + BODIES["fine"] + b"\r\n0\r\n\r\n"
        assert b" 200 " in await exchange(it, whole)
        gone = head.encode() + b"content-length: 100000\r\n\r\n{"
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2]))
            writer.write(gone)
            writer.close()
        assert (await it.ask("identify", {"customerid": "1"})).status_code == 200


async def one_after_the_other(it: Running, *requests: bytes) -> list[bytes]:
    """Send requests on one connection, each after the answer to the one before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2]))
    out = []
    for one in requests:
        writer.write(one)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        size = re.search(rb"content-length: (\d+)", head)
        out.append(head + await reader.readexactly(int(size[1]) if size else 0))
    writer.close()
    return out


STAMP = "7A0CDD5B-1c1c-4222-8333-000000000001"
KNOWN: dict[str, dict[str, Any]] = {
    "all": {"customerid": "customer-17", "email": "anna@example.org"},
    "in another order": {"email": "anna@example.org", "customerid": "customer-17"},
    "one": {"customerid": "customer-17"},
    "with nulls": {"other": None, "email": "anna@example.org", "facebook": None},
    "stamp in capitals": {"device_application_stamp": STAMP, "customerid": "customer-17"},
    "trimmed": {"customerid": " customer-17"},
    "short": {"customerid": "c1"},
    "only the device": {"device_application_stamp": STAMP},
    "another device": {"customerid": "customer-17", "ios_idfv": "b" * 36},
    "somebody else's e-mail": {"customerid": "customer-99", "email": "anna@example.org"},
    "placeholder": {"customerid": "customer-17", "other": "undefined"},
}


@pytest.mark.parametrize("key", ["web-api-key", "server"])
@pytest.mark.parametrize("op", ["identify", "login"])
async def test_a_glance_says_what_the_ordinary_way_says(
    place: Any, tmp_path: pathlib.Path, op: str, key: str
) -> None:
    """Heads that come again, from callers seen before: those requests are taken at a glance."""
    async with running(place, tmp_path) as it:
        first = {**KNOWN["all"], "device_application_stamp": STAMP}
        await it.ask("login", first)
        await it.ask("login", {"customerid": "customer-99"})
        auth = [KEY] if key == "web-api-key" else [f"authorization: {it.basic()['Authorization']}"]
        for name, known in KNOWN.items():
            for more in ({}, {"request_id": "r" * 20}, {"previous_mpid": "12345"}):
                # a request id of its own, or the answers would be those of a repeat
                bodies = [
                    identify(known, **({"request_id": f"{name}-{n:03}-{op}"} if more else {}))
                    for n in range(100, 105)
                ]
                hot = await one_after_the_other(
                    it, *(request(b, *auth, path=f"/v1/{op}") for b in bodies)
                )
                override = "x-http-method-override: POST"
                slow = await one_after_the_other(
                    it, request(bodies[0], *auth, override, path=f"/v1/{op}")
                )
                told = [json.loads(h.partition(b"\r\n\r\n")[2]) for h in (*hot[1:], *slow)]
                assert all(t == told[0] for t in told), name
                assert told[0]["mpid"] and told[0]["matched_identities"]
                heads = [h.partition(b"\r\n\r\n")[0].split(b"\r\n") for h in (*hot[1:], *slow)]
                assert all(sorted(h) == sorted(heads[0]) for h in heads), name


async def test_who_is_known_is_told_the_same_while_nothing_changed(
    place: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told last is told again only while the record just read is the same."""
    judged: list[object] = []

    def counted(*args: Any) -> int:
        judged.append(args)
        return obvious(*args)

    monkeypatch.setattr(glance, "obvious", counted)
    both = {"customerid": "customer-17", "email": "anna@example.org"}
    asked = request(identify(both), KEY)

    async def told(it: Running) -> dict[str, Any]:
        """Ask four times, the last three at a glance, and once the ordinary way."""
        hot = await one_after_the_other(it, *[asked] * 4)
        slow = (await it.ask("identify", both, key_only=True, who="web")).json()
        answers = [json.loads(h.partition(b"\r\n\r\n")[2]) for h in hot]
        assert answers[1:] == [slow] * 3
        return answers[-1]

    async with running(place, tmp_path) as it:
        mpid = (await it.ask("login", both)).json()["mpid"]
        assert (await told(it))["mpid"] == mpid
        assert len(judged) == 1, "judged once, told three times"
        change = {
            "identity_type": "email",
            "old_value": both["email"],
            "new_value": "b@example.org",
        }
        assert (await it.modify(mpid, [change])).status_code == 200
        assert (await told(it))["matched_identities"] == {"customerid": "customer-17"}
        change |= {"old_value": "b@example.org", "new_value": both["email"]}
        assert (await it.modify(mpid, [change])).status_code == 200
        assert (await told(it))["matched_identities"] == both
        other = {"identity_type": "email", "old_value": None, "new_value": both["email"]}
        stranger = (await it.ask("login", {"customerid": "customer-99"})).json()["mpid"]
        assert (await it.modify(stranger, [other])).status_code == 200
        assert (await told(it))["matched_identities"] == {"customerid": "customer-17"}
        await it.erase(mpid)
        assert (await told(it))["mpid"] != mpid


async def test_a_repeat_is_answered_like_the_first_time(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await it.ask("login", {"customerid": "customer-17"})
        body = identify({"customerid": "customer-17"}, request_id="once-and-again")
        other = identify({"customerid": "customer-18"}, request_id="once-and-again")
        answers = await one_after_the_other(it, *[request(body, KEY)] * 4, request(other, KEY))
        assert len(set(answers[:4])) == 1
        assert stripped(answers[4]).startswith(b"HTTP/1.1 200")
        assert answers[4] != answers[0], "the same id with another body is another request"


async def test_a_key_that_is_switched_off_is_refused_at_once(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """What is remembered of a head ends with the directory it was true of."""
    async with running(place, tmp_path) as it:
        known = request(identify({"customerid": "customer-17"}), KEY)
        assert all(
            a.startswith(b"HTTP/1.1 200") for a in await one_after_the_other(it, *[known] * 4)
        )
        core = it.server.core
        off = TENANTS.replace("api_key: web-api-key", "api_key: web-api-key, active: false")
        await apply(core.store, core.key, off, actor="test", now_ms=2)
        await core.directory.load()
        assert (await one_after_the_other(it, known))[0].startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/v1/identify", "/v1/login?cb=1", "/v1/5/modify"])
async def test_an_offer_of_http2_is_passed_over(
    place: Any, tmp_path: pathlib.Path, path: str
) -> None:
    """As Java's client makes it with its first request of a connection without TLS."""
    offer = (
        "connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAEAAEAAAAIAAAAB",
        "Upgrade: h2c",
    )
    body = (
        b'{"environment":"production","known_identities":{"customerid":"u"},"identity_changes":[]}'
    )
    lines = "\r\n".join((f"POST {path} HTTP/1.1", "host: x", KEY, *offer))
    raw = f"{lines}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    async with running(place, tmp_path) as it:
        port = int(it.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(raw)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            said = await reader.readexactly(size)
            # nobody has MPID 5
            assert (b'"mpid":"' in said) or (b"The MPID is not known here" in said), said
        writer.close()
