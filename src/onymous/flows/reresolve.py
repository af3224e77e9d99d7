"""New rules applied to history, and taken back: all of it in the transaction of the change.

Nothing is half done: a process that dies before the commit leaves everything as it was. What moves
is in the ledger of everybody concerned, and their records are kept as they were and became.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from onymous.flows.merging import Actor
from onymous.flows.relaying import between, codes, loosen, relay, shared, tighten
from onymous.flows.rule_changes import moved_since, rule_change
from onymous.flows.tenancy import encode
from onymous.flows.working import Origin, Working
from onymous.rules.errors import CannotUndo, DependsOn
from onymous.rules.ledger import CREATED, MERGED, UNMERGED, Change, Entry
from onymous.rules.records import ERASED, KNOWN, Record, Value
from onymous.rules.records import MERGED as IS_MERGED
from onymous.rules.reresolving import Key, Move, Part
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.store import history_sql, rules_sql, sql
from onymous.store.packing import pack_values, unpack_record
from onymous.store.port import Probe, Row, Transaction

_values = msgspec.msgpack.Decoder(list[Value])
#: parts carried out together
TOGETHER = 100
#: parts an undoing makes itself count from here
_BEYOND = 1 << 40
#: longest chain of merges looked at
MOST_CHAIN = 50


class Carried(msgspec.Struct, kw_only=True):
    """What a change of rules did to people."""

    change: int = 0
    merged: int = 0
    created: int = 0
    records: int = 0
    #: parts left alone, because their people changed meanwhile
    left: int = 0
    #: values taken from all but one of their holders, because they are unique now
    parted: int = 0


class Reresolve:
    """Carries one scope's people over to new rules; an `Around` of `configure.apply`."""

    def __init__(
        self, parts: Mapping[int, Sequence[Part]], actor: Actor, goes_on: int | None = None
    ) -> None:
        self._parts, self._actor, self._goes_on = parts, actor, goes_on
        self.done = Carried()

    async def __call__(
        self, tx: Transaction, scope: int, was: ScopeConfig, becomes: ScopeConfig
    ) -> None:
        """Move values and people of both pools, and lay lookups out by the new rules."""
        self.done = Carried()
        old, new, actor = compile_plan(was), compile_plan(becomes), self._actor
        part = 0
        if self._goes_on is None:
            row = (actor.now_ms, scope, actor.name, actor.reason, encode(was), encode(becomes))
            self.done.change = (await tx.rows(rules_sql.CHANGE_ADD, *row))[0][0]
        else:
            self.done.change = self._goes_on
            part = (await tx.rows(rules_sql.LAST_PART, self._goes_on))[0][0] or 0
        for pool in (scope * 2, scope * 2 + 1):
            await loosen(tx, pool, old, new)
            before = await relay(tx, pool, old, new)
            for pid in before.lost:
                gone = (self.done.change, 0, pid, None, before.flags[pid], b"", b"")
                await tx.run(rules_sql.STEP_ADD, *gone)
            mover = Mover(tx, pool, between(old, new), self.done, self._actor, part)
            mover.flags = before.flags
            await mover.carry(self._parts.get(pool, ()))
            await mover.part_shared(new, codes(new.unique & ~old.unique))
            part = mover.part
            await tighten(tx, pool, old, new)


class Mover:
    """Moves values between records of one pool."""

    def __init__(
        self, tx: Transaction, pool: int, plan: Plan, done: Carried, actor: Actor, part: int
    ) -> None:
        self._tx, self._pool, self._plan = tx, pool, plan
        self._done, self._actor, self.part = done, actor, part
        self._request = f"rules-{done.change}"
        #: flags as they were before the rules changed, where they are others now
        self.flags: dict[int, int] = {}

    async def carry(self, parts: Sequence[Part]) -> None:
        """Carry parts out, in pieces."""
        for start in range(0, len(parts), TOGETHER):
            await self._carry(parts[start : start + TOGETHER])

    async def part_shared(self, plan: Plan, unique: Iterable[int]) -> None:
        """Leave values that are unique now with one holder: known first, then last seen."""
        for code in unique:
            values = await shared(self._tx, self._pool, code, 1)
            for start in range(0, len(values), TOGETHER):
                parts = [await self._alone(plan, (code, v)) for v in values[start:][:TOGETHER]]
                self._done.parted += sum(len(p.moves) for p in parts)
                await self._carry(parts)

    async def _alone(self, plan: Plan, key: Key) -> Part:
        holders: list[Record] = []
        slot = self._pool * 64 + key[0]
        while rows := await self._tx.rows(
            sql.HOLDERS, slot, key[1], holders[-1].pid if holders else 0, 500
        ):
            holders += [unpack_record(row[1:]) for row in rows]

        def claim(record: Record) -> tuple[bool, int, int]:
            others = any(plan.login >> v.code & 1 for v in record.values if v.code != key[0])
            return (not others, -record.seen_ms, record.pid)

        rest = sorted(holders, key=claim)[1:]
        return Part([Move(r.pid, [key], [], None, None) for r in rest])

    async def _carry(self, parts: Sequence[Part]) -> None:
        moves = [m for p in parts for m in p.moves]
        pids = sorted({n for m in moves for n in (m.pid, m.into or 0) if n > 0})
        values = sorted({k for m in moves for k in _touched(m)})
        probes = [Probe(self._pool, {}, None, tuple(pids))]
        probes += [Probe(self._pool, {code: key}) for code, key in values]
        founds = await self._tx.find(probes)
        made = sum(m.pid < 0 for m in moves)
        working = Working(await self._tx.numbers("pid", made) if made else [])
        working.load(probes, founds)
        standing = {row[1]: row[2] for row in await self._tx.rows(history_sql.MERGES)}
        for part in parts:
            if all(_as_planned(working, self._pool, m) for m in part.moves):
                self.part += 1
                await self._part(working, part, standing)
            else:
                self._done.left += 1
        await working.save(self._tx)

    async def _part(self, working: Working, part: Part, standing: dict[int, int]) -> None:
        now, real = self._actor.now_ms, {}
        records: list[tuple[Move, Record, int, bytes]] = []
        for move in part.moves:
            if move.pid < 0:
                record = working.create(self._pool, now, None)
                entry = self._entry([Change(CREATED)])
                working.note(record.pid, now, entry)
            else:
                record = working.records[move.pid]
            real[move.pid] = record.pid
            flags = self.flags.get(record.pid, record.flags)
            records.append((move, record, flags, pack_values(record)))
        self.move(working, [(r, m.remove, m.add) for m, r, _, _ in records])
        for move, record, flags, before in records:
            into = None if move.into is None else real.get(move.into, move.into)
            if into is not None and not self._merge(working, record, into, standing):
                into = None
            self._done.merged += into is not None
            self._done.created += move.pid < 0
            self._done.records += 1
            row = (self._done.change, self.part, record.pid, into, flags, before)
            working.extra.append((rules_sql.STEP_ADD, (*row, pack_values(record))))

    def move(
        self, working: Working, moves: Sequence[tuple[Record, list[Key], list[Value]]]
    ) -> None:
        """Let records lose and gain values; each keeps where and when it was first met."""
        for record, remove, _ in moves:
            if remove:
                self._apply(working, record, remove, [])
        for record, _, add in moves:
            if add:
                self._apply(working, record, [], add)

    def _apply(self, working: Working, record: Record, remove: list[Key], add: list[Value]) -> None:
        origin = Origin("rules", self._actor.now_ms, 0, 0, self._request, quiet=True)
        new = [v for v in add if not record.holds(v.code, v.key)]
        working.apply(
            record,
            self._plan,
            origin,
            add=[(v.code, v.key, v.shown) for v in new],
            remove=remove,
            entry=self._entry([]),
        )
        by_key = {(v.code, v.key): v for v in new}
        record.values = [by_key.get((v.code, v.key), v) for v in record.values]

    def _entry(self, changes: list[Change]) -> Entry:
        return Entry("rules", 0, 0, self._request, changes)

    def _merge(self, working: Working, record: Record, into: int, standing: dict[int, int]) -> bool:
        """Point from a record to the one it is one person with, unless it points already."""
        at = into
        for _ in range(MOST_CHAIN):
            if at == record.pid:
                return False
            if at not in standing:
                break
            at = standing[at]
        if record.pid in standing:
            return False
        standing[record.pid] = into
        record.flags |= IS_MERGED
        working.refresh(record, {}, 0)
        actor = self._actor
        row = (self._pool, record.pid, into, actor.now_ms, actor.name, self._request)
        working.extra.append((history_sql.MERGE_ADD, row))
        for pid, other in ((record.pid, into), (into, record.pid)):
            working.note(pid, actor.now_ms, self._entry([Change(MERGED, other=other)]))
        return True


def _touched(move: Move) -> list[Key]:
    return [*move.remove, *((v.code, v.key) for v in move.add)]


def _as_planned(working: Working, pool: int, move: Move) -> bool:
    if move.pid < 0:
        return True
    record = working.records.get(move.pid)
    if record is None or record.pool != pool or record.flags & ERASED:
        return False
    return move.had is None or {(v.code, v.key) for v in record.values} == move.had


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
            mover = Mover(tx, pool, between(old, new), self.done, self._actor, _BEYOND)
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
        after = 0
        while rows := await tx.rows(rules_sql.STEPS_AFTER, self._change, after, 1_000):
            parts = _grouped(rows)
            if len(rows) == 1_000 and len(parts) > 1:
                parts.popitem()  # perhaps not whole: it comes again
            after = max(parts)
            for steps in parts.values():
                await self._part(tx, plan, steps)

    async def _part(self, tx: Transaction, plan: Plan, steps: list[Step]) -> None:
        pids = tuple(s.pid for s in steps)
        rows = await tx.rows(sql.POOL_OF, pids[0])
        pool = rows[0][0]
        keys = sorted({(v.code, v.key) for s in steps for v in (*s.was, *s.became)})
        probes = [Probe(pool, {}, None, pids), *(Probe(pool, {c: k}) for c, k in keys)]
        working = Working([])
        working.load(probes, await tx.find(probes))
        why = await self._stands(tx, plan, working, steps)
        if why:
            if not self._keep_later:
                raise DependsOn(what=why)
            self.done.left += 1
            return
        mover = Mover(tx, pool, plan, self.done, self._actor, 0)
        mover.move(working, [(working.records[s.pid], *_back(s)) for s in steps])
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
        await working.save(tx)

    async def _stands(
        self, tx: Transaction, plan: Plan, working: Working, steps: list[Step]
    ) -> str:
        """Return what a moved value or a later merge depends on, or nothing."""
        giving: dict[Key, set[int]] = {}
        for step in steps:
            for key in _back(step)[0]:
                giving.setdefault(key, set()).add(step.pid)
        for step in steps:
            record = working.records.get(step.pid)
            if record is None or record.flags & ERASED:
                return "an erasure"
            if record.pool // 2 != self._scope:
                return "a move to another scope"
            remove, add = _back(step)
            if not all(record.holds(*key) for key in remove):
                return "a value that moved again"
            if any(record.holds(v.code, v.key) for v in add):
                return "a value that came back"
            for v in add:
                holders = working.by_value.get((record.pool, v.code, v.key), ())
                if plan.unique >> v.code & 1 and not giving.get((v.code, v.key), set()) >= {
                    *holders
                }:
                    return "a value that belongs to somebody else now"
            if step.into is not None:
                rows = await tx.rows(history_sql.MERGE_OF, step.pid)
                if not rows or rows[0][3] != step.into:
                    return "a merge that was undone"
                later = await tx.rows(history_sql.MERGE_OF, step.into)
                if later and later[0][0] > rows[0][0]:
                    return f"merge {later[0][0]}"
        return ""

    async def _unmerge(self, tx: Transaction, working: Working, record: Record, into: int) -> None:
        actor = self._actor
        number = (await tx.rows(history_sql.MERGE_OF, record.pid))[0][0]
        await tx.run(history_sql.MERGE_UNDO, actor.now_ms, actor.name, actor.reason, number)
        record.flags &= ~IS_MERGED
        self.done.merged += 1
        for pid, other in ((record.pid, into), (into, record.pid)):
            entry = Entry("undo", 0, 0, f"rules-{self._change}", [Change(UNMERGED, other=other)])
            working.note(pid, actor.now_ms, entry)


def _grouped(rows: Sequence[Row]) -> dict[int, list[Step]]:
    out: dict[int, list[Step]] = {}
    for part, pid, into, flags, was, became in rows:
        step = Step(pid, into, flags, _values.decode(bytes(was)), _values.decode(bytes(became)))
        out.setdefault(part, []).append(step)
    return out


def _back(step: Step) -> tuple[list[Key], list[Value]]:
    """Return what a record loses and gets back."""
    was = {(v.code, v.key) for v in step.was}
    became = {(v.code, v.key) for v in step.became}
    remove = sorted(became - was)
    return remove, [v for v in step.was if (v.code, v.key) not in became]
