"""Erase one identity record: its names go from lookups, the record and the ledger.

What stays is a tombstone: the number, so that its MPID is never issued again and a late batch
that names it is not revived. No name can be read from it.
"""

from __future__ import annotations

import asyncio

import msgspec

from onymous.flows.answers import Answer, Done, Question
from onymous.flows.desk import Desk
from onymous.flows.identity import Resolver
from onymous.flows.tombstones import ERASED as ERASED_LINE
from onymous.flows.tombstones import Line, promise
from onymous.flows.working import Working
from onymous.rules.batches import usable
from onymous.rules.errors import NotRemembered, Refusal, ScopeChanging, UnknownMpid
from onymous.rules.ledger import ERASED as ERASED_KIND
from onymous.rules.ledger import Change, Entry
from onymous.rules.records import ERASED, Record
from onymous.rules.strategies import Plan
from onymous.store import history_sql, review_sql, rules_sql, sql
from onymous.store.port import Found, Kept, LostRace, Probe

_encode = msgspec.msgpack.Encoder().encode


#: what goes with the record: its events, profiles, what counts and what was held back
_HISTORY = (
    history_sql.BATCHES_ERASE,
    history_sql.PERSONS_ERASE,
    history_sql.TALLY_ERASE,
    rules_sql.STEPS_ERASE,
    review_sql.HELD_ERASE,
)

#: with two ends; copies are found through their aliases
_POINTERS = (history_sql.COPIES_ERASE, history_sql.ALIASES_ERASE, history_sql.MERGES_ERASE)


def erase(resolver: Resolver, question: Question, mpid: object, done: Done) -> None:
    """Erase the record of an MPID, and those merged with it: they are one person.

    An unknown MPID is refused with `UnknownMpid`.
    """
    if question.caller.held:
        done(Answer(refusal=ScopeChanging(retry_after_s=5)))
        return
    pid = resolver.mpids.parse(mpid)
    if pid is None:
        done(Answer(refusal=UnknownMpid()))
        return
    resolver.desk.submit_write(_Erase(resolver, question, pid, done))


def _one_person(merged: dict[int, int], pid: int) -> tuple[int, ...]:
    """Return the numbers of every record merged with one, itself first."""
    whole = [pid]
    for number in whole:
        near = [merged[number]] if number in merged else []
        near += [source for source, destination in merged.items() if destination == number]
        whole += [n for n in near if n not in whole]
    return tuple(whole)


def erase_record(
    working: Working,
    record: Record,
    plan: Plan,
    origin: tuple[int, int, str | None],
    *,
    whole: bool = True,
) -> None:
    """Erase one record in a transaction; `origin` is its workspace, input and request id.

    `whole`: everybody merged with it is erased in the same transaction, or nobody.
    """
    pid = record.pid
    working.forget(record, plan)
    record.flags, record.source = ERASED, None
    working.extra.append((sql.PROFILE_ERASE, (ERASED, _encode([]), pid)))
    working.redact[pid] = whole
    working.extra.append((rules_sql.PLAN_KEYS_DROP, ()))  # plans kept outside may hold them
    for statement in _HISTORY:
        working.extra.append((statement, (pid,)))
    for statement in _POINTERS:
        working.extra.append((statement, (pid, pid)))
    working.note(pid, working.now_ms, Entry("erase", *origin, [Change(ERASED_KIND)]))


class _Erase:
    """One erasure at the desk."""

    name = "erase"
    more: tuple[Probe, ...] = ()
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(self, resolver: Resolver, question: Question, pid: int, done: Done) -> None:
        self._resolver, self._question = resolver, question
        self._pid, self._done = pid, done
        self.plan = question.caller.plan
        self._pool = question.caller.pool(question.environment)
        self._pids = _one_person(resolver.merged, pid)
        self.probe = Probe(self._pool, {}, None, self._pids)
        self._answer: Answer | None = None
        #: what must be remembered outside before this is acknowledged
        self._gone: list[Line] = []

    def look(self, found: Found, desk: Desk) -> bool:
        """An erasure always writes."""
        return False

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Remove the values, redact the ledger, leave a tombstone."""
        working.now_ms = self._question.now_ms
        self._gone = []
        pids = _one_person(self._resolver.merged, self._pid)
        if not set(pids) <= set(self._pids):
            self._pids, self.more = pids, (Probe(self._pool, {}, None, pids),)
            raise LostRace("the person was merged meanwhile")
        record = working.records.get(self._pid)
        if record is None or not usable(record, self._pool):
            if record is not None and record.pool == self._pool and record.flags & ERASED:
                # the answer to the first request may not have come because of the outside
                self._gone = [Line(ERASED_LINE, working.now_ms, self._pid, self._pool)]
            self._answer = Answer(refusal=UnknownMpid())
            return None
        for pid in self._pids:
            part = working.records.get(pid)
            if part is not None and usable(part, self._pool):
                erase_record(working, part, self._question.caller.plan, self._origin)
                self._gone.append(Line(ERASED_LINE, working.now_ms, pid, self._pool))
        statement, row = promise(self._gone, working.now_ms)
        working.extra.append((statement, row))
        self._answer = Answer(mpid=self._resolver.mpids.text(record.pid))
        return None

    @property
    def _origin(self) -> tuple[int, int, str | None]:
        caller = self._question.caller
        return caller.workspace, caller.input, self._question.request_id

    def finish(self) -> None:
        """Answer, once what was decided is remembered outside the database too."""
        if self._answer is None:
            return
        outside = self._resolver.tombstones
        if outside is None or not self._gone:
            self._done(self._answer)
            return
        remembered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        remembered.add_done_callback(self._acknowledge)
        outside.after(self._gone, remembered)

    def _acknowledge(self, remembered: asyncio.Future[None]) -> None:
        if remembered.exception() is None:
            assert self._answer is not None
            self._done(self._answer)
        else:  # the promised job goes on trying; until then nobody may rely on it
            self._done(Answer(refusal=NotRemembered()))

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self._done(Answer(refusal=error if isinstance(error, Refusal) else None))
