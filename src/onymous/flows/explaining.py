"""`explain REQUEST_ID`: a past answer told again, also one that changed nothing.

What was asked is in the journal, what it changed in the ledger. The trace is decided anew on the
records as they were then; where that does not lead to the same answer any more, it says so.
"""

from __future__ import annotations

import msgspec

from onymous.flows.answers import Kept
from onymous.flows.history import Happened, Historian
from onymous.flows.identity import NAME_OF, Resolver, lookup_keys
from onymous.flows.journal import Journal, Noted, noted, request_digest
from onymous.flows.tenants import Caller, Names
from onymous.flows.whose import Whose, chosen
from onymous.rules.batches import usable
from onymous.rules.errors import NotExplained
from onymous.rules.identity import Ask, decide
from onymous.rules.ledger import CREATED, Entry, Line
from onymous.rules.modify import Change, modify
from onymous.rules.records import Record
from onymous.rules.retelling import created_by, of_request, parted, record_then
from onymous.rules.strategies import Plan
from onymous.rules.trace import Trace, lines, public
from onymous.store import history_sql, sql
from onymous.store.packing import unpack_record
from onymous.store.port import Probe, Session, Store

_entries = msgspec.msgpack.Decoder(Entry)
_kept = msgspec.msgpack.Decoder(Kept)
#: requests of one id looked at: clients repeat, and ids may be reused
MOST = 100
#: entries of one person read, newest first
MOST_LINES = 5_000
#: people looked at for one request
MOST_PEOPLE = 64


ANY = Whose()


class Explained(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A past answer, told again."""

    request_id: str
    at_ms: int
    operation: str
    environment: str
    workspace: str
    input: str
    #: identity types that were given
    given: list[str] = []
    #: whom it was answered with; absent: nobody
    mpid: str | None = None
    #: what it changed; nothing: it only read
    entries: list[Happened] = []
    #: the trace leads to the answer that was given
    agrees: bool = False
    note: str = ""
    trace: Trace | None = None
    trace_text: list[str] = []


class Past(msgspec.Struct):
    """One request of the past: what is known of it."""

    at_ms: int
    pid: int | None
    noted: Noted | None
    op: str = ""
    input: int = 0


class Explainer:
    """Tells past answers again."""

    def __init__(
        self, store: Store, resolver: Resolver, historian: Historian, journal: Journal
    ) -> None:
        self._store, self._resolver = store, resolver
        self._historian, self._journal = historian, journal

    @property
    def names(self) -> Names:
        """Return the names of inputs and workspaces."""
        return self._historian.names

    async def explain(
        self, caller: Caller, environment: str, request_id: str, whose: Whose = ANY
    ) -> Explained:
        """Return the latest answer given to a request id: the caller's own, or whose is said.

        Raises `NotExplained` or `SeveralRequests`.
        """
        pool = caller.pool(environment)
        past, told = await self._past(caller, pool, request_id, whose)
        plan = caller.plan
        names = self._historian.names
        source = past.noted.input if past.noted is not None else past.input
        out = Explained(
            request_id=request_id,
            at_ms=past.at_ms,
            operation=past.op,
            environment=environment,
            workspace=names.workspace(past.noted.workspace) if past.noted is not None else "",
            input=names.input(source),
            mpid=self._historian.mpid(past.pid) if past.pid is not None else None,
            entries=[self._historian.tell(line) for line in told],
        )
        if told:
            out.workspace = names.workspace(told[0].entry.workspace)
        if past.noted is None:
            out.note = "what was asked is not in the journal; the entries say what it changed"
            return out
        await self._retell(plan, past, past.noted, request_id, told, out)
        return out

    async def entries(
        self, caller: Caller, pool: int, request_id: str, whose: Whose = ANY
    ) -> list[tuple[int, Line]]:
        """Return (whom, what) a request changed; raises as `explain` does."""
        past, told = await self._past(caller, pool, request_id, whose)
        return [(past.pid, line) for line in told if past.pid is not None]

    async def _past(
        self, caller: Caller, pool: int, request_id: str, whose: Whose
    ) -> tuple[Past, list[Line]]:
        await self._journal.flush(self._store)
        key = request_digest(request_id)
        async with self._store.read() as session:
            found = await self._asked(session, pool, key)
            found += await self._answered(session, pool, key)
            past = chosen(found, caller, whose, self._historian.sender)
            if past is None:
                raise NotExplained()
            told: list[Line] = []
            if past.pid is not None:
                if await _record(session, pool, past.pid) is None:
                    raise NotExplained()
                told = of_request(await _lines(session, past.pid), request_id)
                told = [line for line in told if line.entry.input == past.input]
        if told:
            past.op, past.input = told[0].entry.op, told[0].entry.input
        return past, told

    async def _asked(self, session: Session, pool: int, key: bytes) -> list[Past]:
        out = []
        for number, at, pid in await session.rows(history_sql.ASKED, key, MOST):
            rows = await session.rows(history_sql.JOURNAL_BY_ID, number)
            if rows and rows[0][1] == pool:
                item = noted(rows[0])
                out.append(Past(at, pid, item, item.op, item.input))
        return out

    async def _answered(self, session: Session, pool: int, key: bytes) -> list[Past]:
        """What is kept for repeats knows requests that changed something, for a day."""
        out = []
        for number, at, answer in await session.rows(history_sql.REPLAY_OF, key, MOST):
            kept = _kept.decode(bytes(answer))
            pid = self._resolver.mpids.parse(kept.mpid) if kept.mpid else None
            if pid is not None and await _record(session, pool, pid) is not None:
                out.append(Past(at, pid, None, "", number))
        return out

    # -- the trace --------------------------------------------------------------------------

    async def _retell(
        self,
        plan: Plan,
        past: Past,
        asked: Noted,
        request_id: str,
        told: list[Line],
        out: Explained,
    ) -> None:
        values = set(asked.body.keys.items())
        values |= {(code, new) for code, _, new in asked.body.changes if new is not None}
        then = await self._then(plan, past, asked, request_id, values)
        why = Trace(asked.op, plan.strategy.name)
        if asked.op == "modify":
            out.given = sorted({NAME_OF[code] for code, _, _ in asked.body.changes})
            out.agrees = _modify(asked, then, plan, why) == bool(told)
        else:
            out.given = [NAME_OF[code] for code in asked.body.keys]
            ask = Ask(
                op=asked.op,
                pool=asked.pool,
                keys=asked.body.keys,
                previous=asked.body.previous,
                now_ms=past.at_ms,
                key_only=asked.body.key_only,
            )
            decision = decide(ask, plan, list(then.values()), 0, why)
            made = created_by((line.entry for line in told), CREATED)
            found = decision.record.pid if decision.record is not None else None
            out.agrees = decision.create == made and (made or found == past.pid)
            if decision.create and made:
                why.mpid = past.pid
        out.trace = public(why, self._resolver.mpids.text)
        out.trace_text = lines(out.trace)
        if not out.agrees:
            out.note = (
                "told by the rules of today on the records as the ledger knows them, this comes"
                " out differently: rules or last-seen times were others then; the answer above"
                " is the one that was given"
            )

    async def _then(
        self,
        plan: Plan,
        past: Past,
        asked: Noted,
        request_id: str,
        values: set[tuple[int, str]],
    ) -> dict[int, Record]:
        """Return the records concerned as they were before the request."""
        probes = [Probe(asked.pool, lookup_keys({c: k}, plan)) for c, k in sorted(values)]
        wanted = {r.pid for found in await self._store.find(probes) for r in found.records}
        wanted |= {pid for pid in (past.pid, asked.body.target, asked.body.previous) if pid}
        out: dict[int, Record] = {}
        seen: set[int] = set()
        async with self._store.read() as session:
            while wanted - seen and len(seen) < MOST_PEOPLE:
                pid = min(wanted - seen)
                seen.add(pid)
                record = await _record(session, asked.pool, pid)
                if record is None:
                    continue
                told = await _lines(session, pid)
                wanted |= parted(told, past.at_ms, values)
                was = record_then(record, told, past.at_ms, request_id, plan)
                if was is not None:
                    out[pid] = was
        return out


def _modify(asked: Noted, then: dict[int, Record], plan: Plan, why: Trace) -> bool:
    """Tell a modify again; return whether it changes anything."""
    record = then.get(asked.body.target or 0)
    if record is None:
        why.outcome, why.why = "unchanged", "the profile is not known from before this request"
        return False
    changes = [Change(code, old, new) for code, old, new in asked.body.changes]
    others = [r for r in then.values() if r is not record]
    out = modify(record, changes, others, plan, key_only=asked.body.key_only, why=why)
    return bool(out.results)


async def _record(session: Session, pool: int, pid: int) -> Record | None:
    rows = await session.rows(sql.PROFILE_BY_PID, pid)
    record = unpack_record(rows[0]) if rows else None
    return record if record is not None and usable(record, pool) else None


async def _lines(session: Session, pid: int) -> list[Line]:
    rows = await session.rows(sql.LEDGER_OF, pid, 1 << 62, MOST_LINES)
    return [Line(seq, at, _entries.decode(bytes(body))) for seq, at, body in rows]
