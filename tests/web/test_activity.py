"""User activity on both engines: what happened to a person and what they did, as one list."""

from __future__ import annotations

import pathlib
from typing import Any

import httpx
import pytest
from tests.conftest import Place
from tests.web.reading import Reading, now, reading

from onymous.flows import activity as activity_module

STAMP = "3b1f5a52-6a0e-4c2f-9a3c-2c1a3b0f7a00"  # its number has 32 bits


def batch(at_ms: int, *names: str, **more: Any) -> dict[str, Any]:
    """Return a batch of custom events, the last one at a time."""
    events = [
        {
            "event_type": "custom_event",
            "data": {"event_name": name, "timestamp_unixtime_ms": at_ms},
        }
        for name in names
    ]
    return {"events": events, **more}


async def timeline(
    here: Reading, mpid: str, *, workspace: str = "one", who: str = "all", **params: Any
) -> httpx.Response:
    """Ask for a page of a timeline."""
    number = here.path(workspace).split("/")[2]
    return await here.client.get(
        f"/v1/activity/{number}/{mpid}", params=params, headers=here.bearer(who)
    )


async def items(here: Reading, mpid: str, **params: Any) -> list[dict[str, Any]]:
    """Return the entries of one page."""
    reply = await timeline(here, mpid, **params)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["items"]
    return found


async def filled(here: Reading) -> str:
    """Make a person with five batches and identity changes."""
    mpid = await here.identify({"customerid": "a"})
    base = now() - 100_000
    for number in range(3):
        await here.send({"mpid": mpid, **batch(base + number * 1000, f"e{number}")})
    device = {"mpid": mpid, "mp_deviceid": STAMP, "device_info": {"platform": "iOS"}}
    await here.send({**device, **batch(base + 5000, "on the phone", "again")})
    view = {"event_type": "screen_view", "data": {"screen_name": "Home"}}
    await here.send({"mpid": mpid, "events": [view]}, "plain")
    change = {"identity_type": "other", "old_value": None, "new_value": "o"}
    assert (await here.running.modify(mpid, [change])).status_code == 200
    return mpid


async def test_one_list_newest_first(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        found = (await timeline(here, mpid)).json()
        assert found["mpid"] == mpid
        assert found["environment"] == "production"
        assert found["next"] is None
        times = [i["at_ms"] for i in found["items"]]
        assert times == sorted(times, reverse=True)
        kinds = [i["type"] for i in found["items"]]
        assert kinds.count("batch") == 5
        changes = [i for i in found["items"] if i["type"] == "identity_change"]
        assert {c["operation"] for c in changes} == {"identify", "events", "modify"}
        assert changes[0]["changes"][0]["value"] == "o"
        phone = next(i for i in found["items"] if i.get("device") == STAMP)
        assert phone["platform"] == "iOS"
        assert [e["name"] for e in phone["events"]] == ["on the phone", "again"]
        assert phone["events_total"] == 2


async def test_filters(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        everything = await items(here, mpid)
        batches = [i for i in everything if i["type"] == "batch"]
        assert [i["id"] for i in await items(here, mpid, device=STAMP)] == [
            i["id"] for i in batches if i.get("device") == STAMP
        ]
        assert await items(here, mpid, device="unknown") == []
        views = await items(here, mpid, event_type="screen_view")
        assert [i["events"][0]["name"] for i in views] == ["Home"]
        changes = await items(here, mpid, event_type="identity_change")
        assert {i["type"] for i in changes} == {"identity_change"}
        assert len(changes) == len(everything) - len(batches)
        assert {i["input"] for i in await items(here, mpid, input="plain")} == {"plain"}
        assert (await timeline(here, mpid, input="sisterfeed")).status_code == 400
        oldest = min(i["at_ms"] for i in batches)
        window = await items(here, mpid, **{"from": oldest, "to": oldest + 1000})
        assert [i["events"][0]["name"] for i in window] == ["e1", "e0"]


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
async def test_pages_join_without_gap(place: Place, tmp_path: pathlib.Path, limit: int) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        # several batches at the same millisecond
        for number in range(4):
            await here.send({"mpid": mpid, **batch(1_700_000_000_000, f"same {number}")})
        whole = [(i["type"], i["id"]) for i in await items(here, mpid, limit=500)]
        joined: list[tuple[str, str]] = []
        cursor: dict[str, Any] = {}
        for _ in range(50):
            page = (await timeline(here, mpid, limit=limit, **cursor)).json()
            assert len(page["items"]) <= limit
            joined += [(i["type"], i["id"]) for i in page["items"]]
            if page["next"] is None:
                break
            cursor = {"after": page["next"]}
        assert joined == whole
        assert len(set(joined)) == len(joined)


async def test_a_rare_event_is_found_over_several_pages(
    place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity_module, "MOST_LOOKED", 3)
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        found: list[Any] = []
        cursor: dict[str, Any] = {}
        pages = 0
        while True:
            reply = await timeline(here, mpid, limit=1, event_type="screen_view", **cursor)
            page = reply.json()
            found += page["items"]
            pages += 1
            if page["next"] is None:
                break
            cursor = {"after": page["next"]}
        assert len(found) == 1
        assert pages > 1


async def test_raw_batch(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        other = await here.identify({"customerid": "b"})
        number = here.path().split("/")[2]
        phone = (await items(here, mpid, device=STAMP))[0]

        async def raw(whose: str, id_: str, workspace: str = number) -> httpx.Response:
            path = f"/v1/activity/{workspace}/{whose}/batches/{id_}"
            return await here.client.get(path, headers=here.bearer())

        reply = await raw(mpid, phone["id"])
        assert reply.status_code == 200
        assert reply.json()["mp_deviceid"] == STAMP
        assert reply.json()["mpid"] == mpid
        assert (await raw(other, phone["id"])).status_code == 404, "not theirs"
        sister = here.path("sister").split("/")[2]
        assert (await raw(mpid, phone["id"], sister)).status_code == 404
        for bad in ("0", "999999", "x", "-1", "9" * 30):
            assert (await raw(mpid, bad)).status_code == 404, bad


async def test_other_workspaces(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        await here.issue("narrow", "activity:read", workspaces=("one",))
        await here.issue("profiles", "profile:read", workspaces=("one",))
        mpid = await here.identify({"customerid": "a"}, who="sisterfeed")
        await here.send({"mpid": mpid, **batch(now(), "secret of sister")}, "sisterfeed")
        await here.send({"mpid": mpid, **batch(now(), "of one")})
        assert "secret of sister" not in (await timeline(here, mpid)).text
        narrow = await timeline(here, mpid, who="narrow")
        # that the identity exists is known in the scope; where it came from is not told
        assert "sister" not in narrow.text
        assert '"a"' in narrow.text
        wide = await timeline(here, mpid)
        assert "sisterfeed" in wide.text
        assert (await timeline(here, mpid, workspace="sister", who="narrow")).status_code == 403
        assert (await timeline(here, mpid, workspace="two")).status_code == 403
        assert (await timeline(here, mpid, who="profiles")).status_code == 403
        foreign = (await here.running.ask("identify", {"customerid": "b"}, who="stranger")).json()
        assert (await timeline(here, foreign["mpid"])).status_code == 404


async def test_bad_questions(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        for params in (
            {"limit": 0},
            {"limit": 501},
            {"limit": "x"},
            {"from": -1},
            {"to": "1.5"},
            {"after": "x"},
            {"after": "1.2.3"},
            {"after": "1.1"},
            {"input": "nothing"},
        ):
            assert (await timeline(here, mpid, **params)).status_code == 400, params
        assert (await timeline(here, "1")).status_code == 404
        assert (await timeline(here, "x")).status_code == 400
        number = here.path().split("/")[2]
        assert (await here.client.get(f"/v1/activity/{number}/{mpid}")).status_code == 401


async def test_reading_a_timeline_is_audited(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        mpid = await filled(here)
        phone = (await items(here, mpid, device=STAMP))[0]
        number = here.path().split("/")[2]
        path = f"/v1/activity/{number}/{mpid}/batches/{phone['id']}"
        assert (await here.client.get(path, headers=here.bearer())).status_code == 200
        await here.core.reads.flush(here.core.store)
        async with here.core.store.read() as session:
            rows = await session.rows(
                "SELECT actor, subject, detail FROM audit WHERE action = 'activity.read'"
            )
        assert {(row[0], row[1]) for row in rows} == {(here.clients["all"]["client_id"], mpid)}
        assert sum(b"timeline" in bytes(row[2]) for row in rows) == 1
        assert sum(f"batch {phone['id']}".encode() in bytes(row[2]) for row in rows) == 1


@pytest.mark.parametrize("scope", ["device", "mpid"])
async def test_alias_windows_and_merges_belong(
    place: Place, tmp_path: pathlib.Path, scope: str
) -> None:
    async with reading(place, tmp_path) as here:
        visitor = await here.identify({"device_application_stamp": STAMP})
        person = await here.identify({"customerid": "a"})
        at = now() - 50_000
        device = {"mpid": visitor, "mp_deviceid": STAMP}
        await here.send({**device, **batch(at, "inside")})
        await here.send({**device, **batch(at - 40_000, "before")})
        await here.send({"mpid": visitor, **batch(at, "no device")})
        core = here.core
        async with core.store.write("test") as tx:
            pids = [core.mpids.parse(m) for m in (visitor, person)]
            pool = (await tx.rows("SELECT pool FROM profile WHERE pid = ?", pids[0]))[0][0]
            await tx.run(
                "INSERT INTO alias (pool, source, destination, start_ms, end_ms, scope, stamp, at,"
                " effective, input, outcome, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 1, 0, 1, 'applied', '')",
                *(pool, *pids, at - 1000, at + 1000, scope, STAMP),
            )
        names = [e["name"] for i in await items(here, person) for e in i.get("events", ())]
        assert sorted(names) == (["inside"] if scope == "device" else ["inside", "no device"])
        number = here.path().split("/")[2]
        for item in await items(here, visitor):
            if item["type"] != "batch":
                continue
            inside = item["events"][0]["name"] in names
            path = f"/v1/activity/{number}/{person}/batches/{item['id']}"
            reply = await here.client.get(path, headers=here.bearer())
            assert reply.status_code == (200 if inside else 404)
        # the profile counts the same window, on every engine
        reply = await here.read(person, "lifetime_value")
        assert reply.status_code == 200
