"""The desk: all requests waiting in one tick of the loop are answered by one read; all that must
write share one transaction and one fsync.

A work item first tries to answer from a snapshot (`look`). What needs writing is decided again,
in order, inside a write transaction on locked records (`act`), and answered when it is durable.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from onymous.flows.arrivals import Arrival, accepted_before
from onymous.flows.fencing import Fence, RulesChanged
from onymous.flows.repeats import act
from onymous.flows.seen import SeenBuffer, freshen
from onymous.flows.working import Working
from onymous.rules.errors import Busy, Internal
from onymous.store.port import (
    Found,
    Kept,
    Label,
    LostRace,
    Probe,
    Row,
    Store,
    StoreError,
    Transaction,
    Unwritable,
)
from onymous.store.steps import drive

log = logging.getLogger("onymous.desk")

#: most works in one write transaction; keeps a commit short
MOST_TOGETHER = 512
#: works that may take a login value from a record
_TAKING = {"modify", "undo"}
#: tries before a conflict with other processes is reported
MOST_TRIES = 50


class Work(Protocol):
    """One request on its way through the desk."""

    #: transaction name, for metrics and traces
    name: str
    probe: Probe
    #: further questions of the same request, needed only when it writes
    more: tuple[Probe, ...]

    @property
    def replay(self) -> tuple[int, bytes, bytes] | None:
        """Return (input, request id digest, body digest), or None where repeats do not matter."""

    def look(self, found: Found, desk: Desk) -> bool:
        """Answer from a snapshot if nothing must be written; return whether it did."""

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Decide on locked records and note the changes; return the answer to keep for repeats.

        `again` is what was answered to an earlier request of the same id, if any.
        """

    def finish(self) -> None:
        """Answer: what was decided is durable."""

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was written."""


class Glancing(Protocol):
    """A request that the only holder of one value may answer."""

    def glance(self, row: Row, desk: Desk) -> bool:
        """Answer if its record is beyond doubt the answer; return whether it did."""

    def full(self) -> Work:
        """Return the work that answers it the ordinary way."""

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was written."""


class Desk:
    """Takes works, answers them in groups. Runs on one event loop."""

    def __init__(self, store: Store, seen: SeenBuffer, *, most_waiting: int = 20_000) -> None:
        self.store, self.seen = store, seen
        self._most_waiting = most_waiting
        self._looking: list[Work] = []
        self._glancing: list[Glancing] = []
        #: the values whose only holders may answer `_glancing`
        self._labels: list[Label] = []
        #: requests a record may answer if nobody else holds anything given, and what is given
        self._apart: list[tuple[Glancing, Probe]] = []
        self._writing: deque[Work] = deque()
        #: works that must be written together with the one before them
        self._tied: set[Work] = set()
        #: the writer is under way, or will be in this turn of the loop
        self._busy = self._soon = False
        self._writer: asyncio.Task[None] | None = None
        self._numbers: list[int] = []
        self._reads: set[asyncio.Task[None]] = set()
        self._closing = False
        #: called with (transaction name, works in it) after each commit
        self.on_commit: Callable[[str, int], None] | None = None
        #: asked first in every write transaction; raises `RulesChanged`
        self.fence: Fence | None = None

    def start(self) -> None:
        """Take works on this loop."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Answer what waits, then stop."""
        self._closing = True
        while self.waiting or self._reads or self._busy:
            await asyncio.sleep(0.001)

    @property
    def waiting(self) -> int:
        """Return how many works wait for an answer."""
        reading = len(self._looking) + len(self._glancing) + len(self._apart)
        return reading + len(self._writing)

    def submit(self, work: Work) -> None:
        """Take a work; it is answered in this tick of the loop or after the next commit."""
        if self._closing or len(self._writing) >= self._most_waiting:
            work.fail(Busy())
            return
        if not self._looking and not self._glancing:
            self._loop.call_soon(self._tick)
        self._looking.append(work)

    def submit_glance(self, work: Glancing, label: Label) -> None:
        """Take a work that the only holder of a value may answer."""
        if self._closing or len(self._writing) >= self._most_waiting:
            work.fail(Busy())
            return
        if not self._looking and not self._glancing:
            self._loop.call_soon(self._tick)
        self._glancing.append(work)
        self._labels.append(label)

    def submit_alone(self, work: Glancing, probe: Probe) -> None:
        """Take a work that a record may answer if nobody else holds any of these values."""
        if self._closing or len(self._writing) >= self._most_waiting:
            work.fail(Busy())
            return
        if not self._apart:
            self._loop.call_soon(self._tick_alone)
        self._apart.append((work, probe))

    def submit_write(self, work: Work) -> None:
        """Take a work that must write anyway."""
        if self._closing or len(self._writing) >= self._most_waiting:
            work.fail(Busy())
            return
        self._writing.append(work)
        self._write_soon()

    def submit_together(self, works: Sequence[Work]) -> None:
        """Take works that must write, in order: all of them in one transaction, or none."""
        if self._closing or len(self._writing) + len(works) > self._most_waiting:
            for work in works:
                work.fail(Busy())
            return
        self._writing.extend(works)
        self._tied.update(works[1:])
        self._write_soon()

    # -- reading ----------------------------------------------------------------------------

    def _tick(self) -> None:
        works, self._looking = self._looking, []
        glancing, self._glancing = self._glancing, []
        labels, self._labels = self._labels, []
        only, find = self.store.only_now, self.store.find_now
        if only is None or find is None:
            task = self._loop.create_task(self._find(works, glancing, labels))
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)
            return
        try:
            if labels:
                works += self._glance(glancing, only(labels))
            if works:
                self._look(works, find([w.probe for w in works]))
        except Exception as error:
            self._fail([*works, *glancing], error)
        self._write_now()

    def _tick_alone(self) -> None:
        apart, self._apart = self._apart, []
        works = [work for work, _ in apart]
        try:
            assert self.store.alone_now is not None
            self._looking += self._glance(works, self.store.alone_now([p for _, p in apart]))
        except Exception as error:
            self._fail(works, error)
        self._tick()

    async def _find(self, works: list[Work], glancing: list[Glancing], labels: list[Label]) -> None:
        try:
            if labels:
                works += self._glance(glancing, await self.store.only(labels))
            if works:
                self._look(works, await self.store.find([w.probe for w in works]))
        except Exception as error:
            self._fail([*works, *glancing], error)
        self._write_now()

    def _glance(self, works: list[Glancing], rows: list[Row | None]) -> list[Work]:
        """Answer what the only holder of a value decides; return the works left."""
        rest: list[Work] = []
        for work, row in zip(works, rows, strict=True):
            try:
                if row is None or not work.glance(row, self):
                    rest.append(work.full())
            except Exception as error:
                self._fail([work], error)
        works.clear()
        return rest

    def _look(self, works: list[Work], founds: list[Found]) -> None:
        for work, found in zip(works, founds, strict=True):
            try:
                if not work.look(found, self):
                    self._writing.append(work)
            except Exception as error:
                self._fail([work], error)

    # -- writing ----------------------------------------------------------------------------

    def _write_soon(self) -> None:
        """Begin to write when the others of this turn of the loop are there."""
        if not self._busy and not self._soon:
            self._soon = True
            self._loop.call_soon(self._write_now)

    def _write_now(self) -> None:
        self._soon = False
        if self._writing and not self._busy:
            self._busy = True
            if self.store.find_now is not None:
                drive(self._write_all())
            else:  # drivers of servers want tasks
                self._writer = self._loop.create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            await self._write_what_waits()
        finally:
            self._busy = False

    async def _write_what_waits(self) -> None:
        while self._writing:
            some = min(len(self._writing), MOST_TOGETHER)
            works = [self._writing.popleft() for _ in range(some)]
            tied: set[Work] = set()
            if self._tied:
                while self._writing and self._writing[0] in self._tied:
                    works.append(self._writing.popleft())
                tied = self._tied.intersection(works)
                self._tied -= tied
            try:
                await self._write(works, bool(tied))
            except Exception as error:
                await self._write_apart(works, tied, error)

    async def _write_apart(self, works: list[Work], tied: set[Work], error: Exception) -> None:
        """Write again one by one what failed together: only what cannot be written fails.

        `tied` stand or fall with the work before them; where the database is the reason, all fall.
        """
        groups: list[list[Work]] = []
        for work in works:
            if work in tied and groups:
                groups[-1].append(work)
            else:
                groups.append([work])
        if len(groups) < 2 or (isinstance(error, StoreError) and not isinstance(error, Unwritable)):
            self._fail(works, error)
            return
        for group in groups:
            try:
                await self._write(group, len(group) > 1)
            except Exception as own:
                self._fail(group, own)

    async def _write(self, works: list[Work], whole: bool) -> None:
        for turn in range(MOST_TRIES):
            failed: list[tuple[Work, Exception]] = []
            try:
                spare = await self._transact(works, failed)
            except LostRace:
                self._numbers = []
                await asyncio.sleep(random.random() * min(0.002 * 2**turn, 0.2))
                continue
            except RulesChanged:
                self._fail(works, Busy())
                return
            except _Poisoned:
                if whole:  # some are tied to those
                    raise failed[0][1] from None
                for work, error in failed:
                    works.remove(work)
                    self._fail([work], error)
                continue
            self._numbers = spare
            self._finish(works)
            return
        self._fail(works, Busy())

    def _finish(self, works: list[Work]) -> None:
        """Answer what is committed; nothing that goes wrong here may write it again."""
        try:
            if self.on_commit is not None:
                self.on_commit(works[0].name if works else "identity", len(works))
        except Exception as error:
            log.error("counting failed", exc_info=_bare(error))
        for work in works:
            try:
                work.finish()
            except Exception as error:
                log.error("answering failed", exc_info=_bare(error))

    async def _transact(self, works: list[Work], failed: list[tuple[Work, Exception]]) -> list[int]:
        async def work(tx: Transaction) -> list[int]:
            working = await self.decide(tx, works, failed, self._numbers)
            if failed:
                raise _Poisoned
            if not working.empty:
                await working.save(tx)
            if self.fence is not None:
                # it may have waited long for others: the rules must be in force still
                await self.fence(tx, works)
            return working.numbers

        return await self.store.share("identity", work, behind=False)

    async def decide(
        self,
        tx: Transaction,
        works: list[Work],
        failed: list[tuple[Work, Exception]],
        spare: Sequence[int] = (),
    ) -> Working:
        """Decide works in order on locked records; what they change is not written yet.

        `failed` gets those that cannot be decided; then nothing of this transaction may stay.
        """
        if self.fence is not None:
            await self.fence(tx, works)
        probes = [p for w in works for p in (w.probe, *w.more)]
        founds = await tx.find(probes)
        numbers = list(spare)
        if len(numbers) < len(works):
            numbers += await tx.numbers("pid", max(64, len(works)))
        working = Working(numbers)
        working.load(probes, founds)
        if any(w.name in _TAKING for w in works):
            working.keep_seen(await freshen(tx, working.records.values(), self.seen))
        again = [(w, w.replay) for w in works]
        kept = await tx.replays([r[:2] for _, r in again if r is not None])
        arrivals = [key for w in works if isinstance(w, Arrival) for key in w.keys]
        if arrivals:
            working.accepted = await accepted_before(tx, arrivals)
        for work, replay in again:
            try:
                act(work, replay, working, kept)
            except LostRace:
                raise
            except Exception as error:
                failed.append((work, error))
        return working

    def _fail(self, works: Sequence[Work | Glancing], error: Exception) -> None:
        if not isinstance(error, Busy):
            log.error("identity requests failed", exc_info=_bare(error))
        for work in works:
            try:
                work.fail(error if isinstance(error, Busy) else Internal())
            except Exception as failure:
                log.error("answering failed", exc_info=_bare(failure))


class _Poisoned(Exception):
    """A work could not be decided; the others run again without it."""


def _bare(error: Exception) -> Exception:
    """Strip the message of an error for the log: it may hold identity values."""
    bare = RuntimeError(type(error).__name__)
    return bare.with_traceback(error.__traceback__)
