"""What a scope or an input may be set to, by its effect: over HTTP, on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.flows.test_events_flow import view
from tests.flows.test_merging import MORE, anonymous_then_known, identify, post, with_more
from tests.web.serving import TENANTS, Running, running

from onymous.flows.tenants import apply

DAY_MS = 86_400_000
WINDOW = {
    "start_unixtime_ms": 1_700_000_000_000,
    "end_unixtime_ms": 1_700_000_000_000 + 2 * DAY_MS,
}


async def again(it: Running, old: str, new: str) -> None:
    """Apply the same document with one line changed."""
    core = it.server.core
    scopes, workspaces = MORE.split("scopes:\n")[1].split("workspaces:")
    document = TENANTS.rstrip() + "\n" + workspaces
    document = document.replace("workspaces:\n", scopes + "workspaces:\n", 1)
    assert document.count(old) == 1
    await apply(core.store, core.key, document.replace(old, new), actor="test", now_ms=3)
    await core.directory.load()


async def test_an_alias_may_wait(place: Any, tmp_path: pathlib.Path) -> None:
    """With `alias_delay_s` it counts once the time is over, and not a moment before."""
    async with running(place, tmp_path) as it:
        await with_more(it)
        await again(
            it, "{strategy: profile_link,", "{strategy: profile_link, alias_delay_s: 86400,"
        )
        anonymous, known = await anonymous_then_known(it)
        data = {"source_mpid": anonymous, "destination_mpid": known, **WINDOW}
        done = await post(it, "/v1/identity/linked-api-key/alias", data=data)
        assert done.status_code == 202
        core = it.server.core
        async with core.store.read() as session:
            ((pool, pid, at),) = await session.rows("SELECT pool, destination, at FROM alias")
        for now_ms, worth in ((at + DAY_MS - 1, 0), (at + DAY_MS, 1 + 2)):
            found = await core.profiles.profile(pool, pid, now_ms)
            assert found is not None and found.lifetime_value == worth


async def test_a_request_id_of_another_alias_is_refused(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        anonymous, known = await anonymous_then_known(it)
        other = await identify(it, "linked", customerid="bea")
        data = {"source_mpid": anonymous, "destination_mpid": known, **WINDOW}
        path = "/v1/identity/linked-api-key/alias"
        one = await post(it, path, data=data, request_id="a1")
        two = await post(it, path, data=data, request_id="a1")
        assert (one.status_code, two.status_code) == (202, 202)
        clash = await post(it, path, data={**data, "destination_mpid": other}, request_id="a1")
        assert clash.status_code == 409
        async with it.server.core.store.read() as session:
            assert await session.rows("SELECT count(*) FROM alias") == [(1,)]
        assert (await view(it, other)).aliases_in == []


async def test_an_input_may_fold_other_spellings(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        refused = await it.ask("login", {"customer_id": "anna"}, who="linked")
        assert refused.status_code == 400 and "customer_id" in refused.text
        assert refused.json()["code"] == "VALIDATION_ERROR"
        await again(
            it,
            "linked: {kind: server, api_key: linked-api-key,",
            "linked: {kind: server, api_key: linked-api-key, fold_keys: true,",
        )
        folded = await it.ask("login", {"customer_id": "anna"}, who="linked")
        assert folded.status_code == 200
        plain = await it.ask("login", {"customerid": "anna"}, who="linked")
        assert plain.json()["mpid"] == folded.json()["mpid"]
        elsewhere = await it.ask("login", {"customer_id": "anna"}, who="apart")
        assert elsewhere.status_code == 400


async def test_blocked_and_hot_values_are_found_by_who_may_search(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """Block lists and crowds concern who is who, not finding and erasing people."""
    async with running(place, tmp_path) as it:
        await with_more(it)
        people = [
            await identify(it, "linked", customerid=f"c{n}", ios_idfv="D", other="guest")
            for n in range(3)
        ]
        await again(
            it,
            "{strategy: profile_link,",
            "{strategy: profile_link, hot_after: 2, blocked: [{type: other, value: guest}],",
        )
        known = {"other": "guest", "ios_idfv": "D"}
        protected = await it.ask("search", known, who="linked", params={"reach": "protected"})
        assert protected.status_code == 404
        for name, value in known.items():
            params = {"reach": "any"}
            found = await it.ask("search", {name: value}, who="linked", params=params)
            assert found.status_code == 200, found.text
            assert {m["mpid"] for m in found.json()["matches"]} == set(people), name
