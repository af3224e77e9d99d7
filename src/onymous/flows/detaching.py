"""A name taken away by hand, with a reason: what an operator knows to be wrong.

It is a change like any other: an entry of the ledger, undone like one, and noted in the journal, so
that rules tried on the past or applied to it know of it.
"""

from __future__ import annotations

import asyncio

import msgspec

from onymous.flows.desk import Desk
from onymous.flows.identity import CODE_OF, NAME_OF, Resolver
from onymous.flows.journal import by_hand
from onymous.flows.merging import Actor
from onymous.flows.profiles import canonical, sides
from onymous.flows.working import Origin, Working
from onymous.rules.batches import usable
from onymous.rules.errors import Internal, NoSuchThing, NotFound, Refusal
from onymous.rules.ledger import Entry
from onymous.rules.records import Record
from onymous.rules.strategies import Plan
from onymous.store import history_sql, sql
from onymous.store.packing import unpack_record
from onymous.store.port import Found, Kept, Probe, Session, Store


class Detached(msgspec.Struct, kw_only=True):
    """What taking a name away does, or would do."""

    identity_type: str
    value: str
    #: the profile that has it: another one than the person's after a merge
    mpid: str
    #: nothing finds this profile any more
    orphans: bool
    login: bool
    immutable: bool


class Detaching:
    """Takes names away by hand."""

    def __init__(self, resolver: Resolver, store: Store) -> None:
        self._resolver, self._store = resolver, store

    async def detach(
        self, plan: Plan, pool: int, pid: int, name: tuple[str, str], actor: Actor, *, dry_run: bool
    ) -> Detached:
        """Take a name (type, value as shown) from a person; raises a `Refusal`.

        Of profiles merged with it the first that has the name loses it.
        """
        kind, text = name
        code = CODE_OF[kind]
        async with self._store.read() as session:
            record, key = await _holder(session, pool, pid, code, text)
        if dry_run:
            return self._told(record, plan, code, text)
        future: asyncio.Future[Record | Refusal] = asyncio.get_running_loop().create_future()
        work = _Detach(self._resolver, plan, record, (code, key), actor, future)
        self._resolver.desk.submit_write(work)
        out = await future
        if isinstance(out, Refusal):
            raise out
        return self._told(record, plan, code, text)

    def _told(self, record: Record, plan: Plan, code: int, text: str) -> Detached:
        return Detached(
            identity_type=NAME_OF[code],
            value=text,
            mpid=self._resolver.mpids.text(record.pid),
            orphans=len(record.values) == 1,
            login=bool(plan.login >> code & 1),
            immutable=bool(plan.immutable >> code & 1),
        )


async def _holder(
    session: Session, pool: int, pid: int, code: int, text: str
) -> tuple[Record, str]:
    """Return the record of a person that has a value, and the value as it is compared."""
    for side in await sides(session, await canonical(session, pid)):
        rows = await session.rows(sql.PROFILE_BY_PID, side.pid) if side.whole else []
        record = unpack_record(rows[0]) if rows else None
        if record is None or not usable(record, pool):
            continue
        for value in record.values:
            if value.code == code and value.text == text:
                return record, value.key
    raise NoSuchThing(what="name of this person: it has changed")


class _Detach:
    """One name taken away, at the desk."""

    # what it may take away, and how it is locked, is as in a modify
    name = "modify"
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(
        self,
        resolver: Resolver,
        plan: Plan,
        record: Record,
        value: tuple[int, str],
        actor: Actor,
        future: asyncio.Future[Record | Refusal],
    ) -> None:
        self._resolver, self.plan, self._actor = resolver, plan, actor
        self._pool, self._pid, self._value = record.pool, record.pid, value
        self._future = future
        self.probe = Probe(record.pool, {}, None, (record.pid,))
        self.more: tuple[Probe, ...] = (Probe(record.pool, dict([value])),)
        self._out: Record | Refusal = Internal()

    def look(self, found: Found, desk: Desk) -> bool:
        """It is decided on locked records only."""
        return False

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Take the value away, if it is still there."""
        actor, record = self._actor, working.records.get(self._pid)
        working.now_ms = actor.now_ms
        if record is None or not usable(record, self._pool):
            self._out = NotFound()
        elif not record.holds(*self._value):
            self._out = NoSuchThing(what="name of this person: it has changed")
        else:
            self._out = record
            where = (actor.workspace, actor.input, actor.request_id)
            origin = Origin("detach", actor.now_ms, *where, quiet=True)
            entry = Entry("detach", *where, [])
            working.apply(record, self.plan, origin, remove=[self._value], entry=entry)
            detail = msgspec.json.encode({"type": NAME_OF[self._value[0]], "reason": actor.reason})
            subject = self._resolver.mpids.text(self._pid)
            row = (actor.now_ms, actor.name, "detach", subject, detail)
            working.extra.append((sql.AUDIT_ADD, row))
            if self._resolver.journal.on:
                gone: list[tuple[int, str | None, str | None]] = [(*self._value, None)]
                noted = by_hand(self._pool, actor.now_ms, self._pid, gone)
                working.extra.append((history_sql.JOURNAL_ADD, noted))
        return None

    def finish(self) -> None:
        """Answer: what was taken away is durable."""
        self._answer()

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was written."""
        self._out = error if isinstance(error, Refusal) else Internal()
        self._answer()

    def _answer(self) -> None:
        if not self._future.done():
            self._future.set_result(self._out)
