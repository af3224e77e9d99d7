"""kill -9 under load: everything that was answered is there afterwards, and no MPID twice."""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
import signal
import sys
from typing import Any

import httpx
from tests.test_cases import settings_of

from onymous.app import running
from onymous.flows.tenants import apply

TENANTS = """
organization: Test
scopes:
  people: {strategy: profile_conversion, login: [customerid], unique: [customerid],
           priority: [customerid, email, ios_idfv]}
workspaces:
  one: {scope: people, inputs: {server: {kind: server, permissions: ["history:read"]}}}
"""


class Process:
    """A real serving process that can be killed."""

    def __init__(self, url: str, folder: pathlib.Path) -> None:
        self._words = ["-m", "onymous", "serve", "--store", url, "--port", "0", "--json"]
        self._key = str(folder / "master.key")
        self.url = ""

    async def start(self) -> None:
        environ = {"PATH": "/usr/bin:/bin", "ONYMOUS_MASTER_KEY_FILE": self._key}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._words, stdout=asyncio.subprocess.PIPE, env=environ
        )
        assert self._process.stdout is not None
        host, port = json.loads(await self._process.stdout.readline())["serving"]
        self.url = f"http://{host}:{port}"

    async def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> None:
        self._process.terminate()
        await asyncio.wait_for(self._process.wait(), 20)


async def test_what_was_answered_survives(place: Any, tmp_path: pathlib.Path) -> None:
    settings = settings_of(place, tmp_path)
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="test", now_ms=1)
    (made,) = out.credentials
    process = Process(settings.store, tmp_path)
    answered: dict[str, str] = {}
    chance = random.Random(11)
    for turn in range(3):
        await process.start()
        auth = (made.api_key, made.secret)
        async with httpx.AsyncClient(base_url=process.url, auth=auth, trust_env=False) as client:
            tasks = [asyncio.create_task(_load(client, turn, n, answered)) for n in range(16)]
            await asyncio.sleep(0.4 + chance.random() * 0.5)
            while len(answered) < 40 * (turn + 1):  # on a busy machine it takes longer
                await asyncio.sleep(0.01)
            await process.kill()
            await asyncio.gather(*tasks)
    assert len(answered) > 100
    assert len(set(answered.values())) == len(answered)
    await process.start()
    auth = (made.api_key, made.secret)
    async with httpx.AsyncClient(base_url=process.url, auth=auth, trust_env=False) as client:
        for customer, mpid in answered.items():
            body = {"environment": "production", "known_identities": {"customerid": customer}}
            reply = await client.post("/v1/search", json=body)
            assert reply.json()["mpid"] == mpid
        customer, mpid = chance.choice(list(answered.items()))
        history = await client.get(f"/v1/{mpid}/history")
        assert customer in [i["value"] for i in history.json()["identities"]]
    await process.stop()


async def _load(
    client: httpx.AsyncClient, turn: int, worker: int, answered: dict[str, str]
) -> None:
    """Log new people in until the server is gone; note only what was answered."""
    for n in range(100_000):
        customer = f"{turn}-{worker}-{n}"
        known = {"customerid": customer, "ios_idfv": f"device {customer}"}
        try:
            reply = await client.post(
                "/v1/login", json={"environment": "production", "known_identities": known}
            )
        except httpx.HTTPError:
            return
        assert reply.status_code == 200
        answered[customer] = reply.json()["mpid"]
