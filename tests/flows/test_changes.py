"""The feed of changes: complete, in order, to be taken up again; on both engines."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

from tests.flows.test_events_flow import who_is
from tests.web.serving import Running, running

from onymous.flows.changes import forget_changes


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
