"""Real processes of ours, and clients that remember what was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import pathlib
import random
import signal
import socket
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
           priority: [customerid, email, ios_idfv, device_application_stamp]}
workspaces:
  one:
    scope: people
    inputs:
      server: {kind: server, api_key: server-api-key, permissions: ["history:read", "search:any"]}
      web: {kind: web, api_key: web-api-key}
"""


class Process:
    """A command of ours running as a process of its own."""

    def __init__(
        self, url: str, folder: pathlib.Path, *words: str, source: str = "", **settings: object
    ) -> None:
        self._words = [sys.executable, "-m", "onymous", *words, "--store", url, "--json"]
        self._environ = {
            "PATH": "/usr/bin:/bin",
            "ONYMOUS_MASTER_KEY_FILE": str(folder / "master.key"),
        }
        if source:
            self._environ["PYTHONPATH"] = source
        self._environ |= {f"ONYMOUS_{n.upper()}": str(v) for n, v in settings.items()}
        self._folder = folder
        self.said: dict[str, Any] = {}
        self.url = ""

    async def start(self) -> Process:
        self._log = (self._folder / f"log-{id(self)}").open("w+b")
        self.process = await asyncio.create_subprocess_exec(
            *self._words,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environ,
            cwd=self._folder,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, self.log()
        self.said = json.loads(line)
        if "serving" in self.said:
            host, port = self.said["serving"]
            self.url = f"http://{host}:{port}"
        return self

    def log(self) -> str:
        """What the process wrote to standard error."""
        return pathlib.Path(self._log.name).read_text("utf-8")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        return await asyncio.wait_for(self.process.wait(), 60)

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.signal()
        return await self.ended()


def _die_with_parent() -> None:
    """Let the kernel end a process that a failed test leaves behind (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


async def prepared(place: Any, folder: pathlib.Path) -> tuple[str, tuple[str, str]]:
    """Set the tenants up; return the store and (key, secret) of the server input."""
    settings = settings_of(place, folder)
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="test", now_ms=1)
    made = next(c for c in out.credentials if c.input == "server")
    return settings.store, (made.api_key, made.secret)


class Load:
    """People who log in again and again, on connections that are kept or fresh."""

    def __init__(
        self,
        auth: tuple[str, str],
        urls: list[str],
        callers: int = 12,
        verify: Any = True,
    ) -> None:
        self._auth, self.urls, self._callers = auth, urls, callers
        self._verify = verify
        #: customer -> MPID, as acknowledged
        self.answered: dict[str, str] = {}
        self.statuses: dict[int, int] = {}
        #: requests sent on a connection that then ended without an answer
        self.unanswered: list[str] = []
        self.refused = 0
        self._on = True

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(self._callers)]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._on = False
        await asyncio.gather(*self._tasks)

    async def until(self, more: int) -> None:
        """Wait until so many more were answered."""
        goal = len(self.answered) + more
        while len(self.answered) < goal:
            await asyncio.sleep(0.01)

    async def _call(self, caller: int) -> None:
        n = 0
        while self._on:
            url = self.urls[(caller + n) % len(self.urls)]
            async with httpx.AsyncClient(
                base_url=url, auth=self._auth, trust_env=False, timeout=30, verify=self._verify
            ) as client:
                for _ in range(50):
                    if not self._on:
                        return
                    n += 1
                    if not await self._log_in(client, f"{caller}-{n}"):
                        await asyncio.sleep(0.02)
                        break

    async def _log_in(self, client: httpx.AsyncClient, customer: str) -> bool:
        known = {"customerid": customer, "ios_idfv": f"device {customer}"}
        body = {"environment": "production", "known_identities": known}
        try:
            reply = await client.post("/v1/login", json=body)
        except httpx.ConnectError:
            self.refused += 1
            return False
        except httpx.HTTPError as error:
            self.unanswered.append(f"{customer}: {type(error).__name__}")
            return False
        self.statuses[reply.status_code] = self.statuses.get(reply.status_code, 0) + 1
        if reply.status_code == 200:
            self.answered[customer] = reply.json()["mpid"]
        return reply.status_code == 200


async def all_there(url: str, auth: tuple[str, str], answered: dict[str, str]) -> None:
    """Everything acknowledged is there, once."""
    assert len(set(answered.values())) == len(answered)
    async with httpx.AsyncClient(base_url=url, auth=auth, trust_env=False, timeout=30) as client:
        for customer, mpid in answered.items():
            body = {"environment": "production", "known_identities": {"customerid": customer}}
            reply = await client.post("/v1/search", json=body)
            assert reply.status_code == 200 and reply.json()["mpid"] == mpid, customer


def free_ports(count: int = 1) -> int:
    """Return the first of so many free ports in a row.

    Below the range the kernel takes for outgoing connections: there a port found free may be
    somebody's a moment later.
    """
    for _ in range(500):
        first = random.randrange(12_000, 32_000)
        with contextlib.ExitStack() as stack:
            try:
                for n in range(count):
                    stack.enter_context(socket.create_server(("127.0.0.1", first + n)))
            except OSError:
                continue
        return first
    raise AssertionError("no free ports")
