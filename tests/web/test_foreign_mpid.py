"""Every route of the API document that takes an MPID, asked about another tenant's person."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.web.reading import MORE, Reading, reading

from onymous.flows.tenants import apply
from onymous.web.openapi import document

RIGHTS = '["search:any", "history:read", explain, merge, "alias:any", undo, delete]'
#: nobody's
UNKNOWN = "123456789"
CHANGE = [{"identity_type": "google", "old_value": None, "new_value": "g"}]
ALIAS = {"environment": "production", "request_id": "r", "request_type": "alias"}

NOTHING = ('{"merges":[]}', '{"aliases":[]}')

#: (method, path as documented): who asks, and the body; MPID and MINE are put in
ROUTES: dict[tuple[str, str], tuple[str, Any]] = {
    ("post", "/v1/{mpid}/modify"): (
        "input",
        {"environment": "production", "identity_changes": CHANGE},
    ),
    ("get", "/v1/{mpid}/history"): ("input", None),
    ("post", "/v1/{mpid}/history/{id}/undo"): (
        "input",
        {"environment": "production", "reason": "r"},
    ),
    ("get", "/v1/{mpid}/merges"): ("input", None),
    ("get", "/v1/{mpid}/aliases"): ("input", None),
    ("get", "/userprofile/v1/{org}/{account}/{workspace}/{mpid}"): ("token", None),
    ("post", "/userprofile/v1/{org}/{account}/{workspace}/{mpid}"): ("token", {}),
    ("get", "/v1/activity/{workspace}/{mpid}"): ("token", None),
    ("get", "/v1/activity/{workspace}/{mpid}/batches/{id}"): ("token", None),
    # these take MPIDs in their bodies
    ("post", "/v1/merge"): (
        "input",
        {
            "environment": "production",
            "source_mpid": "MPID",
            "destination_mpid": "MINE",
            "reason": "r",
        },
    ),
    ("post", "/v1/identity/{api_key}/alias"): (
        "input",
        {**ALIAS, "data": {"source_mpid": "MPID", "destination_mpid": "MINE"}},
    ),
}


def filled(value: Any, mpid: str, mine: str) -> Any:
    if isinstance(value, dict):
        return {key: filled(item, mpid, mine) for key, item in value.items()}
    return {"MPID": mpid, "MINE": mine}.get(value, value) if isinstance(value, str) else value


async def asked(here: Reading, route: tuple[str, str], mpid: str, mine: str) -> tuple[int, str]:
    method, path = route
    who, body = ROUTES[route]
    place = here.path("two").split("/")
    for name, value in zip(("org", "account", "workspace"), place, strict=True):
        path = path.replace(f"{{{name}}}", value)
    path = path.replace("{mpid}", mpid).replace("{id}", "1").replace("{api_key}", "nosy-api-key")
    headers = here.bearer("nosy") if who == "token" else here.running.basic("nosy")
    sent = filled(body, mpid, mine)
    reply = await here.client.request(method, path, json=sent, headers=headers)
    return reply.status_code, reply.text.replace(mpid, "MPID")


def test_the_table_has_every_route() -> None:
    listed = {
        (method, path)
        for path, item in document()["paths"].items()
        for method in item
        if "{mpid}" in path and method in ("get", "post", "put", "patch", "delete")
    }
    assert listed == {route for route in ROUTES if "{mpid}" in route[1]}


async def test_a_foreign_person_is_nobody(place: Any, tmp_path: pathlib.Path) -> None:
    async with reading(place, tmp_path) as here:
        text = f"{MORE}      nosy: {{kind: server, api_key: nosy-api-key, permissions: {RIGHTS}}}\n"
        out = await apply(here.core.store, here.core.key, text, actor="test", now_ms=3)
        here.running.secrets |= {c.input: c.secret for c in out.credentials}
        await here.core.directory.load()
        await here.issue("nosy", "profile:read", "activity:read", workspaces=("two",))
        theirs = await here.identify({"customerid": "v", "email": "victim@x.io"})
        await here.send({"mpid": theirs, "user_attributes": {"secret": "x"}})
        mine = await here.identify({"customerid": "me"}, who="nosy")
        before = await here.running.counts()
        for route in ROUTES:
            foreign = await asked(here, route, theirs, mine)
            assert foreign == await asked(here, route, UNKNOWN, mine), route
            assert 400 <= foreign[0] < 500 or foreign[1] in NOTHING, route
            assert "not the expected JSON" not in foreign[1], (route, foreign[1])
        after = await here.running.counts()
        assert after.pop("job") <= before.pop("job"), "the worker may have done some meanwhile"
        assert after == before
