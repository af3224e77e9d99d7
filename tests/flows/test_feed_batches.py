"""What a feed sends over HTTP are rows of it: of two people they change nothing, and are kept."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tests.flows.test_events_flow import purchase, view
from tests.web.serving import TENANTS, Running, running

from onymous.flows.merging import Actor
from onymous.flows.tenants import apply

FEEDS = TENANTS.replace(
    "workspaces:\n  one:\n    scope: people\n",
    """workspaces:
  one:
    scope: people
    feeds:
      crm: {kind: custom_feed, api_key: crm-api-key}
      partner: {kind: partner_feed, partner: Braze, api_key: partner-api-key}
""",
)
ROW = {
    "source_request_id": "row-1",
    "user_identities": {"customer_id": "anna", "email": "ben@x.io"},
    "user_attributes": {"plan": "gold"},
    "events": [purchase(5)],
}


async def with_feeds(it: Running) -> tuple[str, str]:
    """Add the feeds; return the MPIDs of Anna and Ben."""
    core = it.server.core
    out = await apply(core.store, core.key, FEEDS, actor="test", now_ms=2)
    it.secrets |= {c.input: c.secret for c in out.credentials}
    await core.directory.load()
    anna = (await it.ask("login", {"customerid": "anna"})).json()["mpid"]
    ben = (await it.ask("login", {"email": "ben@x.io"})).json()["mpid"]
    return str(anna), str(ben)


async def send(it: Running, body: Any, who: str, path: str = "/v2/events") -> None:
    answer = await it.client.post(path, json=body, headers=it.basic(who))
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("who", ["crm", "partner"])
@pytest.mark.parametrize("path", ["/v2/events", "/v2/bulkevents", "/s2s/v2/events"])
async def test_a_row_of_two_people_changes_nothing_until_they_are_one(
    place: Any, tmp_path: pathlib.Path, who: str, path: str
) -> None:
    async with running(place, tmp_path) as it:
        anna, ben = await with_feeds(it)
        await send(it, [ROW] if "bulk" in path else ROW, who, path)
        for mpid in (anna, ben):
            assert (await view(it, mpid)).workspaces == {}
        core = it.server.core
        caller = core.directory.find("server-api-key")
        assert caller is not None
        pool = caller.pool("production")
        (waiting,), _ = await core.review.page((pool, pool), None, 10)
        assert (waiting.kind, sorted(waiting.mpids)) == ("conflict", sorted([anna, ben]))
        (aside,) = await core.spool.quarantined()
        assert aside.reason == "conflict"
        # tried again while they are two it stays; the conflict is the same
        assert (await core.spool.replay()).left == 1
        assert len((await core.review.page((pool, pool), None, 10))[0]) == 1
        actor = Actor(name="test", reason="one person", now_ms=3)
        await core.merging.merge(caller.plan, pool, ben, anna, actor)
        assert (await core.spool.replay()).applied == 1
        both = await view(it, anna)
        (known,) = both.workspaces.values()
        assert known.attributes["plan"].value == "gold" and both.lifetime_value == 5
        assert await core.spool.quarantined() == []
        # it is known by its name: sent again it counts once
        await send(it, ROW, who)
        assert (await view(it, anna)).lifetime_value == 5


async def test_accepting_it_applies_what_waited(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        anna, _ = await with_feeds(it)
        other = {**ROW, "source_request_id": "3", "user_identities": {"email": "ben@x.io"}}
        for body in (ROW, {**ROW, "source_request_id": "2"}, other, {"user_identities": {}}):
            await send(it, body, "crm")
        core = it.server.core
        caller = core.directory.find("crm-api-key")
        assert caller is not None
        pools = (caller.pool("production"),) * 2
        (waiting,), _ = await core.review.page(pools, None, 10)
        actor = Actor(name="test", reason="one person", now_ms=3)
        done = await core.review.accept(pools, waiting.id, actor, anna)
        assert (done.applied, len(done.merges)) == (2, 1)
        both = await view(it, anna)
        assert both.lifetime_value == 15
        assert [row.reason for row in await core.spool.quarantined()] == ["no_usable_identity"]


async def test_a_row_of_one_person_is_applied(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        anna, _ = await with_feeds(it)
        await send(it, {**ROW, "user_identities": {"customer_id": "anna"}}, "crm")
        assert (await view(it, anna)).lifetime_value == 5
        await send(it, {**ROW, "source_request_id": "2", "mpid": anna}, "crm")
        assert (await view(it, anna)).lifetime_value == 10, "who is named by an MPID is named"
        assert (await it.counts())["conflict"] == 0


async def test_a_server_is_no_feed(place: Any, tmp_path: pathlib.Path) -> None:
    """There the order of priority decides whose it is; nobody's value moves."""
    async with running(place, tmp_path) as it:
        anna, ben = await with_feeds(it)
        await send(it, ROW, "server")
        assert (await view(it, anna)).lifetime_value == 5
        assert [n.value for n in (await view(it, ben)).user_identities] == ["ben@x.io"]
