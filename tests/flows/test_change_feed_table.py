"""The feed of changes as a table others read: the same order and content, and it forgets."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import msgspec
from msgspec.structs import replace
from tests.web.serving import Running, running

from onymous.flows import changes as feed
from onymous.flows.changes import forget_changes, publish
from onymous.flows.journal import erase_from_journal

READ = (
    "SELECT seq, at_ms, environment, scope, workspace, input, operation, mpid, request_id, changes"
    " FROM change_feed WHERE seq > ? ORDER BY seq"
)


async def table(it: Running, most: int, after: int = 0) -> list[dict[str, Any]]:
    """Return the rows after one, as soon as there are so many."""
    names = READ.partition(" FROM")[0].removeprefix("SELECT ").split(", ")
    for _ in range(400):
        async with it.server.core.store.read() as session:
            rows = await session.rows(READ, after)
        if len(rows) >= most:
            break
        await asyncio.sleep(0.05)
    return [dict(zip(names, row, strict=True)) for row in rows]


async def test_it_says_what_the_feed_says(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, change_feed_table=True) as it:
        known = {"customerid": "1", "email": "a@x.io"}
        mpid = (await it.ask("identify", known, request_id="first")).json()["mpid"]
        change = {"identity_type": "email", "old_value": "a@x.io", "new_value": "b@x.io"}
        assert (await it.modify(mpid, [change], request_id="second")).status_code == 200
        await it.ask("identify", {"customerid": "2"}, environment="development")
        rows = await table(it, 3)
        assert [(r["operation"], r["request_id"]) for r in rows[:2]] == [
            ("identify", "first"),
            ("modify", "second"),
        ]
        assert [r["environment"] for r in rows] == ["production", "production", "development"]
        assert {(r["scope"], r["workspace"], r["input"]) for r in rows} == {
            ("people", "one", "server")
        }
        assert rows[0]["mpid"] == rows[1]["mpid"] == mpid
        params = {"after": "0", "environment": "production"}
        told = await it.client.get("/v1/changes", params=params, headers=it.basic())
        for row, one in zip(rows[:2], told.json()["changes"], strict=True):
            assert (str(row["seq"]), row["mpid"]) == (one["cursor"], one["mpid"])
            assert json.loads(row["changes"]) == one["changes"]
        # told again, it is not there twice
        core = it.server.core
        async with core.store.read() as session:
            ledgers = [r[0] for r in await session.rows("SELECT ledger FROM change")]
        await publish(core.store, [msgspec.msgpack.encode(ledgers)], core.historian)
        assert await table(it, 3) == rows
        assert await table(it, 0, rows[-1]["seq"]) == []
        await forget_changes(core.store, rows[-1]["at_ms"] + 1)
        assert await table(it, 0) == []


async def test_it_is_empty_unless_asked_for(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await it.ask("identify", {"customerid": "1"})
        params = {"after": "0", "wait": "10"}
        told = await it.client.get("/v1/changes", params=params, headers=it.basic())
        assert told.json()["changes"] and await table(it, 0) == []


async def test_what_came_while_it_was_off_comes_first(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(feed, "CATCH_UP", 2)
    async with running(place, tmp_path) as it:
        core = it.server.core

        async def told(most: int) -> list[dict[str, Any]]:
            params = {"after": "0", "wait": "10"}
            for _ in range(400):
                answer = await it.client.get("/v1/changes", params=params, headers=it.basic())
                changes: list[dict[str, Any]] = answer.json()["changes"]
                if len(changes) >= most:
                    return changes
            raise AssertionError(changes)

        for n in range(3):
            await it.ask("identify", {"customerid": str(n)})
        await told(3)
        on = feed.Changes(core.store, core.historian, table=True)
        await core.changes.catch_up()
        assert await table(it, 0) == [], "it is off"
        # it is turned on: what comes now waits for what came before
        async with core.store.read() as session:
            ledgers = [r[0] for r in await session.rows("SELECT ledger FROM change")]
            await publish(core.store, [msgspec.msgpack.encode(ledgers)], core.historian)
        assert await table(it, 0) == []
        monkeypatch.setattr(core, "settings", replace(core.settings, change_feed_table=True))
        await it.ask("identify", {"customerid": "4"})
        await told(4)
        assert await table(it, 0) == []
        await on.catch_up()
        await it.ask("identify", {"customerid": "5"})
        rows, changes = await table(it, 5), await told(5)
        assert [str(r["seq"]) for r in rows] == [c["cursor"] for c in changes]
        assert [json.loads(r["changes"]) for r in rows] == [c["changes"] for c in changes]
        await on.catch_up()
        assert await table(it, 5) == rows


async def test_an_erased_person_goes_from_it(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, change_feed_table=True) as it:
        mpid = (await it.ask("identify", {"email": "gone@x.io"}, request_id="gone-1")).json()[
            "mpid"
        ]
        await it.ask("identify", {"email": "stays@x.io"}, request_id="stays-1")
        before = await table(it, 2)
        assert "gone@x.io" in before[0]["changes"]
        core = it.server.core
        pid = core.mpids.parse(mpid)
        assert pid is not None
        await it.erase(mpid)
        caller = core.directory.find("server-api-key")
        assert caller is not None
        rows = await table(it, 3)
        assert [r["operation"] for r in rows][-1] == "erase"
        text = json.dumps(rows)
        assert "gone@x.io" not in text and "gone-1" not in text and "stays@x.io" in text
        # one that was told while they were erased goes with the promised erasure
        async with core.store.write("late") as tx:
            late = (1 << 40, 1, "production", "people", "one", "server", "login", mpid, "gone-1")
            await tx.run(
                "INSERT INTO change_feed (seq, at_ms, environment, scope, workspace, input,"
                " operation, mpid, request_id, changes, pid)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *late,
                "gone@x.io",
                pid,
            )
        body = msgspec.msgpack.encode((caller.pool("production"), [pid], []))
        await erase_from_journal(core.store, core.journal, body)
        text = json.dumps(await table(it, 4))
        assert "gone@x.io" not in text and "gone-1" not in text
