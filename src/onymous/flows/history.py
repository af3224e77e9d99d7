"""One person's ledger, newest first, and the record as it was at a time."""

from __future__ import annotations

import msgspec

from onymous.flows.answers import Question
from onymous.flows.identity import CODE_OF, NAME_OF, Resolver
from onymous.flows.seen import last_seen
from onymous.flows.tenants import Caller, Directory, Names
from onymous.rules.batches import usable
from onymous.rules.errors import NotFound
from onymous.rules.ledger import KINDS, Entry, Line, as_of
from onymous.rules.records import Record
from onymous.rules.trace import SKIPS, TIES
from onymous.store import sql
from onymous.store.packing import unpack_record
from onymous.store.port import Session, Store

_entries = msgspec.msgpack.Decoder(Entry)
#: entries of one page
PAGE = 50
_ALL = 1 << 62


class Changed(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One change in a history entry."""

    change: str
    identity_type: str | None = None
    value: str | None = None
    mpid: str | None = None


class Happened(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One ledger entry as a person reads it."""

    entry: str
    at_ms: int
    operation: str
    workspace: str
    input: str
    request_id: str | None = None
    changes: list[Changed]
    decided_by: str | None = None
    tie: str | None = None
    skipped: list[dict[str, str]] = []
    source_mpid: str | None = None


class HeldValue(msgspec.Struct, kw_only=True):
    """One value a person holds or held."""

    identity_type: str
    value: str
    since_ms: int
    input: str
    workspace: str | None = None
    last_seen_ms: int | None = None


class History(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A page of a person's history."""

    mpid: str
    created_ms: int
    last_seen_ms: int
    known: bool
    orphaned: bool
    identities: list[HeldValue]
    entries: list[Happened]
    next: str | None = None
    at_ms: int | None = None


class Historian:
    """Reads histories."""

    def __init__(self, store: Store, resolver: Resolver, directory: Directory) -> None:
        self._store, self._resolver, self._directory = store, resolver, directory

    async def history(
        self,
        question: Question,
        mpid: object,
        *,
        before: int | None = None,
        at_ms: int | None = None,
        limit: int = PAGE,
    ) -> History:
        """Return a page of the ledger of one person.

        `before` is the `next` of the page before; `at_ms` asks for the record as it was then.
        Raises `NotFound` for an MPID that is unknown in the caller's scope and environment.
        """
        pid = self._resolver.mpids.parse(mpid)
        pool = question.caller.pool(question.environment)
        async with self._store.read() as session:
            record = await _record(session, pid)
            if record is None or not usable(record, pool):
                raise NotFound()
            if at_ms is not None and at_ms < record.created_ms:
                raise NotFound()
            lines = await _lines(session, record.pid, before or _ALL, limit + 1, at_ms)
            seen, held = await self._held(session, record, at_ms)
        plan = question.caller.plan
        return History(
            mpid=self._resolver.mpids.text(record.pid),
            created_ms=record.created_ms,
            last_seen_ms=seen,
            known=any(plan.login >> CODE_OF[h.identity_type] & 1 for h in held),
            orphaned=not held,
            identities=held,
            entries=[self.tell(line) for line in lines[:limit]],
            next=str(lines[limit - 1].seq) if len(lines) > limit else None,
            at_ms=at_ms,
        )

    async def _held(
        self, session: Session, record: Record, at_ms: int | None
    ) -> tuple[int, list[HeldValue]]:
        """Return when a person was last seen and what they held, now or at a time."""
        seen = max(record.seen_ms, await last_seen(session, record.pid))
        if at_ms is None:
            return max(seen, self._resolver.desk.seen.seen_ms(record.pid)), self._now(record)
        every = await _lines(session, record.pid, _ALL, 1 << 31, at_ms)
        # that it was seen later says nothing about then
        told = max((line.at_ms for line in every), default=record.created_ms)
        return min(seen, told), self._then(every, at_ms)

    def _now(self, record: Record) -> list[HeldValue]:
        names = self._directory.names
        return [
            HeldValue(
                identity_type=NAME_OF[v.code],
                value=v.text,
                since_ms=v.first_ms,
                input=names.input(v.input),
                workspace=names.workspace(v.workspace),
                last_seen_ms=v.last_ms,
            )
            for v in record.values
        ]

    def _then(self, lines: list[Line], at_ms: int) -> list[HeldValue]:
        return [
            HeldValue(
                identity_type=NAME_OF[code],
                value=shown if shown is not None else key,
                since_ms=since,
                input=self._directory.names.input(origin),
                workspace=self._directory.names.workspace(workspace),
            )
            for code, key, shown, since, origin, workspace in as_of(lines, at_ms)
        ]

    @property
    def names(self) -> Names:
        """Return the names of inputs and workspaces."""
        return self._directory.names

    def mpid(self, pid: int) -> str:
        """Return the MPID of an internal number."""
        return self._resolver.mpids.text(pid)

    def sender(self, number: int) -> Caller | None:
        """Return the input of a number, or None."""
        return self._directory.by_id(number)

    def scope(self, number: int) -> str:
        """Return the name of a scope; of one nobody calls, its number."""
        return self._directory.scope_name(number) or str(number)

    def tell(self, line: Line) -> Happened:
        """Return a ledger entry as a person reads it."""
        entry, names, text = line.entry, self._directory.names, self._resolver.mpids.text
        return Happened(
            entry=str(line.seq),
            at_ms=line.at_ms,
            operation=entry.op,
            workspace=names.workspace(entry.workspace),
            input=names.input(entry.input),
            request_id=entry.request,
            changes=[
                Changed(
                    change=KINDS[c.kind],
                    identity_type=NAME_OF.get(c.code),
                    value=(c.shown if c.shown is not None else c.key) or None,
                    mpid=text(c.other) if c.other else None,
                )
                for c in entry.changes
            ],
            decided_by=NAME_OF.get(entry.by),
            tie=TIES.get(entry.tie) if entry.tie else None,
            skipped=[
                {"identity_type": NAME_OF[code], "why": SKIPS[why]} for code, why in entry.skipped
            ],
            source_mpid=text(entry.source) if entry.source else None,
        )


async def _record(session: Session, pid: int | None) -> Record | None:
    if pid is None:
        return None
    rows = await session.rows(sql.PROFILE_BY_PID, pid)
    return unpack_record(rows[0]) if rows else None


async def _lines(
    session: Session, pid: int, before: int, limit: int, at_ms: int | None = None
) -> list[Line]:
    rows = await session.rows(sql.LEDGER_OF, pid, before, limit if at_ms is None else 1 << 31)
    lines = [Line(seq, at, _entries.decode(body)) for seq, at, body in rows]
    if at_ms is None:
        return lines
    return [line for line in lines if line.at_ms <= at_ms][:limit]
