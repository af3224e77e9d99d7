"""A replay that can go on where a killed one was: what it knew lies in a file, sealed.

The key stands in a row of the database from before the first request was read. An erasure, a change
of the configuration, and a day later any server destroy it, in their own transaction: the file
cannot be read any more, whoever has it (docs/decisions/0027).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import secrets
import tempfile
import time
from array import array
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, BinaryIO

import apsw
import msgspec

from onymous.app import Core
from onymous.crypto import KeyProblem, MasterKey
from onymous.lab.throwaway import PLANS, PLANS_S
from onymous.rules.grouping import Numbers
from onymous.rules.strategies import Plan
from onymous.store import rules_sql, sql
from onymous.store import scratch_sql as scratch
from onymous.store.scratch import Scratch
from onymous.store.sqlite import connect

#: seconds between two times it is kept; and so many times as long as keeping took
EVERY_S, TIMES = 30.0, 20
#: how long it can be gone on with
KEPT_MS = PLANS_S * 1000
#: bytes sealed at once, and rows
PIECE, ROWS = 1 << 20, 5_000
#: which tables a replay fills, and how they are filled again
_TABLES = (
    (scratch.VOTES_KEPT, scratch.VOTE_BACK),
    (scratch.EVIDENCE_KEPT, scratch.EVIDENCE_ADD),
    (scratch.ORIGINS_KEPT, scratch.ORIGIN_ADD),
)
_encode = msgspec.msgpack.Encoder().encode
_piece = msgspec.msgpack.Decoder(tuple[str, Any]).decode


class Stand(msgspec.Struct):
    """How far a replay is: requests in order (see `when_noted`), how many of them were asked."""

    numbers: array[int]
    #: time of the latest of them
    newest_ms: int
    done: int = 0
    #: record of the original -> record of the replay
    now: Numbers = msgspec.field(default_factory=Numbers)


class Keeping:
    """Keeps the replay of one pool under one plan, as long as its key stands."""

    def __init__(self, core: Core, pool: int, plan: Plan, config_version: int) -> None:
        self._core, self._pool = core, pool
        database = core.tombstones.database
        self.path = pathlib.Path(tempfile.gettempdir(), f"{PLANS}{database}-{pool}")
        what = (version("onymous"), database, pool, config_version, plan.config)
        #: a file is of this, or of something else
        self._about = hashlib.blake2b(_encode(what), digest_size=32).digest()
        self._name, self._key = "", MasterKey(secrets.token_bytes(32))
        self._due = time.monotonic() + EVERY_S

    async def begin(self, into: Scratch, folder: str) -> Stand | None:
        """Return how far a killed replay was and put back what it knew, or begin anew.

        Needs empty tables and a new folder; asked before the first request is read.
        """
        store, now_ms = self._core.store, time.time_ns() // 1_000_000
        async with store.read() as session:
            young = f"{now_ms - KEPT_MS:015d}"
            rows = await session.rows(rules_sql.PLAN_KEYS, str(self._pool), young)
        for name, sealed in rows:
            if self._opens(bytes(sealed)):
                self._name = name
                return self._load(into, folder)
        self.drop()
        plain = secrets.token_bytes(32)
        self._name, self._key = f"plan_key {now_ms:015d} {self._pool}", MasterKey(plain)
        async with store.write("plan.key") as tx:
            await tx.run(rules_sql.PLAN_KEYS_OF_DROP, str(self._pool))
            await tx.run(sql.META_PUT, self._name, self._core.key.seal(plain, self._about))
        return None

    def _opens(self, sealed: bytes) -> bool:
        """Return whether a key opens all of the file; then it is used."""
        with contextlib.suppress(KeyProblem, OSError, EOFError), self._file() as file:
            self._key = MasterKey(self._core.key.open(sealed, self._about))
            kinds = [kind for kind, _ in self._opened(file)]
            return kinds[-1:] == ["end"]
        return False

    @property
    def due(self) -> bool:
        """Return whether a replay should be kept now."""
        return bool(self._name) and time.monotonic() >= self._due

    async def keep(self, stage: Core, known: Scratch, stand: Stand) -> bool:
        """Keep a replay that has settled, if its key still stands."""
        began = time.monotonic()
        async with self._core.store.read() as session:
            if not await session.rows(sql.META_GET, self._name):
                self.drop()  # nobody could read it, and it must not be kept anew
                self._name = ""
                return False
        await stage.seen.flush(stage.store)
        try:
            self._save(stage, known, stand)
        except OSError:  # it is only not kept: no space, somebody else's file
            self._name = ""
        took = time.monotonic() - began
        self._due = time.monotonic() + max(EVERY_S, TIMES * took)
        return bool(self._name)

    def drop(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    # -- the file ---------------------------------------------------------------------------

    def _save(self, stage: Core, known: Scratch, stand: Stand) -> None:
        number, new = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                for place, piece in enumerate(self._pieces(stage, known, stand)):
                    sealed = self._key.seal(_encode(piece), self._context(place))
                    file.write(len(sealed).to_bytes(4, "big") + sealed)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except BaseException:
            os.unlink(new)
            raise

    def _pieces(self, stage: Core, known: Scratch, stand: Stand) -> Iterator[tuple[str, object]]:
        yield "stand", (stand.newest_ms, stand.done)
        data = stand.numbers.tobytes()
        for start in range(0, len(data), PIECE):
            yield "numbers", data[start : start + PIECE]
        for page in stand.now.pages():
            yield "now", page
        for table, (kept, _) in enumerate(_TABLES):
            rows = known.rows(kept)
            while some := [row for _, row in zip(range(ROWS), rows, strict=False)]:
                yield "rows", (table, some)
        assert stage.settings.folder is not None
        copy = stage.settings.folder / "copy"
        _copied(copy.with_name("onymous.db"), copy)
        with copy.open("rb") as file:
            while part := file.read(PIECE):
                yield "store", part
        copy.unlink()
        yield "end", None

    def _load(self, into: Scratch, folder: str) -> Stand:
        """Put back what the file holds."""
        stand, data = Stand(array("q"), 0), b""
        place = pathlib.Path(folder, "store")
        place.mkdir()
        with self._file() as file, (place / "onymous.db").open("wb") as copy:
            for kind, what in self._opened(file):
                if kind == "stand":
                    stand.newest_ms, stand.done = what
                elif kind == "numbers":
                    data += what
                elif kind == "now":
                    stand.now.put_page(*what)
                elif kind == "rows":
                    into.many(_TABLES[what[0]][1], what[1])
                elif kind == "store":
                    copy.write(what)
        stand.numbers.frombytes(data)
        return stand

    @contextlib.contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        """Open the file, if it is ours: anybody may write into folders for temporary files."""
        number = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(number, "rb") as file:
            if os.fstat(number).st_uid != os.geteuid():
                raise OSError
            yield file

    def _opened(self, file: BinaryIO) -> Iterator[tuple[str, Any]]:
        """Yield the pieces of a file; raises for one that is another's, damaged or torn."""
        place = 0
        while size := file.read(4):
            sealed = file.read(int.from_bytes(size, "big"))
            yield _piece(self._key.open(sealed, self._context(place)))
            place += 1

    def _context(self, place: int) -> bytes:
        return self._about + place.to_bytes(8, "big")


def _copied(source: pathlib.Path, copy: pathlib.Path) -> None:
    """Copy a database others write into, as it is at one moment."""
    with (
        contextlib.closing(connect(source)) as old,
        contextlib.closing(apsw.Connection(str(copy))) as new,
        new.backup("main", old, "main") as backup,
    ):
        backup.step(-1)
