"""Limits and their headers over the wire; heads that are too large; CORS on every answer."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import psutil
import pytest
from tests.web.serving import Running, running

from onymous.flows.tenants import apply

LIMITED = """
organization: Test
scopes:
  people:
    strategy: profile_conversion
    login: [customerid, email]
    unique: [customerid, email]
    priority: [customerid, email, other, ios_idfv, device_application_stamp]
    email_lower: true
workspaces:
  one:
    scope: people
    inputs:
      slow: {kind: server, api_key: slow-api-key, requests_per_second: 4}
      page: {kind: web, api_key: page-api-key, requests_per_second: 4,
             cors_origins: ["https://shop.example"]}
"""
BATCH: dict[str, Any] = {"environment": "production", "events": []}
SHARE = "x-mp-rate-limit-percentage-used"


async def limited(it: Running) -> None:
    core = it.server.core
    out = await apply(core.store, core.key, LIMITED, actor="test", now_ms=2)
    it.secrets |= {c.input: c.secret for c in out.credentials}
    await core.directory.load()


async def test_the_limit_of_an_input_is_told_and_kept(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await limited(it)
        for who, key_only in (("slow", False), ("page", True)):
            replies = await asyncio.gather(
                *(
                    it.ask("identify", {"ios_idfv": "D"}, who=who, key_only=key_only)
                    for _ in "x" * 30
                )
            )
            refused = [r for r in replies if r.status_code == 429]
            assert refused
            assert int(refused[0].headers["retry-after"]) >= 1
            assert refused[0].headers["x-mp-rate-limit-exceeded"] == "app"
            shares = [int(r.headers[SHARE]) for r in replies if r.status_code == 200]
            assert max(shares) == 100
            assert set(shares) <= {25, 50, 75, 100}
        free = await it.ask("identify", {"ios_idfv": "D"})
        assert free.headers[SHARE] == "0"


async def test_batches_and_aliases_count_too(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await limited(it)

        async def batch(n: int, **more: Any) -> int:
            body = BATCH | {"user_identities": {"other": f"o{n}"}} | more
            return (
                await it.client.post("/v2/events", json=body, headers=it.basic("slow"))
            ).status_code

        statuses = await asyncio.gather(*(batch(n) for n in range(30)))
        assert set(statuses) == {202, 429}
        data = {"source_mpid": "1", "destination_mpid": "2"}
        aliases = [
            it.client.post(
                "/v1/identity/slow-api-key/alias",
                json={"environment": "production", "data": data},
                headers=it.basic("slow"),
            )
            for _ in range(30)
        ]
        assert {r.status_code for r in await asyncio.gather(*aliases)} <= {400, 429}


async def test_batches_of_a_public_key_make_a_bounded_number_of_records(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path, address_profiles_per_hour=3) as it:

        async def visit(n: int) -> int:
            body = BATCH | {"device_info": {}, "mp_deviceid": f"stamp number {n}"}
            path = "/v3/JS/web-api-key/events"
            return (await it.client.post(path, content=json.dumps(body))).status_code

        assert [await visit(n) for n in range(6)] == [202, 202, 202, 429, 429, 429]
        assert (await it.counts())["profile"] == 3


async def test_a_public_key_belongs_to_its_pages(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await limited(it)
        for origin, status in (("https://shop.example", 202), ("https://evil.example", 403)):
            reply = await it.client.post(
                "/v3/JS/page-api-key/events", json=BATCH, headers={"Origin": origin}
            )
            assert reply.status_code == status


HEADS = {
    "a long header": b"GET /healthz HTTP/1.1\r\nhost: x\r\na: " + b"b" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
    "a long address": b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "nonsense": b"NONSENSE\r\n\r\n",
    "a wrong length": b"POST /v1/identify HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    "a tls greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", HEADS)
async def test_bad_heads_are_refused_like_everything_else(
    place: Any, tmp_path: pathlib.Path, name: str
) -> None:
    async with running(place, tmp_path) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rsplit(":", 1)[1]))
        writer.write(HEADS[name])
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
        body = json.loads(await reader.read())
        writer.close()
        status = 431 if "long" in name or "many" in name else 400
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert "access-control-allow-origin: *" in head
        assert "connection: close" in head
        assert body["errors"] == body["Errors"]
        assert body["hint"]


async def test_a_head_without_end_takes_no_memory(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        port = int(it.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        resident = psutil.Process().memory_info().rss
        try:
            for n in range(4_000):
                writer.write(b"x%d: " % n + b"y" * 10_000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
        assert psutil.Process().memory_info().rss - resident < 20 << 20
        writer.close()
        # pieces of an ordinary head are no reason to refuse
        body = b'{"environment":"production","known_identities":{"ios_idfv":"D"}}'
        whole = (
            f"POST /v1/identify HTTP/1.1\r\nhost: x\r\n{'a: bcd' * 1}\r\n"
            f"authorization: {it.basic()['Authorization']}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            for start in range(0, len(whole), 7):
                writer.write(whole[start : start + 7])
                await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            assert head.startswith(b"HTTP/1.1 200 ")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
        writer.close()


async def test_cors_on_every_answer(place: Any, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    async with running(place, tmp_path, address_requests_per_second=1) as it:
        web = {"x-mp-key": "web-api-key"}
        good = {"environment": "production", "known_identities": {"ios_idfv": "D"}}
        seen: dict[int, Any] = {}

        async def note(method: str, path: str, **sent: Any) -> None:
            reply = await it.client.request(method, path, **sent)
            assert reply.headers["access-control-allow-origin"] == "*", (method, path)
            seen.setdefault(reply.status_code, reply)

        await note("POST", "/v1/identify", json=good, headers=it.basic())
        await note("OPTIONS", "/v1/identify")
        await note("POST", "/v1/identify", json=good)
        await note("POST", "/v1/search", json=good, headers=web)
        await note("POST", "/v1/identify", content=b"{", headers=it.basic())
        await note("GET", "/nothing")
        await note("PUT", "/v1/identify")
        await note("POST", "/v1/identify", content=b"x" * (1 << 20), headers=it.basic())
        for _ in range(10):
            await note("POST", "/v1/identify", json=good, headers=web)
        await note("POST", "/v3/JS/web-api-key/events", json=BATCH)

        def broken(*given: Any) -> None:
            raise RuntimeError("a value: D")

        monkeypatch.setattr(it.server.core.resolver, "ask", broken)
        await note("POST", "/v1/login", json=good, headers=it.basic())
        assert {200, 204, 400, 401, 403, 404, 405, 413, 429, 500} <= set(seen)
        assert seen[405].headers["allow"] == "POST"
        assert seen[500].json()["ErrorCode"] == "INTERNAL_ERROR"
        assert "a value" not in seen[500].text


async def test_pages_of_search_lose_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    """Of more holders than are sorted by last seen, and of fewer, every one is on one page."""
    async with running(place, tmp_path) as it:
        for many in (230, 620):
            device = {"ios_idfv": f"D{many}"}
            made = []
            for start in range(0, many, 20):
                some = await asyncio.gather(
                    *(it.ask("logout", device) for _ in range(min(20, many - start)))
                )
                made += [reply.json()["mpid"] for reply in some]
            last = (await it.ask("identify", device)).json()["mpid"]
            found: list[str] = []
            page: str | None = "0"
            while page is not None:
                reply = (await it.ask("search", device, params={"page": page})).json()
                assert reply["mpid"] == last
                found += [match["mpid"] for match in reply["matches"]]
                page = reply["next_page"]
            assert sorted(found) == sorted(made)
