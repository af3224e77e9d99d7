"""Everybody who shares a commit is told how it ended: in any order of failing, leaving, closing."""

from __future__ import annotations

import asyncio
import pathlib
import random

import apsw
import pytest
from tests.store.making import opened
from tests.store.test_sharing import Work, names, puts

from onymous.store.port import StoreError, Transaction
from onymous.store.sqlite import SqliteStore
from onymous.store.steps import Outcome, drive

#: whoever is not told by then never will be
NEVER_S = 10


async def test_who_leaves_in_the_moment_of_the_commit_is_told(tmp_path: pathlib.Path) -> None:
    """Cancelled, then told of the commit, and only then awake: all in one turn of the loop."""
    async with opened(SqliteStore(tmp_path)) as store:
        sharing, loop = store._sharing, asyncio.get_running_loop()
        commit = sharing._commit

        def committed() -> None:
            commit()
            # stands in the loop's list just before the end, which is told from this thread
            loop.call_soon_threadsafe(task.cancel)

        sharing._commit = committed
        for n in range(20):
            task = asyncio.create_task(store.share("test", puts(str(n)), behind=False))
            done, _ = await asyncio.wait([task], timeout=NEVER_S)
            assert done
        assert await names(store) == {str(n) for n in range(20)}


async def test_an_end_told_before_the_cancelled_wakes_ends_the_wait() -> None:
    out: Outcome[int] = Outcome()

    async def waits() -> int:
        return await out.whole(lambda: False)

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    out.end(1)
    done, _ = await asyncio.wait([task], timeout=NEVER_S)
    assert done and task.cancelled()


@pytest.mark.parametrize("error", [asyncio.CancelledError, StopIteration])
async def test_a_work_that_ends_strangely_ends_alone(
    tmp_path: pathlib.Path, error: type[BaseException]
) -> None:
    def strange(tx: Transaction):  # type: ignore[no-untyped-def]
        if error is StopIteration:
            raise error
        return puts("strange", error())(tx)

    async with opened(SqliteStore(tmp_path, commit_delay_ms=20)) as store:
        first = asyncio.create_task(store.share("test", puts("first"), behind=False))
        await asyncio.sleep(0.005)
        works = [puts("a"), strange, puts("b")]
        some = [asyncio.create_task(store.share("test", w, behind=False)) for w in works]
        done, _ = await asyncio.wait([first, *some], timeout=NEVER_S)
        assert len(done) == 4
        await store.share("test", puts("next"), behind=False)
        assert await names(store) == {"first", "a", "b", "next"}
        assert some[1].cancelled() or some[1].exception() is not None


async def test_who_goes_on_and_breaks_keeps_nobody_waiting(tmp_path: pathlib.Path) -> None:
    """What goes on in the moment of the commit may raise anything."""
    async with opened(SqliteStore(tmp_path)) as store:

        async def breaks() -> None:
            await store.share("test", puts("a"), behind=False)
            raise asyncio.CancelledError

        await store._writing.acquire()
        drive(breaks())
        task = asyncio.create_task(store.share("test", puts("b"), behind=False))
        await asyncio.sleep(0)
        store._writing.release()
        done, _ = await asyncio.wait([task], timeout=NEVER_S)
        assert done
        async with asyncio.timeout(NEVER_S):
            await store.share("test", puts("c"), behind=False)
        assert await names(store) == {"a", "b", "c"}


async def test_a_loop_given_up_leaves_nobody_waiting(tmp_path: pathlib.Path) -> None:
    """Nor those who were not in the transaction."""
    async with opened(SqliteStore(tmp_path)) as store:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        await store._writing.acquire()
        works = [puts("a"), puts("b", GeneratorExit()), *(puts(str(n)) for n in range(20))]
        some = [asyncio.create_task(store.share("test", w, behind=False)) for w in works]
        await asyncio.sleep(0)
        store._writing.release()
        done, _ = await asyncio.wait(some, timeout=NEVER_S)
        assert len(done) == 22
        assert {type(task.exception()) for task in some} == {StoreError}
        await store.share("test", puts("next"), behind=False)
        assert await names(store) == {"next"}


@pytest.mark.parametrize("behind", [False, True])
async def test_closing_tells_who_still_waits(tmp_path: pathlib.Path, behind: bool) -> None:
    """In the transaction, in the queue, or waiting for company: done and durable, or told."""
    store = SqliteStore(tmp_path, commit_delay_ms=10)
    await store.start()
    await store.share("test", puts("first"), behind=False)
    works = [store.share("test", puts(str(n)), behind=behind) for n in range(40)]
    some = [asyncio.create_task(work) for work in works]
    await asyncio.sleep(0)
    await store.close()
    done, _ = await asyncio.wait(some, timeout=NEVER_S)
    assert len(done) == 40
    durable = {str(n) for n, task in enumerate(some) if task.exception() is None}
    async with opened(SqliteStore(tmp_path)) as again:
        assert await names(again) == {"first", *durable}


async def test_what_was_acknowledged_is_there_and_nothing_twice(tmp_path: pathlib.Path) -> None:
    """Works that fail, leave, or meet a commit that fails, among long writers and two processes."""
    rng = random.Random(7)
    one, two = SqliteStore(tmp_path), SqliteStore(tmp_path)
    told: dict[str, str] = {}

    async def one_of(store: SqliteStore, name: str) -> None:
        error = ValueError() if rng.random() < 0.1 else None
        try:
            if rng.random() < 0.1:
                async with store.write("test") as tx:
                    await once(name, error)(tx)
            else:
                await store.share("test", once(name, error), behind=rng.random() < 0.5)
            told[name] = "done"
        except asyncio.CancelledError:
            told[name] = "left"
        except (StoreError, ValueError):
            told[name] = "failed"

    async with opened(one), opened(two):
        for store in (one, two):
            break_commits(store, rng)
        some: list[asyncio.Task[None]] = []
        for n in range(400):
            some.append(asyncio.create_task(one_of((one, two)[n % 2], str(n))))
            if rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.004)
            if rng.random() < 0.2:
                rng.choice(some[-5:]).cancel()
        _, hung = await asyncio.wait(some, timeout=3 * NEVER_S)
        assert not hung
        there = await names(one)
    assert {name for name, how in told.items() if how == "done"} <= there
    assert not {name for name, how in told.items() if how == "failed"} & there
    assert {"done", "left", "failed"} == set(told.values())


def once(name: str, error: Exception | None) -> Work:
    """Return a work that breaks a constraint where it runs twice."""

    async def work(tx: Transaction) -> None:
        await tx.run("INSERT INTO meta (name, value) VALUES (?, x'31')", f"test {name}")
        if error is not None:
            raise error

    return work


def break_commits(store: SqliteStore, rng: random.Random) -> None:
    """Let one commit in twenty fail."""
    commit = store._commit

    def broken() -> None:
        if rng.random() < 0.05:
            raise apsw.IOError("the disk")
        commit()

    store._commit = store._sharing._commit = broken  # type: ignore[method-assign]
