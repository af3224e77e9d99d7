"""What history needs now and then: dictionaries, retention, the spool of earlier versions."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
from typing import Any

import msgspec
from tests.conftest import Place
from tests.flows.test_events_flow import purchase, send, view, who_is
from tests.web.serving import Running, running

from onymous.flows import upkeep
from onymous.flows.upkeep import DAY_MS, forget_batches, learn
from onymous.store import compression, history_sql, sql
from onymous.store.partitions import months


async def bodies_of(it: Running) -> list[bytes]:
    core = it.server.core
    async with core.store.read() as session:
        rows = await session.rows("SELECT dictionary, body FROM batch ORDER BY id")
        return [await core.bodies.unpack(session, *row) for row in rows]


async def test_a_dictionary_is_learnt_and_old_bodies_stay_readable(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(compression, "FIRST", 200)
    monkeypatch.setattr(upkeep, "FIRST", 200)
    monkeypatch.setattr(upkeep, "SAMPLES", 200)
    async with running(place, tmp_path) as it:
        rng = random.Random(1)
        sent = []
        plain = {"user_identities": {"customerid": "c1"}}
        assert await send(it, [plain] * 100, "/v2/bulkevents") == 202
        assert not it.server.core.bodies.plain, "what has no events teaches nothing about them"
        for start in range(0, 300, 100):
            batches = []
            for n in range(start, start + 100):
                events = [
                    {"event_type": "custom_event", "data": {"event_name": f"n{rng.random()}"}}
                    for _ in range(5)
                ]
                known = {"customerid": f"c{n % 7}"}
                batches.append({"user_identities": known, "events": events})
            sent += batches
            assert await send(it, batches, "/v2/bulkevents") == 202
        core = it.server.core
        while not core.bodies.current:  # ripe, being learnt, or learnt already
            await asyncio.sleep(0.01)
        assert core.bodies.current == 1
        assert not await learn(core.store, core.bodies, 1), "the next one needs many more"
        assert not core.bodies.ripe
        last = {"user_identities": {"customerid": "c1"}, "events": [purchase(1)]}
        assert await send(it, last) == 202
        found = [json.loads(b) for b in await bodies_of(it)]
        assert found == [*[plain] * 100, *sent, last]
        other = compression.Bodies()
        async with core.store.read() as session:
            rows = await session.rows("SELECT dictionary, body FROM batch ORDER BY id")
            assert {row[0] for row in rows} == {0, 1}
            assert json.loads(await other.unpack(session, *rows[-1])) == last


async def test_rows_of_files_teach_nothing(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    for name, value in (("FIRST", 200), ("SAMPLES", 200), ("LOOKS", 4)):
        monkeypatch.setattr(upkeep, name, value)
    learnt: list[list[bytes]] = []
    monkeypatch.setattr(upkeep, "train", lambda samples: learnt.append(samples) or b"")
    async with running(place, tmp_path) as it:
        core = it.server.core

        async def rows(count: int) -> None:
            plain = {"user_identities": {"customerid": "c1"}, "user_attributes": {"plan": "a"}}
            for _ in range(count // 100):
                assert await send(it, [plain] * 100, "/v2/bulkevents") == 202

        async def acts(count: int) -> None:
            one = {"user_identities": {"customerid": "c2"}, "events": [purchase(1)]}
            for _ in range(count // 50):
                assert await send(it, [one] * 50, "/v2/bulkevents") == 202

        await rows(300)
        assert not await learn(core.store, core.bodies, 1)
        await acts(50)
        assert not await learn(core.store, core.bodies, 2), "too few batches with events"
        await acts(100)
        await rows(300)
        await learn(core.store, core.bodies, 3)
        (samples,) = learnt
        assert len(samples) == 150 and all(b'"events"' in s for s in samples)
        # a store whose first batches came from a file has more of those than it has of events
        learnt.clear()
        core.bodies.current = 1
        monkeypatch.setattr(upkeep, "SAMPLES", 10)
        assert not await learn(core.store, core.bodies, 4), "150 of 750 are not yet 160"
        await acts(50)
        await learn(core.store, core.bodies, 5)
        assert len(learnt) == 1


async def test_retention_forgets_batches_and_keeps_profiles(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        batch = {"user_identities": {"customerid": "a"}, "events": [purchase(3)]}
        assert await send(it, batch) == 202
        core = it.server.core
        await forget_batches(core.store, 1)
        assert len(await bodies_of(it)) == 1
        await forget_batches(core.store, 1 << 60)
        assert await bodies_of(it) == []
        assert (await view(it, await who_is(it, customerid="a"))).lifetime_value == 3
        await core.upkeep.run(1_900_000_000_000)
        async with core.store.read() as session:
            assert (await session.rows("SELECT count(*) FROM batch"))[0][0] == 0


async def test_what_earlier_versions_spooled_is_applied_once(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        caller = core.directory.find("server-api-key")
        assert caller is not None
        batch = {"user_identities": {"customerid": "a"}, "events": [purchase(3)]}
        body = msgspec.msgpack.encode(json.dumps(batch).encode())
        async with core.store.write("test") as tx:
            for kind, request in (("batch", None), ("web", "r1"), ("quarantine", "q")):
                row = (5, kind, caller.workspace, caller.input, 0, request, body, None)
                await tx.run(sql.SPOOL_ADD, *row)
        assert await core.spool.drain() == 2
        assert await core.spool.drain() == 0
        mpid = await who_is(it, customerid="a")
        assert (await view(it, mpid)).lifetime_value == 6
        assert len(await core.spool.quarantined()) == 1
        assert (await core.spool.replay()).applied == 1
        assert (await view(it, mpid)).lifetime_value == 9
        assert await core.spool.quarantined() == []


async def test_old_months_go_at_once(own_postgres: Any, tmp_path: pathlib.Path) -> None:
    place = Place("postgresql", own_postgres.database())
    async with running(place, tmp_path) as it:
        core = it.server.core
        now = 1_900_000_000_000
        old = now - 900 * DAY_MS
        for at in (old, now):
            await core.store.upkeep(at)
        async with core.store.write("test") as tx:
            for at in (old, old + 40 * DAY_MS, now):
                row = (1, at, 0, 0, at, 1, 1, None, 0, core.bodies.pack(b"{}")[1])
                await tx.run(history_sql.BATCH_ADD, *row)
        parts = (
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = to_regclass('batch')"
        )
        gone = {name for name, _, _ in months(old)}
        async with core.store.read() as session:
            assert gone <= {row[0] for row in await session.rows(parts)}
        await core.upkeep.run(now)
        async with core.store.read() as session:
            left = {row[0] for row in await session.rows(parts)}
            rows = await session.rows("SELECT received FROM batch ORDER BY received")
        assert not gone & left
        assert left >= {"batch_rest", *(name for name, _, _ in months(now))}
        assert [row[0] for row in rows] == [now]
        async with core.store.read() as session:
            await session.rows("SELECT count(*) FROM batch")
            # a reader is not waited for without end, and loses nothing
            await core.store.upkeep(now + 900 * DAY_MS, now + 300 * DAY_MS)
            assert await session.rows("SELECT count(*) FROM batch") == [(1,)]
