"""Composition root of everything that works without a socket; `serving` adds the sockets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import pathlib
import secrets
import shlex
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from onymous import duties, worker
from onymous.crypto import KeyProblem, MasterKey, MpidCipher
from onymous.flows.activity import Activity
from onymous.flows.changes import Changes
from onymous.flows.desk import Desk
from onymous.flows.diagnostics import Diagnostics
from onymous.flows.epochs import how_far, went_back
from onymous.flows.events import Events
from onymous.flows.explaining import Explainer
from onymous.flows.fencing import GRACE_S, Fence, end_left_over
from onymous.flows.history import Historian
from onymous.flows.identity import Resolver
from onymous.flows.jobs import Around, Handler, Together, end_if_asked
from onymous.flows.journal import Journal
from onymous.flows.merging import Merging
from onymous.flows.profiles import Profiles
from onymous.flows.quarantine import Spool
from onymous.flows.reads import Reads
from onymous.flows.review import Review
from onymous.flows.scope_changes import ScopeChanger
from onymous.flows.seen import SeenBuffer
from onymous.flows.tenants import Directory
from onymous.flows.tokens import Tokens
from onymous.flows.tombstones import (
    JOB,
    Tombstones,
    database_id,
    keep_promise,
)
from onymous.flows.undoing import Undoing
from onymous.flows.upkeep import Upkeep, learn, promise_drain
from onymous.later import module
from onymous.settings import SettingError, Settings
from onymous.store import backup_sql, schema, sql
from onymous.store.compression import Bodies
from onymous.store.port import Store, StoreError
from onymous.store.sqlite import SqliteStore

postgres = module("onymous.store.postgres")
log = logging.getLogger("onymous")

#: seconds between flushes of what is written behind (rulings 9 allow 60)
SEEN_EVERY_S = 20.0
TICK_S = 1.0
UPKEEP_EVERY_S = 30.0
#: seconds a command that prints the master key may take
COMMAND_S = 30
WENT_BACK = (
    "the database is older than it was: it came back from a backup or lost its latest changes,"
    " and would give numbers to new people that others have had; stop every server and run"
    " `onymous restore --new-epoch`"
)


def open_store(url: str, *, commit_delay_ms: float = 0.0) -> Store:
    """Return the engine a store setting names; raises `SettingError` for an unknown one."""
    if url.startswith(("postgresql://", "postgres://")):
        opened: Store = postgres.PostgresStore(url)
        return opened
    path = url.removeprefix("sqlite:")
    if not path or "://" in path:
        raise SettingError("store must be sqlite:FOLDER or postgresql://USER@HOST/DATABASE")
    return SqliteStore(pathlib.Path(path), commit_delay_ms=commit_delay_ms)


def master_key_path(settings: Settings) -> pathlib.Path:
    """Return where the master key lies: beside the data unless set."""
    if settings.master_key_file:
        return pathlib.Path(settings.master_key_file)
    return (settings.folder or pathlib.Path.home() / ".onymous") / "master.key"


def master_key(settings: Settings, *, make: bool = True) -> MasterKey:
    """Load the operator's key: environment `ONYMOUS_MASTER_KEY`, a command, or a file.

    The file is made where it is missing, unless `make` is off: then there is something sealed
    already. Raises `KeyProblem`.
    """
    text = os.environ.get("ONYMOUS_MASTER_KEY")
    if text:
        return MasterKey.from_text(text)
    if settings.master_key_command:
        return MasterKey.from_text(_asked(settings), lambda: _asked(settings))
    path = master_key_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    return MasterKey.from_file(path, make=make)


def _asked(settings: Settings) -> str:
    """Return what the operator's command prints; neither that nor its errors are ever logged."""
    try:
        words = shlex.split(settings.master_key_command)
        done = subprocess.run(  # noqa: S603
            words, capture_output=True, timeout=COMMAND_S, check=True, text=True
        )
    except subprocess.CalledProcessError as error:
        raise KeyProblem(f"master_key_command ended with {error.returncode}") from None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise KeyProblem(f"master_key_command cannot be run: {type(error).__name__}") from None
    return done.stdout


def backup_folder(settings: Settings) -> pathlib.Path:
    """Return where backups lie, and what is remembered outside the database."""
    if settings.backup_folder:
        return pathlib.Path(settings.backup_folder)
    return master_key_path(settings).parent / "backups"


class Core:
    """Everything that works without a socket; one per process and store."""

    def __init__(
        self, settings: Settings, *, watch: Callable[[Store], Store] = lambda store: store
    ) -> None:
        self.settings = settings
        self.store = watch(open_store(settings.store, commit_delay_ms=settings.commit_delay_ms))
        #: called when this process must end: the schema is beyond it, or the database went back
        self.on_outdated: Callable[[], None] | None = None
        self.outdated = False
        #: hears of jobs: kind, outcome, how many, seconds
        self.on_job: worker.On = lambda kind, outcome, count, seconds: None
        #: lasts as long as jobs of a kind are done
        self.around_job: Around = lambda kind, jobs: contextlib.nullcontext()
        self.seen = SeenBuffer()
        self.diagnostics = Diagnostics()
        asked, review = bool(settings.explain_requests), bool(settings.review_days)
        self.journal = Journal(on=settings.journal, asked=asked, review=review)
        self.bodies = Bodies()
        self.desk = Desk(self.store, self.seen, most_waiting=settings.max_waiting)
        #: how long a change of rules is announced before it is made
        self.grace_s = GRACE_S
        self._keeper: asyncio.Task[None] | None = None
        #: the database is older than it was known to be
        self.went_back = False

    async def start(self) -> None:
        """Open the store, load keys and tenants, start the desk."""
        await self.store.start()
        try:
            await self._recognise()
        except BaseException:
            await self.store.close()
            raise
        self.directory = Directory(self.store, self.key)
        await self.directory.load()
        self.fence = Fence(self.directory)
        self.desk.fence = self.fence
        self.reads = Reads()
        self.tokens = Tokens(self.store, self.key)
        await self.tokens.load(time.time_ns() // 1_000_000)
        self.resolver = Resolver(self.desk, self.mpids, self.diagnostics, self.journal)
        held = self.settings.max_waiting_event_bytes
        self.events = Events(self.resolver, self.bodies, most_held=held)
        self.resolver.tombstones = self.tombstones
        self.profiles = Profiles(self.store, self.mpids)
        self.merging = Merging(self.resolver, self.store)
        await self.merging.refresh()
        async with self.store.read() as session:
            await self.bodies.load(session)
        self._more()
        await promise_drain(self.store, time.time_ns() // 1_000_000)
        self.desk.start()
        self._keeper = asyncio.create_task(self._keep_house())

    def _more(self) -> None:
        self.upkeep = Upkeep(
            self.store,
            self.events,
            self.directory,
            retention_days=self.settings.event_retention_days,
            feed_days=self.settings.change_feed_days,
            journal_days=self.settings.journal_days,
            review_days=self.settings.review_days,
            quarantine_days=self.settings.quarantine_days,
            explain_requests=self.settings.explain_requests,
        )
        self.spool = Spool(self.store, self.events, self.directory)
        self.scopes = ScopeChanger(self.store, self.seen)
        self.undoing = Undoing(self.resolver, self.store)
        most = self.settings.max_identities_per_profile
        self.review = Review(self.resolver, self.store, self.merging, self.spool, most)
        self.historian = Historian(self.store, self.resolver, self.directory)
        self.explainer = Explainer(self.store, self.resolver, self.historian, self.journal)
        self.activity = Activity(self.store, self.historian, self.bodies)
        self.changes = Changes(self.store, self.historian, table=self.settings.change_feed_table)

    async def close(self) -> None:
        """Answer what waits, write what was written behind, close."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self.desk.close()
        await self.tombstones.close()
        await self.seen.flush(self.store)
        await self.diagnostics.flush(self.store)
        await self.journal.flush(self.store)
        await self.tokens.flush()
        await self.directory.flush()
        await self.reads.flush(self.store)
        await self.store.close()

    async def work(self, ending: Callable[[], bool] = lambda: False) -> None:
        """Do promised work until cancelled, or until `ending` comes true."""
        run = functools.partial(
            worker.run, self.store, ending=ending, on=self.on_job, around=self.around_job
        )
        # what takes long keeps nothing else from its turn; both have ended before this has
        async with asyncio.TaskGroup() as group:
            group.create_task(run(self.handlers(), self.together()))
            group.create_task(run(duties.slow(self), {}, tell=False))

    def handlers(self) -> dict[str, Handler]:
        """Return what does the jobs of this store."""
        return duties.handlers(self)

    def together(self) -> dict[str, Together]:
        """Return what does all due jobs of a kind at once."""
        return duties.together(self)

    async def _recognise(self) -> None:
        """Load the keys; raise `StoreError` for a database that is older than it was."""
        async with self.store.read() as session:
            sealed = await session.rows(backup_sql.SEALED_ANY)
        self.key = master_key(self.settings, make=not sealed)
        mpid_key = await _mpid_key(self.store)
        self.mpids = MpidCipher(mpid_key)
        self.tombstones = Tombstones(backup_folder(self.settings), database_id(mpid_key))
        before = self.tombstones.mark()  # read first: the database only gets further
        async with self.store.read() as session:
            far = await how_far(session, time.time_ns() // 1_000_000)
        if went_back(far, before):
            raise StoreError(WENT_BACK)

    async def _mark(self) -> None:
        """Note outside how far the database is; find out whether it went back meanwhile."""
        before = self.tombstones.mark()
        async with self.store.read() as session:
            far = await how_far(session, time.time_ns() // 1_000_000)
        if self.went_back or went_back(far, before):
            if not self.went_back:
                log.error(WENT_BACK)
            self.went_back = True
            if self.on_outdated is not None:
                self.on_outdated()  # it must not give another number
            return
        try:
            await asyncio.to_thread(self.tombstones.set_mark, far)
        except OSError as error:
            log.error("the backup folder cannot be written: %s; see doctor", error.strerror)

    async def remember_now(self) -> None:
        """Do what was promised to be remembered outside, for commands that end at once."""
        async with self.store.read() as session:
            rows = await session.rows(backup_sql.JOBS_OF_KIND, JOB)
        for (body,) in rows:
            await keep_promise(self.tombstones, bytes(body))

    async def ready(self) -> bool:
        """Return whether the database answers, is understood, and is not older than it was."""
        if self.outdated or self.went_back:
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
            steps: list[Callable[[], Awaitable[object]]] = [
                self._check_schema,
                self.directory.refresh_if_changed,
                lambda: self.tokens.refresh_if_changed(_now_ms()),
                lambda: self.diagnostics.flush(self.store),
                lambda: self.reads.flush(self.store),
                self.merging.refresh,
            ]
            if self.directory.fenced_until:
                steps.append(lambda: end_left_over(self.store))
            if self.bodies.ripe and self.settings.work:
                steps.append(lambda: learn(self.store, self.bodies, _now_ms()))
            if time.monotonic() - kept > UPKEEP_EVERY_S:
                kept = time.monotonic()
                steps.append(self._mark)
                if self.settings.work:
                    steps.append(lambda: self.upkeep.run(_now_ms()))
            if time.monotonic() - flushed > SEEN_EVERY_S:
                flushed = time.monotonic()
                steps.append(lambda: self.seen.flush(self.store))
                steps += [self.tokens.flush, self.directory.flush, self.changes.catch_up]
                steps.append(lambda: self.journal.flush(self.store))
            if time.monotonic() - forgot > 600:
                forgot = time.monotonic()
                steps.append(self._forget)
            await _one_by_one(steps)

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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _one_by_one(steps: list[Callable[[], Awaitable[object]]]) -> None:
    """Take every step, also after one that failed: none may keep the others from their turn."""
    failed: dict[str, None] = {}
    for step in steps:
        try:
            await step()
        except Exception as error:
            failed[type(error).__name__] = None
        end_if_asked()
    if failed:
        log.error("housekeeping failed: %s", ", ".join(failed))


async def _mpid_key(store: Store) -> bytes:
    """Return the key of the MPID bijection: in the database, made once, never changed."""
    async with store.write("mpid_key") as tx:
        await tx.run(sql.META_ONCE, "mpid_key", secrets.token_bytes(32))
        rows = await tx.rows(sql.META_GET, "mpid_key")
    return bytes(rows[0][0])


def calm_collector() -> None:
    """Let the collector, which walks all objects, run rarely: ours hardly ever form cycles."""
    if gc.isenabled():  # off since the process began (`__main__`): hardly any garbage yet
        gc.collect()
    gc.freeze()
    gc.enable()
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
