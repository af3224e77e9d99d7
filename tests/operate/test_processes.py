"""Several processes on one store: on one port, replaced when they die; work left to a worker."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
from typing import Any

import httpx
import psutil
from tests.operate.processes import Load, Process, all_there, free_ports, prepared


async def found(url: str) -> str:
    """Text of /metrics, once it answers."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for _ in range(600):
            try:
                return (await client.get(f"{url}/metrics")).text
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


async def test_several_processes_on_one_port(place: Any, tmp_path: pathlib.Path) -> None:
    url, auth = await prepared(place, tmp_path)
    port = free_ports(3)
    words = ("serve", "--port", "0", "--processes", "2", "--manage-port", str(port))
    group = await Process(url, tmp_path, *words).start()
    children = psutil.Process(group.process.pid).children()
    assert len(children) == 2
    async with Load(auth, [group.url], callers=8) as load:
        await load.until(80)
        pages = [await found(f"http://127.0.0.1:{port + n}") for n in range(2)]
        assert all('onymous_requests_total{operation="login",status="200"}' in p for p in pages)
        children[1].send_signal(signal.SIGKILL)
        for _ in range(600):
            alive = psutil.Process(group.process.pid).children()
            if len(alive) == 2 and children[1].pid not in [c.pid for c in alive]:
                break
            await asyncio.sleep(0.05)
        await found(f"http://127.0.0.1:{port + 1}")
        cut = len(load.unanswered)  # what the killed one had under way has no answer
        await load.until(40)
        group.signal()
        assert await group.ended() == 0, group.log()
    assert len(load.unanswered) == cut, "the end in order cut nobody off"
    assert set(load.statuses) == {200}
    again = await Process(url, tmp_path, "serve", "--port", "0").start()
    await all_there(again.url, auth, load.answered)
    assert await again.stop() == 0


async def test_work_is_left_to_the_worker(place: Any, tmp_path: pathlib.Path) -> None:
    url, auth = await prepared(place, tmp_path)
    server = await Process(url, tmp_path, "serve", "--port", "0", "--no-work").start()
    async with httpx.AsyncClient(base_url=server.url, auth=auth, trust_env=False) as client:
        body = {"environment": "production", "known_identities": {"customerid": "a"}}
        assert (await client.post("/v1/login", json=body)).status_code == 200
        page = (await client.get("/v1/changes", params={"after": 0, "wait": 2})).json()
        assert page["changes"] == [], "nobody publishes"
        port = free_ports(3)
        worker = await Process(url, tmp_path, "work", "--manage-port", str(port)).start()
        assert worker.said == {"working": port}
        page = (await client.get("/v1/changes", params={"after": 0, "wait": 30})).json()
        assert len(page["changes"]) == 1
        text = await found(f"http://127.0.0.1:{port}")
        assert 'onymous_jobs_done_total{kind="identity_changed",outcome="done"} 1.0' in text
        async with httpx.AsyncClient(trust_env=False) as other:
            assert (await other.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
            refused = await other.post(f"http://127.0.0.1:{port}/v1/login", json=body, auth=auth)
            assert refused.status_code == 404, "a worker serves operators only"
    assert await worker.stop() == 0, worker.log()
    assert await server.stop() == 0, server.log()


async def test_logs_are_lines_of_json_that_name_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    url, auth = await prepared(place, tmp_path)
    asked = "6f0c8f7e-3f5b-4d2e-9a55-0d6a3c1b2e4f"
    server = await Process(
        url, tmp_path, "serve", "--port", "0", log_format="json", access_log=True
    ).start()
    async with httpx.AsyncClient(base_url=server.url, auth=auth, trust_env=False) as client:
        known = {"customerid": "known-customer", "email": "anna.known@x.io"}
        body = {"environment": "production", "known_identities": known}
        reply = await client.post("/v1/login", json={**body, "request_id": asked})
        mpid = reply.json()["mpid"]
        await client.post("/v1/login", json={**body, "request_id": "anna.known@x.io"})
        await client.get(f"/v1/{mpid}/history")
        await client.get("/v1/history-of/anna.known@x.io?email=anna.known@x.io")
        await client.post("/v1/login", content=b'{"known_identities": {"email": "anna.known@x')
        await client.post("/v1/login", json=body, auth=("server-api-key", "wrong-secret"))
    _, writer = await asyncio.open_connection(*server.said["serving"])
    writer.write(b"anna.known@x.io\x00 HTTP/9\r\n\r\n")
    await writer.drain()
    writer.close()
    assert await server.stop() == 0
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert all({"at", "level", "logger"} <= line.keys() for line in lines)
    requests = [line for line in lines if line["logger"] == "onymous.access"]
    logins = [line for line in requests if line["operation"] == "login"]
    assert [line["status"] for line in logins] == [200, 200, 400, 401]
    assert logins[0]["request_id"] == asked
    assert logins[1]["request_id"].startswith("digest:")
    assert {"refused": "Unauthorized"}.items() <= logins[3].items()
    history = next(line for line in requests if line["operation"] == "history")
    assert history["status"] == 200
    for value in ("known-customer", "anna.known", mpid, auth[1], "server-api-key", "wrong-secret"):
        assert value not in server.log()
