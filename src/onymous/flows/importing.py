"""Files of people: each row resolved like a feed's, in order, exactly once.

Rows are applied in pieces, each in one transaction that also writes how far the file is done: an
import that was interrupted goes on where it was, and no row is applied twice. Of a piece, the rows
that meet nobody are written at once (flows/newcomers.py); the others are decided in order. That
makes the same people as deciding all in order, because the former share no value with anybody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from onymous.flows.desk import MOST_TOGETHER, MOST_TRIES, Work
from onymous.flows.dry_run import DryRun
from onymous.flows.events import MOST_BYTES, Events
from onymous.flows.fencing import RulesChanged
from onymous.flows.files import Job, Ready, Rejected, Rejects, Report, Row
from onymous.flows.newcomers import Place, newcomer, strangers, welcome
from onymous.flows.taking import Incoming, Take, Taken
from onymous.rules.errors import Busy, Refusal
from onymous.rules.times import AHEAD_MS
from onymous.store import sql
from onymous.store.packing import slot
from onymous.store.port import LostRace, Store, StoreError, Transaction

#: rows of one transaction
TOGETHER = 4_096
#: bytes of rows that wait for their piece
MOST_HELD = 8 << 20
_encode = msgspec.json.Encoder().encode


class Importer:
    """Imports the rows of one file."""

    def __init__(
        self,
        store: Store,
        events: Events,
        job: Job,
        rejects: Rejects,
        progress: Callable[[int], None],
    ) -> None:
        self._store, self._events, self._job = store, events, job
        self._rejects, self._progress = rejects, progress
        environment = "development" if job.development else "production"
        pool = job.caller.pool(environment)
        self._place = Place(job.caller, pool, job.now_ms, job.max_values)
        #: numbers of rows whose decision failed: they are rejected
        self._failed: set[int] = set()
        self._most = TOGETHER
        #: how many rows are done, as the database has it
        self._at = 0
        self._waiting: list[Row] = []
        self._under_way: asyncio.Task[list[Row]] | None = None
        self.report = Report(dry_run=job.dry_run)
        self._dry = DryRun(store, events.resolver, job, rejects, self.report)

    async def run(self, rows: Iterable[Ready]) -> Report:
        """Import all rows; may be run again after a crash, with the same rows."""
        done = 0 if self._job.dry_run else await self._done()
        try:
            number = await self._read(rows, done)
            await self._rest()
        finally:
            if self._under_way is not None:
                await asyncio.gather(self._under_way, return_exceptions=True)
        self.report.rows = number
        self.report.before += min(done, number)
        self._progress(number)
        return self.report

    async def _read(self, rows: Iterable[Ready], done: int) -> int:
        """Read the rows and have them applied; return how many there are."""
        if not done:
            self._rejects.begin(0)
        number = size = 0
        for number, (line, row, at_ms) in enumerate(rows, 1):
            if number <= done:
                continue
            if done and number == done + 1:
                self._rejects.begin(line - 1)
            self._waiting.append(self._row(number, line, row, at_ms))
            if number % 256 == 0:
                await asyncio.sleep(0)
            size += len(self._waiting[-1].body)
            if len(self._waiting) >= TOGETHER or size >= MOST_HELD:
                size = 0
                # beside the piece under way
                await self._pack(self._waiting)
                await self._settled()
                # the next rows are read while these are written
                some, self._waiting = self._waiting, []
                self._under_way = asyncio.create_task(self._some(some))
        return number

    async def _settled(self) -> None:
        """Wait for the piece under way; what is left of it comes first."""
        task, self._under_way = self._under_way, None
        if task is not None:
            self._waiting = await task + self._waiting

    async def _rest(self) -> None:
        await self._settled()
        while self._waiting:
            self._waiting = await self._some(self._waiting)

    async def _some(self, rows: list[Row]) -> list[Row]:
        """Do the first of these rows; return those that are left."""
        if self._job.dry_run:
            count = await self._dry.look(rows)
        else:
            count = await self._piece(rows[: self._most])
        self._progress(rows[count - 1].number)
        return rows[count:]

    def _row(self, number: int, line: int, row: Mapping[str, Any] | str, at: int | None) -> Row:
        if isinstance(row, str):
            return Row(number, line, why=row)
        try:
            body = _encode(row)
        except (UnicodeEncodeError, TypeError, ValueError):
            return Row(number, line, why="not_utf8")
        now = self._job.now_ms
        at_ms = now if at is None or at > now + AHEAD_MS else at
        raw = {**row, "environment": "development"} if self._job.development else row
        out = Row(number, line, "", raw, at_ms, body)
        ours = (raw.get("environment") == "development") == self._job.development
        if ours and len(body) <= MOST_BYTES:
            out.newcomer = newcomer(self._place, raw, at_ms)
        if out.newcomer is not None:
            out.looked = out.newcomer.looked
        else:
            self._decided(out)
        return out

    def _decided(self, row: Row) -> None:
        """Make a row work to be decided in order."""
        job = self._job
        item = Incoming(
            caller=job.caller,
            raw=row.raw,
            body=row.body,
            now_ms=job.now_ms,
            max_values=job.max_values,
            feed=True,
            kept=True,
            replace_values=job.replace_values,
            at_ms=row.at_ms,
        )
        try:
            row.work = self._events.row(item, self._taken)
        except Refusal as refusal:
            row.why = refusal.code.lower()
            return
        row.looked = [
            (slot(probe.pool, code), key)
            for probe in (row.work.probe, *row.work.more)
            for code, key in probe.keys.items()
        ]

    # -- applying ---------------------------------------------------------------------------

    async def _piece(self, rows: list[Row]) -> int:
        """Apply the first of these rows in one transaction; return how many."""
        await self._pack(rows)
        for turn in range(MOST_TRIES):
            failed: list[tuple[Work, Exception]] = []
            piece = _Piece(rows)
            try:
                async with self._store.write("import") as tx:
                    await self._apply(tx, piece, failed)
            except LostRace:
                self._rejects.undo()
                await asyncio.sleep(random.random() * min(0.002 * 2**turn, 0.2))
                continue
            except RulesChanged:
                self._rejects.undo()
                await self._same_rules()
                continue
            except _Poisoned:
                bad = {id(work) for work, _ in failed}
                self._failed |= {r.number for w, r in piece.works.items() if id(w) in bad}
                continue
            self._at = rows[piece.count - 1].number
            self._finish(piece)
            # looking at rows that will not fit is for nothing
            cut = piece.count < len(rows)
            self._most = max(MOST_TOGETHER, piece.count) if cut else min(TOGETHER, 2 * self._most)
            return piece.count
        raise Busy()

    async def _same_rules(self) -> None:
        """Read the rules again; raises `RulesChanged` where those of this file are others now."""
        desk, place = self._events.resolver.desk, self._place
        if desk.fence is not None:
            await desk.fence.look()
            desk.fence.check([(place.pool // 2, place.caller.plan)])

    async def _pack(self, rows: list[Row]) -> None:
        """Compress what newcomers say, beside the reading of the next rows."""
        some = [r for r in rows if r.newcomer is not None and not r.newcomer.packed[1]]
        loop, bodies = asyncio.get_running_loop(), [row.body for row in some]
        packed = await loop.run_in_executor(None, self._events.bodies.pack_all, bodies)
        for row, pair in zip(some, packed, strict=True):
            if row.newcomer is not None:
                row.newcomer.packed = pair

    async def _apply(
        self, tx: Transaction, piece: _Piece, failed: list[tuple[Work, Exception]]
    ) -> None:
        rows = piece.rows
        far = await tx.rows(sql.META_HOLD, self._meta)
        if int(bytes(far[0][0])) != self._at:
            raise StoreError("another process imports the same file: wait until it is done")
        fence = self._events.resolver.desk.fence
        rules = [(self._place.pool // 2, self._place.caller.plan)]
        if fence is not None:
            await fence.hold(tx, rules)
        alone = await strangers(tx, [row.looked for row in rows])
        found = zip(rows, alone, strict=True)
        piece.new = [row for row, new in found if new and row.newcomer is not None]
        self._sort(piece)
        some = [row.newcomer for row in piece.new if row.newcomer is not None]
        await welcome(tx, self._place, some, self._events.resolver.journal.on)
        if piece.works:
            working = await self._events.resolver.desk.decide(tx, list(piece.works), failed)
            if failed:
                raise _Poisoned
            if not working.empty:
                await working.save(tx)
        if fence is not None:
            await fence.hold(tx, rules)
        await tx.run(sql.META_PUT, self._meta, b"%d" % rows[piece.count - 1].number)
        piece.rejected += [
            Rejected(row.line, *_why(work.taken))
            for work, row in piece.works.items()
            if _why(work.taken)[0]
        ]
        piece.rejected.sort(key=lambda r: r.row)
        self._rejects.keep(piece.rejected)

    def _sort(self, piece: _Piece) -> None:
        """Make works of the rows that must be decided; a piece ends where there are too many."""
        new = {row.number for row in piece.new}
        for count, row in enumerate(piece.rows):
            if len(piece.works) >= MOST_TOGETHER:
                piece.count = count
                piece.new = [r for r in piece.new if r.number < row.number]
                return
            if row.why or row.number in self._failed:
                piece.rejected.append(Rejected(row.line, row.why or "internal_error"))
            elif row.number not in new:
                if row.work is None:
                    self._decided(row)
                if row.work is None:
                    piece.rejected.append(Rejected(row.line, row.why))
                else:
                    piece.works[row.work] = row

    def _finish(self, piece: _Piece) -> None:
        """Count what is durable now."""
        report = self.report
        report.applied += len(piece.new)
        report.created += len(piece.new)
        for work in piece.works:
            work.finish()
        self.report.count(piece.rejected)

    def _taken(self, taken: Taken) -> None:
        for note in taken.notes:
            self.report.reasons[note] = self.report.reasons.get(note, 0) + 1
        if taken.dropped is not None:
            self.report.before += 1
        elif not _why(taken)[0]:
            self.report.applied += 1
            self.report.created += taken.answer is not None and taken.answer.created

    # -- how far it is ----------------------------------------------------------------------

    @property
    def _meta(self) -> str:
        return f"import:{self._job.name.hex()}"

    async def _done(self) -> int:
        """Return how many rows are done."""
        async with self._store.write("import") as tx:
            await tx.run(sql.META_ONCE, self._meta, b"0")
            rows = await tx.rows(sql.META_GET, self._meta)
        self._at = int(bytes(rows[0][0]))
        return self._at


class _Piece:
    """Rows of one transaction, and what becomes of them."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        #: how many of the rows this piece takes
        self.count = len(rows)
        self.new: list[Row] = []
        self.works: dict[Take, Row] = {}
        self.rejected: list[Rejected] = []


class _Poisoned(Exception):
    """A row could not be decided; the others run again without it."""


def _why(taken: Taken) -> tuple[str, list[str]]:
    """Return why a decided row is rejected, or nothing."""
    if taken.conflict:
        return "conflict", taken.conflict
    if taken.refusal is not None:
        return taken.refusal.code.lower(), []
    return taken.quarantined or "", []
