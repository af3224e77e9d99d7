"""After an erasure no value of the person is left: in no table, and on SQLite in no file."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

from tests.flows.test_events_flow import send
from tests.web.serving import Running, running

from onymous.flows.answers import Recent
from onymous.flows.files import NoRejects
from onymous.flows.importing import Importer, Job

MARK = "zebra7731"
_IDENTITY = "profile identity ledger replay job alias diagnostic conflict claim merge seen held"
_HISTORY = "batch person tally once journal change alias_copy spool audit"
TABLES = [*_IDENTITY.split(), *_HISTORY.split()]


async def left(it: Running) -> list[str]:
    """Return where the mark still is."""
    core = it.server.core
    out = []
    async with core.store.read() as session:
        for table in TABLES:
            for row in await session.rows(f"SELECT * FROM {table}"):
                if any(MARK in str(cell) or MARK.encode() in _bytes(cell) for cell in row):
                    out.append(table)
        for row in await session.rows("SELECT dictionary, body FROM batch"):
            if MARK.encode() in await core.bodies.unpack(session, *row):
                out.append("batch body")
    return sorted(set(out))


def _bytes(cell: Any) -> bytes:
    return bytes(cell) if isinstance(cell, bytes | memoryview) else b""


async def test_a_repeat_revives_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    """The answer kept for repeats names nobody, and stays: a late repeat makes no new person."""
    async with running(place, tmp_path) as it:
        core = it.server.core
        names = {"customerid": f"{MARK}-1", "email": f"{MARK}@x.io"}
        mpid = (await it.ask("login", names, request_id="r1")).json()["mpid"]
        await it.erase(mpid)
        async with core.store.read() as session:
            (row,) = await session.rows("SELECT request, answer, digest FROM replay")
        assert not any(MARK.encode() in _bytes(cell) for cell in row)
        for _ in range(2):  # as this process remembers it, and as the database does
            again = await it.ask("login", names, request_id="r1")
            assert (again.status_code, again.json()["mpid"]) == (200, mpid)
            core.resolver.recent = Recent()
        found = await it.ask("search", {"customerid": f"{MARK}-1"})
        assert found.status_code == 404
        fresh = await it.ask("login", names, request_id="r2")
        assert fresh.json()["mpid"] != mpid


async def test_nothing_is_left(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        reply = await it.ask(
            "login", {"customerid": f"{MARK}-1", "email": f"{MARK}@x.io"}, request_id="r1"
        )
        mpid = reply.json()["mpid"]
        change = {"identity_type": "email", "new_value": f"{MARK}-new@x.io"}
        assert (await it.modify(mpid, [change])).status_code == 200
        batch = {"mpid": mpid, "user_attributes": {"note": MARK}, "mp_deviceid": f"{MARK}-device"}
        assert await send(it, batch) == 202
        await it.ask("login", {"customerid": "other"})
        caller = core.directory.find("server-api-key")
        assert caller is not None
        row = {"user_identities": {"customerid": "other", "email": f"{MARK}-new@x.io"}}
        job = Job(caller=caller, name=b"x", now_ms=1)
        done = Importer(core.store, core.events, job, NoRejects(), lambda n: None)
        assert (await done.run([(1, row, None)])).conflicts == 1
        await core.journal.flush(core.store)
        await core.diagnostics.flush(core.store)
        assert {"identity", "journal", "person", "conflict"} <= set(await left(it))

        await it.erase(mpid)
        for _ in range(100):
            if not await left(it):
                break
            await asyncio.sleep(0.1)
        assert await left(it) == []
        if place.engine == "sqlite":
            for _ in range(100):
                found = [
                    p.name
                    for p in pathlib.Path(place.url).glob("onymous.db*")
                    if MARK.encode() in p.read_bytes()
                ]
                if not found:
                    break
                await asyncio.sleep(0.1)
            assert found == []
