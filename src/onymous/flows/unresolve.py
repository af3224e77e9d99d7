"""New rules that were applied to history, taken back in the transaction of the change."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from onymous.flows.merging import Actor
from onymous.flows.relaying import between, codes, loosen, relay, tighten
from onymous.flows.reresolve import Carried, Mover
from onymous.flows.rule_changes import moved_since, rule_change
from onymous.flows.working import Working
from onymous.rules.errors import CannotUndo, DependsOn
from onymous.rules.ledger import UNMERGED, Change, Entry
from onymous.rules.records import ERASED, KNOWN, Record, Value
from onymous.rules.records import MERGED as IS_MERGED
from onymous.rules.reresolving import Key
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.store import history_sql, rules_sql, sql
from onymous.store.port import Found, Probe, Row, Session, Transaction

_values = msgspec.msgpack.Decoder(list[Value])
#: parts an undoing makes itself count from here
BEYOND = 1 << 40
#: steps read at once, and parts looked at
PAGE, TOGETHER = 1_000, 50


class Step(msgspec.Struct):
    """One record of a change of rules, as it was and as it became."""

    pid: int
    into: int | None
    flags: int
    was: list[Value]
    became: list[Value]


class Unresolve:
    """Takes a change of rules back; an `Around` of `configure.apply`.

    What came later stays: values attached since, people met since. Where a moved value was moved
    again, the part is refused with `DependsOn`, or left as it is (`keep_later`).
    """

    def __init__(self, change: int, actor: Actor, *, keep_later: bool) -> None:
        self._change, self._actor, self._keep_later = change, actor, keep_later
        self._scope = 0
        self.done = Carried()

    async def __call__(
        self, tx: Transaction, scope: int, was: ScopeConfig, becomes: ScopeConfig
    ) -> None:
        """Give back exactly what was."""
        self.done, self._scope = Carried(change=self._change), scope
        await self._stand(tx, scope, was)
        old, new = compile_plan(was), compile_plan(becomes)
        for pool in (scope * 2, scope * 2 + 1):
            await loosen(tx, pool, old, new)
            await relay(tx, pool, old, new)
        for pid, flags in await tx.rows(rules_sql.STEP_FLAGS, self._change):
            await tx.run(rules_sql.FLAGS, flags & KNOWN, ~0, pid)
        await self._parts(tx, between(old, new))
        for pool in (scope * 2, scope * 2 + 1):
            mover = Mover(tx, pool, between(old, new), self.done, self._actor, BEYOND)
            await mover.part_shared(new, codes(new.unique & ~old.unique))
            await tighten(tx, pool, old, new)
        await tx.run(rules_sql.CHANGE_UNDONE, self._actor.now_ms, self._actor.name, self._change)

    async def _stand(self, tx: Transaction, scope: int, was: ScopeConfig) -> None:
        """Raise `CannotUndo` where the change does not stand, or people went along elsewhere."""
        rows = await tx.rows(rules_sql.CHANGE_BY_ID, self._change)
        change = rule_change(rows[0])
        newest = (await tx.rows(rules_sql.CHANGE_STANDING, scope))[0][0]
        if change.scope != scope or newest != self._change or change.became != was:
            raise CannotUndo(what="the rules were changed again meanwhile")
        moved = await moved_since(tx, self._change)
        if moved:
            raise CannotUndo(what=f"scope change {moved} took people along, undo that first")

    async def _parts(self, tx: Transaction, plan: Plan) -> None:
        async for parts in parts_back(tx, self._change):
            rest = iter(parts.values())
            while some := list(itertools.islice(rest, TOGETHER)):
                working = await loaded(tx, some, tx.find)
                mover = Mover(tx, 0, plan, self.done, self._actor, 0)
                for steps in some:
                    await self._part(tx, plan, working, mover, steps)
                await working.save(tx)

    async def _part(
        self, tx: Transaction, plan: Plan, working: Working, mover: Mover, steps: list[Step]
    ) -> None:
        why = await depends(tx, self._scope, plan, working, steps)
        if why:
            if not self._keep_later:
                raise DependsOn(what=why)
            self.done.left += 1
            return
        mover.move(working, [(working.records[s.pid], *back(s)) for s in steps])
        for step in steps:
            record = working.records[step.pid]
            working.refresh(record, {}, 0)
            self.done.records += 1
            if step.into is not None:
                await self._unmerge(tx, working, record, step.into)
            was = {(v.code, v.key): v for v in step.was}
            record.values = [was.get((v.code, v.key), v) for v in record.values]
            if {(v.code, v.key) for v in record.values} == set(was):
                record.flags = record.flags & ~KNOWN | step.flags & KNOWN

    async def _unmerge(self, tx: Transaction, working: Working, record: Record, into: int) -> None:
        actor = self._actor
        number = (await tx.rows(history_sql.MERGE_OF, record.pid))[0][0]
        await tx.run(history_sql.MERGE_UNDO, actor.now_ms, actor.name, actor.reason, number)
        record.flags &= ~IS_MERGED
        self.done.merged += 1
        for pid, other in ((record.pid, into), (into, record.pid)):
            entry = Entry("undo", 0, 0, f"rules-{self._change}", [Change(UNMERGED, other=other)])
            working.note(pid, actor.now_ms, entry)


async def loaded(
    session: Session,
    parts: Sequence[Sequence[Step]],
    find: Callable[[Sequence[Probe]], Awaitable[list[Found]]],
) -> Working:
    """Return all records and values that parts concern, as they are now."""
    first = [(steps[0].pid,) for steps in parts]
    pools = [rows[0][0] if rows else 0 for rows in await session.each(sql.POOL_OF, first)]
    probes: list[Probe] = []
    for pool, steps in zip(pools, parts, strict=True):
        keys = sorted({(v.code, v.key) for s in steps for v in (*s.was, *s.became)})
        probes.append(Probe(pool, {}, None, tuple(s.pid for s in steps)))
        probes += [Probe(pool, {code: key}) for code, key in keys]
    working = Working([])
    working.load(probes, await find(probes))
    return working


async def parts_back(session: Session, change: int) -> AsyncIterator[dict[int, list[Step]]]:
    """Yield the parts of a change, the one carried out last first, some at once."""
    before = BEYOND
    while rows := await session.rows(rules_sql.STEPS_BEFORE, change, before, PAGE):
        parts = grouped(rows)
        before = min(parts)
        if len(rows) == PAGE:  # the last one is perhaps not whole
            if len(parts) > 1:
                before = parts.popitem()[0] + 1
            else:
                parts = grouped(await session.rows(rules_sql.STEPS_OF, change, before))
        yield parts


async def depends(
    session: Session, scope: int, plan: Plan, working: Working, steps: Sequence[Step]
) -> str:
    """Return what a moved value or a later merge depends on, or nothing."""
    giving: dict[Key, set[int]] = {}
    merged = {step.pid: step.into for step in steps}
    for step in steps:
        for key in back(step)[0]:
            giving.setdefault(key, set()).add(step.pid)
    for step in steps:
        record = working.records.get(step.pid)
        if record is None or record.flags & ERASED:
            return "an erasure"
        if record.pool // 2 != scope:
            return "a move to another scope"
        remove, add = back(step)
        if not all(record.holds(*key) for key in remove):
            return "a value that moved again"
        if any(record.holds(v.code, v.key) for v in add):
            return "a value that came back"
        for v in add:
            holders = working.by_value.get((record.pool, v.code, v.key), ())
            if plan.unique >> v.code & 1 and not giving.get((v.code, v.key), set()) >= {*holders}:
                return "a value that belongs to somebody else now"
        if step.into is not None:
            why = await _merged_since(session, step.pid, step.into, merged.get(step.into))
            if why:
                return why
    return ""


async def _merged_since(session: Session, pid: int, into: int, ours: int | None) -> str:
    """Say which merge stands on one; `ours`: where the change itself let its destination point."""
    rows = await session.rows(history_sql.MERGE_OF, pid)
    if not rows or rows[0][3] != into:
        return "a merge that was undone"
    later = await session.rows(history_sql.MERGE_OF, into)
    if later and later[0][0] > rows[0][0] and later[0][3] != ours:
        return f"merge {later[0][0]}"
    return ""


def grouped(rows: Sequence[Row]) -> dict[int, list[Step]]:
    """Return steps by their part."""
    out: dict[int, list[Step]] = {}
    for part, pid, into, flags, was, became in rows:
        step = Step(pid, into, flags, _values.decode(bytes(was)), _values.decode(bytes(became)))
        out.setdefault(part, []).append(step)
    return out


def back(step: Step) -> tuple[list[Key], list[Value]]:
    """Return what a record loses and gets back."""
    was = {(v.code, v.key) for v in step.was}
    became = {(v.code, v.key) for v in step.became}
    remove = sorted(became - was)
    return remove, [v for v in step.was if (v.code, v.key) not in became]
