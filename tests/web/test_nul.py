"""A NUL where only names are expected: some engines keep none, and nothing may stop at it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.flows.test_events_flow import view, who_is
from tests.flows.test_importing import load
from tests.web.serving import Running, running

from onymous.app import _one_by_one
from onymous.flows.diagnostics import Diagnostics, read_diagnostics
from onymous.flows.journal import Journal
from onymous.flows.ties import Ties
from onymous.store.port import StoreError

NUL = "a\0b"


async def alias(it: Running, source: str, destination: str, **more: Any) -> int:
    request_id = more.pop("request_id", "")
    data = {"source_mpid": source, "destination_mpid": destination, **more}
    reply = await it.client.post(
        "/v1/identity/server-api-key/alias",
        json={"environment": "production", "request_id": request_id, "data": data},
        headers=it.basic(),
    )
    return reply.status_code


async def test_request_ids_stop_no_diagnostics(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        known = {"customerid": "1", "email": "null"}
        mpid = (await it.ask("login", known, request_id=NUL)).json()["mpid"]
        batch = {"environment": "production", "events": [], "user_identities": {"email": "null"}}
        page = "/v3/JS/web-api-key/events"
        sent = await it.client.post(page, json={**batch, "source_request_id": NUL})
        assert sent.status_code == 202
        other = (await it.ask("login", {"customerid": "2"})).json()["mpid"]
        assert await alias(it, other, mpid, request_id=NUL + "2") == 202
        core = it.server.core
        await core.diagnostics.flush(core.store)
        told = await read_diagnostics(core.store)
        assert {d.kind for d in told} >= {"identity_skipped", "batch_quarantined", "alias_rejected"}
        assert {d.request_id for d in told} == {"a\ufffdb", "a\ufffdb2"}


async def test_a_platform_is_a_name(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        buy = {"product_action": {"action": "purchase", "total_amount": 5}}
        for odd in (NUL, "\ud800", "x" * 500):
            batch = {
                "environment": "production",
                "mp_deviceid": "device-of-a-page",
                "device_info": {"platform": odd},
                "application_info": {"application_version": odd, "package": odd},
                "context": {"location": {"latitude": 1, "longitude": 2, "city_name": odd}},
                "events": [{"event_type": "commerce_event", "data": buy}],
            }
            text = json.dumps(batch)
            sent = await it.client.post("/v3/JS/web-api-key/events", content=text)
            assert sent.status_code == 202, (odd, sent.text)
        async with it.server.core.store.read() as session:
            rows = await session.rows("SELECT platform, sum(worth) FROM tally GROUP BY platform")
        worth = {platform: int(amount) // 1_000_000 for platform, amount in rows}
        assert sum(worth.values()) == 15 and set(worth) <= {"web", "x" * 32, "\ufffd"}


async def test_amounts_cannot_grow_beyond_what_is_counted(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """Somebody who makes amounts up stops nobody else, and harms their own sum only."""
    async with running(place, tmp_path) as it:
        page = "/v3/JS/web-api-key/events"
        for action, amount in (("purchase", 7), ("purchase", 9e11), ("refund", 9e11)):
            buy = {"product_action": {"action": action, "total_amount": amount}}
            data = {"timestamp_unixtime_ms": 1_700_000_000_000, **buy}
            batch = {
                "environment": "production",
                "mp_deviceid": "device-of-a-page",
                "events": [{"event_type": "commerce_event", "data": data}] * 15,
            }
            sent = await it.client.post(page, json=batch)
            assert sent.status_code == 202, (action, amount, sent.text)
        mpid = await who_is(it, device_application_stamp="device-of-a-page")
        profile = await view(it, mpid)
        assert profile.lifetime_value == 15 * 7 + 9e11
        core = it.server.core
        source = core.mpids.parse(mpid)
        assert source is not None
        assert (await Ties(core.store, core.mpids).brought(source, 0, 1 << 62))[1] == 3
        async with core.store.read() as session:
            rows = await session.rows("SELECT CAST(sum(worth) AS BIGINT) FROM tally")
        assert rows[0][0] == (15 * 7 + 9 * 10**11) * 10**6
        await core.diagnostics.flush(core.store)
        reasons = [d.detail.get("reasons") for d in await read_diagnostics(core.store)]
        assert reasons.count(["worth_too_large"]) == 2


async def test_conflicts_of_files_are_kept(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await who_is(it, customerid="1")
        await who_is(it, customerid="2", email="b@x.io")
        known = {"customerid": "1", "email": "b@x.io"}
        row = {"user_identities": known, "source_request_id": NUL}
        report, _ = await load(it, [(1, row, None)])
        assert report.conflicts == 1
        assert (await it.counts())["conflict"] == 1


async def test_queries_and_aliases_are_refused(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        for path in ("diagnostics?kind=%00", "explain?request_id=a%00b"):
            reply = await it.client.get(f"/v1/{path}", headers=it.basic())
            assert (reply.status_code, reply.json()["code"]) == (400, "BAD_REQUEST")
        one = (await it.ask("login", {"customerid": "1"})).json()["mpid"]
        two = (await it.ask("identify", {"other": "x"})).json()["mpid"]
        assert await alias(it, two, one, device_application_stamp=NUL) == 400
        assert await alias(it, two, one, device_application_stamp="x" * 257) == 400
        assert await alias(it, two, one, start_unixtime_ms=-(10**30), end_unixtime_ms=-1) == 400
        assert (await it.counts())["alias"] == 0
        assert await alias(it, two, one, start_unixtime_ms=-(10**30)) == 202


class Broken:
    """A store whose writing fails."""

    @asynccontextmanager
    async def write(self, name: str) -> AsyncIterator[None]:
        raise StoreError("gone")
        yield

    async def share(self, name: str, work: Any, *, behind: bool = True) -> None:
        raise StoreError("gone")


async def test_what_could_not_be_written_stays_noted(place: Any, tmp_path: pathlib.Path) -> None:
    broken: Any = Broken()
    diagnostics = Diagnostics(most=2)
    for n in range(3):
        diagnostics.add("kind", n, 1, 1, None, {})
    with pytest.raises(StoreError):
        await diagnostics.flush(broken)
    assert diagnostics.held == 2
    async with running(place, tmp_path, journal=True) as it:
        core, journal = it.server.core, Journal(on=True)
        core.resolver.journal = journal
        await it.ask("identify", {"customerid": "1"}, request_id="r1")
        with pytest.raises(StoreError):
            await journal.flush(broken)
        await it.ask("identify", {"customerid": "1"}, request_id="r2")
        assert journal.held == 1
        await journal.flush(core.store)
        async with core.store.read() as session:
            count = await session.rows("SELECT count FROM journal")
            asked = await session.rows("SELECT count(*) FROM asked")
        assert (count, asked) == ([(2,)], [(2,)])


async def test_one_failing_step_leaves_the_others_their_turn() -> None:
    done = []

    async def fails() -> None:
        raise StoreError("gone")

    async def works() -> None:
        done.append(1)

    await _one_by_one([fails, works, fails, works])
    assert done == [1, 1]
