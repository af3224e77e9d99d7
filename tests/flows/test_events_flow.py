"""Batches: whose they are, what they change, exactly once; on both engines."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

from tests.web.serving import Running, running

from onymous.flows.profiles import ProfileView

HOUR = 3_600_000


def purchase(amount: object, at: int | None = None) -> dict[str, Any]:
    data: dict[str, Any] = {"product_action": {"action": "purchase", "total_amount": amount}}
    if at is not None:
        data["timestamp_unixtime_ms"] = at
    return {"event_type": "commerce_event", "data": data}


async def send(it: Running, batch: Any, path: str = "/v2/events", who: str = "server") -> int:
    reply = await it.client.post(path, json=batch, headers=it.basic(who))
    return reply.status_code


async def view(it: Running, mpid: str) -> ProfileView:
    core = it.server.core
    pid = core.mpids.parse(mpid)
    assert pid is not None
    async with core.store.read() as session:
        pool = (await session.rows("SELECT pool FROM profile WHERE pid = ?", pid))[0][0]
    found = await core.profiles.profile(pool, pid)
    assert found is not None
    return found


async def who_is(it: Running, **known: str) -> str:
    reply = await it.ask("identify", known)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["mpid"])


async def test_a_batch_finds_its_person_and_changes_the_profile(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        batch = {
            "user_identities": {"customerid": "anna", "email": "Anna@x.io"},
            "user_attributes": {"$FirstName": "Anna", "plan": "gold", "tags": ["a", 1], "t": None},
            "deleted_user_attributes": ["gone"],
            "mp_deviceid": "4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f5",
            "device_info": {"platform": "iOS", "os_version": "17", "limit_ad_tracking": True},
            "consent_state": {"gdpr": {" Marketing": {"consented": True}}},
            "events": [{"event_type": "session_start", "data": {}}, purchase(19.99)],
        }
        assert await send(it, batch) == 202
        mpid = await who_is(it, customerid="anna")
        profile = await view(it, mpid)
        (person,) = profile.workspaces.values()
        values = {name: a.value for name, a in person.attributes.items()}
        assert values == {"$firstname": "Anna", "plan": "gold", "tags": ["a", "1"], "t": None}
        assert profile.lifetime_value == 19.99 and profile.sessions == 1
        assert profile.limit_ad_tracking is True
        assert person.consent["gdpr/marketing"].consented
        assert [d.platform for d in person.devices] == ["ios"]
        assert {n.type for n in profile.user_identities} == {"customerid", "email"}
        again = {"mpid": int(mpid), "events": [purchase("0.01")]}
        assert await send(it, again) == 202
        assert (await view(it, mpid)).lifetime_value == 20.0


async def test_a_repeat_counts_once_also_at_the_same_time(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        batch = {
            "source_request_id": "r1",
            "user_identities": {"customerid": "anna"},
            "events": [purchase(10)],
        }
        answers = await asyncio.gather(*(send(it, batch) for _ in range(20)))
        assert set(answers) == {202}
        mpid = await who_is(it, customerid="anna")
        assert (await view(it, mpid)).lifetime_value == 10
        assert await send(it, {**batch, "environment": "development"}) == 202
        assert await send(it, [batch] * 5, "/v2/bulkevents") == 202
        assert (await view(it, mpid)).lifetime_value == 10
        async with it.server.core.store.read() as session:
            assert (await session.rows("SELECT count(*) FROM batch"))[0][0] == 2


async def test_counters_are_exact_under_concurrency(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        batches = [
            {"user_identities": {"customerid": f"c{n % 5}"}, "events": [purchase("0.1")]}
            for n in range(200)
        ]
        await asyncio.gather(*(send(it, b) for b in batches))
        for n in range(5):
            profile = await view(it, await who_is(it, customerid=f"c{n}"))
            assert profile.lifetime_value == 4.0
            (person,) = profile.workspaces.values()
            assert (person.batches, person.events) == (40, 40)


async def test_newer_information_wins_whenever_it_arrives(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        now = 1_700_000_000_000
        known = {"user_identities": {"customerid": "anna"}}

        def change(at: int, **what: Any) -> dict[str, Any]:
            data = {"user_attribute_name": "city", "timestamp_unixtime_ms": at, **what}
            return {**known, "events": [{"event_type": "user_attribute_change", "data": data}]}

        await send(it, change(now, new="Rome"))
        await send(it, change(now - HOUR, new="Bern"))
        mpid = await who_is(it, customerid="anna")
        (person,) = (await view(it, mpid)).workspaces.values()
        assert person.attributes["city"].value == "Rome"
        await send(it, change(now + HOUR, deleted=True, new=None))
        await send(it, change(now + HOUR // 2, new="Oslo"))
        (person,) = (await view(it, mpid)).workspaces.values()
        assert "city" not in person.attributes


async def test_what_cannot_be_used_is_refused_or_set_aside(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        reply = await it.client.post(
            "/v2/events", json={"events": [{"data": {}}]}, headers=it.basic()
        )
        assert reply.status_code == 400
        error = reply.json()["errors"][0]
        assert error["code"] == "BAD_REQUEST"
        assert error["message"] == 'Required event field "event_type" is missing or empty.'
        assert await send(it, {"events": "x"}) == 400
        assert await send(it, {"events": []}) == 202
        assert await send(it, [{"events": [{}]}, {"events": []}], "/v2/bulkevents") == 202
        async with it.server.core.store.read() as session:
            rows = await session.rows("SELECT kind FROM spool ORDER BY id")
            assert [r[0] for r in rows] == ["quarantine"] * 3
            assert (await session.rows("SELECT count(*) FROM profile"))[0][0] == 0


async def test_no_batch_revives_an_erased_person(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await send(it, {"user_identities": {"customerid": "a"}, "events": [purchase(5)]})
        mpid = await who_is(it, customerid="a")
        core = it.server.core

        await it.erase(mpid)
        async with core.store.read() as session:
            for table in ("batch", "person", "tally"):
                assert (await session.rows(f"SELECT count(*) FROM {table}"))[0][0] == 0
        assert await send(it, {"mpid": mpid, "events": [purchase(5)]}) == 202
        async with core.store.read() as session:
            assert (await session.rows("SELECT count(*) FROM batch"))[0][0] == 0


async def test_historical_batches_must_be_old(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        known = {"user_identities": {"customerid": "a"}}
        old = {**known, "events": [purchase(5, 1_500_000_000_000)]}
        path = "/v2/bulkevents/historical"
        assert await send(it, [known, {**known, "events": [purchase(5)]}, old], path) == 202
        profile = await view(it, await who_is(it, customerid="a"))
        assert profile.lifetime_value == 5
        assert profile.first_seen_ms == 1_500_000_000_000


async def test_native_batches(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        batch = {
            "dt": "h",
            "id": "m1",
            "ui": [{"n": 1, "i": "anna"}, {"n": 7, "i": "a@x.io"}],
            "ua": {"plan": "gold"},
            "uad": ["old"],
            "das": "4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f5",
            "di": {"dp": "Android", "dosv": "15"},
            "con": {"gdpr": {"ads": {"c": False, "ts": 1_700_000_000_000}}},
            "msgs": [
                {"dt": "ss", "ct": 1_700_000_000_000},
                {"dt": "cm", "ct": 1_700_000_000_000, "pd": {"an": "purchase", "tr": 7.5}},
            ],
        }
        content = json.dumps(batch).encode()
        reply = await it.client.post(
            "/v2/app-api-key/events", content=content, headers=it.basic("app")
        )
        assert (reply.status_code, reply.json()) == (202, {})
        profile = await view(it, await who_is(it, customerid="anna"))
        (person,) = profile.workspaces.values()
        assert profile.lifetime_value == 7.5 and profile.sessions == 1
        assert person.devices[0].platform == "android"
        assert not person.consent["gdpr/ads"].consented
