"""Long checks: the audit, first-sight races and crashes, for as long as one likes."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx

from onymous.app import Core, running
from onymous.flows.tenants import apply
from onymous.lab.audit import Violation, history, shrunk
from onymous.lab.concurrent import concurrent, race
from onymous.lab.verify import problems
from onymous.settings import Settings, load

STEPS = 200
Progress = Callable[[int], None]
TENANTS = """
organization: Soak
scopes:
  people: {strategy: profile_conversion, login: [customerid], unique: [customerid],
           priority: [customerid, email, ios_idfv]}
workspaces:
  one: {scope: people, inputs: {server: {kind: server, permissions: ["history:read"]}}}
"""


@asynccontextmanager
async def cores(store: str, key: str, count: int) -> AsyncIterator[list[Core]]:
    """Open a store several times, as several processes do."""
    async with AsyncExitStack() as stack:
        flags = {"store": store, "master_key_file": key, "journal": False}
        out = []
        for _ in range(count):
            out.append(await stack.enter_async_context(running(load(flags, environ={}))))
        yield out


async def audit(store: str, key: str, steps: int, seed: int, progress: Progress) -> int:
    """Audit random histories, every fourth one with many callers; returns the steps made."""
    done, scope = 0, seed * 100_000 + 10
    async with cores(store, key, 2) as pair:
        while done < steps:
            scope += 1
            if scope % 4 == 0:
                done += await concurrent(pair, scope, STEPS, scope)
            else:
                try:
                    done += await history(pair[0], scope, STEPS, scope)
                except Violation:
                    raise Violation(await shrunk(pair[0], scope, STEPS, scope * 1000)) from None
            progress(STEPS)
    return done


async def races(store: str, key: str, tries: int, seed: int, progress: Progress) -> int:
    """Race for first sights of the same person, on two cores of one store."""
    async with cores(store, key, 2) as pair:
        for turn in range(tries):
            kind = ("login", "device", "email")[turn % 3]
            await race(pair, seed * 10 + 5 + turn % 3, turn, kind)
            progress(1)
    return tries


async def kills(store: str, key: str, times: int, seed: int, progress: Progress) -> int:
    """Kill a serving process under load; returns how many answers were checked."""
    settings = load({"store": store, "master_key_file": key}, environ={})
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="soak", now_ms=1)
    auth = (out.credentials[0].api_key, out.credentials[0].secret)
    rng = random.Random(seed)
    answered: dict[str, str] = {}
    for turn in range(times):
        process, url = await asyncio.to_thread(_serve, settings)
        async with httpx.AsyncClient(base_url=url, auth=auth, trust_env=False) as client:
            tasks = [asyncio.create_task(_log_in(client, turn, n, answered)) for n in range(16)]
            await asyncio.sleep(0.3 + rng.random() * 0.7)
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*tasks)
        await asyncio.to_thread(process.wait)
        await _whole(settings, answered)
        progress(1)
    return len(answered)


def _serve(settings: Settings) -> tuple[subprocess.Popen[str], str]:
    words = [sys.executable, "-m", "onymous", "serve", "--store", settings.store]
    words += ["--port", "0", "--json"]
    environ = {**os.environ, "ONYMOUS_MASTER_KEY_FILE": settings.master_key_file}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    host, port = json.loads(process.stdout.readline())["serving"]
    return process, f"http://{host}:{port}"


async def _log_in(
    client: httpx.AsyncClient, turn: int, worker: int, answered: dict[str, str]
) -> None:
    for n in range(1_000_000):
        customer = f"{turn}-{worker}-{n}"
        known = {"customerid": customer, "ios_idfv": f"device {customer}"}
        body = {"environment": "production", "known_identities": known}
        try:
            reply = await client.post("/v1/login", json=body)
        except (httpx.HTTPError, AttributeError):
            # the driver has no error of its own for a socket that dies while it is opened
            return
        if reply.status_code != 200:
            raise Violation(f"an answer under load was {reply.status_code}")
        answered[customer] = reply.json()["mpid"]


async def _whole(settings: Settings, answered: dict[str, str]) -> None:
    """Check that everything answered is there, once, and that the store is whole."""
    if len(set(answered.values())) != len(answered):
        raise Violation("an MPID was given to two people")
    async with running(settings) as core:
        caller = core.directory.callers()[0]
        found = await problems(core, {caller.scope: caller.plan})
        async with core.store.read() as session:
            slot = caller.pool("production") * 64 + 1
            rows = await session.rows("SELECT value, pid FROM identity WHERE slot = ?", slot)
    held = {value: core.mpids.text(pid) for value, pid in rows}
    lost = [c for c, mpid in answered.items() if held.get(c) != mpid]
    if lost or found:
        raise Violation("\n".join([f"{len(lost)} answers are lost", *found]))


@asynccontextmanager
async def place(store: str) -> AsyncIterator[tuple[str, str]]:
    """Return a store to soak and its key file: a throw-away folder, or the one given."""
    with tempfile.TemporaryDirectory(prefix="onymous-soak-") as folder:
        key = str(pathlib.Path(folder) / "master.key")
        yield store or f"sqlite:{folder}/store", key
