"""Event history out: read back by DuckDB, in pieces that leave nothing out, on both engines."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import duckdb
from tests.flows.test_events_flow import purchase, send, who_is
from tests.web.serving import running

from onymous.commands.exports import writer_of
from onymous.flows.answers import Answer, Question
from onymous.flows.erasure import erase
from onymous.flows.exporting import Exporter


async def export(it: Any, to: pathlib.Path, after: int = 0) -> int:
    core = it.server.core
    writer = writer_of(to)
    last = after
    async for rows in Exporter(core.store, core.bodies, core.mpids, core.directory.names).rows(
        after=after
    ):
        writer.add(rows)
        last = rows[-1].batch if rows else last
    writer.close()
    return last


async def test_duckdb_reads_what_was_exported(place: Any, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "events.parquet"
    async with running(place, tmp_path) as it:
        for n in range(1, 31):
            events = [purchase(n), {"event_type": "screen_view", "data": {"screen_name": "S"}}]
            batch = {"user_identities": {"customerid": f"c{n % 3}"}, "events": events}
            assert await send(it, batch) == 202
        mpid = await who_is(it, customerid="c1")
        await export(it, file)
        sums = duckdb.sql(
            "SELECT count(*), count(DISTINCT mpid),"
            " sum((body::JSON->'product_action'->>'total_amount')::DOUBLE)"
            f" FROM '{file}'"
        ).fetchall()
        assert sums == [(60, 3, sum(range(1, 31)))]
        named = duckdb.sql(
            f"SELECT event_type, event_name, count(*) FROM '{file}' WHERE mpid = '{mpid}'"
            " GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        assert named == [("commerce_event", "", 10), ("screen_view", "S", 10)]
        # who is erased is in no later export
        core = it.server.core
        caller = core.directory.find("server-api-key")
        assert caller is not None
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        question = Question(op="erase", caller=caller, environment="production", known={}, now_ms=1)
        erase(core.resolver, question, mpid, done.set_result)
        assert (await done).refusal is None
        await export(it, file)
        left = duckdb.sql(f"SELECT count(*) FROM '{file}' WHERE mpid = '{mpid}'").fetchall()
        assert left == [(0,)]


async def test_exports_one_after_the_other_leave_nothing_out(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:

        async def sending(worker: int) -> None:
            for n in range(40):
                batch = {"user_identities": {"customerid": f"w{worker}"}, "events": [purchase(n)]}
                assert await send(it, batch) == 202

        tasks = [asyncio.create_task(sending(n)) for n in range(6)]
        last = pieces = 0
        while not all(task.done() for task in tasks):
            last = await export(it, tmp_path / f"{pieces}.parquet", last)
            pieces += 1
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        await export(it, tmp_path / f"{pieces}.parquet", last)
        counted = duckdb.sql(
            f"SELECT count(*), count(DISTINCT batch) FROM '{tmp_path}/*.parquet'"
        ).fetchall()
        assert counted == [(240, 240)]
