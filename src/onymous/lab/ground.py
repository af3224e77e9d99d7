"""Throw-away stores and real serving processes for long checks."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg  # type: ignore[import-untyped]

from onymous.app import Core, running
from onymous.lab.audit import Violation
from onymous.settings import SettingError, Settings, load

_names = itertools.count(1)
#: longest a process may take to serve, seconds
_START_S = 60.0


class Ground:
    """Where checks make their stores: temporary folders, or databases of one PostgreSQL server."""

    def __init__(self, store: str, folder: pathlib.Path) -> None:
        self._store, self._folder = store, folder
        if store and not store.startswith(("postgresql://", "postgres://")):
            raise SettingError(
                "a soak makes stores of its own: name a PostgreSQL server on which it may make"
                " databases, as postgresql://USER@HOST/postgres, or nothing for SQLite"
            )

    @property
    def engine(self) -> str:
        """Return the engine's name."""
        return "postgresql" if self._store else "sqlite"

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[Settings]:
        """Make an empty store; it goes when the check ends, also when it fails."""
        with tempfile.TemporaryDirectory(prefix="store-", dir=self._folder) as folder:
            flags: dict[str, object] = {"master_key_file": f"{folder}/master.key"}
            if not self._store:
                yield load({**flags, "store": f"sqlite:{folder}/data"}, environ={})
                return
            name = f"onymous_soak_{os.getpid()}_{next(_names)}"
            await self._do(f"CREATE DATABASE {name}")
            try:
                url = f"{self._store.rpartition('/')[0]}/{name}"
                yield load({**flags, "store": url}, environ={})
            finally:
                await self._do(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def _do(self, statement: str) -> None:
        try:
            connection = await asyncpg.connect(self._store, timeout=20)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SettingError(f"the PostgreSQL server does not answer: {error}") from None
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def cores(settings: Settings, count: int) -> AsyncIterator[list[Core]]:
    """Open a store several times, as several processes do."""
    async with AsyncExitStack() as stack:
        quiet = dataclasses.replace(settings, journal=False)
        yield [await stack.enter_async_context(running(quiet)) for _ in range(count)]


class Process:
    """A real serving process that can be killed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start to serve; raises `Violation` with the process's own words if it does not."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        words = [sys.executable, "-m", "onymous", "serve", "--store", self._settings.store]
        words += ["--host", "127.0.0.1", "--port", "0", "--json"]
        environ = {**os.environ, "ONYMOUS_MASTER_KEY_FILE": self._settings.master_key_file}
        with tempfile.TemporaryFile("w+") as told:
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=told, text=True, env=environ
            )
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait(_START_S)
                told.seek(0)
                raise Violation(f"a server did not start: {told.read()[-4000:]}")
        self._process, self.port = process, json.loads(line)["serving"][1]

    async def kill(self) -> None:
        """End the process at once (kill -9)."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


@asynccontextmanager
async def processes(settings: Settings, count: int) -> AsyncIterator[list[Process]]:
    """Serve one store with several processes; they are gone at the end."""
    out = [Process(settings) for _ in range(count)]
    try:
        for process in out:
            await process.start()
        yield out
    finally:
        for process in out:
            await process.kill()
