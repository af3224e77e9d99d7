"""New rules applied to history: all of it in the transaction of the change.

Nothing is half done: a process that dies before the commit leaves everything as it was. What moves
is in the ledger of everybody concerned, and their records are kept as they were and became.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from onymous.flows.merging import Actor
from onymous.flows.relaying import between, codes, loosen, relay, shared, tighten
from onymous.flows.tenancy import encode
from onymous.flows.working import Origin, Working
from onymous.rules.grouping import Numbers
from onymous.rules.ledger import CREATED, MERGED, Change, Entry
from onymous.rules.records import ERASED, Record, Value
from onymous.rules.records import MERGED as IS_MERGED
from onymous.rules.reresolving import Key, Move, Part
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.store import history_sql, rules_sql, sql
from onymous.store.packing import pack_values, unpack_record
from onymous.store.port import Probe, Transaction

#: parts carried out together
TOGETHER = 100
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
        self, parts: Mapping[int, Iterable[Part]], actor: Actor, goes_on: int | None = None
    ) -> None:
        """`parts` of each pool are read as often as the transaction is tried."""
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
                gone = (self.done.change, 0, pid, None, before.flags.get(pid) or 0, b"", b"")
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
        self.flags = Numbers()

    async def carry(self, parts: Iterable[Part]) -> None:
        """Carry parts out, in pieces."""
        rest = iter(parts)
        while some := list(itertools.islice(rest, TOGETHER)):
            await self._carry(some)

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
        standing = await self._standing(pids)
        for part in parts:
            if all(_as_planned(working, self._pool, m) for m in part.moves):
                self.part += 1
                await self._part(working, part, standing)
            else:
                self._done.left += 1
        await working.save(self._tx)

    async def _standing(self, pids: Iterable[int]) -> dict[int, int]:
        """Return whom records point to, and whom those do, as far as that goes."""
        out: dict[int, int] = {}
        wanted = set(pids)
        for _ in range(MOST_CHAIN):
            if not wanted:
                break
            keys = [(pid,) for pid in sorted(wanted)]
            found = await self._tx.each(history_sql.MERGE_OF, keys)
            some = {row[2]: row[3] for rows in found for row in rows}
            out |= some
            wanted = {*some.values()} - out.keys()
        return out

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
            was = self.flags.get(record.pid)
            flags = record.flags if was is None else was
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
