"""The configuration over HTTP: the same checks and versions as apply, for operators only."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import httpx
import pytest
from tests.conftest import Place
from tests.web.reading import Reading, reading
from tests.web.test_manage_port import free_port

from onymous.flows.scope_changes import finish
from onymous.flows.versions import versions


class Operator:
    """A client of the management API."""

    def __init__(self, here: Reading) -> None:
        self.here = here
        org = next(iter(here.core.tokens.workspaces.values())).organization
        self.base = f"/platform/v2/organizations/{org}"

    async def ask(
        self,
        method: str,
        path: str,
        *,
        who: str = "boss",
        match: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        headers = self.here.bearer(who) | ({} if match is None else {"If-Match": match})
        return await self.here.client.request(method, self.base + path, headers=headers, **more)

    async def now(self) -> dict[str, Any]:
        reply = await self.ask("GET", "/configuration")
        assert reply.status_code == 200
        out: dict[str, Any] = reply.json()
        assert reply.headers["etag"] == f'"{out["version"]}"'
        assert reply.headers["cache-control"] == "private, no-store"
        return out


async def operator(here: Reading) -> Operator:
    await here.issue("boss", "platform:admin", workspaces=())
    await here.issue("eyes", "platform:read", workspaces=())
    return Operator(here)


async def test_read_change_and_bring_back(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        first = await op.now()
        assert first["configuration"]["scopes"]["people"]["strategy"] == "profile_conversion"
        assert all(s not in first["document"] for s in here.running.secrets.values())
        text = first["document"] + "  new one:\n    inputs: {page: {kind: web}}\n"
        tag = f'"{first["version"]}"'
        seen = await op.ask("POST", "/configuration/dry_run", content=text)
        assert seen.status_code == 200 and seen.json()["dry_run"] and seen.json()["changed"]
        assert (await op.now())["version"] == first["version"]
        done = await op.ask(
            "PUT", "/configuration", match=tag, content=text, params={"reason": "a new page"}
        )
        assert done.status_code == 200
        body = done.json()
        assert body["version"] == first["version"] + 1 == (await op.now())["version"]
        assert "+ workspace new one" in "\n".join(body["lines"])
        made = body["credentials"][0]
        known = {"environment": "production", "known_identities": {"other": "x"}}
        key = {"x-mp-key": made["api_key"]}
        reply = await here.client.post("/v1/identify", json=known, headers=key)
        assert reply.status_code == 200, "what was made holds at once where it was made"
        newest = (await versions(here.core.store))[0]
        assert newest.reason == "a new page" and newest.author.startswith("boss (on-")
        listed = (await op.ask("GET", "/configuration/versions", who="eyes")).json()["versions"]
        assert [v["version"] for v in listed] == [3, 2, 1] and first["version"] == 2
        old = await op.ask("GET", f"/configuration/versions/{first['version']}", who="eyes")
        assert old.json()["document"] == first["document"]
        assert (await op.ask("GET", "/configuration/versions/99")).status_code == 404


async def test_rollback_over_http(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        first = await op.now()
        text = first["document"].replace("kind: web", "kind: web\n        max_age_s: 7")
        await op.ask("PUT", "/configuration", match="*", content=text)
        wanted = {"version": first["version"], "reason": "it was better"}
        seen = await op.ask("POST", "/configuration/rollback", json=wanted | {"dry_run": True})
        assert seen.json()["lines"] == ["~ input one/web: max_age_s: 7 -> 86400"]
        assert (await op.ask("POST", "/configuration/rollback", json=wanted)).status_code == 428
        done = await op.ask("POST", "/configuration/rollback", match='"3"', json=wanted)
        assert done.status_code == 200 and done.json()["version"] == 4
        assert (await op.now())["document"] == first["document"]
        assert (await versions(here.core.store))[0].rolled_back_to == first["version"]


async def test_two_operators_do_not_overwrite_each_other(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        first = await op.now()
        texts = [
            first["document"].replace("kind: web", f"kind: web\n        max_age_s: {n}")
            for n in range(6)
        ]
        match = f'"{first["version"]}"'
        out = await asyncio.gather(
            *(op.ask("PUT", "/configuration", match=match, content=text) for text in texts)
        )
        assert sorted(r.status_code for r in out) == [200, 412, 412, 412, 412, 412]
        won = next(n for n, r in enumerate(out) if r.status_code == 200)
        assert f"max_age_s: {won}\n" in (await op.now())["document"]
        assert (await op.ask("PUT", "/configuration", content=texts[0])).status_code == 428


async def test_bad_and_unsafe_documents_change_nothing(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        first = await op.now()
        bad = first["document"].replace("kind: web", "kind: wep")
        reply = await op.ask("PUT", "/configuration", match="*", content=bad)
        assert reply.status_code == 400 and "wep" in reply.json()["problems"][0]["why"]
        assert reply.json()["problems"][0]["line"]
        await here.running.ask("identify", {"customerid": "1"})
        unsafe = first["document"].replace("profile_conversion", "profile_link")
        reply = await op.ask("PUT", "/configuration", match="*", content=unsafe)
        assert reply.status_code == 409
        assert reply.json()["refused"][0]["name"] == "people" and "hint" in reply.json()
        seen = await op.ask("PUT", "/configuration", content=unsafe, params={"dry_run": "true"})
        assert "refuse" in {s["action"] for s in seen.json()["steps"]}
        for content in (b"\xff", b"", b"[]", b"{}", b"a: &x [*x]", b"x" * (5 << 20)):
            reply = await op.ask("PUT", "/configuration", match="*", content=content)
            assert reply.status_code in (400, 413), content[:9]
        long = {"reason": "x" * 501}
        reply = await op.ask("PUT", "/configuration", match="*", content=bad, params=long)
        assert reply.status_code == 400
        assert (await op.now()) == first


async def test_identity_scopes(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        await here.running.ask("identify", {"customerid": "1"})
        listed = (await op.ask("GET", "/identity_scopes", who="eyes")).json()["identity_scopes"]
        people, others = listed
        assert (people["name"], people["holds_data"]) == ("people", True)
        assert people["workspaces"] == ["sister", "one"] or people["workspaces"] == [
            "one",
            "sister",
        ]
        assert others["workspaces"] == ["two"] and others["login"] == ["customerid"]
        path = f"/identity_scopes/{people['id']}"
        one = await op.ask("GET", path)
        assert one.json() == people
        tag = one.headers["etag"]
        same = await op.ask("PUT", path, match=tag, json=people)
        assert same.status_code == 200 and not same.json()["changed"]
        changed = people | {"hot_after": 50}
        done = await op.ask("PUT", path, match=tag, json=changed, params={"reason": "hot"})
        assert done.json()["lines"] == ["~ scope people: hot_after: 100 -> 50"]
        assert (await op.ask("GET", path)).json() == changed
        assert (await op.ask("PUT", path, match=tag, json=people)).status_code == 412
        unsafe = people | {"unique": ["customerid"]}
        assert (await op.ask("PUT", path, match="*", json=unsafe)).status_code == 409


async def test_scopes_are_made_and_take_empty_workspaces(
    place: Place, tmp_path: pathlib.Path
) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        fresh = {"name": "fresh", "strategy": "best_match", "workspaces": ["two"]}
        done = await op.ask(
            "PUT", "/identity_scopes", match="*", json={"identity_scopes": [fresh], "reason": "x"}
        )
        assert done.json()["lines"][0] == "+ scope fresh: best_match"
        callers = {c.name: c.scope_name for c in here.core.directory.callers()}
        assert callers["stranger"] == "fresh"
        left = {"identity_scopes": [{"name": "fresh", "strategy": "best_match", "workspaces": []}]}
        reply = await op.ask("PUT", "/identity_scopes", match="*", json=left)
        assert reply.status_code == 400 and "two needs a scope" in reply.json()["message"]
        for wrong in ({}, {"name": 7}, {"name": "fresh", "id": 1}, {"name": "x", "workspaces": 3}):
            body = {"identity_scopes": [wrong]}
            assert (
                await op.ask("PUT", "/identity_scopes", match="*", json=body)
            ).status_code == 400
        unknown = {"identity_scopes": [{"name": "fresh", "workspaces": ["nowhere"]}]}
        assert (await op.ask("PUT", "/identity_scopes", json=unknown)).status_code == 428
        assert (await op.ask("PUT", "/identity_scopes/99", match="*", json={})).status_code == 404


async def test_scopes_are_joined_and_split_over_http(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        it = here.running
        ann = await here.identify({"customerid": "1"})
        split = {"kind": "split", "source": "people", "target": "own", "workspaces": ["sister"]}
        seen = await op.ask("POST", "/scope_changes", json=split | {"dry_run": True})
        assert seen.status_code == 200 and seen.json()["report"]["profiles"]["production"] == 1
        assert (await op.ask("GET", "/scope_changes")).json()["scope_changes"] == []
        begun = await op.ask("POST", "/scope_changes", json=split | {"reason": "apart"})
        number = begun.json()["id"]
        assert (await it.ask("identify", {"other": "x"}, who="sisterfeed")).status_code == 503
        again = await op.ask("POST", "/scope_changes", json=split)
        assert again.status_code == 409
        await finish(here.core.scopes, number, hurry=True)
        await here.core.directory.load()
        listed = (await op.ask("GET", "/scope_changes", who="eyes")).json()["scope_changes"]
        assert [(c["state"], c["reason"]) for c in listed] == [("done", "apart")]
        assert await here.identify({"customerid": "1"}) == ann
        reply = await it.ask("identify", {"customerid": "1"}, who="sisterfeed")
        other = reply.json()["mpid"]
        assert other != ann
        path = f"/scope_changes/{number}/undo"
        seen = await op.ask("POST", path, json={"dry_run": True})
        assert seen.json()["report"]["by_outcome"] == {"undecided": 1}
        assert (await op.ask("POST", path, json={})).status_code == 409
        done = await op.ask("POST", path, json={"resolve": {"customerid": "target"}})
        await finish(here.core.scopes, done.json()["id"], hurry=True)
        await here.core.directory.load()
        reply = await it.ask("identify", {"customerid": "1"}, who="sisterfeed")
        assert reply.json()["mpid"] == ann
        wrong = [{}, {"kind": "unjoin", "source": "own", "target": "people"}, split | {"kind": 1}]
        codes = [(await op.ask("POST", "/scope_changes", json=w)).status_code for w in wrong]
        assert codes == [400, 409, 400]
        assert (await op.ask("POST", "/scope_changes/99/undo", json={})).status_code == 409


CALLS = [
    ("GET", "/scope_changes", True),
    ("POST", "/scope_changes", False),
    ("POST", "/scope_changes/1/undo", False),
    ("GET", "/configuration", True),
    ("PUT", "/configuration", False),
    ("POST", "/configuration/dry_run", False),
    ("POST", "/configuration/rollback", False),
    ("GET", "/configuration/versions", True),
    ("GET", "/configuration/versions/1", True),
    ("GET", "/identity_scopes", True),
    ("PUT", "/identity_scopes", False),
    ("GET", "/identity_scopes/1", True),
    ("PUT", "/identity_scopes/1", False),
]


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_only_who_may(place: Place, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        op = await operator(here)
        await here.issue("reader", "profile:read", workspaces=("one",))
        body = {"version": 1, "identity_scopes": [], "kind": "x", "source": "x", "target": "x"}
        elsewhere = Operator(here)
        elsewhere.base = "/platform/v2/organizations/77"
        for method, path, reads in CALLS:
            got = await op.ask(method, path, who="reader", match="*", json=body)
            assert got.status_code == 403, (method, path)
            got = await op.ask(method, path, who="eyes", match="*", json=body)
            assert (got.status_code == 403) != reads, (method, path)
            got = await here.client.request(method, op.base + path, json=body)
            assert got.status_code == 401
            headers = here.running.basic("server")
            got = await here.client.request(method, op.base + path, json=body, headers=headers)
            assert got.status_code == 401
            got = await elsewhere.ask(method, path, match="*", json=body)
            assert got.status_code == 404
        assert len(await versions(here.core.store)) == 2


async def test_it_is_on_the_operators_port(place: Place, tmp_path: pathlib.Path) -> None:
    port = free_port()
    async with reading(place, tmp_path, manage_port=port) as here:
        op = await operator(here)
        assert (await op.ask("GET", "/configuration")).status_code == 404
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as own:
            given = {**here.clients["boss"], "grant_type": "client_credentials"}
            token = (await own.post("/oauth/token", json=given)).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            reply = await own.get(f"{op.base}/configuration", headers=headers)
            assert reply.status_code == 200 and json.loads(reply.content)["version"] == 2
