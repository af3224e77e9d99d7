"""What must not be forgotten when a database goes back in time: erasures, revocations, epochs.

It is kept outside the database and its backups, in a file of lines that are only ever appended and
are on disk before an erasure is acknowledged. A line holds internal numbers, times and digests of
nothing: no name, no MPID. A restore applies the lines before anything is served (rulings 23).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import pathlib
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from onymous.store import backup_sql, sql
from onymous.store.port import Store, StoreError, Transaction

log = logging.getLogger("onymous.tombstones")

ERASED, EPOCH, SECRET, TOKEN = "erased", "epoch", "secret revoked", "token revoked"
CLIENT_OFF, CLIENT_ON, CLIENT_GONE = "client off", "client on", "client deleted"
DATABASE = "database"
KINDS = (ERASED, EPOCH, SECRET, TOKEN, CLIENT_OFF, CLIENT_ON, CLIENT_GONE, DATABASE)
#: jobs that tell the file: what a transaction promised; everything erased so far
JOB, JOB_ALL = "remember", "remember_all"
#: the file is told at once; the job is for the case that this process does not get there
LATER_MS = 10_000
_PIECE = 2_000
#: lines of this process that need not be written again by its own job
_MOST_KNOWN = 100_000


class OutsideProblem(StoreError):
    """What is kept outside the database cannot be used; the message says what to do."""


class Line(msgspec.Struct, omit_defaults=True, frozen=True):
    """One thing to remember."""

    kind: str
    at_ms: int
    #: erased: internal number; epoch: its first number; secret, token: its number
    number: int = 0
    #: erased: the pool; secret: when it was made
    other: int = 0
    #: database, client or token
    name: str = ""


class Mark(msgspec.Struct, frozen=True):
    """How far a database was: one that is not as far has come back from a backup."""

    epoch: int
    ledger: int
    pid: int
    at_ms: int


_line = msgspec.json.Decoder(Line).decode
_mark = msgspec.json.Decoder(Mark).decode
_encode = msgspec.json.Encoder().encode
_lines = msgspec.msgpack.Decoder(tuple[Line, ...]).decode


def database_id(mpid_key: bytes) -> str:
    """Return what a database is recognised by, also after a restore."""
    return hashlib.blake2b(mpid_key, digest_size=8, person=b"onymous id").hexdigest()


class Tombstones:
    """The file of one database in a folder; several processes append to it."""

    def __init__(self, folder: pathlib.Path, database: str) -> None:
        self.folder, self.database = folder, database
        self.path = folder / f"tombstones-{database}.log"
        self._mark_path = folder / f"{database}.mark"
        self._turn = asyncio.Lock()
        self._known: set[Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def remember(self, lines: Sequence[Line]) -> None:
        """Append lines; they are on disk when this returns. Raises `OutsideProblem`."""
        fresh = [line for line in lines if line not in self._known]
        if not fresh:
            return
        async with self._turn:
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(None, self.append, fresh)
            except OSError as error:
                raise OutsideProblem(
                    f"{self.path} cannot be written ({error.strerror}): erasures are not"
                    " acknowledged until it can"
                ) from None
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known.update(fresh)

    def append(self, lines: Iterable[Line]) -> None:
        """Append lines and wait until they are on disk; a torn last line gives way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _drop_torn(file.fileno())
            if os.fstat(file.fileno()).st_size == 0:
                lines = (Line(DATABASE, 0, name=self.database), *lines)
            file.write(b"".join(map(_written, lines)))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.folder)

    def after(self, lines: Sequence[Line], done: asyncio.Future[None]) -> None:
        """Append lines in the background; `done` is set, or gets the error."""

        async def work() -> None:
            try:
                await self.remember(lines)
            except Exception as error:
                log.error("an erasure is not remembered outside: %s", type(error).__name__)
                done.set_exception(error)
            else:
                done.set_result(None)

        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is being written."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- how far the database is --------------------------------------------------------------

    def mark(self) -> Mark | None:
        """Return how far the database was known to be, or None."""
        try:
            return _mark(self._mark_path.read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def set_mark(self, mark: Mark) -> None:
        """Note how far the database is; raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mine = self._mark_path.with_name(f".{self._mark_path.name}.{os.getpid()}")
        mine.write_bytes(_encode(mark))
        mine.replace(self._mark_path)


def promise(lines: Sequence[Line], now_ms: int) -> tuple[str, tuple[object, ...]]:
    """Return the statement that promises, in a transaction, to remember lines."""
    return sql.JOB_ADD, (JOB, now_ms + LATER_MS, msgspec.msgpack.encode(lines))


async def promised(tx: Transaction, line: Line) -> None:
    """Promise in a transaction to remember a line."""
    statement, row = promise((line,), line.at_ms)
    await tx.run(statement, *row)


async def keep_promise(tombstones: Tombstones, body: bytes) -> None:
    """Do the job of `promise`."""
    await tombstones.remember(_lines(body))


async def remember_all(store: Store, tombstones: Tombstones) -> int:
    """Remember everything that is erased in a database; return how many profiles."""
    done = after = 0
    while True:
        async with store.read() as session:
            rows = await session.rows(backup_sql.ERASED_AFTER, after, _PIECE)
        if not rows:
            return done
        after = rows[-1][0]
        await tombstones.remember([Line(ERASED, at, pid, pool) for pid, pool, at in rows])
        done += len(rows)


def read_lines(path: pathlib.Path, database: str | None = None) -> list[Line]:
    """Return the lines of a file, in order; a torn last line was never acknowledged.

    Raises `OutsideProblem` for a file that cannot be read, is damaged or is of another database.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise OutsideProblem(f"{path} cannot be read: {error.strerror}") from None
    out: list[Line] = []
    *whole, _ = raw.split(b"\n")
    for number, text in enumerate(whole, 1):
        out.append(_read(path, number, text))
    named = {line.name for line in out if line.kind == DATABASE}
    if database is not None and out and named != {database}:
        raise OutsideProblem(f"{path} belongs to another database than {database}")
    return out


def _read(path: pathlib.Path, number: int, text: bytes) -> Line:
    try:
        check, _, body = text.partition(b" ")
        if int(check, 16) != zlib.crc32(body):
            raise ValueError
        line = _line(body)
    except (ValueError, msgspec.DecodeError):
        raise OutsideProblem(
            f"{path} is damaged in line {number}: use a copy of it that is whole"
        ) from None
    if line.kind not in KINDS:
        raise OutsideProblem(f"{path} is of a newer version of Onymous: upgrade first")
    return line


def _written(line: Line) -> bytes:
    body = _encode(line)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _drop_torn(file: int) -> None:
    """Cut off a last line that a crash tore: nobody was told that it is written."""
    size = os.fstat(file).st_size
    if not size or os.pread(file, 1, size - 1) == b"\n":
        return
    tail = os.pread(file, min(size, 4096), max(0, size - 4096))
    os.ftruncate(file, size - (len(tail) - (tail.rfind(b"\n") + 1)))


def sync_folder(folder: pathlib.Path) -> None:
    """Wait until the names in a folder are on disk."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
