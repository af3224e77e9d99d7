"""Past answers told again, undo by entry or request, diagnostics over HTTP; on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import httpx
from tests.flows.test_events_flow import who_is
from tests.flows.test_undoing import allow, names
from tests.web.serving import Running, running


async def explained(it: Running, request: str, who: str = "server", **more: str) -> httpx.Response:
    params = {"request_id": request, **more}
    return await it.client.get("/v1/explain", params=params, headers=it.basic(who))


async def told(it: Running, request: str) -> Any:
    reply = await explained(it, request)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_answers_that_changed_something_and_nothing(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        made = await it.ask("identify", {"ios_idfv": "phone"}, request_id="first")
        anna = made.json()["mpid"]
        await it.ask("login", {"ios_idfv": "phone", "customerid": "anna"}, request_id="joins")
        await it.ask("identify", {"customerid": "anna"}, request_id="reads")
        await it.ask("identify", {"customerid": "anna", "email": "a@x.io"}, request_id="adds")
        alone = await it.ask("identify", {"ios_idfv": "phone"}, request_id="protected")
        first = await told(it, "first")
        assert (first["mpid"], first["operation"]) == (anna, "identify")
        assert first["entries"][0]["changes"][0]["change"] == "created"
        assert first["trace"]["outcome"] == "created" and first["agrees"]
        joins = await told(it, "joins")
        assert joins["mpid"] == anna and joins["agrees"] and joins["given"]
        assert joins["trace"]["attached"] == ["customerid"]
        reads = await told(it, "reads")
        assert reads["mpid"] == anna and "entries" not in reads and reads["agrees"]
        assert any("found by customerid" in line for line in reads["trace_text"])
        other = await told(it, "protected")
        assert other["mpid"] == alone.json()["mpid"] != anna and other["agrees"]
        assert other["trace"]["candidates"][0]["fell_out"] == "protected"


async def test_a_modify_that_changed_nothing_and_one_that_took(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        anna = await who_is(it, customerid="anna", email="a@x.io")
        ben = await who_is(it, customerid="ben")
        change = {"identity_type": "email", "new_value": "a@x.io"}
        await it.modify(anna, [change], request_id="nothing")
        await it.modify(ben, [change], request_id="took")
        nothing = await told(it, "nothing")
        assert nothing["mpid"] == anna and "entries" not in nothing and nothing["agrees"]
        took = await told(it, "took")
        assert took["mpid"] == ben and took["agrees"]
        assert took["trace"]["taken"][0]["held_by"] == anna


async def test_who_may_not_is_told_nothing(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await it.ask("identify", {"customerid": "anna"}, request_id="r")
        assert (await explained(it, "r", "plain")).status_code == 403
        assert (await explained(it, "r", "stranger")).status_code == 404
        assert (await explained(it, "r", environment="development")).status_code == 404
        assert (await explained(it, "other")).status_code == 404
        assert (await explained(it, "")).status_code == 400
        reply = await it.client.get("/v1/explain", params={"request_id": "r"})
        assert reply.status_code == 401


async def test_nothing_is_told_of_an_erased_person(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        reply = await it.ask("identify", {"customerid": "anna"}, request_id="r")
        assert (await told(it, "r"))["mpid"] == reply.json()["mpid"]
        await it.erase(reply.json()["mpid"])
        assert (await explained(it, "r")).status_code == 404


async def test_without_a_journal_what_changed_is_still_told(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path, journal=False) as it:
        await it.ask("identify", {"customerid": "anna"}, request_id="makes")
        await it.ask("identify", {"customerid": "anna"}, request_id="reads")
        makes = await told(it, "makes")
        assert makes["entries"] and "trace" not in makes and "not in the journal" in makes["note"]
        assert (await explained(it, "reads")).status_code == 404


async def test_request_ids_are_forgotten_beyond_the_bound(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path, explain_requests=2) as it:
        core = it.server.core
        for n in range(5):
            await it.ask("identify", {"customerid": "anna"}, request_id=f"r{n}")
        assert (await told(it, "r1"))["operation"] == "identify"
        await core.upkeep.run(1)
        assert (await explained(it, "r1")).status_code == 404
        assert (await told(it, "r4"))["operation"] == "identify"


async def take_back(it: Running, who: str = "server", **more: Any) -> httpx.Response:
    body = {"environment": "production", "reason": "a mistake", **more}
    return await it.client.post("/v1/undo", json=body, headers=it.basic(who))


async def test_undo_by_request_and_by_entry(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allow(it)
        anna = await who_is(it, customerid="anna")
        await it.ask("identify", {"customerid": "anna", "email": "a@x.io"}, request_id="adds")
        seen = await take_back(it, request_id="adds", dry_run=True, operator="Helen")
        assert seen.status_code == 200, seen.text
        assert seen.json()["mpid"] == anna and seen.json()["dry_run"]
        assert ("email", "a@x.io") in await names(it, anna)
        assert (await take_back(it, request_id="adds", operator="Helen")).status_code == 200
        assert await names(it, anna) == {("customerid", "anna")}
        again = await take_back(it, request_id="adds")
        assert again.status_code == 409, again.text
        async with it.server.core.store.read() as session:
            actors = await session.rows("SELECT actor FROM audit WHERE action = 'undo'")
        assert actors == [("one/server (Helen)",)]
        entry = (await told(it, "adds"))["entries"][0]["entry"]
        assert (await take_back(it, entry=int(entry))).status_code == 409
        await it.ask("identify", {"customerid": "anna"}, request_id="reads")
        nothing = await take_back(it, request_id="reads")
        assert nothing.status_code == 409 and "changed nothing" in nothing.text
        assert (await take_back(it, request_id="unknown")).status_code == 404
        assert (await take_back(it)).status_code == 400
        assert (await take_back(it, entry=1, request_id="x")).status_code == 400
        assert (await take_back(it, entry="x")).status_code == 400
        assert (await take_back(it, entry=entry, reason=" ")).status_code == 400
        assert (await take_back(it, "plain", entry=entry)).status_code == 403
        assert (await take_back(it, "stranger", entry=entry)).status_code == 403


async def test_diagnostics_of_ones_own_workspace(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core

        async def asked(who: str = "server", **params: Any) -> Any:
            reply = await it.client.get("/v1/diagnostics", params=params, headers=it.basic(who))
            assert reply.status_code == 200, reply.text
            return reply.json()

        await who_is(it, customerid="anna", email="a@x.io")
        await it.ask("identify", {"customerid": "anna", "email": "b@x.io"}, request_id="stale")
        await core.diagnostics.flush(core.store)
        (entry,) = (await asked())["diagnostics"]
        assert entry["request_id"] == "stale" and entry["input"] == "server"
        assert entry["detail"]["skipped"] == [{"type": "email", "reason": "stale_value"}]
        assert "b@x.io" not in str(entry)
        assert (await asked("stranger"))["diagnostics"] == []
        assert (await asked(kind="other"))["diagnostics"] == []
        page = await asked(after=0, wait=1)
        assert page["next"] == entry["id"]
        assert (await asked(after=page["next"]))["diagnostics"] == []
        refused = await it.client.get("/v1/diagnostics", headers=it.basic("plain"))
        assert refused.status_code == 403
