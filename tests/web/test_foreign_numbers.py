"""Merges, aliases, entries, batches and requests have numbers and names: another tenant's open
nothing and change nothing."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.web.reading import MORE, Reading, reading

from onymous.flows.tenants import apply

RIGHTS = (
    '["search:any", "history:read", explain, merge, "alias:any", undo, review, quarantine, delete]'
)
WORLD = (
    MORE.replace("api_key: plain-api-key}", f"api_key: plain-api-key, permissions: {RIGHTS}}}")
    + f"      nosy: {{kind: server, api_key: nosy-api-key, permissions: {RIGHTS}}}\n"
)
DECIDED = {"environment": "production", "reason": "r"}


async def lived(here: Reading) -> list[str]:
    """Let the first tenant do one of everything that gets a number; return its MPIDs."""
    it = here.running
    known = {"customerid": "victim", "email": "victim@x.io"}
    one = (await it.ask("login", known, who="plain", request_id="rid-1")).json()["mpid"]
    two = (await it.ask("login", {"customerid": "w"}, who="plain")).json()["mpid"]
    visitor = (await it.ask("identify", {"device_application_stamp": "S"})).json()["mpid"]
    named = [{"identity_type": "other", "new_value": "victim's"}]
    assert (await it.modify(one, named, who="plain", request_id="rid-2")).status_code == 200
    held = [{"identity_type": "email", "old_value": "guess", "new_value": "x@x.io"}]
    reply = await it.modify(one, held, who="web", key_only=True, request_id="rid-3")
    assert reply.status_code == 400
    body: dict[str, Any] = {"source_mpid": two, "destination_mpid": one, **DECIDED}
    headers = it.basic("plain")
    assert (await it.client.post("/v1/merge", json=body, headers=headers)).status_code == 200
    data = {"source_mpid": visitor, "destination_mpid": one}
    body = {"environment": "production", "data": data}
    path = "/v1/identity/plain-api-key/alias"
    assert (await it.client.post(path, json=body, headers=headers)).status_code == 202
    for batch in ({"user_attributes": {"a": "victim's"}}, {"mpid": one}):
        await here.send(batch, "plain")
    return [one, two, visitor]


def asked(here: Reading, mine: str) -> list[tuple[str, str, Any]]:
    """Return every request that names a thing by a number, or a request by its name."""
    workspace = here.path("two").split("/")[2]
    out: list[tuple[str, str, Any]] = []
    for n in range(1, 12):
        out += [
            ("POST", f"/v1/merge/{n}/undo", DECIDED),
            ("POST", f"/v1/alias/{n}/undo", DECIDED),
            ("POST", f"/v1/{mine}/history/{n}/undo", DECIDED),
            ("POST", "/v1/undo", {"entry": n, **DECIDED}),
            ("GET", f"/v1/activity/{workspace}/{mine}/batches/{n}", None),
            ("GET", f"/v1/quarantine/{n}", None),
        ]
        for kind in "vc":
            out += [
                ("GET", f"/v1/review/{kind}{n}", None),
                ("POST", f"/v1/review/{kind}{n}/accept", DECIDED),
                ("POST", f"/v1/review/{kind}{n}/refuse", DECIDED),
            ]
    for name in ("rid-1", "rid-2", "rid-3"):
        for more in ({}, {"workspace": "one"}, {"input": "one/plain"}):
            query = "&".join(f"{k}={v}" for k, v in {"request_id": name, **more}.items())
            out.append(("GET", f"/v1/explain?{query}", None))
            out.append(("POST", "/v1/undo", {"request_id": name, **more, **DECIDED}))
    return out


async def test_numbers_of_another_tenant_open_nothing(place: Any, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path, work=False) as here:
        core, it = here.core, here.running
        out = await apply(core.store, core.key, WORLD, actor="test", now_ms=3)
        it.secrets |= {c.input: c.secret for c in out.credentials}
        await core.directory.load()
        await here.issue("nosy", "activity:read", workspaces=("two",))
        theirs = await lived(here)
        mine = (await it.ask("login", {"customerid": "me"}, who="nosy")).json()["mpid"]
        before = await it.counts()
        for method, path, body in asked(here, mine):
            headers = here.bearer("nosy") if "/activity/" in path else it.basic("nosy")
            reply = await it.client.request(method, path, json=body, headers=headers)
            said = (method, path, body, reply.status_code, reply.text[:200])
            assert "not the expected JSON" not in reply.text, said
            own = reply.status_code == 409 or "dry_run" in reply.text
            assert reply.status_code == 404 or own or mine in reply.text, said
            assert not [word for word in ("victim", *theirs) if word in reply.text], said
        for path in ("/v1/changes?after=0", "/v1/diagnostics", "/v1/review", "/v1/quarantine"):
            reply = await it.client.get(path, headers=it.basic("nosy"))
            assert reply.status_code == 200
            assert not [word for word in ("victim", "rid-", *theirs) if word in reply.text], path
        after = await it.counts()
        assert {k: v for k, v in after.items() if before[k] != v} in (
            {},
            {"ledger": after["ledger"]},
        )
        found = await it.ask("search", {"email": "victim@x.io"}, who="plain")
        assert found.json()["matches"][0]["user_identities"]["other"] == ["victim's"]
