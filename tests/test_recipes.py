"""The recipes of the manual, run as they stand there."""

from __future__ import annotations

import base64
import pathlib
import re
from typing import Any

from tests.flows.test_events_flow import purchase, view
from tests.web.serving import Running, running

from onymous.flows.tenants import apply

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "use" / "recipes.md").read_text("utf-8")
JOINED, APART = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


async def cook(it: Running, recipe: str) -> dict[str, str]:
    """Apply a recipe beside the tenants of the test; return secrets by input."""
    core = it.server.core
    document = recipe.replace(recipe.splitlines()[0], "organization: Test")
    out = await apply(core.store, core.key, document, actor="test", now_ms=2)
    await core.directory.load()
    return {c.input: c.secret for c in out.credentials}


async def story(it: Running, name: str, secrets: dict[str, str]) -> tuple[str, str]:
    """Browse on the web, log in there and in the app, buy in both; return both MPIDs."""
    stamp = "4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f5"
    web = await it.client.post(
        "/v1/login",
        json={
            "environment": "production",
            "known_identities": {"customerid": "anna", "device_application_stamp": stamp},
        },
        headers={"x-mp-key": f"{name}-web-key"},
    )
    found = [web.json()["mpid"]]
    for who, key in (("backend", f"{name}-backend"), ("mobile-backend", f"{name}-mobile")):
        text = base64.b64encode(f"{key}:{secrets[who]}".encode()).decode()
        headers = {"Authorization": f"Basic {text}"}
        batch = {"user_identities": {"customerid": "anna"}, "events": [purchase(10)]}
        assert (await it.client.post("/v2/events", json=batch, headers=headers)).status_code == 202
        known = {"environment": "production", "known_identities": {"customerid": "anna"}}
        reply = await it.client.post("/v1/identify", json=known, headers=headers)
        found.append(reply.json()["mpid"])
    assert found[0] == found[1]
    return found[0], found[2]


async def test_web_and_app_joined(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        web, app = await story(it, "joined", await cook(it, JOINED))
        assert web == app
        assert (await view(it, web)).lifetime_value == 20


async def test_web_and_app_kept_apart(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        web, app = await story(it, "apart", await cook(it, APART))
        assert web != app
        assert (await view(it, web)).lifetime_value == (await view(it, app)).lifetime_value == 10
