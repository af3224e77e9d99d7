"""Two processes on one store: whoever comes second sees what the first one wrote."""

# ruff: noqa: PT012 - the block is the transaction

from __future__ import annotations

import asyncio
import json
import pathlib
import random
import sys

import pytest
from making import DEVICE, EMAIL, LOGIN, POOL, add, opened, pids, record, see, written

from conftest import Place
from onymous.rules.records import Value
from onymous.store import sql
from onymous.store.packing import pack_values, slot
from onymous.store.port import LostRace, Probe, Store

HERE = pathlib.Path(__file__).parent


async def first_sight(store: Store, values: dict[int, str], pause: float = 0.0) -> int:
    """Return the record of the values, made if there is none; tries again after a lost race."""
    while True:
        try:
            async with store.write("sight") as tx:
                (found,) = await tx.find([Probe(POOL, values)])
                await asyncio.sleep(pause)
                if found.records:
                    return found.records[0].pid
                (pid,) = await tx.numbers("pid", 1)
                await add(tx, record(pid, values))
            return pid
        except LostRace:
            await asyncio.sleep(random.random() * 0.01)


@pytest.mark.parametrize(
    "values",
    [{LOGIN: "a"}, {DEVICE: "d"}, {EMAIL: "e", DEVICE: "d"}, {LOGIN: "a", DEVICE: "d"}],
    ids=["unique", "device", "two", "mixed"],
)
async def test_two_first_sights_make_one_record(
    store: Store, place: Place, values: dict[int, str]
) -> None:
    async with opened(place.store()) as other:
        for turn in range(10):
            mine = {code: f"{key}{turn}" for code, key in values.items()}
            tasks = [first_sight(s, mine, 0.002) for s in (store, other, store, other)]
            assert len(set(await asyncio.gather(*tasks))) == 1
            assert len((await see(store, Probe(POOL, mine))).records) == 1


async def test_sights_that_overlap_in_one_value_meet(store: Store, place: Place) -> None:
    async with opened(place.store()) as other:
        for turn in range(10):
            device = f"d{turn}"
            one = first_sight(store, {EMAIL: f"e{turn}", DEVICE: device}, 0.002)
            two = first_sight(other, {LOGIN: f"a{turn}", DEVICE: device}, 0.002)
            assert len(set(await asyncio.gather(one, two))) == 1


async def test_who_waited_sees_the_first_ones_record(store: Store, place: Place) -> None:
    async with opened(place.store()) as other:
        held, waited = asyncio.Event(), []

        async def second() -> None:
            await held.wait()
            async with other.write("second") as tx:
                (found,) = await tx.find([Probe(POOL, {LOGIN: "z", DEVICE: "d"})])
                waited.append(pids(found))

        task = asyncio.create_task(second())
        async with store.write("first") as tx:
            await tx.find([Probe(POOL, {LOGIN: "a", DEVICE: "d"})])
            await add(tx, record(1, {LOGIN: "a", DEVICE: "d"}))
            held.set()
            await asyncio.sleep(0.1)
            assert waited == [], "the claim is held"
        await task
        assert waited == [[1]]


async def test_who_waited_for_a_rollback_goes_on(store: Store, place: Place) -> None:
    async with opened(place.store()) as other:
        held = asyncio.Event()

        async def second() -> int:
            await held.wait()
            return await first_sight(other, {DEVICE: "d"})

        task = asyncio.create_task(second())
        with pytest.raises(ZeroDivisionError):
            async with store.write("first") as tx:
                await tx.find([Probe(POOL, {DEVICE: "d"})])
                await add(tx, record(900, {DEVICE: "d"}))
                held.set()
                await asyncio.sleep(0.05)
                raise ZeroDivisionError
        pid = await task
        assert pids(await see(store, Probe(POOL, {DEVICE: "d"}))) == [pid] != [900]


async def test_changes_of_one_record_through_different_values_add_up(
    store: Store, place: Place
) -> None:
    """Each attaches a value to the same record, found through another of its values."""
    await written(store, record(1, dict.fromkeys(range(10, 18), "v")))

    async def attach(which: Store, code: int) -> None:
        while True:
            try:
                async with which.write("attach") as tx:
                    found = await tx.find([Probe(POOL, {code: "v", code + 20: "new"})])
                    (one,) = found[0].records
                    await asyncio.sleep(0.002)
                    one.values.append(Value(code + 20, "new", None, 1, 1, 1, 1))
                    key = (slot(POOL, code + 20), "new", 1, 1, None)
                    await tx.run(sql.IDENTITY_ADD, *key)
                    await tx.run(sql.PROFILE_SET, 1, 1, 0, pack_values(one), 1)
                return
            except LostRace:
                await asyncio.sleep(random.random() * 0.01)

    async with opened(place.store()) as other:
        which = (store, other)
        await asyncio.gather(*(attach(which[n % 2], n) for n in range(10, 18)))
    (one,) = (await see(store, Probe(POOL, {10: "v"}))).records
    assert sorted(v.code for v in one.values) == [*range(10, 18), *range(30, 38)]


@pytest.mark.parametrize(
    "probe", [Probe(POOL, {}, also=(1,)), Probe(POOL, {LOGIN: "a"})], ids=["also", "other value"]
)
async def test_a_value_taken_meanwhile_is_not_found_any_more(
    store: Store, place: Place, probe: Probe
) -> None:
    """A record loses a value, by whatever it was found, while another asks for that value."""
    await written(store, record(1, {LOGIN: "a", DEVICE: "d"}), record(2, {LOGIN: "b"}))
    async with opened(place.store()) as other:
        held = asyncio.Event()

        async def second() -> list[int]:
            await held.wait()
            while True:
                try:
                    async with other.write("second") as tx:
                        (found,) = await tx.find([Probe(POOL, {DEVICE: "d"})])
                        return pids(found)
                except LostRace:
                    continue

        task = asyncio.create_task(second())
        async with store.write("first") as tx:
            (found,) = await tx.find([probe])
            (one,) = found.records
            held.set()
            await asyncio.sleep(0.05)
            one.values = one.values[:1]
            await tx.run(sql.IDENTITY_REMOVE, slot(POOL, DEVICE), "d", 1, 1)
            await tx.run(sql.PROFILE_SET, 1, 1, 0, pack_values(one), 1)
        assert await task == []


async def test_claims_in_different_orders_end(store: Store, place: Place) -> None:
    """Whatever circles may form, every transaction ends, done or as a lost race."""
    async with opened(place.store()) as other:
        seen = random.Random(7)

        async def one(which: Store) -> None:
            for _ in range(8):
                values = [f"v{seen.randrange(6)}" for _ in range(2)]
                try:
                    async with which.write("circle") as tx:
                        for value in values:
                            await tx.find([Probe(POOL, {DEVICE: value})])
                except LostRace:
                    continue

        await asyncio.wait_for(asyncio.gather(*(one(s) for s in (store, other) * 3)), 30)
    async with store.read() as session:
        assert await session.rows("SELECT count(*) FROM claim") == [(0,)]


PROCESS = """
import asyncio, json, sys
sys.path[:0] = json.loads(sys.argv[1])
from conftest import Place, run
from test_store_races import first_sight
from making import DEVICE, EMAIL

async def main():
    store = Place(sys.argv[2], sys.argv[3]).store()
    await store.start()
    print("ready", flush=True)
    sys.stdin.readline()
    out = []
    for start in range(0, 200, 20):
        some = range(start, start + 20)
        out += await asyncio.gather(
            *(first_sight(store, {EMAIL: f"e{n}", DEVICE: f"d{n}"}) for n in some))
    await store.close()
    print(json.dumps(out))

run(main())
"""


async def test_two_real_processes_make_one_record_each(place: Place) -> None:
    """They also start at once, on an empty folder or database."""
    paths = json.dumps([str(HERE), str(HERE.parent)])
    pipe = asyncio.subprocess.PIPE
    both = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROCESS, paths, place.engine, place.url),
            stdin=pipe,
            stdout=pipe,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(p.communicate(b"go\n") for p in both))
    mine, other = (json.loads(out) for out, _ in answers)
    assert mine == other and len(set(mine)) == 200
    async with opened(place.store()) as store, store.read() as session:
        assert await session.rows("SELECT count(*) FROM profile") == [(200,)]
        assert await session.rows("SELECT count(*) FROM identity") == [(400,)]
