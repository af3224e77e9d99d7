"""The real server for tests: a real socket on a free port, tenants from a real document."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import pathlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from onymous.flows.answers import Answer, Question
from onymous.flows.erasure import erase
from onymous.flows.tenants import apply
from onymous.serving import Server, listen
from onymous.settings import load

TENANTS = """
organization: Test
scopes:
  people:
    strategy: profile_conversion
    login: [customerid, email]
    unique: [customerid, email]
    priority: [customerid, email, other, ios_idfv, device_application_stamp]
    email_lower: true
  others: {strategy: profile_conversion, login: [customerid], unique: [customerid]}
workspaces:
  one:
    scope: people
    inputs:
      web: {kind: web, api_key: web-api-key}
      app: {kind: ios, api_key: app-api-key}
      off: {kind: server, api_key: off-api-key, active: false}
      server: {kind: server, api_key: server-api-key,
               permissions: ["search:any", "history:read", "explain"]}
      plain: {kind: server, api_key: plain-api-key}
  two:
    scope: others
    inputs:
      stranger: {kind: server, api_key: stranger-api-key,
                 permissions: ["search:any", "history:read", "explain"]}
"""


#: no test needs the roots of trust of the whole world, which take 40 ms to read
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Running:
    """A running server and its credentials."""

    def __init__(self, server: Server, url: str, secrets: dict[str, str]) -> None:
        self.server, self.url, self.secrets = server, url, secrets
        self.client = httpx.AsyncClient(base_url=url, verify=PLAIN, trust_env=False, timeout=30)

    def basic(self, name: str = "server") -> dict[str, str]:
        """Headers of an input that shows its secret."""
        text = f"{name}-api-key:{self.secrets[name]}"
        return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    async def ask(
        self,
        op: str,
        identities: Any,
        *,
        who: str = "server",
        key_only: bool = False,
        environment: str = "production",
        params: dict[str, str] | None = None,
        asgi: bool = False,
        **body: Any,
    ) -> httpx.Response:
        """Make an identity request; `asgi` goes past the hot routes (by a gzip body)."""
        headers = {"x-mp-key": f"{who}-api-key"} if key_only else self.basic(who)
        data = {"environment": environment, "known_identities": identities, **body}
        content = json.dumps(data).encode()
        if asgi:
            headers["Content-Encoding"] = "gzip"
            content = gzip.compress(content)
        return await self.client.post(f"/v1/{op}", content=content, headers=headers, params=params)

    async def modify(
        self, mpid: str, changes: Any, *, who: str = "server", key_only: bool = False, **body: Any
    ) -> httpx.Response:
        """Make a modify request."""
        headers = {"x-mp-key": f"{who}-api-key"} if key_only else self.basic(who)
        data = {"environment": "production", "identity_changes": changes, **body}
        return await self.client.post(f"/v1/{mpid}/modify", json=data, headers=headers)

    async def erase(self, mpid: str, *, who: str = "server", now_ms: int = 1) -> None:
        """Erase somebody as a privacy request would."""
        core = self.server.core
        caller = core.directory.find(f"{who}-api-key")
        assert caller is not None
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        question = Question(
            op="erase", caller=caller, environment="production", known={}, now_ms=now_ms
        )
        erase(core.resolver, question, mpid, future.set_result)
        assert (await future).refusal is None

    async def at_rest(self) -> dict[str, int]:
        """`counts`, once no job waits: what is done behind must not look like a request's."""
        assert self.server.settings.work, "nobody does the jobs here"
        while (found := await self.counts())["job"]:
            await asyncio.sleep(0.05)
        return found

    async def counts(self) -> dict[str, int]:
        """Rows of every table that requests write."""
        tables = ("profile", "identity", "ledger", "replay", "job", "spool", "alias", "conflict")
        async with self.server.core.store.read() as session:
            return {t: (await session.rows(f"SELECT count(*) FROM {t}"))[0][0] for t in tables}


@asynccontextmanager
async def running(place: Any, folder: pathlib.Path, **flags: Any) -> AsyncIterator[Running]:
    """Serve a place on a free port and stop at the end."""
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    given = {"store": url, "port": 0, "master_key_file": str(folder / "master.key"), **flags}
    settings = load(given, environ={})
    sock: socket.socket = listen(settings)
    server = Server(settings)
    started = asyncio.Event()
    task = asyncio.create_task(server.run(sock, started.set))
    wait = asyncio.create_task(started.wait())
    await asyncio.wait({task, wait}, return_when=asyncio.FIRST_COMPLETED)
    assert started.is_set(), task.exception()
    core = server.core
    out = await apply(core.store, core.key, TENANTS, actor="test", now_ms=1)
    await core.directory.load()
    port = sock.getsockname()[1]
    made = Running(server, f"http://127.0.0.1:{port}", {c.input: c.secret for c in out.credentials})
    try:
        yield made
    finally:
        await made.client.aclose()
        server.stop()
        await task
