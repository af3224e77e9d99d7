"""Jobs on both engines: done once, tried again, given up loudly."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from tests.store.making import opened

from onymous.app import Core, running
from onymous.flows import jobs
from onymous.flows.jobs import MOST_TRIES, again, given_up, take, waiting, work
from onymous.settings import load
from onymous.store import sql
from onymous.store.port import Store
from onymous.store.sqlite import SqliteStore
from onymous.worker import run


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
        mine, theirs = await asyncio.gather(take(one, 1000, {"x"}), take(two, 1000, {"x"}))
        assert len(mine) + len(theirs) == 50
        assert not {j.id for j in mine} & {j.id for j in theirs}
        assert await take(one, 1001, {"x"}) == []
        assert len(await take(two, 1000 + 62_000, {"x"})) == 50
    finally:
        await one.close()
        await two.close()


async def test_kinds_only_a_newer_version_knows_wait_for_it(store: Store) -> None:
    await add(store, "new", 300)
    await add(store, "x", 1)
    done: list[bytes] = []

    async def handler(body: bytes) -> None:
        done.append(body)

    assert await work(store, {"x": handler}, 1000) == 1
    assert await left(store) == [("new", 0, None)] * 300
    assert await work(store, {"new": handler}, 1000) == 200


async def test_a_bad_job_keeps_none_of_the_others(store: Store) -> None:
    await add(store, "x", 5)
    done: list[bytes] = []

    async def together(bodies: list[bytes]) -> None:
        if b"3" in bodies:
            raise ValueError("private")
        done.extend(bodies)

    assert await work(store, {}, 1000, {"x": together}) == 5
    assert sorted(done) == [b"0", b"1", b"2", b"4"]
    assert await left(store) == [("x", 1, "ValueError")]


async def test_workers_that_die_over_a_job_give_it_up_in_the_end(store: Store) -> None:
    await add(store, "x", 1)
    now = 1000
    for _ in range(MOST_TRIES):
        assert len(await take(store, now, {"x"})) == 1, "what a dead worker held is taken again"
        now += 62_000
    assert await take(store, now, {"x"}) == []
    (lost,) = await given_up(store, now)
    assert (lost.kind, lost.tries, lost.error) == ("x", MOST_TRIES, None)
    (stand,) = await waiting(store, now)
    assert (stand.open, stand.held, stand.given_up) == (0, 0, 1)
    await again(store, [lost.id], now)
    assert await given_up(store, now) == []
    assert len(await take(store, now, {"x"})) == 1


async def test_who_lost_a_job_to_another_does_not_let_go_of_it(place: Any) -> None:
    one, two = place.store(), place.store()
    await one.start()
    await two.start()
    try:
        await add(one, "x", 1)

        async def slow(body: bytes) -> None:
            # silent for longer than the lease: another worker takes the job
            assert len(await take(two, 1000 + 62_000, {"x"})) == 1
            raise ValueError

        assert await work(one, {"x": slow}, 1000) == 1
        assert await take(one, 1000 + 63_000, {"x"}) == [], "it is still the other's"
        assert (await waiting(two, 1000 + 63_000))[0].held == 1
    finally:
        await one.close()
        await two.close()


async def test_a_failure_noted_with_a_longer_lease_in_one_transaction_is_noted(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(jobs, "LEASE_MS", 30)  # looked at again after 10 ms
    async with opened(SqliteStore(tmp_path)) as store:
        await add(store, "x", 1)

        async def handler(body: bytes) -> None:
            await store._writing.acquire()
            while not store._sharing._queue:  # the longer lease waits to be written
                await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0.02, store._writing.release)
            raise ValueError("private")

        await work(store, {"x": handler}, 1000)
        assert await left(store) == [("x", 1, "ValueError")]


async def test_who_is_to_end_ends_whatever_fails_then(store: Store) -> None:
    await add(store, "x", 1)
    begun = asyncio.Event()

    async def handler(body: bytes) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("what was begun could not be tidied up")

    worker = asyncio.create_task(run(store, {"x": handler}, {}))
    await begun.wait()
    worker.cancel()
    done, _ = await asyncio.wait([worker], timeout=20)
    assert done and worker.cancelled()


async def test_who_works_has_ended_before_the_store_closes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doing: list[str] = []

    async def slow(*args: Any, tell: bool = True, **kwargs: Any) -> None:
        doing.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.0 if tell else 0.2)  # one of two takes longer to end
            doing.append("ended")

    monkeypatch.setattr("onymous.worker.run", slow)
    async with running(load({"store": f"sqlite:{tmp_path}/s"}, environ={})) as core:
        work = asyncio.create_task(core.work())
        while doing != ["begun", "begun"]:
            await asyncio.sleep(0.01)
        work.cancel()
        await asyncio.wait([work])
        assert doing == ["begun", "begun", "ended", "ended"]


async def test_housekeeping_ends_whatever_fails_then(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onymous.app.TICK_S", 0.01)
    begun = asyncio.Event()

    async def step() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("what was begun could not be tidied up")

    core = Core(load({"store": f"sqlite:{tmp_path}/s"}, environ={}))
    await core.start()
    monkeypatch.setattr(core.merging, "refresh", step)
    await begun.wait()
    closing = asyncio.create_task(core.close())
    done, _ = await asyncio.wait([closing], timeout=20)
    assert done and closing.exception() is None
