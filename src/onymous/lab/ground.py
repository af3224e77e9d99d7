"""Throw-away stores and real serving processes for long checks."""

from __future__ import annotations

import asyncio
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
import msgspec

from onymous.app import Core, backup_folder, running
from onymous.backups import Backup, make
from onymous.lab.audit import Violation
from onymous.restoring import new_epoch, restore
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
            await self.do(f"CREATE DATABASE {name}")
            try:
                url = f"{self._store.rpartition('/')[0]}/{name}"
                yield load({**flags, "store": url}, environ={})
            finally:
                await self.do(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @asynccontextmanager
    async def kept(self, settings: Settings) -> AsyncIterator[Kept]:
        """Make a place for the backup of a store; it goes when the check ends."""
        with tempfile.TemporaryDirectory(prefix="kept-", dir=self._folder) as folder:
            kept = Kept(self, settings, pathlib.Path(folder))
            try:
                yield kept
            finally:
                for name in kept.databases:
                    await self.do(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def do(self, statement: str) -> None:
        """Run a statement on the server; raises `SettingError` if it does not answer."""
        try:
            connection = await asyncpg.connect(self._store, timeout=20)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SettingError(f"the PostgreSQL server does not answer: {error}") from None
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class Kept:
    """A backup of a store that nobody serves at the moment: a folder's, or a copied database."""

    def __init__(self, ground: Ground, settings: Settings, folder: pathlib.Path) -> None:
        self._ground, self._settings, self._folder = ground, settings, folder
        self._backup: Backup | None = None
        self.databases: list[str] = []

    async def back_up(self) -> None:
        """Back the store up."""
        if self._ground.engine == "sqlite":
            folder = backup_folder(self._settings)
            self._backup = await asyncio.to_thread(make, self._settings, folder, _quiet)
        else:
            await self._copy(self._settings.store.rpartition("/")[2])

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[Settings]:
        """Restore it to a new place; raises `Violation` for what verification finds."""
        if self._backup is not None:
            into = self._folder / f"restored-{next(_names)}"
            new = msgspec.structs.replace(self._settings, store=f"sqlite:{into}")
            out = await restore(self._backup, into, new, tombstones=[], progress=_quiet)
        else:
            name = await self._copy(self.databases[0])
            url = f"{self._settings.store.rpartition('/')[0]}/{name}"
            new = msgspec.structs.replace(self._settings, store=url)
            # there is no file where nobody was erased; were one lost, the audit would see it
            without = not any(backup_folder(new).glob("tombstones-*.log"))
            out = await new_epoch(new, tombstones=[], without=without, progress=_quiet)
        if out.findings:
            raise Violation("\n".join(map(str, out.findings)))
        yield new

    async def _copy(self, of: str) -> str:
        self.databases.append(f"onymous_kept_{os.getpid()}_{next(_names)}")
        await self._ground.do(f"CREATE DATABASE {self.databases[-1]} TEMPLATE {of}")
        return self.databases[-1]


def _quiet(step: str, done: int, total: int) -> None:
    """Report to nobody."""


@asynccontextmanager
async def cores(settings: Settings, count: int) -> AsyncIterator[list[Core]]:
    """Open a store several times, as several processes do."""
    async with AsyncExitStack() as stack:
        quiet = msgspec.structs.replace(settings, journal=False)
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
