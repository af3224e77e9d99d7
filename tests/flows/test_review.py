"""The review: what was held back is accepted as an undoable change, or refused for good."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import httpx
import pytest
from tests.conftest import Place
from tests.web.serving import TENANTS, Running, running
from typer.testing import CliRunner

from onymous.cli import app
from onymous.flows.files import NoRejects
from onymous.flows.importing import Importer, Job
from onymous.flows.tenants import apply
from onymous.flows.upkeep import DAY_MS
from onymous.store import sql

FIRST, SECOND = "anna@x.io", "anna.new@x.io"


async def allowed(it: Running) -> None:
    """Let `server` and `stranger` review and undo."""
    core = it.server.core
    more = TENANTS.replace('"explain"]', '"explain", review, undo]')
    await apply(core.store, core.key, more, actor="test", now_ms=2)
    await core.directory.load()


async def post(it: Running, path: str, who: str = "server", **body: Any) -> httpx.Response:
    data = {"environment": "production", "reason": "asked her", **body}
    return await it.client.post(path, json=data, headers=it.basic(who))


async def get(it: Running, path: str = "", who: str = "server", **params: Any) -> httpx.Response:
    await it.server.core.journal.flush(it.server.core.store)
    return await it.client.get(f"/v1/review{path}", headers=it.basic(who), params=params)


async def listed(it: Running, **params: Any) -> list[dict[str, Any]]:
    reply = await get(it, **params)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["review"]
    return found


async def known(it: Running, **identities: str) -> str:
    reply = await it.ask("login", identities)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["mpid"])


async def held_back(it: Running, number: str = "c1", email: str = SECOND) -> None:
    """A page that shows its key only gives another login value."""
    identities = {"customerid": number, "email": email}
    assert (await it.ask("identify", identities, who="web", key_only=True)).status_code == 200


async def whose(it: Running, reach: str = "any", **identities: str) -> str | None:
    reply = await it.ask("search", identities, params={"reach": reach})
    return str(reply.json()["mpid"]) if reply.status_code == 200 else None


async def audited(it: Running, action: str) -> list[tuple[str, str, Any]]:
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT actor, subject, detail, action FROM audit ORDER BY id")
    return [(r[0], r[1], json.loads(bytes(r[2]))) for r in rows if r[3] == action]


async def test_a_value_is_accepted_and_undone(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        mpid = await known(it, customerid="c1", email=FIRST)
        assert await listed(it) == []
        await held_back(it)
        await held_back(it)
        (entry,) = await listed(it)
        assert (entry["kind"], entry["reason"], entry["types"]) == (
            "value",
            "stale_value",
            ["email"],
        )
        assert (entry["mpids"], entry["count"], entry["key_only"]) == ([mpid], 2, True)
        assert SECOND not in json.dumps(entry)
        shown = (await get(it, f"/{entry['id']}")).json()
        assert shown["values"] == {"email": SECOND}
        assert shown["now"] == {mpid: {"email": [FIRST]}}
        text = (await it.client.get("/metrics")).text
        assert 'onymous_review_waiting{kind="value"} 1' in text

        done = await post(it, f"/v1/review/{entry['id']}/accept", operator="maria")
        assert done.status_code == 200, done.text
        assert done.json() == {
            "id": entry["id"],
            "decision": "accepted",
            "changed": [mpid],
            "merges": [],
            "applied": 0,
        }
        assert await whose(it, email=SECOND) == mpid
        assert await whose(it, email=FIRST) is None
        assert await listed(it) == []
        ((actor, subject, detail),) = await audited(it, "review_accept")
        assert ("maria" in actor, subject, detail["reason"]) == (True, mpid, "asked her")
        assert (await post(it, f"/v1/review/{entry['id']}/accept")).status_code == 404

        history = await it.client.get(f"/v1/{mpid}/history", headers=it.basic())
        told = history.json()["entries"]
        newest = next(e for e in told if e["operation"] == "modify")
        undone = await post(it, "/v1/undo", entry=newest["entry"])
        assert undone.status_code == 200, undone.text
        assert await whose(it, email=FIRST) == mpid
        await held_back(it)
        assert len(await listed(it)) == 1, "held back again, it waits again"


async def test_what_was_refused_does_not_come_back(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        mpid = await known(it, customerid="c1", email=FIRST)
        await held_back(it)
        (entry,) = await listed(it)
        path = f"/v1/review/{entry['id']}"
        assert (await post(it, f"{path}/refuse", reason=" ")).status_code == 400
        assert (await post(it, f"{path}/refuse", reason="not hers")).status_code == 200
        await held_back(it)
        assert await listed(it) == []
        for verb in ("accept", "refuse"):
            assert (await post(it, f"{path}/{verb}")).status_code == 404
        ((_, subject, detail),) = await audited(it, "review_refuse")
        assert (subject, detail["reason"]) == (mpid, "not hers")
        await held_back(it, email="third@x.io")
        assert len(await listed(it)) == 1, "another value is another question"
        async with it.server.core.store.read() as session:
            newest = (await session.rows("SELECT max(last) FROM held"))[0][0]
        await it.server.core.upkeep.run(newest + 89 * DAY_MS)
        assert len(await listed(it)) == 1
        await it.server.core.upkeep.run(newest + 91 * DAY_MS)
        assert await listed(it) == []


async def test_an_accept_is_decided_again(place: Place, tmp_path: pathlib.Path) -> None:
    """What became another's meanwhile stays theirs; a newer value of the person stays, too."""
    async with running(place, tmp_path) as it:
        await allowed(it)
        mpid = await known(it, customerid="c1", email=FIRST)
        await held_back(it)
        other = await known(it, customerid="c2", email=SECOND)
        (entry,) = await listed(it)
        path = f"/v1/review/{entry['id']}/accept"
        before = await it.counts() | {"job": 0}  # the worker does them meanwhile
        reply = await post(it, path)
        assert reply.status_code == 400 and "another" in reply.text, reply.text
        assert SECOND not in reply.text
        assert await it.counts() | {"job": 0} == before
        assert (await whose(it, email=SECOND), await whose(it, email=FIRST)) == (other, mpid)
        free = [{"identity_type": "email", "old_value": SECOND, "new_value": "c2@x.io"}]
        assert (await it.modify(other, free)).status_code == 200
        newer = [{"identity_type": "email", "old_value": FIRST, "new_value": "newer@x.io"}]
        assert (await it.modify(mpid, newer)).status_code == 200
        assert (await post(it, path)).status_code == 409
        assert await whose(it, email="newer@x.io") == mpid
        assert len(await listed(it)) == 1, "it still waits"
        await held_back(it)
        assert len(await listed(it)) == 1
        assert (await post(it, path)).status_code == 200, "it came again, beside the newer value"
        assert await whose(it, email=SECOND) == mpid


@pytest.mark.parametrize("verbs", [("accept", "accept"), ("accept", "refuse")])
async def test_two_operators_at_once(
    place: Place, tmp_path: pathlib.Path, verbs: tuple[str, str]
) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        mpid = await known(it, customerid="c1", email=FIRST)
        for turn in range(5):
            await held_back(it, email=f"turn{turn}@x.io")
            (entry,) = await listed(it)
            path = f"/v1/review/{entry['id']}"
            replies = await asyncio.gather(*(post(it, f"{path}/{verb}") for verb in verbs))
            codes = [r.status_code for r in replies]
            assert codes.count(200) == 1, [r.text for r in replies]
            assert set(codes) <= {200, 404, 409}
            accepted = verbs[codes.index(200)] == "accept"
            assert await whose(it, email=f"turn{turn}@x.io") == (mpid if accepted else None)
            assert await listed(it) == []
            done = [*await audited(it, "review_accept"), *await audited(it, "review_refuse")]
            assert len(done) == turn + 1


async def test_others_do_not_see_it(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await known(it, customerid="c1", email=FIRST)
        await held_back(it)
        assert (await get(it)).status_code == 403, "permission review"
        await allowed(it)
        (entry,) = await listed(it)
        assert (await get(it, who="stranger")).json() == {"review": [], "next": None}
        assert await listed(it, environment="development") == []
        for path in (entry["id"], "v999999", "c1", "v", "x1", "v1%20", "v" + "9" * 30):
            shown = await get(it, f"/{path}", who="stranger")
            assert shown.status_code == 404, path
            for verb in ("accept", "refuse"):
                reply = await post(it, f"/v1/review/{path}/{verb}", who="stranger")
                assert (reply.status_code, reply.json()["Errors"]) == (
                    404,
                    shown.json()["Errors"],
                ), path
        path = f"/v1/review/{entry['id']}/accept"
        assert (await post(it, path, who="plain")).status_code == 403
        assert (await post(it, path, environment="development")).status_code == 404
        assert (await post(it, path, environment="x")).status_code == 400
        assert len(await listed(it)) == 1


async def test_it_goes_with_an_erasure(place: Place, tmp_path: pathlib.Path) -> None:
    """The person's own entries, and those of others that hold a value of theirs."""
    async with running(place, tmp_path) as it:
        await allowed(it)
        core = it.server.core
        gone = await known(it, customerid="c1", email=FIRST)
        await known(it, customerid="c2", email="c2@x.io")
        await known(it, customerid="c3", email="c3@x.io")
        await held_back(it, "c1", "own@x.io")
        await held_back(it, "c2", SECOND)
        await held_back(it, "c3", "c3.new@x.io")
        (own, theirs, others) = await listed(it)
        assert (await post(it, f"/v1/review/{theirs['id']}/refuse")).status_code == 200
        change = [{"identity_type": "email", "old_value": FIRST, "new_value": SECOND}]
        assert (await it.modify(gone, change)).status_code == 200
        await it.erase(gone, now_ms=9)
        assert [e["id"] for e in await listed(it)] == [others["id"]]
        assert (await get(it, f"/{own['id']}")).status_code == 404
        for _ in range(200):
            async with core.store.read() as session:
                rows = await session.rows("SELECT id FROM held")
            if len(rows) == 1:
                break
            await asyncio.sleep(0.1)
        assert [f"v{row[0]}" for row in rows] == [others["id"]]


async def test_a_full_profile_has_no_room_for_it(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path, max_identities_per_profile=2) as it:
        await allowed(it)
        mpid = await known(it, customerid="c1", email=FIRST)
        assert await known(it, customerid="c1", other="o1") == mpid
        (entry,) = await listed(it)
        assert (entry["reason"], entry["types"]) == ("profile_full", ["other"])
        path = f"/v1/review/{entry['id']}/accept"
        reply = await post(it, path)
        assert reply.status_code == 409 and "as many values as allowed" in reply.text
        removal = [{"identity_type": "email", "old_value": FIRST, "new_value": None}]
        assert (await it.modify(mpid, removal)).status_code == 200
        assert (await post(it, path)).status_code == 200
        assert await whose(it, other="o1") == mpid


async def conflict(it: Running, number: int) -> None:
    """A row of a feed whose values belong to two people."""
    core = it.server.core
    caller = core.directory.find("server-api-key")
    assert caller is not None
    row = {"user_identities": {"customerid": "c1", "email": SECOND}}
    job = Job(caller=caller, name=b"x%d" % number, now_ms=number)
    done = Importer(core.store, core.events, job, NoRejects(), lambda n: None)
    assert (await done.run([(number, row, None)])).conflicts == 1


async def test_rows_of_two_people(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        one = await known(it, customerid="c1", email=FIRST)
        two = await known(it, customerid="c2", email=SECOND)
        await conflict(it, 1)
        await conflict(it, 2)
        await held_back(it, email="v@x.io")
        first, second = await listed(it)
        assert (first["kind"], sorted(first["mpids"])) == ("conflict", sorted([one, two]))
        page = (await get(it, limit=1)).json()
        assert ([e["id"] for e in page["review"]], page["next"]) == ([first["id"]], first["id"])
        rest = (await get(it, limit=1, after=page["next"])).json()
        assert ([e["id"] for e in rest["review"]], rest["next"]) == ([second["id"]], None)
        shown = (await get(it, f"/{first['id']}")).json()
        assert shown["values"] == {"customerid": "c1", "email": SECOND}
        path = f"/v1/review/{first['id']}"
        assert (await post(it, f"{path}/accept", who="stranger")).status_code == 404
        assert (await post(it, f"{path}/accept", into="123")).status_code == 400
        replies = await asyncio.gather(
            post(it, f"{path}/accept", into=one), post(it, f"{path}/accept", into=two)
        )
        assert [r.status_code for r in replies].count(200) == 1, [r.text for r in replies]
        (done,) = [r.json() for r in replies if r.status_code == 200]
        assert len(done["merges"]) == 1
        assert [e["id"] for e in await listed(it)] == [second["id"]]
        same = [await whose(it, reach="protected", customerid=c) for c in ("c1", "c2")]
        assert same[0] == same[1] is not None


async def test_a_refused_row_does_not_come_back(place: Place, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await allowed(it)
        one = await known(it, customerid="c1", email=FIRST)
        two = await known(it, customerid="c2", email=SECOND)
        await conflict(it, 1)
        (entry,) = await listed(it)
        refused = await post(it, f"/v1/review/{entry['id']}/refuse", reason="mother and child")
        assert refused.status_code == 200
        await conflict(it, 2)
        assert await listed(it) == []
        await it.server.core.upkeep.run(1)
        assert (await it.counts())["conflict"] == 1
        assert await whose(it, customerid="c1") == one
        assert await whose(it, customerid="c2") == two
        async with it.server.core.store.read() as session:
            rows = await session.rows(sql.CONFLICTS, 0, 10)
        assert len(rows) == 1, "an erasure still finds it"


def test_on_the_command_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "onymous.yaml").write_text(TENANTS)
    store = ["--store", f"sqlite:{tmp_path}/data"]

    def run(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*words, *store])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in words else result.output

    run("apply", "onymous.yaml")
    (tmp_path / "people.jsonl").write_text(
        '{"customerid": "1", "email": "a@x.io"}\n{"customerid": "2", "email": "b@x.io"}\n'
        '{"customerid": "1", "email": "b@x.io"}\n{"customerid": "1", "email": "new@x.io"}\n'
    )
    run("import", "people.jsonl", "--feed", "server", "--json")
    kinds = {e["kind"]: e["id"] for e in run("review", "list", "--json")["review"]}
    assert set(kinds) == {"conflict", "value"}
    assert "onymous quarantine" in run("review", "list")
    assert run("review", "show", kinds["value"], "--json")["values"] == {"email": "new@x.io"}
    assert "new@x.io" in run("review", "show", kinds["value"])
    why = ["--reason", "seen", "--as", "maria", "--json"]
    assert run("review", "accept", kinds["value"], *why)["decision"] == "accepted"
    assert run("review", "refuse", kinds["conflict"], *why)["decision"] == "refused"
    run("review", "refuse", kinds["conflict"], "--reason", "x", code=1)
    run("review", "accept", "v1", "--reason", " ", code=2)
    assert run("review", "list", "--json") == {"review": [], "next": None}
