"""Undo of single entries: exact, or refused with the reason; on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import httpx
from tests.flows.test_events_flow import who_is
from tests.web.serving import TENANTS, Running, running

from onymous.flows.tenants import apply


async def allow(it: Running) -> None:
    core = it.server.core
    document = TENANTS.replace(
        '["search:any", "history:read", "explain"]}',
        '["search:any", "history:read", "explain", "undo"]}',
        1,
    )
    await apply(core.store, core.key, document, actor="test", now_ms=2)
    await core.directory.load()


async def history(it: Running, mpid: str) -> Any:
    reply = await it.client.get(f"/v1/{mpid}/history", headers=it.basic())
    assert reply.status_code == 200, reply.text
    return reply.json()


async def undo(
    it: Running, mpid: str, entry: str, who: str = "server", **more: Any
) -> httpx.Response:
    body = {"environment": "production", "reason": "a mistake", **more}
    path = f"/v1/{mpid}/history/{entry}/undo"
    return await it.client.post(path, json=body, headers=it.basic(who))


async def names(it: Running, mpid: str) -> set[tuple[str, str]]:
    found = await history(it, mpid)
    return {(n["identity_type"], n["value"]) for n in found["identities"]}


async def test_a_modify_is_taken_back(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allow(it)
        anna = await who_is(it, customerid="anna", email="Old@x.io")
        change = {"identity_type": "email", "old_value": "Old@x.io", "new_value": "new@x.io"}
        assert (await it.modify(anna, [change])).status_code == 200
        before = await names(it, anna)
        entry = (await history(it, anna))["entries"][0]["entry"]
        seen = await undo(it, anna, entry, dry_run=True)
        assert seen.status_code == 200, seen.text
        assert [c["change"] for c in seen.json()["changes"]] == ["detached", "attached"]
        assert await names(it, anna) == before
        done = await undo(it, anna, entry)
        assert done.status_code == 200, done.text
        assert await names(it, anna) == {("customerid", "anna"), ("email", "Old@x.io")}
        assert await who_is(it, email="old@x.io") == anna
        assert await who_is(it, email="new@x.io") != anna
        again = await undo(it, anna, entry)
        assert again.status_code == 409 and "changed later" in again.text


async def test_a_taken_value_goes_back(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allow(it)
        anna = await who_is(it, customerid="anna", email="a@x.io")
        ben = await who_is(it, customerid="ben")
        change = {"identity_type": "email", "new_value": "a@x.io"}
        assert (await it.modify(ben, [change])).status_code == 200
        assert await who_is(it, email="a@x.io") == ben
        gave = (await history(it, anna))["entries"][0]["entry"]
        assert "undo the entry there" in (await undo(it, anna, gave)).text
        entry = (await history(it, ben))["entries"][0]["entry"]
        done = await undo(it, ben, entry)
        assert done.status_code == 200, done.text
        assert done.json()["changes"][0]["mpid"] == anna
        assert await who_is(it, email="a@x.io") == anna
        assert await names(it, ben) == {("customerid", "ben")}


async def test_what_cannot_be_undone_says_why(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allow(it)
        anna = await who_is(it, customerid="anna")
        created = (await history(it, anna))["entries"][0]["entry"]
        assert "stays" in (await undo(it, anna, created)).text
        change = {"identity_type": "email", "new_value": "a@x.io"}
        await it.modify(anna, [change])
        entry = (await history(it, anna))["entries"][0]["entry"]
        ben = await who_is(it, customerid="ben")
        await it.modify(ben, [change])
        refused = await undo(it, anna, entry)
        assert refused.status_code == 409, refused.text
        assert (await undo(it, ben, entry)).status_code == 404
        assert (await undo(it, anna, "999999")).status_code == 404
        assert (await undo(it, anna, "x")).status_code == 404
        assert (await undo(it, anna, entry, who="plain")).status_code == 403
        assert (await undo(it, anna, entry, who="stranger")).status_code == 403
