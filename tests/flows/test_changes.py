"""The feed of changes: complete, in order, to be taken up again; on both engines."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

from tests.flows.test_events_flow import who_is
from tests.web.serving import TENANTS, Running, running

from onymous.flows.changes import forget_changes
from onymous.flows.tenants import apply


async def changes(it: Running, who: str = "server", **params: Any) -> Any:
    reply = await it.client.get("/v1/changes", params=params, headers=it.basic(who))
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_everybody_who_changed_is_told_once_in_order(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        start = await changes(it)
        assert start["changes"] == []
        made = await asyncio.gather(*(who_is(it, customerid=str(n)) for n in range(120)))
        await it.ask("identify", {"customerid": "x"}, who="stranger")
        seen: list[Any] = []
        cursor = "0"
        while len(seen) < 120:
            page = await changes(it, after=cursor, limit=50, wait=10)
            assert page["changes"], "the feed ended early"
            seen += page["changes"]
            cursor = page["next"]
        assert sorted(c["mpid"] for c in seen) == sorted(made)
        cursors = [int(c["cursor"]) for c in seen]
        assert cursors == sorted(set(cursors))
        assert seen[0]["changes"][0]["change"] == "created"
        assert (await changes(it, after=cursor))["changes"] == []
        mine = await changes(it, "stranger", after=0, wait=5)
        assert len(mine["changes"]) == 1
        waiting = asyncio.create_task(changes(it, after=cursor, wait=20))
        await asyncio.sleep(0.1)
        await it.modify(made[0], [{"identity_type": "email", "new_value": "n@x.io"}])
        (told,) = (await waiting)["changes"]
        assert told["mpid"] == made[0] and told["operation"] == "modify"
        refused = await it.client.get("/v1/changes", headers=it.basic("plain"))
        assert refused.status_code == 403


async def test_the_stream_can_be_taken_up_again(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        first = await who_is(it, customerid="1")

        async def follow(last: str, count: int) -> list[tuple[str, str]]:
            headers = {**it.basic(), "Last-Event-ID": last}
            out: list[tuple[str, str]] = []
            async with it.client.stream("GET", "/v1/changes/stream", headers=headers) as reply:
                assert reply.headers["content-type"] == "text/event-stream"
                cursor = ""
                async for line in reply.aiter_lines():
                    if line.startswith("id: "):
                        cursor = line[4:]
                    if line.startswith("data: "):
                        out.append((cursor, json.loads(line[6:])["mpid"]))
                    if len(out) == count:
                        return out
            return out

        ((cursor, mpid),) = await asyncio.wait_for(follow("0", 1), 20)
        assert mpid == first
        task = asyncio.create_task(follow(cursor, 2))
        await asyncio.sleep(0.2)
        others = [await who_is(it, customerid=n) for n in ("2", "3")]
        assert [m for _, m in await asyncio.wait_for(task, 20)] == others


async def test_a_stream_ends_with_what_it_stands_on(place: Any, tmp_path: pathlib.Path) -> None:
    """An input that is switched off hears no more, also where it began to listen before."""
    async with running(place, tmp_path) as it:
        core = it.server.core
        first = await who_is(it, customerid="1")
        headers = {**it.basic(), "Last-Event-ID": "0"}
        async with it.client.stream("GET", "/v1/changes/stream", headers=headers) as reply:
            lines = reply.aiter_lines()
            while first not in await asyncio.wait_for(anext(lines), 60):
                pass
            last = (await changes(it))["next"]
            waits = {"after": last, "wait": 60}
            path, waiting = "/v1/changes", it.client.get
            poll = asyncio.create_task(waiting(path, params=waits, headers=it.basic()))
            await asyncio.sleep(0.2)
            off = TENANTS.replace(
                "api_key: server-api-key,", "api_key: server-api-key, active: false,"
            )
            await apply(core.store, core.key, off, actor="test", now_ms=3)
            await core.directory.load()
            second = (await it.ask("identify", {"customerid": "2"}, who="plain")).json()["mpid"]
            rest = [line async for line in lines]
        assert not [line for line in rest if second in line]
        told = await asyncio.wait_for(poll, 120)
        assert told.status_code == 401 and second not in told.text


async def test_a_forgotten_cursor_is_told_so(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await who_is(it, customerid="1")
        await who_is(it, customerid="2")
        page = await changes(it, after=0, wait=10)
        while len(page["changes"]) < 2:
            page = await changes(it, after=0, wait=10)
        await forget_changes(it.server.core.store, 1 << 60)
        reply = await it.client.get("/v1/changes", params={"after": 1}, headers=it.basic())
        assert reply.status_code == 410
        assert (await changes(it, after=page["next"]))["changes"] == []


async def test_nothing_is_skipped_while_many_processes_write(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """A reader who moves on at once still sees what was numbered early and committed late."""
    async with running(place, tmp_path) as it, running(place, tmp_path) as other:
        seen: list[tuple[int, str]] = []
        over = False

        async def follow() -> None:
            cursor = "0"
            while True:
                last = over
                page = await changes(it, after=cursor, limit=7, wait=0 if last else 1)
                seen.extend((int(c["cursor"]), c["mpid"]) for c in page["changes"])
                cursor = page["next"]
                if last and not page["changes"]:
                    return

        reader = asyncio.create_task(follow())
        for turn in range(4):
            one = (who_is(it, customerid=f"{turn}-{n}") for n in range(30))
            two = (it.ask("identify", {"other": f"{turn}-{n}"}) for n in range(30))
            await asyncio.gather(*one, *two)
        async with other.server.core.store.read() as session:
            (count,) = (await session.rows("SELECT count(*) FROM ledger"))[0]
        assert count == 240
        for _ in range(400):
            if len(seen) >= count:
                break
            await asyncio.sleep(0.05)
        over = True
        await reader
        cursors = [cursor for cursor, _ in seen]
        assert cursors == sorted(set(cursors)) and len({mpid for _, mpid in seen}) == count
