"""Ending under load: what was accepted is answered, what is written behind is written, code 0."""

from __future__ import annotations

import asyncio
import pathlib
import signal
from typing import Any

import httpx
from tests.operate.processes import Load, Process, all_there, prepared

from onymous.app import running
from onymous.flows.history import Historian
from onymous.settings import load


async def test_sigterm_under_load_answers_everything(place: Any, tmp_path: pathlib.Path) -> None:
    url, auth = await prepared(place, tmp_path)
    process = await Process(url, tmp_path, "serve", "--port", "0").start()
    async with Load(auth, [process.url]) as load_:
        await load_.until(200)
        process.signal()
        assert await process.ended() == 0, process.log()
    assert load_.unanswered == []
    assert set(load_.statuses) == {200}
    again = await Process(url, tmp_path, "serve", "--port", "0").start()
    await all_there(again.url, auth, load_.answered)
    assert await again.stop() == 0


async def test_what_is_written_behind_is_written(place: Any, tmp_path: pathlib.Path) -> None:
    url, auth = await prepared(place, tmp_path)
    process = await Process(url, tmp_path, "serve", "--port", "0").start()
    async with httpx.AsyncClient(base_url=process.url, auth=auth, trust_env=False) as client:
        for op in ("login", "identify", "identify"):
            body = {"environment": "production", "known_identities": {"customerid": "a"}}
            assert (await client.post(f"/v1/{op}", json=body)).status_code == 200
    assert await process.stop() == 0
    given = {"store": url, "master_key_file": str(tmp_path / "master.key")}
    async with running(load(given, environ={})) as core:
        async with core.store.read() as session:
            rows = await session.rows("SELECT op, count FROM journal ORDER BY op")
            seen = await session.rows("SELECT count(*) FROM seen")
        assert [(op, count) for op, count in rows] == [("identify", 2), ("login", 1)]
        assert isinstance(core.historian, Historian) and seen[0][0] >= 1


async def test_long_polls_and_streams_end_with_an_answer(
    place: Any, tmp_path: pathlib.Path
) -> None:
    url, auth = await prepared(place, tmp_path)
    process = await Process(url, tmp_path, "serve", "--port", "0").start()
    async with httpx.AsyncClient(
        base_url=process.url, auth=auth, trust_env=False, timeout=60
    ) as client:
        poll = asyncio.create_task(client.get("/v1/changes", params={"wait": 50}))
        async with client.stream("GET", "/v1/changes/stream") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == ": following"
            process.signal()
            assert [line async for line in lines if line] == [], "the stream ends in order"
        reply = await poll
    assert reply.status_code == 200 and reply.json()["changes"] == []
    assert await process.ended() == 0


async def test_while_it_leaves_it_says_so_and_still_serves(
    place: Any, tmp_path: pathlib.Path
) -> None:
    url, auth = await prepared(place, tmp_path)
    process = await Process(url, tmp_path, "serve", "--port", "0", stop_delay_s=120).start()
    body = {"environment": "production", "known_identities": {"customerid": "a"}}
    async with httpx.AsyncClient(base_url=process.url, auth=auth, trust_env=False) as client:
        assert (await client.get("/readyz")).status_code == 200
        process.signal()
        while (await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.01)
        assert (await client.get("/readyz")).json()["why"] == "this process is stopping"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/v1/login", json=body)).status_code == 200
        process.signal()  # the second one does not wait for the delay
        assert await process.ended() == 0


async def test_the_second_sigterm_waits_for_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    """A client that stops half-way through its body is waited for, until asked twice."""
    url, _ = await prepared(place, tmp_path)
    process = await Process(url, tmp_path, "serve", "--port", "0", stop_timeout_s=300).start()
    host, port = process.said["serving"]
    _, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
    await writer.drain()
    async with httpx.AsyncClient(base_url=process.url, trust_env=False) as client:
        await client.get("/healthz")
        process.signal(signal.SIGINT)
        await asyncio.sleep(2)
        assert process.process.returncode is None, "it waits for the request it began to take"
        process.signal(signal.SIGINT)
        assert await process.ended() == 1
    assert "1 requests were cut off" in process.log()
    writer.close()
