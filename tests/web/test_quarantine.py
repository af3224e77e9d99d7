"""The quarantine over HTTP on both engines: whose it is, read, replayed once, thrown away."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import httpx
import msgspec
from tests.conftest import Place
from tests.web.serving import TENANTS, Running, running

from onymous.flows.tenants import apply
from onymous.store import sql

GOOD: dict[str, Any] = {
    "user_identities": {"customerid": "anna-4711"},
    "events": [
        {
            "event_type": "commerce_event",
            "data": {"product_action": {"action": "purchase", "total_amount": 5}},
        }
    ],
}


async def allowed(it: Running) -> None:
    """Let `server` and `stranger` see what was set aside in their workspaces."""
    core = it.server.core
    more = TENANTS.replace('"explain"]', '"explain", quarantine]')
    await apply(core.store, core.key, more, actor="test", now_ms=2)
    await core.directory.load()


async def set_aside(it: Running, body: Any, *, input_name: str = "server", dev: int = 0) -> None:
    """Put a batch into the quarantine, as an earlier rule might have."""
    caller = it.server.core.directory.find(f"{input_name}-api-key")
    assert caller is not None
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    row = (1_700_000_000_000, "quarantine", caller.workspace, caller.input, dev, None)
    async with it.server.core.store.write("test") as tx:
        await tx.run(sql.SPOOL_ADD, *row, msgspec.msgpack.encode(text), "no_usable_identity")


async def get(it: Running, path: str = "", who: str = "server", **params: Any) -> httpx.Response:
    return await it.client.get(f"/v1/quarantine{path}", headers=it.basic(who), params=params)


async def post(it: Running, verb: str, who: str = "server", **body: Any) -> httpx.Response:
    data = {"environment": "production", "reason": "fixed the feed", **body}
    return await it.client.post(f"/v1/quarantine/{verb}", json=data, headers=it.basic(who))


async def ids(it: Running, who: str = "server", **params: Any) -> list[int]:
    reply = await get(it, who=who, **params)
    assert reply.status_code == 200, reply.text
    return [row["id"] for row in reply.json()["quarantined"]]


async def audited(it: Running) -> list[tuple[str, str]]:
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT actor, action FROM audit ORDER BY id")
    return [(a, b) for a, b in rows if b.startswith("quarantine")]


async def worth(it: Running) -> int:
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT CAST(sum(worth) AS BIGINT) FROM tally")
    return (rows[0][0] or 0) // 1_000_000


async def test_it_is_read_by_its_workspace_only(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        nobody = {"source_request_id": "n1", "user_attributes": {"a": "secret-value"}}
        sent = await it.client.post("/v2/events", json=nobody, headers=it.basic())
        assert sent.status_code == 202
        await set_aside(it, b"no json \xff", input_name="stranger")
        await set_aside(it, GOOD, dev=1)
        listed = await get(it)
        (row,) = listed.json()["quarantined"]
        assert (row["input"], row["reason"]) == ("server", "no_usable_identity")
        assert listed.json()["next"] is None and "secret-value" not in listed.text
        assert len(await ids(it, environment="development")) == 1
        (theirs,) = await ids(it, "stranger")
        shown = await get(it, f"/{row['id']}")
        assert json.loads(shown.json()["body"]) == nobody
        assert (await get(it, f"/{theirs}", "stranger")).json()["body"] == "no json \ufffd"
        assert await audited(it) == [
            ("one/server", "quarantine_show"),
            ("two/stranger", "quarantine_show"),
        ]
        for number in (theirs, 0, 10**17, "x", "-1", "1.0"):
            assert (await get(it, f"/{number}")).status_code == 404, number
        assert (await get(it, f"/{row['id']}", environment="development")).status_code == 404
        assert (await get(it, environment="staging")).status_code == 400
        assert (await get(it, limit=0)).status_code == 400
        assert (await get(it, who="plain")).status_code == 403
        for verb in ("replay", "drop"):
            assert (await post(it, verb, "plain", ids=[row["id"]])).status_code == 403
        dropped = await post(it, "drop", ids=[theirs, row["id"]])
        assert dropped.json() == {"dropped": [row["id"]]}
        assert await ids(it, "stranger") == [theirs]
        replayed = await post(it, "replay", ids=[theirs])
        assert replayed.json() == {"applied": 0, "dropped": 0, "left": 0, "next": None}


async def test_replayed_by_several_at_once_it_counts_once(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        for _ in range(4):
            await set_aside(it, GOOD)
        await set_aside(it, {"events": []})
        numbers = await ids(it)
        first = await ids(it, limit=2)
        assert first == numbers[:2] and (await get(it, limit=2)).json()["next"] == first[-1]
        done = await asyncio.gather(
            *(post(it, "replay", ids=numbers) for _ in range(3)),
            post(it, "replay"),
            it.server.core.spool.replay(),
        )
        replies = [d.json() for d in done if isinstance(d, httpx.Response)]
        assert all("applied" in r for r in replies), replies
        assert await worth(it) == 20
        found = await it.ask("search", {"customerid": "anna-4711"})
        assert found.status_code == 200
        # who has nobody still waits
        assert await ids(it) == numbers[-1:]
        assert (await post(it, "replay", after=numbers[-1])).json()["left"] == 0


async def test_what_is_asked_wrongly_changes_nothing(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        await set_aside(it, GOOD)
        for verb in ("replay", "drop"):
            for bad in (
                {"ids": []},
                {"ids": [0]},
                {"ids": [-1]},
                {"ids": [1 << 63]},
                {"ids": ["1"]},
                {"ids": 1},
                {"ids": list(range(1, 502))},
                {"after": -1},
                {"reason": ""},
                {"reason": 7},
                {"environment": "staging"},
                {"operator": "x\x00"},
            ):
                body = {"ids": [1], **bad}
                assert (await post(it, verb, **body)).status_code == 400, (verb, bad)
        assert (await post(it, "drop")).status_code == 400
        assert len(await ids(it)) == 1 and await worth(it) == 0
