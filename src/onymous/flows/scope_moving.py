"""One piece of a join or split of scopes: some profiles go over in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from onymous.flows.seen import SeenBuffer, freshen
from onymous.flows.working import Origin, Working
from onymous.rules import scopes as rules
from onymous.rules.ledger import ATTACHED, CREATED, MOVED, PARTED, Change, Entry, Line
from onymous.rules.ledger import MERGED as MERGED_KIND
from onymous.rules.records import ERASED, MERGED, Record, Value
from onymous.rules.scopes import Joined
from onymous.rules.strategies import Plan
from onymous.store import history_sql, sql
from onymous.store import scopes_sql as moves
from onymous.store.packing import unpack_record
from onymous.store.port import LostRace, Probe, Transaction

_entries = msgspec.msgpack.Decoder(Entry)
#: entries of a profile looked through for what a change took off it
_LATEST = 1_000


class Choices(msgspec.Struct, kw_only=True):
    """What the operator chose for values two people hold."""

    #: by type name
    types: dict[str, str] = {}
    #: by number of the profile that comes over
    people: dict[int, str] = {}


class ScopeChange(msgspec.Struct, kw_only=True):
    """A join or split as the database has it; see the migration."""

    id: int
    kind: str
    source: int
    target: int
    workspaces: list[int]
    choices: Choices
    author: str
    reason: str
    at_ms: int
    state: str
    due: int
    cursor: int
    high: int
    undoes: int | None

    @property
    def joins(self) -> bool:
        """Return whether all of the source goes over; else only what the workspaces met."""
        return self.kind in ("join", "unsplit")

    @property
    def mark(self) -> str:
        """Return what ledger entries of this change name as their request."""
        return f"scope change {self.id}"

    def pools(self) -> list[tuple[int, int]]:
        """Return (pool, pool of the same environment on the other side)."""
        return [(self.source * 2 + e, self.target * 2 + e) for e in (0, 1)]

    def over(self, pool: int) -> int:
        """Return the pool of the target scope for one of the source."""
        return self.target * 2 + pool % 2


class Piece:
    """Takes some profiles over in an open transaction."""

    def __init__(self, tx: Transaction, change: ScopeChange, plan: Plan, now_ms: int) -> None:
        self._tx, self._change, self._plan, self._now = tx, change, plan, now_ms
        self._rows: list[tuple[int, str, int | None, int | None]] = []
        #: (pool, profile that came over, absorbed, surviving)
        self._merges: list[tuple[int, int, int, int]] = []
        #: merges in force between the records here: absorbed -> surviving
        self._into: dict[int, int] = {}
        self._came: set[int] = set()
        self._taken: set[int] = set()
        #: values this change took off profiles of the other side
        self._lost: dict[int, list[tuple[int, str]]] = {}
        #: profiles a split made -> what they were parted from
        self._twins: dict[int, int] = {}
        #: taking a join back: who came over in it, and who was found to be one person with whom
        self._home: set[int] = set()
        self._partner: dict[int, int] = {}

    async def run(self, pids: Sequence[int], seen: SeenBuffer) -> None:
        """Take over those of these profiles that belong on the other side."""
        change = self._change
        records = await self._read(pids)
        working = await self._lock(records, seen)
        await self._remember(list(working.records), [r.pid for r in records])
        here = {} if change.joins else await self._data(records)
        self._home = set() if change.kind != "unjoin" else await self._homes(records)
        for record in map(working.records.__getitem__, sorted(r.pid for r in records)):
            if record.pool not in dict(change.pools()) or record.flags & ERASED:
                continue
            if change.joins:
                self._over(working, record)
            elif not record.flags & MERGED and (change.state != "moving" or self._first(record)):
                self._part(working, record, records, here)
        await working.save(self._tx)
        await self._write()

    # -- reading ------------------------------------------------------------------------------

    async def _read(self, pids: Sequence[int]) -> list[Record]:
        """Return the records, and in a split all those they are one person with."""
        found: dict[int, Record] = {}
        todo = list(pids)
        while todo:
            rows = await self._tx.each(sql.PROFILE_BY_PID, [(pid,) for pid in todo])
            some = [unpack_record(r[0]) for r in rows if r]
            found |= {r.pid: r for r in some}
            todo = []
            if not self._change.joins:
                near = await self._tx.each(history_sql.MERGES_INTO, [(r.pid,) for r in some])
                self._into |= {row[2]: row[3] for some in near for row in some}
                todo = [row[2] for some in near for row in some if row[2] not in found]
        return list(found.values())

    async def _lock(self, records: list[Record], seen: SeenBuffer) -> Working:
        probes = [Probe(self._change.source * 2, {}, None, tuple(r.pid for r in records))]
        for record in records:
            for value in record.values:
                for pool in {record.pool, self._change.over(record.pool)}:
                    probes.append(Probe(pool, {value.code: value.key}))
        founds = await self._tx.find(probes)
        numbers = [] if self._change.joins else await self._tx.numbers("pid", len(records))
        working = Working(numbers)
        working.load(probes, founds)
        working.now_ms = self._now
        for record in records:
            locked = working.records.get(record.pid)
            if locked is None or _names(locked) != _names(record) or locked.pool != record.pool:
                raise LostRace("a profile changed before it could be taken over")
        await freshen(self._tx, working.records.values(), seen)
        return working

    async def _remember(self, around: list[int], pids: list[int]) -> None:
        """Read who came over before, who is one person with such a one, and whose twin they are."""
        change = self._change
        came = await self._tx.each(moves.MOVE_GET, [(change.id, pid) for pid in around])
        for pid in (p for p, rows in zip(around, came, strict=True) if rows):
            told = await self._tx.rows(sql.LEDGER_OF, pid, 1 << 62, _LATEST)
            lines = [Line(seq, at, _entries.decode(bytes(body))) for seq, at, body in told]
            lost = rules.lost_values(lines, change.mark)
            self._lost[pid] = [(code, key) for code, key, _ in lost]
        self._came = {p for p, rows in zip(around, came, strict=True) if rows and _over(rows[0])}
        taken = await self._tx.each(moves.MOVE_PARTNER, [(pid, change.id) for pid in around])
        self._taken = {p for p, rows in zip(around, taken, strict=True) if rows}
        if change.kind == "unjoin":
            rows = await self._tx.each(moves.MOVE_PARTNER, [(p, change.undoes) for p in pids])
            found = {p: some[0][0] for p, some in zip(pids, rows, strict=True) if some}
            flags = await self._tx.each(sql.PROFILE_BY_PID, [(pid,) for pid in found.values()])
            there = {r[0][0] for r in flags if r and not r[0][4] & (MERGED | ERASED)}
            self._partner = {p: other for p, other in found.items() if other in there}
        if change.kind == "unsplit":
            twins = await self._tx.each(moves.MOVE_TWIN, [(pid, change.undoes) for pid in pids])
            self._twins = {p: rows[0][0] for p, rows in zip(pids, twins, strict=True) if rows}

    async def _data(self, records: list[Record]) -> dict[int, set[int]]:
        """Return which workspaces have data of each record."""
        rows = await self._tx.each(moves.PERSON_WORKSPACES, [(r.pid,) for r in records])
        out = {r.pid: {v.workspace for v in r.values if v.workspace} for r in records}
        for some in rows:
            for pid, workspace in some:
                out[pid].add(workspace)
        return out

    async def _homes(self, records: list[Record]) -> set[int]:
        """Return which records the change that is taken back had brought over."""
        asked = [(self._change.undoes, r.pid) for r in records]
        rows = await self._tx.each(moves.MOVE_GET, asked)
        return {r.pid for r, found in zip(records, rows, strict=True) if found and _over(found[0])}

    # -- joining ------------------------------------------------------------------------------

    def _over(self, working: Working, record: Record) -> None:
        """Take one profile over as the operator chose."""
        pool = self._change.over(record.pool)
        twin = working.records.get(self._twins.get(record.pid, 0))

        late = self._change.state == "sweeping"
        holders: dict[tuple[int, str], list[Record]] = {}
        for v in record.values:
            pids = working.by_value.get((pool, v.code, v.key), ())
            others = [p for p in pids if p != record.pid and (late or p not in self._came)]
            there = [rules.then(working.records[p], self._lost.get(p, [])) for p in others]
            holders[v.code, v.key] = there

        def choose(code: int) -> tuple[str | None, bool]:
            mine = self._change.choices.people.get(record.pid)
            given = mine or self._change.choices.types.get(rules.names([code])[0])
            pids = {o.pid for (c, _), some in holders.items() if c == code for o in some}
            # what was one person by the rules of the scope both come from
            own = "target" if late and pids <= self._came else None
            return given or own, mine is not None

        if twin is not None and twin.pool == pool and not (twin.flags | record.flags) & MERGED:
            done = _again_one(record, twin, holders, self._plan)
        else:
            done = rules.join_record(record, holders, self._plan, choose, self._taken.__contains__)
        self._carry_out(working, record, done, pool)

    def _carry_out(self, working: Working, record: Record, done: Joined, pool: int) -> None:
        if done.undecided:
            self._rows.append((record.pid, "left", None, None))
            return
        op = "join" if self._change.joins else "split"
        origin = Origin(op, self._now, 0, 0, self._change.mark, quiet=True)
        for pid, code, key in done.lose:
            entry = Entry(op, 0, 0, self._change.mark, [])
            loser = working.records[pid]
            working.apply(loser, self._plan, origin, remove=[(code, key)], entry=entry)
            self._lost.setdefault(pid, []).append((code, key))
            self._rows.append((pid, "lost", None, None))
        other = None
        if done.merge is not None:
            absorbed, into = done.merge
            other = absorbed if into == record.pid else into
            working.records[absorbed].flags |= MERGED
            working.refresh(working.records[absorbed], {}, self._now)
            self._merges.append((pool, record.pid, absorbed, into))
            self._taken.add(other)
            for one, two in ((absorbed, into), (into, absorbed)):
                change = Change(MERGED_KIND, other=two)
                working.note(one, self._now, Entry("merge", 0, 0, self._change.mark, [change]))
        self._go(working, record, pool)
        self._rows.append((record.pid, "moved", other, None))

    def _go(self, working: Working, record: Record, pool: int) -> None:
        op = "join" if self._change.joins else "split"
        working.rehouse(record, self._plan, pool, record.values)
        working.extra += [
            (sql.PROFILE_POOL, (pool, record.pid)),
            (moves.ALIASES_FOLLOW, (pool, record.pid)),
            (moves.MERGES_FOLLOW, (pool, record.pid)),
        ]
        entry = Entry(op, 0, 0, self._change.mark, [Change(MOVED)])
        working.note(record.pid, self._now, entry)
        self._came.add(record.pid)

    def _first(self, record: Record) -> bool:
        """In the taking back of a join, who came over goes home before anybody else moves."""
        return self._change.kind != "unjoin" or record.pid in self._home

    # -- splitting ----------------------------------------------------------------------------

    def _part(
        self,
        working: Working,
        root: Record,
        records: list[Record],
        here: dict[int, set[int]],
    ) -> None:
        """Leave a person, take them over, or give them a profile on both sides."""
        group = [working.records[r.pid] for r in self._group(root, records)]
        data = set().union(*(here[r.pid] for r in group))
        leaving = frozenset(self._change.workspaces)
        where = rules.place(data, leaving, root.pid in self._home)
        if where == "stay":
            return
        pool, over = root.pool, self._change.over(root.pool)
        goes = where == "go" or root.pid in self._home
        for record in group if goes else ():
            held = {
                (v.code, v.key): [
                    working.records[p] for p in working.by_value.get((over, v.code, v.key), ())
                ]
                for v in record.values
            }
            done = rules.join_record(record, held, self._plan, _target, self._taken.__contains__)
            self._carry_out(working, record, done, over)
        if where == "both":
            parted = data - leaving if goes else data & leaving
            self._twin(working, group, pool if goes else over, parted)

    def _group(self, root: Record, records: list[Record]) -> list[Record]:
        out = [root]
        for one in out:
            out += [r for r in records if self._into.get(r.pid) == one.pid and r not in out]
        return out

    def _twin(self, working: Working, group: list[Record], pool: int, workspaces: set[int]) -> None:
        """Make a profile on the other side for each record, with what these workspaces know."""
        twins: dict[int, int] = {}
        for record in group:
            values = [
                Value(*msgspec.structs.astuple(v))
                for v in record.values
                if not (self._plan.unique >> v.code & 1)
                or not working.by_value.get((pool, v.code, v.key))
            ]
            twin = working.create(pool, record.created_ms, None)
            twin.seen_ms, twin.flags = record.seen_ms, record.flags
            working.rehouse(twin, self._plan, pool, values)
            twins[record.pid] = twin.pid
            made = [Change(CREATED), *(_attached(v) for v in values)]
            working.note(twin.pid, self._now, Entry("split", 0, 0, self._change.mark, made))
            entry = Entry("split", 0, 0, self._change.mark, [Change(PARTED)])
            working.note(record.pid, self._now, entry)
            for statement in (moves.PERSONS_PART, moves.BATCHES_PART, moves.TALLY_PART):
                for w in sorted(workspaces):
                    working.extra.append((statement, (twin.pid, record.pid, w)))
            self._rows.append((record.pid, "twin", twin.pid, None))
            if record.pid in self._partner and pool == self._change.over(record.pool):
                twin.flags |= MERGED
                self._merges.append((pool, twin.pid, twin.pid, self._partner[record.pid]))
            elif record.pid in self._into:
                self._merges.append((pool, twin.pid, twin.pid, twins[self._into[record.pid]]))

    # -- writing ------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Write what became of each, and the merges."""
        tx, change = self._tx, self._change
        numbers: dict[int, int] = {}
        why = f"{change.mark}: {change.reason}"[:500]
        for pool, mover, absorbed, into in self._merges:
            row = (pool, absorbed, into, self._now, change.author, why)
            await tx.run(history_sql.MERGE_ADD, *row)
            numbers[mover] = int((await tx.rows(history_sql.MERGE_OF, absorbed))[0][0])
        for pid, what, other, _ in self._rows:
            if what == "lost":
                await tx.run(moves.MOVE_LOST, change.id, pid)
            else:
                await tx.run(moves.MOVE_ADD, change.id, pid, what, other, numbers.get(pid))


def _target(code: int) -> tuple[str | None, bool]:
    return "target", False


def _over(row: tuple[object, ...]) -> bool:
    return row[0] == "moved"


def _attached(value: Value) -> Change:
    return Change(ATTACHED, value.code, value.key, value.shown)


def _again_one(
    record: Record, twin: Record, holders: Mapping[tuple[int, str], list[Record]], plan: Plan
) -> Joined:
    """A profile made by a split is one person with the one it was parted from."""
    out = Joined(merge=(record.pid, twin.pid))
    for (code, key), others in holders.items():
        strange = [o for o in others if o.pid != twin.pid]
        tells_apart = rules.conflict_types(plan) >> code & 1
        if strange and tells_apart:
            out.lose += [(p.pid, code, key) for p in (record, *others)]
        elif others and plan.unique >> code & 1:
            out.lose.append((record.pid, code, key))
    return out


def _names(record: Record) -> set[tuple[int, str]]:
    return {(v.code, v.key) for v in record.values}
