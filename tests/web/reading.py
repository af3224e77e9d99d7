"""A running server with a second workspace in the scope, and API credentials to read with."""

from __future__ import annotations

import pathlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from tests.web.serving import TENANTS, Running, running

from onymous.flows.api_credentials import issue
from onymous.flows.tenants import apply

MORE = TENANTS.replace(
    "    unique: [customerid, email]\n",
    "    unique: [customerid, email]\n    immutable: [customerid]\n",
    1,
).replace(
    "workspaces:\n",
    """workspaces:
  sister:
    scope: people
    inputs:
      sisterfeed: {kind: server, api_key: sisterfeed-api-key}
""",
    1,
)


class Reading:
    """A running server, its workspaces by name, and clients by name."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.client = running.client
        self.core = running.server.core
        self.clients: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, str] = {}

    async def issue(self, name: str, *permissions: str, workspaces: tuple[str, ...]) -> None:
        """Issue a credential and take a token for it."""
        made = await issue(
            self.core.store, name, permissions, workspaces, actor="test", now_ms=now()
        )
        self.clients[name] = {
            "client_id": made.credential.client_id,
            "client_secret": made.client_secret,
        }
        self.tokens[name] = (await self.ask_token(name)).json()["access_token"]

    async def ask_token(self, name: str, **body: Any) -> httpx.Response:
        """Ask for a token, as JSON."""
        given = {**self.clients[name], "grant_type": "client_credentials", **body}
        return await self.client.post("/oauth/token", json=given)

    def bearer(self, name: str = "all") -> dict[str, str]:
        """Return the headers of a client."""
        return {"Authorization": f"Bearer {self.tokens[name]}"}

    def path(self, workspace: str = "one") -> str:
        """Return organization, account and workspace as paths have them."""
        found = next(w for w in self.core.tokens.workspaces.values() if w.name == workspace)
        return f"{found.organization}/{found.account}/{found.id}"

    async def read(
        self,
        mpid: object,
        fields: str | None = "user_identities",
        *,
        workspace: str = "one",
        who: str = "all",
        method: str = "GET",
        headers: dict[str, str] | None = None,
        **params: str,
    ) -> httpx.Response:
        """Read a profile by MPID."""
        given = params if fields is None else {"fields": fields, **params}
        return await self.client.request(
            method,
            f"/userprofile/v1/{self.path(workspace)}/{mpid}",
            params=given,
            headers={**self.bearer(who), **(headers or {})},
        )

    async def send(self, batch: dict[str, Any], who: str = "server") -> None:
        """Send a batch of events."""
        data = {"environment": "production", "events": [], **batch}
        reply = await self.client.post("/v2/events", json=data, headers=self.running.basic(who))
        assert reply.status_code == 202, reply.text

    async def identify(self, identities: dict[str, str], **more: Any) -> str:
        """Identify somebody and return the MPID."""
        reply = await self.running.ask("identify", identities, **more)
        assert reply.status_code == 200, reply.text
        mpid: str = reply.json()["mpid"]
        return mpid


def now() -> int:
    """Return the present time (ms)."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def reading(place: Any, folder: pathlib.Path, **flags: Any) -> AsyncIterator[Reading]:
    """Serve a place with API credentials: `all` reads both workspaces of the scope."""
    async with running(place, folder, **flags) as made:
        core = made.server.core
        out = await apply(core.store, core.key, MORE, actor="test", now_ms=2)
        made.secrets |= {c.input: c.secret for c in out.credentials}
        await core.directory.load()
        await core.tokens.load(now())
        here = Reading(made)
        both = ("one", "sister")
        await here.issue("all", "profile:read", "activity:read", workspaces=both)
        yield here
