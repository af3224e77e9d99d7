"""kill -9 during ingestion and import: nothing acknowledged lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import csv
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable

import httpx
import msgspec

from onymous.app import Core, running
from onymous.flows.tenants import apply
from onymous.lab.audit import Violation
from onymous.lab.ground import Ground, Process
from onymous.lab.soak import TENANTS, Count, Going
from onymous.rules.identifiers import BY_NAME
from onymous.rules.profiles import MOST_CONSENTS, Person
from onymous.settings import Settings

Progress = Callable[[int], None]
WORKERS = 16
#: rows of a file; a kill comes while some of them are applied
ROWS = 20_000
#: devices of each worker
DEVICES = 3
NAMES = "SELECT pid, value FROM identity WHERE slot % 64 = ?"
MARKS = "SELECT value FROM meta WHERE name LIKE 'import:%'"
_person = msgspec.msgpack.Decoder(Person)


async def _persons(core: Core, of: str) -> dict[str, Person]:
    """Return profiles by customer id, of those whose customer id begins in a way."""
    async with core.store.read() as session:
        names: dict[int, str] = dict(await session.rows(NAMES, BY_NAME["customerid"].code))
        rows = await session.rows("SELECT pid, body FROM person")
    found = {names[pid]: _person.decode(bytes(body)) for pid, body in rows}
    return {name: person for name, person in found.items() if name.startswith(of)}


# -- ingestion ----------------------------------------------------------------------------------


async def ingestion(
    ground: Ground, times: int, seed: int, progress: Progress, going: Going
) -> Count:
    """Kill a serving process while batches come in, again and again, and count them."""
    out = Count(what="batches acknowledged before a kill, counted once after it")
    rng, done = random.Random(seed), [0] * WORKERS
    async with ground.fresh() as settings:
        auth = await _tenants(settings)
        for turn in range(times):
            if not going():
                break
            await _sent(settings, auth, rng, done)
            await _counted(settings, done)
            out.done, out.checked = turn + 1, sum(done)
            progress(1)
    return out


async def _tenants(settings: Settings) -> tuple[str, str]:
    """Set up the tenants; returns key and secret of a server."""
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="soak", now_ms=1)
    made = next(c for c in out.credentials if c.input == "server")
    return made.api_key, made.secret


async def _sent(
    settings: Settings, auth: tuple[str, str], rng: random.Random, done: list[int]
) -> None:
    """Send batches to a process until it is killed."""
    process = Process(settings)
    await process.start()
    enough = sum(done) + rng.randrange(30, 600)
    url = f"http://127.0.0.1:{process.port}"
    async with httpx.AsyncClient(base_url=url, auth=auth, trust_env=False) as client:
        tasks = [asyncio.create_task(_send(client, n, done)) for n in range(WORKERS)]
        try:
            while sum(done) < enough and not all(t.done() for t in tasks):
                await asyncio.sleep(0.005)
        finally:
            await process.kill()
        await asyncio.gather(*tasks)


async def _send(client: httpx.AsyncClient, worker: int, done: list[int]) -> None:
    """Send batches one after the other; the next run repeats the one that was not answered."""
    action = {"action": "purchase", "total_amount": 1}
    event = {"event_type": "commerce_event", "data": {"product_action": action}}
    while True:
        n = done[worker]
        answer = {"consented": n % 2 == 0, "timestamp_unixtime_ms": n + 1}
        batch = {
            "source_request_id": f"{worker}-{n}",
            "user_identities": {"customerid": f"w{worker}"},
            "mp_deviceid": f"stamp-{worker}-{n % DEVICES}",
            "consent_state": {"gdpr": {"ads": answer}},
            "user_attributes": {"count": str(n)},
            "events": [event],
        }
        try:
            reply = await client.post("/v2/events", json=batch)
        except (httpx.HTTPError, AttributeError):
            return
        if reply.status_code != 202:
            raise Violation(f"an answer under load was {reply.status_code}")
        done[worker] += 1


async def _counted(settings: Settings, done: list[int]) -> None:
    """Check that each batch counts once: in the profile, in history, in what windows sum."""
    async with running(settings) as core:
        found = await _persons(core, "w")
        async with core.store.read() as session:
            kept = (await session.rows("SELECT count(*) FROM batch"))[0][0]
            sums = (await session.rows("SELECT CAST(sum(worth) AS BIGINT) FROM tally"))[0][0]
    total = 0
    for worker, count in enumerate(done):
        person = found.get(f"w{worker}")
        worth = sum(person.worth.values()) // 1_000_000 if person is not None else 0
        # the one under way when the process died may be there or not
        if not count <= worth <= count + 1:
            raise Violation(f"of {count} acknowledged batches {worth} count")
        if person is not None:
            _agrees(person, worth)
        total += worth
    if (kept, sums or 0) != (total, total * 1_000_000):
        raise Violation(f"{total} batches count, {kept} are kept, {sums} is summed")


def _agrees(person: Person, count: int) -> None:
    """Check that a person is what so many batches make of them."""
    if not count == person.batches == person.events:
        raise Violation("the counters of a profile do not agree")
    answers = [c for name, c in person.consents if name == "gdpr/ads"]
    kept = range(max(0, count - MOST_CONSENTS), count)
    if [(c.at_ms, c.consented) for c in answers] != [(n + 1, n % 2 == 0) for n in kept]:
        raise Violation("an answer about consent is lost or there twice")
    if person.consent["gdpr/ads"] != answers[-1]:
        raise Violation("the last answer about consent is not the one in force")
    if len({d.stamp for d in person.devices}) != len(person.devices) or len(person.devices) != min(
        DEVICES, count
    ):
        raise Violation("a device is lost or there twice")
    if person.attributes["count"].value != str(count - 1):
        raise Violation("an attribute is not the last one sent")


# -- import -------------------------------------------------------------------------------------


async def imports(ground: Ground, times: int, seed: int, progress: Progress, going: Going) -> Count:
    """Kill imports of files, start them again, and count the rows.

    Each file is killed up to three times. One row in ten changes somebody earlier in the file,
    one in fifty is rejected.
    """
    out = Count(what="rows of files that were killed, applied once")
    rng = random.Random(seed)
    async with ground.fresh() as settings:
        await _tenants(settings)
        with tempfile.TemporaryDirectory(prefix="onymous-soak-") as folder:
            while out.done < times and going():
                name = f"f{out.done}-"
                file = pathlib.Path(folder) / f"{name}.csv"
                _write(file, name)
                for _ in range(min(3, times - out.done)):
                    await _killed(settings, file, rng)
                    out.done += 1
                    progress(1)
                code = await asyncio.to_thread(_started(settings, file).wait)
                if code:
                    raise Violation(f"an import that was started again ended with {code}")
                out.checked += await _imported(settings, file, name)
    return out


def _write(file: pathlib.Path, name: str) -> None:
    """Write a file of people; what becomes of each row follows from its number."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["customer_id", "email", "device", "plan"])
        for n in range(ROWS):
            who = f"{name}{n - n % 10 if n % 10 == 9 else n}"
            if n % 50 == 7:
                writer.writerow(["", "", "", "nobody"])
            else:
                writer.writerow([who, f"{who}@x.io", f"{name}d{n}", f"p{n}"])


def _started(settings: Settings, file: pathlib.Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "onymous", "import", str(file), "--feed", "server", "--json"]
    words += ["--map", "device=ios_idfv", "--store", settings.store]
    environ = {**os.environ, "ONYMOUS_MASTER_KEY_FILE": settings.master_key_file}
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environ)  # noqa: S603 (ours)


async def _killed(settings: Settings, file: pathlib.Path, rng: random.Random) -> None:
    """Start an import and kill it soon after it got further."""
    async with running(settings) as core:

        async def marks() -> list[bytes]:
            async with core.store.read() as session:
                return sorted(bytes(row[0]) for row in await session.rows(MARKS))

        before = await marks()
        process = _started(settings, file)
        while process.poll() is None and await marks() == before:
            await asyncio.sleep(0.002)
        await asyncio.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)


async def _imported(settings: Settings, file: pathlib.Path, name: str) -> int:
    """Check that each row of a file was applied once, and each rejected row is told once."""
    async with running(settings) as core:
        found = await _persons(core, name)
    wanted: dict[str, int] = {}
    for n in range(ROWS):
        if n % 50 != 7:
            who = f"{name}{n - n % 10 if n % 10 == 9 else n}"
            wanted[who] = wanted.get(who, 0) + 1
    if {who: person.batches for who, person in found.items()} != wanted:
        raise Violation("a row of a file is lost or counted twice")
    with file.with_name(file.name + ".rejects.csv").open(newline="") as told:
        rows = list(csv.reader(told))[1:]
    if rows != [[str(n + 1), "no_usable_identity", ""] for n in range(ROWS) if n % 50 == 7]:
        raise Violation("the file of rejected rows is not exact")
    return ROWS
