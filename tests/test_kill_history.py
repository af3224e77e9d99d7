"""kill -9 during ingestion and import: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

import asyncio
import csv
import json
import pathlib
import random
import signal
import sys
from typing import Any

import httpx
import msgspec
from tests.test_cases import settings_of
from tests.test_kill import TENANTS, Process

from onymous.app import Core, running
from onymous.flows.tenants import apply
from onymous.rules.identifiers import BY_NAME
from onymous.rules.profiles import Person

WORKERS = 16
NAMES = "SELECT pid, value FROM identity WHERE slot % 64 = ?"
_person = msgspec.msgpack.Decoder(Person)


async def persons(core: Core) -> dict[str, Person]:
    """Return the profiles by customer id."""
    async with core.store.read() as session:
        names = dict(await session.rows(NAMES, BY_NAME["customerid"].code))
        rows = await session.rows("SELECT pid, body FROM person")
    return {names[pid]: _person.decode(bytes(body)) for pid, body in rows}


async def test_no_batch_is_lost_or_counted_twice(place: Any, tmp_path: pathlib.Path) -> None:
    settings = settings_of(place, tmp_path)
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="test", now_ms=1)
    (made,) = out.credentials
    process = Process(settings.store, tmp_path)
    done = [0] * WORKERS
    chance = random.Random(5)
    for _ in range(3):
        await process.start()
        auth = (made.api_key, made.secret)
        async with httpx.AsyncClient(base_url=process.url, auth=auth, trust_env=False) as client:
            tasks = [asyncio.create_task(_send(client, n, done)) for n in range(WORKERS)]
            await asyncio.sleep(0.4 + chance.random() * 0.5)
            await process.kill()
            await asyncio.gather(*tasks)
    assert sum(done) > 100
    async with running(settings) as core:
        found = await persons(core)
        async with core.store.read() as session:
            kept = (await session.rows("SELECT count(*) FROM batch"))[0][0]
            sums = (await session.rows("SELECT CAST(sum(worth) AS BIGINT) FROM tally"))[0][0]
    total = 0
    for worker, count in enumerate(done):
        person = found[f"w{worker}"]
        worth = sum(person.worth.values()) // 1_000_000
        # the one under way when the process died may be there or not
        assert count <= worth <= count + 1
        assert worth == person.batches == person.events
        total += worth
    assert kept == total and sums == total * 1_000_000


async def _send(client: httpx.AsyncClient, worker: int, done: list[int]) -> None:
    """Send batches one after the other; the next run repeats the one that was not answered."""
    while True:
        batch = {
            "source_request_id": f"{worker}-{done[worker]}",
            "user_identities": {"customerid": f"w{worker}"},
            "events": [
                {
                    "event_type": "commerce_event",
                    "data": {"product_action": {"action": "purchase", "total_amount": 1}},
                }
            ],
        }
        try:
            reply = await client.post("/v2/events", json=batch)
        except httpx.HTTPError:
            return
        assert reply.status_code == 202
        done[worker] += 1


async def test_an_import_is_exact_after_being_killed(place: Any, tmp_path: pathlib.Path) -> None:
    settings = settings_of(place, tmp_path)
    async with running(settings) as core:
        await apply(core.store, core.key, TENANTS, actor="test", now_ms=1)
    rows = 12_000
    file = tmp_path / "people.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["customer_id", "email", "plan"])
        writer.writerows([f"c{n}", f"p{n}@x.io", "gold"] for n in range(rows))
    words = ["-m", "onymous", "import", str(file), "--feed", "server", "--json"]
    words += ["--store", settings.store]
    environ = {"PATH": "/usr/bin:/bin", "ONYMOUS_MASTER_KEY_FILE": settings.master_key_file}
    chance = random.Random(3)

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environ
        )

    for _ in range(3):
        process = await start()
        await asyncio.sleep(0.9 + chance.random() * 0.5)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    process = await start()
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    (report,) = json.loads(said).values()
    assert report["applied"] + report["before"] == rows
    async with running(settings) as core:
        found = await persons(core)
    assert len(found) == rows
    assert all(p.batches == 1 for p in found.values())
