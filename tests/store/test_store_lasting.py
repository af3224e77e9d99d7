"""What lasts and what does not: kill -9, deleted bytes, times written behind."""

from __future__ import annotations

import asyncio
import json
import pathlib
import signal
import sys

import apsw
from making import DEVICE, LOGIN, NOW, POOL, crowd, opened, pids, record, see, written

from conftest import Place, Postgres
from onymous.flows.seen import BLOCK, SeenBuffer, last_seen
from onymous.store import asking, sql
from onymous.store import sqlite as embedded
from onymous.store.packing import slot
from onymous.store.port import Probe, Store
from onymous.store.postgres import PostgresStore
from onymous.store.sqlite import SqliteStore

HERE = pathlib.Path(__file__).parent

KILLED = """
import asyncio, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from conftest import Place, run
from making import LOGIN, DEVICE, POOL, add, record, written
from onymous.store.port import Probe

async def main():
    store = Place(sys.argv[2], sys.argv[3]).store()
    await store.start()
    for n in range(1, 4):
        await written(store, record(n, {LOGIN: f"done{n}", DEVICE: "d"}))
    async with store.write("open") as tx:
        await tx.find([Probe(POOL, {LOGIN: "open", DEVICE: "d"})])
        await add(tx, record(9, {LOGIN: "open", DEVICE: "d"}))
        print("open", flush=True)
        await asyncio.sleep(60)

run(main())
"""


async def test_after_kill_9_what_was_committed_is_there_and_nothing_else(place: Place) -> None:
    paths = json.dumps([str(HERE), str(HERE.parent)])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, paths, place.engine, place.url),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with opened(place.store()) as store:
        found = await see(store, Probe(POOL, {LOGIN: "open", DEVICE: "d"}, also=(9,)))
        assert pids(found) == [1, 2, 3]
        # the claims and the lock died with the process
        await asyncio.wait_for(written(store, record(9, {LOGIN: "open"})), 10)


def everything(folder: pathlib.Path) -> bytes:
    return b"".join(f.read_bytes() for f in folder.iterdir())


async def test_deleted_values_are_in_no_file_of_the_folder(tmp_path: pathlib.Path) -> None:
    names = [f"anna.{n}.deleted@example.com" for n in range(300)]
    async with opened(SqliteStore(tmp_path)) as store:
        people = [record(n, {LOGIN: name}) for n, name in enumerate(names, 1)]
        await written(store, *people, record(999, {LOGIN: "kept@example.com"}))
        assert b".deleted@" in everything(tmp_path)
        async with store.write("erase") as tx:
            await tx.many(
                sql.IDENTITY_REMOVE,
                [(slot(POOL, LOGIN), name, 0, n) for n, name in enumerate(names, 1)],
            )
            await tx.many(sql.PROFILE_ERASE, [(8, b"\x90", n) for n in range(1, 301)])
        db = embedded.connect(store.path)
        db.set_busy_timeout(5000)
        assert db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)
        db.close()
        assert b"kept@example.com" in everything(tmp_path)
        assert b".deleted@" not in everything(tmp_path)


async def test_the_log_of_a_quiet_folder_is_emptied(tmp_path: pathlib.Path) -> None:
    store = SqliteStore(tmp_path, quiet_s=0.3)
    async with opened(store):
        await written(store, record(1, {LOGIN: "a"}))
        log = tmp_path / "onymous.db-wal"
        assert log.stat().st_size > 0
        for _ in range(100):
            if log.stat().st_size == 0:
                break
            await asyncio.sleep(0.05)
        assert log.stat().st_size == 0, "what was deleted must not stay in it"
        assert pids(await see(store, Probe(POOL, {LOGIN: "a"}))) == [1]


async def test_times_written_behind_come_back(store: Store) -> None:
    buffer = SeenBuffer()
    for pid in (1, BLOCK - 1, BLOCK, 40 * BLOCK + 7):
        buffer.touch(pid, NOW + pid * 1000)
    assert buffer.seen_ms(1) == NOW + 1000
    assert await buffer.flush(store, most=2) == 3
    assert buffer.seen_ms(1) == 0
    async with store.read() as session:
        for pid in (1, BLOCK - 1, BLOCK, 40 * BLOCK + 7):
            assert await last_seen(session, pid) == NOW + pid * 1000
        assert await last_seen(session, 2) == 0
        assert await last_seen(session, 1 << 40) == 0


async def test_times_of_two_processes_are_merged(store: Store, place: Place) -> None:
    one, two = SeenBuffer(), SeenBuffer()
    one.touch(1, NOW), two.touch(1, NOW + 60_000)
    one.touch(2, NOW + 90_000), two.touch(2, NOW)
    two.touch(3, NOW)
    async with opened(place.store()) as other:
        await two.flush(other)
        await one.flush(store)
        async with other.read() as session:
            times = [await last_seen(session, pid) for pid in (1, 2, 3)]
    assert times == [NOW + 60_000, NOW + 90_000, NOW]


async def test_times_that_could_not_be_written_are_kept(place: Place) -> None:
    store, buffer = place.store(), SeenBuffer()
    async with opened(store):
        pass
    buffer.touch(1, NOW)
    for _ in range(2):
        try:
            await buffer.flush(store)
        except Exception:
            buffer.touch(2, NOW)
    assert buffer.seen_ms(1) == NOW and buffer.seen_ms(2) == NOW
    async with opened(place.store()) as again:
        await buffer.flush(again)
        async with again.read() as session:
            assert await last_seen(session, 1) == await last_seen(session, 2) == NOW


async def test_a_crowd_costs_a_look_at_few_rows(postgres: Postgres) -> None:
    """The plan must not read all holders of a value, whatever the planner thinks of the tables."""
    async with opened(PostgresStore(postgres.database())) as store:
        await crowd(store, "hot", 3000)
        await see(store, Probe(POOL, {DEVICE: "hot"}))
        key = ([slot(POOL, DEVICE)], ["hot"])
        async with store.read() as session:
            plan = await session.rows(f"EXPLAIN ANALYZE {asking.HOLD}", *key)
            plan += await session.rows(f"EXPLAIN ANALYZE {asking.HOLD_MORE}", *key, *key, [1])
        text = "\n".join(row[0] for row in plan)
        assert "Seq Scan" not in text and "Bitmap" not in text, text
        assert "rows=300" not in text, text
