"""Composition root of everything that works without a socket; `serving` adds the sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pathlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from onymous import worker
from onymous.crypto import MasterKey, MpidCipher
from onymous.flows.activity import Activity
from onymous.flows.changes import Changes, publish
from onymous.flows.desk import Desk
from onymous.flows.diagnostics import Diagnostics
from onymous.flows.events import Events
from onymous.flows.explaining import Explainer
from onymous.flows.history import Historian
from onymous.flows.identity import Resolver
from onymous.flows.jobs import Handler, Together
from onymous.flows.journal import Journal, erase_from_journal
from onymous.flows.merging import Merging
from onymous.flows.profiles import Profiles
from onymous.flows.quarantine import Spool
from onymous.flows.reads import Reads
from onymous.flows.seen import SeenBuffer
from onymous.flows.tenants import Directory
from onymous.flows.tokens import Tokens
from onymous.flows.undoing import Undoing
from onymous.flows.upkeep import Upkeep, promise_drain
from onymous.settings import SettingError, Settings
from onymous.store import schema, sql
from onymous.store.compression import Bodies
from onymous.store.port import Store
from onymous.store.postgres import PostgresStore
from onymous.store.sqlite import SqliteStore

log = logging.getLogger("onymous")

#: seconds between flushes of what is written behind (rulings 9 allow 60)
SEEN_EVERY_S = 20.0
TICK_S = 1.0
UPKEEP_EVERY_S = 30.0


def open_store(url: str, *, commit_delay_ms: float = 0.0) -> Store:
    """Return the engine a store setting names; raises `SettingError` for an unknown one."""
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresStore(url)
    path = url.removeprefix("sqlite:")
    if not path or "://" in path:
        raise SettingError("store must be sqlite:FOLDER or postgresql://USER@HOST/DATABASE")
    return SqliteStore(pathlib.Path(path), commit_delay_ms=commit_delay_ms)


def master_key_path(settings: Settings) -> pathlib.Path:
    """Return where the master key lies: beside the data unless set."""
    if settings.master_key_file:
        return pathlib.Path(settings.master_key_file)
    if settings.store.startswith(("postgresql://", "postgres://")):
        return pathlib.Path.home() / ".onymous" / "master.key"
    return pathlib.Path(settings.store.removeprefix("sqlite:")) / "master.key"


def master_key(settings: Settings) -> MasterKey:
    """Load the operator's key: environment `ONYMOUS_MASTER_KEY`, else the file, made if missing."""
    text = os.environ.get("ONYMOUS_MASTER_KEY")
    if text:
        return MasterKey.from_text(text)
    path = master_key_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    return MasterKey.from_file(path)


class Core:
    """Everything that works without a socket; one per process and store."""

    def __init__(
        self, settings: Settings, *, watch: Callable[[Store], Store] = lambda store: store
    ) -> None:
        self.settings = settings
        self.store = watch(open_store(settings.store, commit_delay_ms=settings.commit_delay_ms))
        #: called when the schema has gone beyond what this version understands
        self.on_outdated: Callable[[], None] | None = None
        self.outdated = False
        #: hears of jobs: kind, outcome, how many, seconds
        self.on_job: worker.On = lambda kind, outcome, count, seconds: None
        self.seen = SeenBuffer()
        self.diagnostics = Diagnostics()
        self.journal = Journal(on=self.settings.journal, asked=bool(self.settings.explain_requests))
        self.bodies = Bodies()
        self.desk = Desk(self.store, self.seen, most_waiting=settings.max_waiting)
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store, load keys and tenants, start the desk."""
        await self.store.start()
        self.key = master_key(self.settings)
        self.mpids = MpidCipher(await _mpid_key(self.store))
        self.directory = Directory(self.store, self.key)
        await self.directory.load()
        self.reads = Reads()
        self.tokens = Tokens(self.store, self.key)
        await self.tokens.load(time.time_ns() // 1_000_000)
        self.resolver = Resolver(self.desk, self.mpids, self.diagnostics, self.journal)
        held = self.settings.max_waiting_event_bytes
        self.events = Events(self.resolver, self.bodies, most_held=held)
        self.profiles = Profiles(self.store, self.mpids)
        self.merging = Merging(self.resolver, self.store)
        await self.merging.refresh()
        async with self.store.read() as session:
            await self.bodies.load(session)
        self.upkeep = Upkeep(
            self.store,
            self.events,
            self.directory,
            retention_days=self.settings.event_retention_days,
            feed_days=self.settings.change_feed_days,
            journal_days=self.settings.journal_days,
            quarantine_days=self.settings.quarantine_days,
            explain_requests=self.settings.explain_requests,
        )
        self.spool = Spool(self.store, self.events, self.directory)
        self.undoing = Undoing(self.resolver, self.store)
        self.historian = Historian(self.store, self.resolver, self.directory)
        self.explainer = Explainer(self.store, self.resolver, self.historian, self.journal)
        self.activity = Activity(self.store, self.historian, self.bodies)
        self.changes = Changes(self.store, self.historian)
        await promise_drain(self.store, time.time_ns() // 1_000_000)
        self.desk.start()
        self._keeper = asyncio.create_task(self._keep_house())

    async def close(self) -> None:
        """Answer what waits, write what was written behind, close."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self.desk.close()
        await self.seen.flush(self.store)
        await self.diagnostics.flush(self.store)
        await self.journal.flush(self.store)
        await self.tokens.flush()
        await self.reads.flush(self.store)
        await self.store.close()

    async def work(self, ending: Callable[[], bool] = lambda: False) -> None:
        """Do promised work until cancelled, or until `ending` comes true."""
        doing = (self.handlers(), self.together())
        await worker.run(self.store, *doing, ending=ending, on=self.on_job)

    def handlers(self) -> dict[str, Handler]:
        """Return what does the jobs of this store."""

        async def drain(body: bytes) -> None:
            await self.spool.drain()

        async def forget(body: bytes) -> None:
            await self.spool.erase(body)
            await erase_from_journal(self.store, self.journal, body)

        return {"drain_spool": drain, "journal_erase": forget}

    def together(self) -> dict[str, Together]:
        """Return what does all due jobs of a kind at once."""

        async def changed(bodies: list[bytes]) -> None:
            await publish(self.store, bodies)

        return {"identity_changed": changed}

    async def ready(self) -> bool:
        """Return whether the database answers, with a schema this version understands."""
        if self.outdated:
            return False
        try:
            async with self.store.read() as session:
                return bool(await session.rows(sql.META_GET, "schema_version"))
        except Exception:
            return False

    async def _keep_house(self) -> None:
        """Write what is written behind; see new tenants; forget old repeats."""
        flushed = forgot = kept = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._check_schema()
                await self.directory.refresh_if_changed()
                await self.tokens.refresh_if_changed(time.time_ns() // 1_000_000)
                await self.diagnostics.flush(self.store)
                await self.reads.flush(self.store)
                await self.merging.refresh()
                if self.settings.work and time.monotonic() - kept > UPKEEP_EVERY_S:
                    kept = time.monotonic()
                    await self.upkeep.run(time.time_ns() // 1_000_000)
                if time.monotonic() - flushed > SEEN_EVERY_S:
                    flushed = time.monotonic()
                    await self.seen.flush(self.store)
                    await self.tokens.flush()
                    await self.journal.flush(self.store)
                if time.monotonic() - forgot > 600:
                    forgot = time.monotonic()
                    await self._forget()
            except Exception as error:
                log.error("housekeeping failed: %s", type(error).__name__)

    async def _check_schema(self) -> None:
        """Notice that a newer version made the schema one this version must not write to."""
        async with self.store.read() as session:
            needs = int((await session.rows(sql.META_GET, "compatible_version"))[0][0])
        if needs > schema.SCHEMA_VERSION and not self.outdated:
            self.outdated = True
            log.error("the database now needs schema version %s: upgrade this process", needs)
            if self.on_outdated is not None:
                self.on_outdated()

    async def _forget(self) -> None:
        before = time.time_ns() // 1_000_000 - self.settings.replay_hours * 3_600_000
        async with self.store.write("forget") as tx:
            await tx.run(sql.REPLAY_FORGET, before)


async def _mpid_key(store: Store) -> bytes:
    """Return the key of the MPID bijection: in the database, made once, never changed."""
    async with store.write("mpid_key") as tx:
        await tx.run(sql.META_ONCE, "mpid_key", secrets.token_bytes(32))
        rows = await tx.rows(sql.META_GET, "mpid_key")
    return bytes(rows[0][0])


def calm_collector() -> None:
    """Let Python's collector of reference cycles run rarely: our objects hardly ever form any.

    With its defaults it walks all live objects again and again while requests wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Core]:
    """Start a core and close it at the end."""
    core = Core(settings)
    await core.start()
    try:
        yield core
    finally:
        await core.close()
