"""Aliases with effect, merges and their undoing: by pointer, exactly, on both engines."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import httpx
from tests.flows.test_events_flow import purchase, send, view, who_is
from tests.web.serving import TENANTS, Running, running

from onymous.flows.tenants import apply

STAMP = "4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f5"
MORE = """
organization: Test
scopes:
  link: {strategy: profile_link, login: [customerid, email], unique: [customerid, email]}
  apart: {strategy: profile_isolation, login: [customerid], unique: [customerid]}
workspaces:
  linked:
    scope: link
    inputs:
      linked: {kind: server, api_key: linked-api-key,
               permissions: [merge, "alias:any", "search:any"]}
      lweb: {kind: web, api_key: lweb-api-key}
  apart:
    scope: apart
    inputs:
      apart: {kind: server, api_key: apart-api-key, permissions: [merge, "alias:any"]}
"""


async def with_more(it: Running) -> None:
    core = it.server.core
    document = TENANTS.rstrip() + "\n" + MORE.split("workspaces:")[1]
    scopes = MORE.split("scopes:\n")[1].split("workspaces:")[0]
    document = document.replace("workspaces:\n", scopes + "workspaces:\n", 1)
    out = await apply(core.store, core.key, document, actor="test", now_ms=2)
    it.secrets |= {c.input: c.secret for c in out.credentials}
    await core.directory.load()


async def post(it: Running, path: str, who: str = "linked", **body: Any) -> httpx.Response:
    data = {"environment": "production", **body}
    return await it.client.post(path, json=data, headers=it.basic(who))


async def identify(it: Running, who: str, **known: str) -> str:
    reply = await it.ask("identify", known, who=who)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["mpid"])


async def anonymous_then_known(it: Running) -> tuple[str, str]:
    """Visits and buys anonymously, then registers: two profiles in link."""
    anonymous = await identify(it, "linked", device_application_stamp=STAMP)
    for day in (1, 2, 3):
        batch = {
            "mpid": anonymous,
            "mp_deviceid": STAMP,
            "user_attributes": {"seen": str(day)},
            "events": [purchase(day, 1_700_000_000_000 + day * 86_400_000)],
        }
        assert await send(it, batch, who="linked") == 202
    known = await identify(it, "linked", customerid="anna", device_application_stamp=STAMP)
    assert known != anonymous
    return anonymous, known


async def test_an_alias_gives_history_and_undo_takes_exactly_that(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        anonymous, known = await anonymous_then_known(it)
        await send(it, {"mpid": known, "events": [purchase(10)]}, who="linked")
        before = await view(it, known)
        assert before.lifetime_value == 10
        window = {
            "source_mpid": anonymous,
            "destination_mpid": known,
            "start_unixtime_ms": 1_700_000_000_000,
            "end_unixtime_ms": 1_700_000_000_000 + 2 * 86_400_000,
        }
        done = await post(it, "/v1/identity/linked-api-key/alias", data=window)
        assert done.status_code == 202
        after = await view(it, known)
        assert after.lifetime_value == 10 + 1 + 2
        assert after.first_seen_ms == 1_700_000_000_000 + 86_400_000
        assert [a.other for a in after.aliases_in] == [anonymous]
        assert [a.other for a in (await view(it, anonymous)).aliases_out] == [known]
        (person,) = after.workspaces.values()
        assert "seen" not in person.attributes
        late = {"mpid": anonymous, "events": [purchase(5, 1_700_000_000_001)]}
        await send(it, late, who="linked")
        assert (await view(it, known)).lifetime_value == 18
        assert (await post(it, "/v1/alias/1/undo", who="stranger", reason="x")).status_code == 403
        assert (await post(it, "/v1/alias/1/undo", who="apart", reason="x")).status_code == 404
        undone = await post(it, "/v1/alias/1/undo", reason="wrong person")
        assert undone.status_code == 200, undone.text
        again = await view(it, known)
        assert (again.lifetime_value, again.first_seen_ms) == (10, before.first_seen_ms)
        assert again.aliases_in == []
        assert (await post(it, "/v1/alias/1/undo", reason="again")).status_code == 404


async def test_an_alias_may_copy_attributes_and_consent(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        anonymous, known = await anonymous_then_known(it)
        yes, no = {"consented": True, "timestamp_unixtime_ms": 5}, {"consented": False}
        await send(
            it,
            {"mpid": anonymous, "consent_state": {"gdpr": {"ads": yes, "mail": yes}}},
            who="linked",
        )
        no["timestamp_unixtime_ms"] = 4
        await send(it, {"mpid": known, "consent_state": {"gdpr": {"mail": no}}}, who="linked")
        data = {"source_mpid": anonymous, "destination_mpid": known}
        copy = {**data, "copy": ["attributes", "consent"]}
        web = await it.client.post(
            "/v1/identity/lweb-api-key/alias",
            json={"environment": "production", "data": copy},
        )
        assert web.status_code == 403
        assert (await post(it, "/v1/identity/linked-api-key/alias", data=copy)).status_code == 202
        (person,) = (await view(it, known)).workspaces.values()
        assert person.attributes["seen"].value == "3"
        assert person.consent["gdpr/ads"].consented
        assert not person.consent["gdpr/mail"].consented
        assert (await post(it, "/v1/alias/1/undo", reason="x")).status_code == 200
        (person,) = (await view(it, known)).workspaces.values()
        assert "seen" not in person.attributes and list(person.consent) == ["gdpr/mail"]


async def test_a_merge_is_a_pointer_and_its_undo_exact(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        one = await identify(it, "linked", customerid="old", email="a@x.io")
        two = await identify(it, "linked", customerid="new")
        await send(
            it, {"mpid": one, "events": [purchase(5)], "user_attributes": {"c": "1"}}, who="linked"
        )
        await send(
            it, {"mpid": two, "events": [purchase(7)], "user_attributes": {"c": "2"}}, who="linked"
        )
        was_one, was_two = await view(it, one), await view(it, two)
        pair = {"source_mpid": one, "destination_mpid": two, "reason": "same passport"}
        seen = await post(it, "/v1/merge", dry_run=True, **pair)
        preview = seen.json()["preview"]
        assert preview["lifetime_value"] == 12
        assert preview["warnings"] == ["both have a customerid, and not the same"]
        assert preview["differing"][0]["shown"] == "2"
        assert (await view(it, one)).mpid == one
        done = await post(it, "/v1/merge", **pair)
        assert done.status_code == 200, done.text
        assert await identify(it, "linked", email="a@x.io") == two
        assert await identify(it, "linked", customerid="old") == two
        merged = await view(it, one)
        assert (merged.mpid, merged.lifetime_value) == (two, 12)
        assert {n.value for n in merged.user_identities} == {"old", "new", "a@x.io"}
        await send(
            it, {"user_identities": {"email": "a@x.io"}, "events": [purchase(100)]}, who="linked"
        )
        assert (await view(it, two)).lifetime_value == 112
        again = await post(it, "/v1/merge", **pair)
        assert again.status_code == 400
        back = {"source_mpid": two, "destination_mpid": one, "reason": "x"}
        assert (await post(it, "/v1/merge", **back)).status_code == 400
        listed = await it.client.get(f"/v1/{two}/merges", headers=it.basic("linked"))
        number = listed.json()["merges"][0]["id"]
        undone = await post(it, f"/v1/merge/{number}/undo", reason="two cousins")
        assert undone.status_code == 200, undone.text
        assert await identify(it, "linked", email="a@x.io") == one
        now_one, now_two = await view(it, one), await view(it, two)
        assert now_two.lifetime_value == was_two.lifetime_value == 7
        assert now_one.lifetime_value == was_one.lifetime_value + 100
        assert now_two.user_identities == was_two.user_identities


async def test_merges_have_bounds(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        a, b, c = [await identify(it, "linked", customerid=n) for n in "abc"]
        foreign = await identify(it, "apart", customerid="a")
        other = await identify(it, "apart", customerid="b")

        async def merge(one: str, two: str, who: str = "linked") -> httpx.Response:
            return await post(
                it, "/v1/merge", who=who, source_mpid=one, destination_mpid=two, reason="r"
            )

        assert (await merge(a, foreign)).status_code == 400
        assert (await merge(foreign, a)).status_code == 400
        assert (await merge(a, a)).status_code == 400
        assert (await merge(foreign, other, "apart")).status_code == 403
        first = await merge(a, b)
        assert first.status_code == 200
        second = await merge(b, c)
        assert second.status_code == 200
        assert await identify(it, "linked", customerid="a") == c
        refused = await post(it, f"/v1/merge/{first.json()['id']}/undo", reason="r")
        assert refused.status_code == 409
        assert (await merge(c, a)).status_code == 400
        await it.erase(c, who="linked", now_ms=9)
        for name in "abc":
            reply = await it.ask("search", {"customerid": name}, who="linked")
            assert reply.status_code == 404
        assert await who_is(it, customerid="a") not in (a, b, c)


async def test_an_alias_shows_its_outcome_on_both_profiles(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        anonymous, known = await anonymous_then_known(it)
        path = "/v1/identity/linked-api-key/alias"
        pair = {"source_mpid": anonymous, "destination_mpid": known}
        for odd in (
            {"scope": "device"},
            {"scope": "everything"},
            {"end_unixtime_ms": 1, "start_unixtime_ms": 2},
        ):
            assert (await post(it, path, data={**pair, **odd})).status_code == 400
        far = {"scope": "device", "device_application_stamp": STAMP, "start_unixtime_ms": 1}
        reply = await post(it, path, data={**pair, **far, "end_unixtime_ms": 1 << 52})
        assert reply.status_code == 202
        assert (await post(it, path, data=pair)).status_code == 202
        listed = [
            (await it.client.get(f"/v1/{mpid}/aliases", headers=it.basic("linked"))).json()[
                "aliases"
            ]
            for mpid in (anonymous, known)
        ]
        assert listed[0] == listed[1]
        assert [(a["outcome"], a["reason"]) for a in listed[0]] == [
            ("rejected", "source_already_aliased"),
            ("applied", ""),
        ]
        assert listed[0][1]["end_ms"] < listed[0][1]["at_ms"] + 2 * 86_400_000
        for who, status in (("lweb", 403), ("apart", 200)):
            answer = await it.client.get(f"/v1/{known}/aliases", headers=it.basic(who))
            assert answer.status_code == status
            assert status == 403 or answer.json() == {"aliases": []}
        # another device of the same visitor is not part of it
        later = {"mpid": anonymous, "mp_deviceid": STAMP[::-1], "events": [purchase(50)]}
        await send(it, later, who="linked")
        assert (await view(it, known)).lifetime_value == 6


async def test_merges_at_the_same_time_never_make_a_circle(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        names = [await identify(it, "linked", customerid=f"c{n}") for n in range(6)]
        # 0 -> 1, 3 -> 4 stand; then 1 -> 3 and 4 -> 0 at once would close the circle
        for one, two in ((0, 1), (3, 4)):
            pair = {"source_mpid": names[one], "destination_mpid": names[two]}
            assert (await post(it, "/v1/merge", reason="x", **pair)).status_code == 200
        pairs = [(1, 3), (4, 0)] * 3
        answers = await asyncio.gather(
            *(
                post(
                    it,
                    "/v1/merge",
                    reason="x",
                    source_mpid=names[one],
                    destination_mpid=names[two],
                )
                for one, two in pairs
            )
        )
        assert sorted(a.status_code for a in answers) == [200, 400, 400, 400, 400, 400]
        (done,) = [a.json() for a in answers if a.status_code == 200]
        lead = {(await view(it, n)).mpid for n in (names[0], names[1], names[3], names[4])}
        assert lead == {names[4] if done["source"] == names[1] else names[1]}
        undone = await post(it, f"/v1/merge/{done['id']}/undo", reason="x")
        assert undone.json()["source"] == done["source"]


def begun(name: str, at: int) -> dict[str, Any]:
    """Return the start of a session that has a name."""
    data = {"session_uuid": name, "timestamp_unixtime_ms": at}
    return {"event_type": "session_start", "data": data}


async def test_a_session_both_told_of_counts_once(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        anonymous, known = await anonymous_then_known(it)
        at = 1_700_000_000_000
        for mpid, names in ((anonymous, ("x", "a")), (known, ("x", "b", "c"))):
            events = [begun(name, at + n) for n, name in enumerate(names)]
            web = {"device_info": {"platform": "web"}}
            assert await send(it, {"mpid": mpid, "events": events, **web}, who="linked") == 202
        assert (await view(it, anonymous)).sessions == 2
        path = "/v1/identity/linked-api-key/alias"
        alias = {"source_mpid": anonymous, "destination_mpid": known}
        window = {"start_unixtime_ms": at - 1, "end_unixtime_ms": at + 10**9}
        assert (await post(it, path, data={**alias, **window})).status_code == 202
        assert (await view(it, known)).sessions == 4, "x, a, b, c"
        number = (await view(it, known)).aliases_in[0].id
        await post(it, f"/v1/alias/{number}/undo", reason="test")
        assert (await view(it, known)).sessions == 3
        # of half of a history nobody knows which names it has: what is not sure counts
        half = {"start_unixtime_ms": at + 1, "end_unixtime_ms": at + 10**9}
        assert (await post(it, path, data={**alias, **half})).status_code == 202
        assert (await view(it, known)).sessions == 4
        number = (await view(it, known)).aliases_in[0].id
        await post(it, f"/v1/alias/{number}/undo", reason="test")
        merged = (await post(it, "/v1/merge", **alias, reason="same person")).json()
        both = await view(it, known)
        assert both.sessions == 4
        assert [(c.platform, c.sessions) for c in both.counts if c.sessions] == [("web", 4)]
        assert [p.sessions for p in both.workspaces.values()] == [{"web": 4}]
        await post(it, f"/v1/merge/{merged['id']}/undo", reason="two after all")
        assert (await view(it, known)).sessions == 3
        assert (await view(it, anonymous)).sessions == 2
