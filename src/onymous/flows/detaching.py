"""A name taken away by hand, with a reason: what an operator knows to be wrong.

It is a change like any other: an entry of the ledger, undone like one, and noted in the journal, so
that rules tried on the past or applied to it know of it.
"""

from __future__ import annotations

import msgspec

from onymous.flows.by_hand import ByHand
from onymous.flows.identity import CODE_OF, NAME_OF, Resolver
from onymous.flows.merging import Actor
from onymous.flows.profiles import canonical, sides
from onymous.flows.working import Origin, Working
from onymous.rules.batches import usable
from onymous.rules.errors import NoSuchThing, NotFound
from onymous.rules.ledger import Entry
from onymous.rules.records import Record
from onymous.rules.strategies import Plan
from onymous.store import sql
from onymous.store.packing import unpack_record
from onymous.store.port import Kept, Probe, Session, Store


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
        work = _Detach(self._resolver, plan, record, (code, key), actor)
        self._resolver.desk.submit_write(work)
        await work.answer()
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


class _Detach(ByHand[Record]):
    """One name taken away, at the desk."""

    # what it may take away, and how it is locked, is as in a modify
    name = "modify"

    def __init__(
        self,
        resolver: Resolver,
        plan: Plan,
        record: Record,
        value: tuple[int, str],
        actor: Actor,
    ) -> None:
        super().__init__(resolver, actor)
        self.plan = plan
        self._pool, self._pid, self._value = record.pool, record.pid, value
        self.probe = Probe(record.pool, {}, None, (record.pid,))
        self.more: tuple[Probe, ...] = (Probe(record.pool, dict([value])),)

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
            self._audit(working, "detach", self._pid, type=NAME_OF[self._value[0]])
            self._note(working, self._pool, self._pid, [(*self._value, None)])
        return None
