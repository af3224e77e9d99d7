"""Write transactions: all or nothing, numbers, kept answers, cancellation, loss of the server."""

# ruff: noqa: PT012 - the block is the transaction

from __future__ import annotations

import asyncio
import pathlib

import pytest
from making import DEVICE, LOGIN, NOW, POOL, add, opened, pids, record, see, written

from conftest import Place, Postgres
from onymous.store import sql
from onymous.store.packing import pack_values, slot
from onymous.store.port import LostRace, Probe, Store, StoreError
from onymous.store.postgres import PostgresStore
from onymous.store.sqlite import SqliteStore


class Stop(Exception):
    """Leaves a transaction."""


async def test_a_transaction_left_by_an_error_leaves_nothing(store: Store) -> None:
    with pytest.raises(Stop):
        async with store.write("left") as tx:
            await tx.find([Probe(POOL, {LOGIN: "a"})])
            await add(tx, record(1, {LOGIN: "a"}))
            await tx.run(sql.META_PUT, "x", b"1")
            raise Stop
    assert (await see(store, Probe(POOL, {LOGIN: "a"}, also=(1,)))).records == []
    async with store.read() as session:
        assert await session.rows(sql.META_GET, "x") == []
        assert await session.rows("SELECT count(*) FROM claim") == [(0,)]


async def test_claims_are_gone_after_a_commit(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a", DEVICE: "d"}))
    await see(store, Probe(POOL, {LOGIN: "b", DEVICE: "d"}, also=(1,)))
    async with store.read() as session:
        assert await session.rows("SELECT count(*) FROM claim") == [(0,)]


@pytest.mark.parametrize("count", [10, 600])
async def test_many_claims_of_several_types_are_gone_after_a_commit(
    store: Store, count: int
) -> None:
    """Few are released at once, many type by type."""
    async with store.write("claims") as tx:
        values = [(slot(POOL, code), f"v{n}") for code in (LOGIN, DEVICE) for n in range(count)]
        assert await tx.held(values) == set()
    async with store.read() as session:
        assert await session.rows("SELECT count(*) FROM claim") == [(0,)]


async def test_a_claim_left_behind_does_not_block(store: Store) -> None:
    async with store.write("leave") as tx:
        await tx.run("INSERT INTO claim (slot, value) VALUES (?, ?)", slot(POOL, LOGIN), "a")
    await written(store, record(1, {LOGIN: "a"}))
    assert pids(await see(store, Probe(POOL, {LOGIN: "a"}))) == [1]


async def test_one_of_many_claims_left_behind_does_not_block(store: Store, place: Place) -> None:
    """And while it is sorted out, whoever wants one of them too still waits."""
    values = [(slot(POOL, LOGIN), f"v{n}") for n in range(600)]
    async with store.write("leave") as tx:
        await tx.run("INSERT INTO claim (slot, value) VALUES (?, ?)", *values[300])
    async with opened(place.store()) as other:
        held: list[str] = []

        async def second() -> None:
            async with other.write("second") as tx:
                await tx.held(values[299:301])
                held.append("second")

        async with store.write("first") as tx:
            assert await tx.held(values) == set()
            task = asyncio.create_task(second())
            await asyncio.sleep(0.2)
            assert held == []
            await add(tx, record(1, {LOGIN: "v7"}))
            held.append("first")
        await task
        assert held == ["first", "second"]
    left = 1 if place.engine == "sqlite" else 0  # which has one writer, and asks for no claims
    async with store.read() as session:
        assert await session.rows("SELECT count(*) FROM claim") == [(left,)]


async def test_finding_twice_in_a_transaction_sees_its_own_writes(store: Store) -> None:
    async with store.write("twice") as tx:
        await tx.find([Probe(POOL, {LOGIN: "a", DEVICE: "d"})])
        await add(tx, record(1, {LOGIN: "a", DEVICE: "d"}))
        (found,) = await tx.find([Probe(POOL, {LOGIN: "a", DEVICE: "e"}, also=(1,))])
        assert pids(found) == [1]
        assert await store.find([Probe(POOL, {LOGIN: "a"})]) != [found], "not yet committed"


async def test_statements_change_what_they_say(store: Store) -> None:
    a, b = record(1, {LOGIN: "a", DEVICE: "d"}), record(2, {LOGIN: "b"})
    await written(store, a, b)
    async with store.write("change") as tx:
        await tx.find([Probe(POOL, {LOGIN: "a", DEVICE: "d"}, also=(1, 2))])
        key = (slot(POOL, LOGIN), "a")
        await tx.many(sql.IDENTITY_MOVE, [(2, *key, 1)])
        await tx.many(sql.IDENTITY_REMOVE, [(slot(POOL, DEVICE), "d", 1, 1)])
        a.values, b.values = [], [*b.values, a.values[0]]
        rows = [(NOW - 5, NOW - 5, 7, pack_values(r), r.pid) for r in (a, b)]
        await tx.many(sql.PROFILE_SET, rows)
    found = await see(store, Probe(POOL, {LOGIN: "a", DEVICE: "d"}, also=(1,)))
    assert [(r.pid, r.seen_ms, r.flags, len(r.values)) for r in found.records] == [
        (2, NOW, 7, 2),
        (1, NOW, 7, 0),
    ]
    assert found.holders == {(LOGIN, "a"): [2]}


async def test_a_statement_for_many_rows_runs_once_per_row(store: Store) -> None:
    rows = [(1, b"r", NOW, b"x", b"first"), (1, b"r", NOW, b"y", b"last")]
    async with store.write("repeat") as tx:
        await tx.many(sql.REPLAY_PUT, [])
        await tx.many(sql.REPLAY_PUT, rows)
        await tx.many(sql.SEEN_PUT, [(n, b"%d" % n) for n in range(5000)])
        kept = await tx.replays([(1, b"r")])
        assert [(k.digest, k.answer) for k in kept.values()] == [(b"y", b"last")]
        assert await tx.rows("SELECT count(*), max(block) FROM seen") == [(5000, 4999)]
        await tx.many(sql.CROWD_ADD, [(1, "v", 0)])
        await tx.many(sql.CROWD_COUNT, [(1, 1, "v"), (1, 1, "v"), (3, 1, "v")])
        assert await tx.rows("SELECT pid FROM identity WHERE slot = ?", 1) == [(5,)]


async def test_every_null_and_number_comes_back(store: Store) -> None:
    big = (1 << 63) - 1
    async with store.write("null") as tx:
        await tx.many(
            sql.PROFILE_ADD,
            [(1, big, -1, 0, 0, None, b"\x90"), (big, 1, 2, 3, 4, 5, b"\x90")],
        )
    async with store.read() as session:
        rows = await session.rows("SELECT pid, pool, source FROM profile ORDER BY pid")
        assert rows == [(1, big, None), (big, 1, 5)]


async def test_numbers_increase_and_are_never_given_twice(store: Store, place: Place) -> None:
    given: list[int] = []
    async with opened(place.store()) as other:
        for turn in range(6):
            async with (store, other)[turn % 2].write("numbers") as tx:
                some = await tx.numbers("pid", 1 + turn * 3)
                assert some == sorted(set(some)) and len(some) == 1 + turn * 3
                assert not given or some[0] > given[-1]
                given += some
            with pytest.raises(Stop):
                async with store.write("lost") as tx:
                    await tx.numbers("pid", 2)
                    raise Stop
    async with store.write("other") as tx:
        assert (await tx.numbers("ledger", 2))[0] == 1, "each sequence counts for itself"
    assert given[0] >= 1


async def test_kept_answers_are_found_by_input_and_request(store: Store) -> None:
    async with store.write("keep") as tx:
        assert await tx.replays([]) == {}
        rows = [(i, b"r%d" % i, NOW + i, b"d%d" % i, b"a%d" % i) for i in range(1, 6)]
        await tx.many(sql.REPLAY_PUT, rows)
    async with store.write("ask") as tx:
        kept = await tx.replays([(2, b"r2"), (3, b"r2"), (5, b"r5"), (5, b"r5"), (9, b"r9")])
        assert {k: (v.digest, v.answer) for k, v in kept.items()} == {
            (2, b"r2"): (b"d2", b"a2"),
            (5, b"r5"): (b"d5", b"a5"),
        }
        await tx.run(sql.REPLAY_FORGET, NOW + 5)
        assert set(await tx.replays([(2, b"r2"), (5, b"r5")])) == {(5, b"r5")}


async def test_reading_sees_one_snapshot(store: Store) -> None:
    await written(store, record(1, {LOGIN: "a"}))
    count = "SELECT count(*) FROM profile"
    async with store.read() as session, store.read() as second:
        assert await session.rows(count) == [(1,)]
        await written(store, record(2, {LOGIN: "b"}))
        assert await session.rows(count) == [(1,)]
        assert await second.rows(count) == [(2,)]
    async with store.read() as session:
        assert await session.rows(count) == [(2,)]


async def test_a_refused_statement_makes_the_transaction_fail(store: Store) -> None:
    with pytest.raises(LostRace):
        async with store.write("refused") as tx:
            await add(tx, record(1, {LOGIN: "a"}))
            await add(tx, record(1, {LOGIN: "b"}))
    with pytest.raises(StoreError):
        async with store.write("wrong") as tx:
            await add(tx, record(1, {LOGIN: "a"}))
            await tx.rows("SELECT nothing FROM nowhere")
    assert (await see(store, Probe(POOL, {LOGIN: "a"}))).records == []


async def test_a_cancelled_transaction_is_whole_or_nothing(store: Store) -> None:
    for n in range(1, 31):
        task = asyncio.create_task(written(store, record(n, {LOGIN: f"p{n}", DEVICE: "d"})))
        await asyncio.sleep(n * 0.0002)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        done = len((await see(store, Probe(POOL, {LOGIN: f"p{n}"}, also=(n,)))).records)
        assert done or isinstance(result, asyncio.CancelledError)
    async with store.read() as session:
        rows = await session.rows("SELECT count(*) FROM identity WHERE slot = ?", 20 + POOL * 64)
        assert rows == await session.rows("SELECT count(*) FROM profile")
        assert await session.rows("SELECT count(*) FROM claim") == [(0,)]


async def test_a_reader_given_up_leaves_no_snapshot_behind(store: Store) -> None:
    async def looked() -> None:
        async with store.read() as session:
            await session.rows("SELECT count(*) FROM profile")

    await looked()
    for n in range(1_000):
        task = asyncio.create_task(looked())
        for _ in range(5 + n % 10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with store.write("after") as tx:
            await tx.run("DELETE FROM profile WHERE pid = ?", n)


async def test_closing_waits_for_the_commit(place: Place) -> None:
    store = place.store()
    await store.start()
    task = asyncio.create_task(written(store, record(1, {LOGIN: "a"})))
    await asyncio.sleep(0.001)
    await store.close()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert result is None or isinstance(result, StoreError)
    async with opened(place.store()) as again:
        found = await again.find([Probe(POOL, {LOGIN: "a"})])
        assert pids(found[0]) == ([1] if result is None else [])
    with pytest.raises(StoreError):
        async with store.write("closed"):
            pass


async def test_two_commits_never_touch_the_connection_at_once(tmp_path: pathlib.Path) -> None:
    async with opened(SqliteStore(tmp_path, commit_delay_ms=30)) as store:
        first = asyncio.create_task(written(store, record(1, {LOGIN: "a"})))
        await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.create_task(written(store, record(2, {LOGIN: "b"})))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError) and results[1] is None
        assert pids(await see(store, Probe(POOL, {LOGIN: "a"}))) == [1], "it was under way"


async def test_a_lost_server_is_an_error_and_comes_back(own_postgres: Postgres) -> None:
    postgres = own_postgres
    url = postgres.database()
    async with opened(PostgresStore(url)) as store:
        await written(store, record(1, {LOGIN: "a"}))
        with pytest.raises(StoreError):
            async with store.write("lost") as tx:
                await tx.find([Probe(POOL, {LOGIN: "b"})])
                await add(tx, record(2, {LOGIN: "b"}))
                await asyncio.to_thread(postgres.crash)
        with pytest.raises(StoreError) as caught:
            await store.find([Probe(POOL, {LOGIN: "a"})])
        assert "postgres@" not in str(caught.value)
        await asyncio.to_thread(postgres.boot)
        assert pids(await see(store, Probe(POOL, {LOGIN: "a"}))) == [1]
        assert (await see(store, Probe(POOL, {LOGIN: "b"}, also=(2,)))).records == []
        async with store.read() as session:
            assert await session.rows("SHOW synchronous_commit") == [("on",)]


async def test_an_unknown_outcome_of_a_commit_is_told(postgres: Postgres) -> None:
    async with opened(PostgresStore(postgres.database())) as store:
        with pytest.raises(StoreError):
            async with store.write("cut") as tx:
                await add(tx, record(1, {LOGIN: "a"}))
                (row,) = await tx.rows("SELECT pg_backend_pid()")
                async with store.read() as session:
                    await session.rows("SELECT pg_terminate_backend(?::int)", row[0])
        assert (await see(store, Probe(POOL, {LOGIN: "a"}))).records == []
