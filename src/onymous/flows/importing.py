"""Files of people: each row resolved like a feed's, in order, exactly once.

Every row is remembered under the digest of its file and its number, in the transaction that
applies it: an import that was interrupted goes on where it was, and none is applied twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from onymous.flows.answers import Answer, Question
from onymous.flows.events import Events, Incoming, Taken
from onymous.flows.tenants import Caller
from onymous.rules.errors import Refusal
from onymous.store import sql
from onymous.store.port import Store

#: rows under way at once; bounds memory, fills commits
TOGETHER = 2_048
#: rows between notes of progress
NOTED = 10_000
_encode = msgspec.json.Encoder().encode


class Rejected(msgspec.Struct):
    """A row that changed nothing, and why; `mpids` of a conflict are the people it belongs to."""

    row: int
    why: str
    mpids: list[str] = []


class Report(msgspec.Struct, kw_only=True):
    """What an import did, or (dry run) would do."""

    rows: int = 0
    #: rows skipped because an earlier run applied them
    before: int = 0
    applied: int = 0
    #: people made by this run
    created: int = 0
    conflicts: int = 0
    rejected: int = 0
    dry_run: bool = False
    #: reasons of rejected rows and of dropped parts, counted
    reasons: dict[str, int] = {}


class Job(msgspec.Struct, kw_only=True):
    """One file to import."""

    caller: Caller
    #: what tells the file and its mapping from others
    name: bytes
    now_ms: int
    development: bool = False
    replace_values: bool = False
    dry_run: bool = False
    max_values: int = 200


#: line of the file; a row as a batch of the Events API, or why it is none; its own time
Ready = tuple[int, Mapping[str, Any] | str, int | None]


class Importer:
    """Imports the rows of one file."""

    def __init__(
        self,
        store: Store,
        events: Events,
        job: Job,
        rejected: Callable[[Rejected], None],
        progress: Callable[[int], None],
    ) -> None:
        self._store, self._events, self._job = store, events, job
        self._rejected, self._progress = rejected, progress
        self._free = asyncio.Semaphore(TOGETHER)
        self.report = Report(dry_run=job.dry_run)

    async def run(self, rows: Iterable[Ready]) -> Report:
        """Import all rows; may be run again after a crash, with the same rows."""
        start = 0 if self._job.dry_run else await self._noted()
        for number, (line, row, at_ms) in enumerate(rows, 1):
            self.report.rows = number
            if number <= start:
                self.report.before += 1
                continue
            await self._free.acquire()
            self._row(number, line, row, at_ms)
            if number % 512 == 0:
                self._progress(number)
                await asyncio.sleep(0)
            if number % NOTED == 0 and not self._job.dry_run:
                await self._settled()
                await self._note(number)
        await self._settled()
        if not self._job.dry_run:
            await self._note(self.report.rows)
        self._progress(self.report.rows)
        return self.report

    async def _settled(self) -> None:
        """Wait until every row under way is done."""
        for _ in range(TOGETHER):
            await self._free.acquire()
        for _ in range(TOGETHER):
            self._free.release()

    def _row(self, number: int, line: int, row: Mapping[str, Any] | str, at_ms: int | None) -> None:
        if isinstance(row, str):
            self._reject(line, row)
            self._free.release()
            return
        if self._job.dry_run:
            self._look(line, row)
            return
        digest = hashlib.blake2b(self._job.name + b"%d" % number, digest_size=12).digest()
        raw = {**row, "environment": "development"} if self._job.development else row
        item = Incoming(
            caller=self._job.caller,
            raw=raw,
            body=_encode(row),
            now_ms=self._job.now_ms,
            max_values=self._job.max_values,
            feed=True,
            replace_values=self._job.replace_values,
            at_ms=at_ms,
            key=(self._job.caller.input, digest),
        )
        try:
            self._events.take(item, lambda taken: self._taken(line, taken))
        except Refusal as refusal:
            self._reject(line, refusal.code.lower())
            self._free.release()

    def _taken(self, number: int, taken: Taken) -> None:
        self._free.release()
        for note in taken.notes:
            self.report.reasons[note] = self.report.reasons.get(note, 0) + 1
        if taken.refusal is not None:
            self._reject(number, taken.refusal.code.lower())
        elif taken.dropped is not None:
            self.report.before += 1
        elif taken.conflict:
            self.report.conflicts += 1
            self._rejected(Rejected(number, "conflict", taken.conflict))
        elif taken.quarantined is not None:
            self._reject(number, taken.quarantined)
        else:
            self.report.applied += 1
            self.report.created += taken.answer is not None and taken.answer.created

    def _reject(self, number: int, why: str) -> None:
        self.report.rejected += 1
        self.report.reasons[why] = self.report.reasons.get(why, 0) + 1
        self._rejected(Rejected(number, why))

    def _look(self, number: int, row: Mapping[str, Any]) -> None:
        """Ask what a row would do, without doing it."""
        question = Question(
            op="feed",
            caller=self._job.caller,
            environment="development" if self._job.development else "production",
            known=row.get("user_identities") or {},
            now_ms=self._job.now_ms,
            fold_keys=True,
            read_only=True,
            replace_values=self._job.replace_values,
        )
        try:
            self._events.resolver.ask(question, lambda answer: self._seen(number, answer))
        except Refusal as refusal:
            self._reject(number, refusal.code.lower())
            self._free.release()

    def _seen(self, number: int, answer: Answer) -> None:
        self._free.release()
        if answer.refusal is not None:
            self._reject(number, type(answer.refusal).__name__)
        elif answer.conflict:
            self.report.conflicts += 1
            self._rejected(Rejected(number, "conflict", answer.conflict))
        else:
            self.report.applied += 1
            self.report.created += answer.created

    @property
    def _meta(self) -> str:
        return f"import:{self._job.name.hex()}"

    async def _noted(self) -> int:
        """Return how many rows are certainly done."""
        async with self._store.read() as session:
            rows = await session.rows(sql.META_GET, self._meta)
        return int(bytes(rows[0][0])) if rows else 0

    async def _note(self, number: int) -> None:
        async with self._store.write("import.progress") as tx:
            await tx.run(sql.META_PUT, self._meta, b"%d" % number)
