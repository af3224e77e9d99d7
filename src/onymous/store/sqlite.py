"""The embedded engine: one folder, WAL, one writer, shared commits, background checkpoints.

Reads happen on the event loop's thread (a lookup takes microseconds, a thread switch tens of
them). Writes run there too, but waiting for the write lock and for the disk happens in a helper
thread, so that the loop goes on answering from the last snapshot.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import pathlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import apsw

from onymous.store import online_backup, schema, sql
from onymous.store.finding import alone_in, find_in
from onymous.store.packing import SLOTS
from onymous.store.port import (
    Found,
    Label,
    LostRace,
    Probe,
    Row,
    SchemaMismatch,
    StoreError,
    T,
    Writes,
)
from onymous.store.settle import settled
from onymous.store.sharing import Sharing
from onymous.store.sqlite_session import SqliteSession, SqliteTransaction, roll_back

#: WAL size from which the background thread copies pages into the database file
CHECKPOINT_BYTES = 4 << 20
#: WAL size from which a writer waits until the WAL can start over
RESTART_BYTES = 256 << 20
#: pages each connection keeps: the one that answers, the one that writes, any other; mapping the
#: file as well was no faster, and what is mapped is kept by place, not by use
READER_BYTES, WRITER_BYTES, OTHER_BYTES = 36 << 20, 12 << 20, 4 << 20
#: seconds without a commit after which the WAL is emptied: it still holds what was deleted
QUIET_S = 5.0


def connect(path: pathlib.Path, *, cached: int = OTHER_BYTES) -> apsw.Connection:
    """Open a connection with the settings every connection of ours has."""
    db = apsw.Connection(str(path))
    db.set_busy_timeout(0)
    # without it, engines with STAT4 compile `ORDER BY ... LIMIT` anew for each bound value
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "secure_delete = ON",
        "wal_autocheckpoint = 0",
        "temp_store = MEMORY",
        f"cache_size = -{cached >> 10}",
        "foreign_keys = ON",
    ):
        _patiently(db, f"PRAGMA {pragma}")
    return db


def _patiently(db: apsw.Connection, statement: str, seconds: float = 30.0) -> None:
    """Run a statement, waiting while another process holds the lock."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            db.execute(statement)
            return
        except apsw.BusyError:
            if time.monotonic() > give_up:
                raise StoreError("the database stayed locked by another process") from None
            time.sleep(0.0005)


class SqliteStore:
    """A folder with one database; several processes may serve it."""

    engine = "sqlite"

    def __init__(
        self, folder: pathlib.Path, *, commit_delay_ms: float = 0.0, quiet_s: float = QUIET_S
    ) -> None:
        self.path = folder / "onymous.db"
        self._quiet_s = quiet_s
        self._delay = commit_delay_ms / 1000
        self._threads = concurrent.futures.ThreadPoolExecutor(1, "onymous-commit")
        self._stop = threading.Event()
        self._checkpointer: threading.Thread | None = None
        #: connections of `read` that are not in use
        self._sessions: list[apsw.Connection] = []
        self.find_now: Callable[[Sequence[Probe]], list[Found]] | None = self._find_now
        self.only_now: Callable[[Sequence[Label]], list[Row | None]] | None = self._only_now
        self.alone_now: Callable[[Sequence[Probe]], list[Row | None]] | None = self._alone_now
        self.rows_now: Callable[..., list[Row]] | None = self._rows_now

    async def start(self) -> None:
        """Open the folder and bring the schema up to date."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        online_backup.refuse_unserved(self.path.parent)
        try:
            self._writer = _newest(self.path)
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            raise StoreError(
                f"{self.path}: user {os.getuid()} cannot open it and write beside it;"
                " whose is the folder?"
            ) from None
        self._reader = connect(self.path, cached=READER_BYTES)
        self._finder = self._reader.cursor()
        self._writing = asyncio.Lock()
        shared = (self._writer, self._writing, self._threads, self._begin, self._commit)
        self._sharing = Sharing(*shared)
        self._checkpointer = threading.Thread(
            target=self._checkpoints, name="onymous-checkpoint", daemon=True
        )
        self._checkpointer.start()

    async def close(self) -> None:
        """Wait for the running commit, copy the WAL into the database and close."""
        self._stop.set()
        if self._checkpointer is None:
            return
        async with self._writing:
            loop = asyncio.get_running_loop()
            await settled(loop.run_in_executor(None, self._checkpointer.join))
            self._threads.shutdown()
            for db in (*self._sessions, self._reader, self._writer):
                db.close()
            self._sessions.clear()
            self._checkpointer = None

    def _find_now(self, probes: Sequence[Probe]) -> list[Found]:
        return self._each(find_in, probes)

    def _alone_now(self, probes: Sequence[Probe]) -> list[Row | None]:
        return self._each(alone_in, probes)

    def _each(self, answer: Callable[[apsw.Cursor, Probe], T], probes: Sequence[Probe]) -> list[T]:
        cursor = self._finder
        cursor.execute("BEGIN")
        try:
            return [answer(cursor, probe) for probe in probes]
        finally:
            cursor.execute("COMMIT")

    def _only_now(self, labels: Sequence[Label]) -> list[Row | None]:
        cursor = self._finder
        execute: Callable[..., Any] = cursor.execute
        out: list[Row | None] = []
        cursor.execute("BEGIN")
        try:
            for pool, code, key in labels:
                rows = execute(sql.ONLY, (pool * SLOTS + code, key)).fetchall()
                out.append(rows[0] if len(rows) == 1 else None)
        finally:
            cursor.execute("COMMIT")
        return out

    def _rows_now(self, statement: str, *args: object) -> list[Row]:
        try:
            return self._finder.execute(statement, args).fetchall()
        except apsw.Error as error:
            raise _explained("read", error) from None

    async def scrub(self) -> None:
        """Empty the WAL: it still holds pages as they were before something was deleted."""
        await asyncio.get_running_loop().run_in_executor(None, self._scrub)

    def _scrub(self) -> None:
        db = connect(self.path)
        db.set_busy_timeout(200)
        try:
            for _ in range(50):
                with contextlib.suppress(apsw.BusyError, apsw.LockedError):
                    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    return
        finally:
            db.close()

    async def upkeep(self, now_ms: int, before_ms: int = 0) -> None:
        """Nothing: one folder needs none."""

    async def find(self, probes: Sequence[Probe]) -> list[Found]:
        """Answer all probes from one snapshot."""
        return self._find_now(probes)

    async def only(self, labels: Sequence[Label]) -> list[Row | None]:
        """Return per value the one record that holds it; None where nobody or several do."""
        return self._only_now(labels)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqliteSession]:
        """Open a session in which all statements see the same snapshot."""
        db = self._sessions.pop() if self._sessions else connect(self.path)
        db.execute("BEGIN")
        try:
            yield SqliteSession(db)
        except apsw.Error as error:
            raise _explained("read", error) from None
        finally:
            db.execute("ROLLBACK")
            self._sessions.append(db)

    @asynccontextmanager
    async def write(self, name: str) -> AsyncIterator[SqliteTransaction]:
        """Open the named write transaction.

        A task that is cancelled while a helper thread uses the connection waits for that thread:
        two threads never touch the connection, and a commit under way is never rolled back.
        """
        async with self._writing:
            run = asyncio.get_running_loop().run_in_executor
            try:
                await self._begin()
                yield SqliteTransaction(self._writer)
                await settled(run(self._threads, self._commit))
            except BaseException as error:
                roll_back(self._writer)
                if isinstance(error, apsw.Error):
                    raise _explained(name, error) from None
                raise

    async def share(self, name: str, work: Writes[T], *, behind: bool = True) -> T:
        """Run a short work in a transaction shared with others (`store/sharing.py`)."""
        try:
            return await self._sharing.share(work, behind)
        except apsw.Error as error:
            raise _explained(name, error) from None

    async def _begin(self) -> None:
        if self._checkpointer is None:
            raise StoreError("the store is not open")
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            run = asyncio.get_running_loop().run_in_executor
            await settled(run(self._threads, _patiently, self._writer, "BEGIN IMMEDIATE"))

    def _commit(self) -> None:
        _patiently(self._writer, "COMMIT")
        if self._delay:
            time.sleep(self._delay)

    def _checkpoints(self) -> None:
        """Copy WAL pages into the database file beside the traffic, never in a commit."""
        db = connect(self.path)
        wal = self.path.with_name(self.path.name + "-wal")
        last, since = (0, 0), time.monotonic()
        while not self._stop.wait(0.25):
            try:
                stat = wal.stat()
                if last != (stat.st_size, stat.st_mtime_ns):
                    last, since = (stat.st_size, stat.st_mtime_ns), time.monotonic()
                quiet = stat.st_size > 0 and time.monotonic() - since > self._quiet_s
                big = stat.st_size > RESTART_BYTES
                if big or quiet:
                    db.set_busy_timeout(200 if big else 0)
                    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                elif stat.st_size > CHECKPOINT_BYTES:
                    db.set_busy_timeout(0)
                    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except (apsw.BusyError, apsw.LockedError, FileNotFoundError):
                continue
        db.close()


def _explained(name: str, error: apsw.Error) -> StoreError:
    """Return the error of the store port; the engine's messages stay out of it."""
    if isinstance(error, apsw.ConstraintError):
        return LostRace(f"{name}: constraint")
    return StoreError(f"{name}: the database failed ({type(error).__name__})")


def _newest(path: pathlib.Path) -> apsw.Connection:
    """Open the connection that writes, the schema brought up to date."""
    db = connect(path, cached=WRITER_BYTES)
    try:
        _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: apsw.Connection) -> None:
    """Apply what is missing in one transaction; refuse a schema from the future."""
    _patiently(db, "BEGIN IMMEDIATE")
    try:
        _apply_migrations(db)
        _patiently(db, "COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _apply_migrations(db: apsw.Connection) -> None:
    tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'meta'"
    fresh = db.execute(tables).get == 0
    if not fresh and online_backup.is_backup(db):
        raise StoreError(online_backup.NOT_SERVED)
    version = 0 if fresh else int(db.execute(sql.META_GET, ("schema_version",)).get)
    if not fresh:
        needs = int(db.execute(sql.META_GET, ("compatible_version",)).get)
        if needs > schema.SCHEMA_VERSION:
            raise SchemaMismatch(
                f"the database needs schema version {needs} or newer, this is"
                f" {schema.SCHEMA_VERSION}: upgrade Onymous"
            )
    for number, text in schema.migrations("sqlite", version):
        for statement in schema.statements(text):
            db.execute(statement)
        for name, value in (
            ("schema_version", str(number)),
            ("compatible_version", str(schema.COMPATIBLE_VERSION)),
        ):
            db.execute(sql.META_PUT, (name, value.encode()))
