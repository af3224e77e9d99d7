"""Jobs on both engines: done once, tried again, given up loudly."""

from __future__ import annotations

import asyncio
from typing import Any

from onymous.flows.jobs import MOST_TRIES, take, work
from onymous.store import sql
from onymous.store.port import Store


async def add(store: Store, kind: str, count: int) -> None:
    async with store.write("test") as tx:
        for n in range(count):
            await tx.run(sql.JOB_ADD, kind, 1000, b"%d" % n)


async def left(store: Store) -> list[Any]:
    async with store.read() as session:
        return await session.rows("SELECT kind, tries, error FROM job ORDER BY id")


async def test_due_jobs_are_done_and_gone(store: Store) -> None:
    await add(store, "x", 5)
    done: list[bytes] = []

    async def handler(body: bytes) -> None:
        done.append(body)

    assert await work(store, {"x": handler}, 999) == 0
    assert await work(store, {"x": handler}, 1000) == 5
    assert sorted(done) == [b"0", b"1", b"2", b"3", b"4"]
    assert await left(store) == []


async def test_a_failing_job_is_tried_again_and_given_up(store: Store) -> None:
    await add(store, "x", 1)

    async def handler(body: bytes) -> None:
        raise ValueError("private")

    now = 1000
    for _ in range(MOST_TRIES + 3):
        await work(store, {"x": handler}, now)
        now += 10_000_000
    assert await left(store) == [("x", MOST_TRIES, "ValueError")]


async def test_a_taken_job_is_nobody_elses_until_its_lease_ends(place: Any) -> None:
    one, two = place.store(), place.store()
    await one.start()
    await two.start()
    try:
        await add(one, "x", 50)
        mine, theirs = await asyncio.gather(take(one, 1000), take(two, 1000))
        assert len(mine) + len(theirs) == 50
        assert not {j.id for j in mine} & {j.id for j in theirs}
        assert await take(one, 1001) == []
        assert len(await take(two, 1000 + 62_000)) == 50
    finally:
        await one.close()
        await two.close()
