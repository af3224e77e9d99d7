"""Accepting a value that was held back: a modify, decided again on the locked record."""

from __future__ import annotations

import msgspec

from onymous.flows.by_hand import ByHand
from onymous.flows.held import Body, body_of
from onymous.flows.identity import NAME_OF, Resolver, lookup_keys
from onymous.flows.merging import Actor
from onymous.flows.tenants import Caller
from onymous.flows.working import Origin, Working
from onymous.rules.batches import usable
from onymous.rules.errors import CannotAccept, Refusal, UnknownMpid, ValueHeldByAnother
from onymous.rules.identifiers import BY_CODE, clean_value
from onymous.rules.ledger import Entry
from onymous.rules.modify import Change, Modified, modify
from onymous.rules.records import Record
from onymous.store import review_sql
from onymous.store.port import Kept, Probe, Row


class HeldRow(msgspec.Struct):
    """A value held back, as it is stored."""

    id: int
    pool: int
    pid: int
    code: int
    reason: str
    op: str
    key_only: int
    input: int
    request: str | None
    first_ms: int
    last_ms: int
    count: int
    body: Body
    workspace: int


def held_row(row: Row) -> HeldRow:
    """Return a row of values held back."""
    return HeldRow(*[*row[:12], body_of(bytes(row[12])), row[13]])


class Accept(ByHand[bool]):
    """One accepted value at the desk."""

    name = "modify"

    def __init__(
        self,
        resolver: Resolver,
        caller: Caller,
        item: HeldRow,
        actor: Actor,
        max_values: int,
    ) -> None:
        super().__init__(resolver, actor)
        self._item, self._max_values = item, max_values
        self.plan = caller.plan
        self.probe = Probe(item.pool, {}, None, (item.pid,))
        self.more: tuple[Probe, ...] = (
            Probe(item.pool, lookup_keys({item.code: item.body.key}, caller.plan)),
        )
        self._change: Change | None = None

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Decide again, change the record, and take the entry off the queue."""
        item = self._item
        working.now_ms, self._change = self._actor.now_ms, None
        record = working.records.get(item.pid)
        if record is None or not usable(record, item.pool):
            self._out = UnknownMpid()
            return None
        out = self._decide(record, working)
        if isinstance(out, Refusal):
            self._out = out
            return None
        self._out = out is not None
        if out is not None:
            self._apply(working, record, out)
        self._audit(working, "review_accept", item.pid, entry=f"v{item.id}", changed=self._out)
        working.extra.append((review_sql.HELD_DROP, (item.id,)))
        return None

    def _decide(self, record: Record, working: Working) -> Modified | Refusal | None:
        """Return the change; None where the record has the value already."""
        item, plan = self._item, self.plan
        code, key, shown = item.code, item.body.key, item.body.shown
        kind, has, single = BY_CODE[code], record.keys_of(code), plan.single >> code & 1
        if key in has:
            return None
        if single and sorted(has) != item.body.had:
            return CannotAccept(what="the profile has another value of this type than it had then")
        if clean_value(kind, shown or key, plan.folding) != key or (kind.name, key) in plan.blocked:
            return CannotAccept(what="by the rules of today the value is no such identity")
        others = [r for r in working.candidates(self.more[0]) if r.pid != record.pid]
        crowded = (item.pool, code, key) in working.crowded
        if (plan.login | plan.unique) >> code & 1 and (others or crowded):
            return ValueHeldByAnother(type=kind.name)
        self._change = Change(code, has[0] if single and has else None, key, shown)
        # as for a caller who proved nothing: what is another's never moves
        most = self._max_values
        out = modify(record, [self._change], others, plan, key_only=True, max_values=most)
        if out.refusal is not None:
            return out.refusal(type=NAME_OF[out.at_fault])
        if not out.results:
            return CannotAccept(what="the profile holds as many values as allowed")
        return out

    def _apply(self, working: Working, record: Record, out: Modified) -> None:
        actor, (workspace, source) = self._actor, self._where
        working.apply(
            record,
            self.plan,
            Origin("modify", actor.now_ms, workspace, source, actor.request_id, quiet=True),
            add=out.add,
            remove=out.remove,
            entry=Entry("modify", workspace, source, actor.request_id, []),
        )

    @property
    def _where(self) -> tuple[int, int]:
        """Return whose change it is: the operator's input, or at a terminal the value's."""
        actor, item = self._actor, self._item
        if actor.input:
            return actor.workspace, actor.input
        return item.workspace, item.input

    def finish(self) -> None:
        """Answer: what was decided is durable."""
        journal, item = self._resolver.journal, self._item
        if journal.on and self._out is True and self._change is not None:
            now, change = self._actor.now_ms, [self._change]
            journal.note_modify(item.pool, self._where, now, item.pid, change, False, None)
        super().finish()
