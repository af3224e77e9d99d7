"""Short write transactions share a commit: who fails takes nobody along, nobody waits for ever."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Awaitable, Callable

import apsw
import pytest
from tests.store.making import opened

from conftest import Place
from onymous.store import sql
from onymous.store.port import LostRace, Store, StoreError, Transaction
from onymous.store.sharing import MOST_TOGETHER
from onymous.store.sqlite import SqliteStore

Work = Callable[[Transaction], Awaitable[None]]


def puts(name: str, error: BaseException | None = None) -> Work:
    """Return a work that notes its name, and fails afterwards if it is to."""

    async def work(tx: Transaction) -> None:
        await tx.run(sql.META_PUT, f"test {name}", b"1")
        if error is not None:
            raise error

    return work


async def names(store: Store) -> set[str]:
    async with store.read() as session:
        rows = await session.rows("SELECT name FROM meta WHERE name LIKE 'test %'")
    return {row[0].removeprefix("test ") for row in rows}


def count_commits(store: SqliteStore, fail: bool = False) -> list[int]:
    """Count the commits of a store in the list returned; `fail` lets the first one fail."""
    commits: list[int] = []
    sharing = store._sharing
    commit = sharing._commit

    def counted() -> None:
        commits.append(1)
        if fail and len(commits) == 1:
            raise apsw.IOError("the disk")
        commit()

    sharing._commit = counted
    return commits


async def test_each_is_durable_on_its_own_on_both_engines(place: Place) -> None:
    async with opened(place.store()) as store:
        works = [puts(str(n), ValueError() if n == 3 else None) for n in range(5)]
        out = await asyncio.gather(
            *(store.share("test", work, behind=n % 2 == 0) for n, work in enumerate(works)),
            return_exceptions=True,
        )
        assert [type(o) for o in out] == [type(None)] * 3 + [ValueError, type(None)]
        assert await names(store) == {"0", "1", "2", "4"}


async def test_what_comes_during_a_commit_shares_the_next(tmp_path: pathlib.Path) -> None:
    async with opened(SqliteStore(tmp_path, commit_delay_ms=20)) as store:
        commits = count_commits(store)
        many = [store.share("test", puts(str(n)), behind=False) for n in range(MOST_TOGETHER + 1)]
        await asyncio.gather(*many)
        assert len(await names(store)) == MOST_TOGETHER + 1
        assert len(commits) == 2


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_who_fails_takes_nobody_along(tmp_path: pathlib.Path, bad: int) -> None:
    async with opened(SqliteStore(tmp_path, commit_delay_ms=20)) as store:
        first = asyncio.create_task(store.share("test", puts("first"), behind=False))
        await asyncio.sleep(0.005)  # its commit is under way: the next three share theirs
        errors = [LostRace("test: gone") if n == bad else None for n in range(3)]
        some = [store.share("test", puts(str(n), e), behind=False) for n, e in enumerate(errors)]
        out = await asyncio.gather(*some, return_exceptions=True)
        await first
        assert [isinstance(o, LostRace) for o in out] == [n == bad for n in range(3)]
        assert await names(store) == {"first", "0", "1", "2"} - {str(bad)}


async def test_a_constraint_of_one_is_a_lost_race_of_one(tmp_path: pathlib.Path) -> None:
    async def twice(tx: Transaction) -> None:
        for _ in range(2):
            await tx.run("INSERT INTO meta (name, value) VALUES ('test twice', x'31')")

    async with opened(SqliteStore(tmp_path, commit_delay_ms=20)) as store:
        first = asyncio.create_task(store.share("test", puts("first"), behind=False))
        await asyncio.sleep(0.005)
        out = await asyncio.gather(
            store.share("test", puts("a"), behind=False),
            store.share("test", twice, behind=False),
            store.share("test", puts("b"), behind=False),
            return_exceptions=True,
        )
        await first
        assert out[0] is out[2] is None and isinstance(out[1], LostRace)
        assert await names(store) == {"first", "a", "b"}


async def test_a_commit_that_fails_fails_for_all_and_the_next_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    async with opened(SqliteStore(tmp_path)) as store:
        count_commits(store, fail=True)
        held = store._writing
        await held.acquire()
        some = [asyncio.create_task(store.share("test", puts(n), behind=False)) for n in "ab"]
        await asyncio.sleep(0)
        held.release()
        out = await asyncio.gather(*some, return_exceptions=True)
        assert [type(o) for o in out] == [StoreError, StoreError]
        assert await names(store) == set()
        await store.share("test", puts("c"), behind=False)
        assert await names(store) == {"c"}


async def test_a_transaction_the_engine_ended_is_told_to_all(tmp_path: pathlib.Path) -> None:
    """Some errors (a full disk) end the whole transaction, not the statement."""

    async def ends(tx: Transaction) -> None:
        store._writer.execute("ROLLBACK")
        raise apsw.FullError("the disk")

    async with opened(SqliteStore(tmp_path)) as store:
        held = store._writing
        await held.acquire()
        works = [puts("a"), ends, puts("b")]
        some = [asyncio.create_task(store.share("test", w, behind=False)) for w in works]
        await asyncio.sleep(0)
        held.release()
        out = await asyncio.gather(*some, return_exceptions=True)
        assert [type(o) for o in out] == [StoreError] * 3
        assert await names(store) == set()


async def test_the_cancelled_wait_for_what_is_under_way(tmp_path: pathlib.Path) -> None:
    async with opened(SqliteStore(tmp_path, commit_delay_ms=30)) as store:
        under_way = asyncio.create_task(store.share("test", puts("under way"), behind=False))
        await asyncio.sleep(0.005)
        waits = asyncio.create_task(store.share("test", puts("waits"), behind=False))
        goes_on = asyncio.create_task(store.share("test", puts("goes on"), behind=False))
        await asyncio.sleep(0.005)
        under_way.cancel()
        waits.cancel()
        out = await asyncio.gather(under_way, waits, goes_on, return_exceptions=True)
        assert [type(o) for o in out] == [asyncio.CancelledError] * 2 + [type(None)]
        assert await names(store) == {"under way", "goes on"}


async def test_a_closed_store_says_so_and_closing_waits(tmp_path: pathlib.Path) -> None:
    store = SqliteStore(tmp_path, commit_delay_ms=20)
    await store.start()
    task = asyncio.create_task(store.share("test", puts("a"), behind=False))
    await asyncio.sleep(0.005)
    await store.close()
    await task
    with pytest.raises(StoreError):
        await store.share("test", puts("b"))
    async with opened(SqliteStore(tmp_path)) as again:
        assert await names(again) == {"a"}


async def test_what_is_written_behind_comes_with_others_or_alone(tmp_path: pathlib.Path) -> None:
    async with opened(SqliteStore(tmp_path)) as store:
        commits = count_commits(store)
        await store.share("test", puts("first"), behind=False)
        behind = asyncio.create_task(store.share("test", puts("behind")))
        await asyncio.sleep(0)
        await store.share("test", puts("second"), behind=False)
        await behind
        assert len(commits) == 2
        await store.share("test", puts("alone"))
        assert await names(store) == {"first", "behind", "second", "alone"}


async def test_others_use_the_connection_between(tmp_path: pathlib.Path) -> None:
    async with opened(SqliteStore(tmp_path, commit_delay_ms=5)) as store:

        async def alone(n: int) -> None:
            async with store.write("test") as tx:
                await puts(f"alone {n}")(tx)

        some = [store.share("test", puts(f"shared {n}"), behind=n % 3 == 0) for n in range(20)]
        await asyncio.gather(*some, *(alone(n) for n in range(20)))
        assert len(await names(store)) == 40
