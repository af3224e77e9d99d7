"""Two apps of one company: one person with one value where they share a scope, two where not."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.flows.test_events_flow import purchase, view
from tests.web.serving import Running, running

from onymous.flows.files import NoRejects
from onymous.flows.importing import Importer, Job
from onymous.flows.tenants import apply

TENANTS = """
organization: Test
scopes:
  shared: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
  alone: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
workspaces:
  shop: {scope: shared, inputs: {shop: {kind: server, api_key: shop-api-key}}}
  game: {scope: shared, inputs: {game: {kind: server, api_key: game-api-key}}}
  bank: {scope: alone, inputs: {bank: {kind: server, api_key: bank-api-key}}}
"""


async def with_apps(it: Running) -> None:
    core = it.server.core
    out = await apply(core.store, core.key, TENANTS, actor="test", now_ms=2)
    it.secrets |= {c.input: c.secret for c in out.credentials}
    await core.directory.load()


async def send(it: Running, who: str, amount: int, **more: Any) -> None:
    known = {"customerid": "anna"}
    batch = {"user_identities": known, "events": [purchase(amount)], **more}
    reply = await it.client.post("/v2/events", json=batch, headers=it.basic(who))
    assert reply.status_code == 202


async def mpid(it: Running, who: str) -> str:
    reply = await it.ask("identify", {"customerid": "anna"}, who=who)
    return str(reply.json()["mpid"])


async def test_one_person_and_the_sum_over_all_apps(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_apps(it)
        await send(it, "shop", 10, user_attributes={"tier": "gold"})
        await send(it, "game", 5, user_attributes={"tier": "level 3"})
        await send(it, "bank", 100)
        assert await mpid(it, "shop") == await mpid(it, "game") != await mpid(it, "bank")
        profile = await view(it, await mpid(it, "shop"))
        assert profile.lifetime_value == 15
        by_workspace = {c.workspace: c.worth // 1_000_000 for c in profile.counts}
        assert sorted(by_workspace.values()) == [5, 10]
        tiers = {p.attributes["tier"].value for p in profile.workspaces.values()}
        assert tiers == {"gold", "level 3"}
        assert (await view(it, await mpid(it, "bank"))).lifetime_value == 100


async def test_a_crm_file_joins_the_profile_of_the_app(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_apps(it)
        await send(it, "shop", 10)
        core = it.server.core
        caller = core.directory.find("game-api-key")
        assert caller is not None
        row = {
            "user_identities": {"customerid": "anna", "email": "a@x.io"},
            "user_attributes": {"segment": "a"},
        }
        job = Job(caller=caller, name=b"crm", now_ms=1_700_000_000_000)
        importer = Importer(core.store, core.events, job, NoRejects(), lambda n: None)
        report = await importer.run([(1, row, None)])
        assert (report.applied, report.created) == (1, 0)
        profile = await view(it, await mpid(it, "shop"))
        assert {n.type for n in profile.user_identities} == {"customerid", "email"}
        values = [p.attributes.get("segment") for p in profile.workspaces.values()]
        assert [v.value for v in values if v is not None] == ["a"]
