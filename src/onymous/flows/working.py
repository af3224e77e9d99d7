"""The records one write transaction works on, and everything it will write.

All waiting requests share one transaction. They are decided in order, each seeing what the ones
before it changed, on the records found (and locked) at its start; `save` then writes the sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from onymous.flows.arrivals import Arrived, Key, keep_batches
from onymous.flows.redaction import redact
from onymous.flows.saving import Row, RowKey, save_ledger, save_rows
from onymous.rules import ledger
from onymous.rules.identity import is_person, protects
from onymous.rules.ledger import Change, Entry
from onymous.rules.records import KNOWN, ORPHANED, SHARED, Record, Value, mask_of
from onymous.rules.sharing import competes, shared
from onymous.rules.strategies import Plan
from onymous.store import sql
from onymous.store.packing import SLOTS, pack_values
from onymous.store.port import FEW, Found, LostRace, Probe, Transaction


class Origin(msgspec.Struct):
    """Where a change comes from."""

    op: str
    now_ms: int
    workspace: int
    input: int
    request: str | None = None
    quiet: bool = False  #: a modify or an operator's change: nobody was seen


class Working:
    """Records by number and by value, with the changes of one transaction."""

    def __init__(self, numbers: list[int]) -> None:
        self.records: dict[int, Record] = {}
        self.by_value: dict[tuple[int, int, str], list[int]] = {}
        self.crowded: dict[tuple[int, int, str], int] = {}
        self.numbers = numbers
        self._new: set[int] = set()
        self._changed: set[int] = set()
        self._rows: dict[RowKey, Row] = {}
        self._seen: dict[RowKey, int] = {}
        self._crowd_new: dict[tuple[int, str], int] = {}
        self._crowd_more: dict[tuple[int, str], int] = {}
        self._ledger: list[tuple[int, int, Entry]] = []
        self._replays: list[tuple[int, bytes, int, bytes, bytes]] = []
        self.now_ms = 0
        #: erased records -> whether all that is merged with them must be among them
        self.redact: dict[int, bool] = {}
        #: further statements of the transaction: (statement, row)
        self.extra: list[tuple[str, tuple[object, ...]]] = []
        #: batches accepted in this transaction, and keys of those accepted before or now
        self.batches: list[Arrived] = []
        self.accepted: set[Key] = set()

    # -- reading ----------------------------------------------------------------------------

    def load(self, probes: Sequence[Probe], founds: Sequence[Found]) -> None:
        """Take what was found; records already here stay as they are."""
        for probe, found in zip(probes, founds, strict=True):
            for record in found.records:
                self.records.setdefault(record.pid, record)
            for (code, key), pids in found.holders.items():
                self.by_value.setdefault((probe.pool, code, key), list(pids))
            for code, count in found.crowded.items():
                self.crowded.setdefault((probe.pool, code, probe.keys[code]), count)

    def candidates(self, probe: Probe, hot: int = 0) -> list[Record]:
        """Return records here that hold one of the probe's values; of a `hot` one the latest."""
        pids: dict[int, None] = {}
        for code, key in probe.keys.items():
            held: Sequence[int] = self.by_value.get((probe.pool, code, key), ())
            if hot >> code & 1 and len(held) > FEW:
                held = [*reversed(held[FEW:]), *held[:FEW]][:FEW]  # it finds none of them
            for pid in held:
                pids[pid] = None
            if (probe.pool, code, key) in self.crowded and probe.previous in self.records:
                pids[probe.previous] = None
        return [self.records[pid] for pid in pids]

    def hot(self, probe: Probe, plan: Plan) -> int:
        """Return the mask of the probe's types whose value too many known people hold."""
        bits = 0
        if self.crowded:
            for code, key in probe.keys.items():
                if self.crowded.get((probe.pool, code, key), 0) > plan.config.hot_after:
                    bits |= 1 << code
        if plan.config.hot_after < FEW:
            bits |= shared(probe.keys, plan, self.candidates(probe))
        return bits

    # -- changing ---------------------------------------------------------------------------

    def create(self, pool: int, now_ms: int, source: int | None) -> Record:
        """Make a new, empty record with the next number."""
        pid = self.numbers.pop(0)
        record = Record(pid, pool, now_ms, now_ms, 0, source, [])
        self.records[pid] = record
        self._new.add(pid)
        return record

    def apply(
        self,
        record: Record,
        plan: Plan,
        origin: Origin,
        *,
        add: Sequence[tuple[int, str, str | None]] = (),
        remove: Sequence[tuple[int, str]] = (),
        take: Sequence[tuple[int, str, int]] = (),
        entry: Entry,
    ) -> None:
        """Apply a decision to a record: values it loses, takes and gains, and its ledger entry."""
        fresh = record.pid in self._new and not (record.values or remove or take)
        if fresh and self._born(record, plan, origin, add, entry):
            return
        before = mask_of(record)
        was_protected, was_person = protects(record, before, plan), is_person(before, plan)
        moved = {(code, key): holder for code, key, holder in take}
        for code, key in remove:
            self._drop(record, plan, code, key, was_person)
            entry.changes.append(Change(ledger.DETACHED, code, key))
        for (code, key), holder in moved.items():
            self._lose(self.records[holder], plan, code, key, record.pid, origin, entry)
        for code, key, shown in add:
            value = Value(
                code, key, shown, origin.now_ms, origin.now_ms, origin.workspace, origin.input
            )
            record.values.append(value)
            kind = ledger.TAKEN if (code, key) in moved else ledger.ATTACHED
            entry.changes.append(Change(kind, code, key, shown, moved.get((code, key))))
        self._settle(record, plan, was_protected, was_person, [(c, k) for c, k, _ in add])
        self.touch(record, plan, record.seen_ms if origin.quiet else origin.now_ms)
        if remove and not record.values:
            entry.changes.append(Change(ledger.ORPHANED))
        if entry.changes:
            self._ledger.append((record.pid, origin.now_ms, entry))

    def _born(
        self,
        record: Record,
        plan: Plan,
        origin: Origin,
        add: Sequence[tuple[int, str, str | None]],
        entry: Entry,
    ) -> bool:
        """Apply the first values of a new record where nobody has any of them; else do nothing.

        What `apply` does, at half the cost: there is nobody to compete with, and nothing to count.
        """
        pool, pid, now = record.pool, record.pid, origin.now_ms
        for code, key, _ in add:
            if self.by_value.get((pool, code, key)) or (pool, code, key) in self.crowded:
                return False
        has, unique = 0, plan.unique
        for code, key, shown in add:
            has |= 1 << code
            value = Value(code, key, shown, now, now, origin.workspace, origin.input)
            record.values.append(value)
            entry.changes.append(Change(ledger.ATTACHED, code, key, shown))
            if unique >> code & 1:
                self._row((pool * SLOTS + code, key, 0), None).pid = pid
            else:
                self._rows[pool * SLOTS + code, key, pid] = Row(None, pid, None, True)
            self.by_value[pool, code, key] = [pid]
        if is_person(has, plan):
            record.flags |= KNOWN
        record.flags = record.flags & ~ORPHANED if add else record.flags | ORPHANED
        if not origin.quiet:
            record.seen_ms = max(record.seen_ms, now)
        self._changed.add(pid)
        if entry.changes:
            self._ledger.append((pid, now, entry))
        return True

    def note(self, pid: int, now_ms: int, entry: Entry) -> None:
        """Add a ledger entry that changes no value."""
        self._ledger.append((pid, now_ms, entry))

    def keep(self, input_id: int, request: bytes, digest: bytes, answer: bytes) -> None:
        """Keep an answer for repeats of the same request (rulings 15)."""
        self._replays.append((input_id, request, self.now_ms, digest, answer))

    def keep_seen(self, later: Sequence[Record]) -> None:
        """Write when competing records were seen, where that stood elsewhere until now.

        A change that is no sight of anybody may let another record compete with them.
        """
        self._changed.update(record.pid for record in later if record.flags & SHARED)

    def touch(self, record: Record, plan: Plan, now_ms: int) -> None:
        """The record was seen now; where it competes for a value, its rows say so too."""
        record.seen_ms = max(record.seen_ms, now_ms)
        self._changed.add(record.pid)
        if record.flags & SHARED:
            protected = protects(record, mask_of(record), plan)
            for value in record.values:
                if competes(value.code, plan, protected):
                    self._seen[self._key(record, plan, value.code, value.key)] = record.seen_ms

    def refresh(self, record: Record, keys: dict[int, str], now_ms: int) -> None:
        """Set last seen of the values that were given again."""
        for value in record.values:
            if keys.get(value.code) == value.key:
                value.last_ms = now_ms
        self._changed.add(record.pid)

    def forget(self, record: Record, plan: Plan) -> None:
        """Remove every value of a record (erasure)."""
        person = is_person(mask_of(record), plan)
        for value in list(record.values):
            self._drop(record, plan, value.code, value.key, person)
        self._changed.add(record.pid)

    def rehouse(self, record: Record, plan: Plan, pool: int, values: Sequence[Value]) -> None:
        """Put a record with these values into a pool; nothing else of it changes."""
        self.forget(record, plan)
        record.pool, record.values = pool, [*values]
        self._settle(record, plan, False, False, [(v.code, v.key) for v in values])

    def _key(self, record: Record, plan: Plan, code: int, key: str) -> RowKey:
        holder = 0 if plan.unique >> code & 1 else record.pid
        return record.pool * SLOTS + code, key, holder

    def _row(self, key: RowKey, was: int | None) -> Row:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(was, was)
        return row

    def _drop(self, record: Record, plan: Plan, code: int, key: str, person: bool) -> None:
        record.values = [v for v in record.values if (v.code, v.key) != (code, key)]
        row_key = self._key(record, plan, code, key)
        self._row(row_key, record.pid).pid = None
        self._seen.pop(row_key, None)
        holders = self.by_value.get((record.pool, code, key))
        if holders and record.pid in holders:
            holders.remove(record.pid)
        if person and not plan.unique >> code & 1:
            self._count(record.pool, code, key, -1)

    def _lose(
        self,
        loser: Record,
        plan: Plan,
        code: int,
        key: str,
        winner: int,
        origin: Origin,
        entry: Entry,
    ) -> None:
        """Take a unique value from its owner; the owner keeps its history (section 6)."""
        before = mask_of(loser)
        was_protected, was_person = protects(loser, before, plan), is_person(before, plan)
        loser.values = [v for v in loser.values if (v.code, v.key) != (code, key)]
        holders = self.by_value.get((loser.pool, code, key))
        if holders and loser.pid in holders:
            holders.remove(loser.pid)
        self._row(self._key(loser, plan, code, key), loser.pid).pid = None
        self._settle(loser, plan, was_protected, was_person, [])
        self._changed.add(loser.pid)
        changes = [Change(ledger.GAVE, code, key, None, winner)]
        if not loser.values:
            changes.append(Change(ledger.ORPHANED))
        gave = Entry(entry.op, entry.workspace, entry.input, entry.request, changes)
        self._ledger.append((loser.pid, origin.now_ms, gave))

    def _settle(
        self,
        record: Record,
        plan: Plan,
        was_protected: bool,
        was_person: bool,
        added: list[tuple[int, str]],
    ) -> None:
        """Set flags after values changed, and what that means for the record's lookup rows."""
        has = mask_of(record)
        person = is_person(has, plan)
        record.flags = (record.flags | KNOWN) if person else record.flags
        record.flags = record.flags & ~ORPHANED if record.values else record.flags | ORPHANED
        protected = protects(record, has, plan)
        for code, key in added:
            self._add_row(record, plan, code, key, protected, person)
        for value in record.values:
            if (value.code, value.key) in added or plan.unique >> value.code & 1:
                continue
            if protected != was_protected and not plan.login >> value.code & 1:
                row = self._row(self._key(record, plan, value.code, value.key), record.pid)
                row.seen, row.set_seen = (None if protected else record.seen_ms), True
                record.flags |= 0 if protected else SHARED
            if person != was_person:
                self._count(record.pool, value.code, value.key, 1 if person else -1)

    def _add_row(
        self, record: Record, plan: Plan, code: int, key: str, protected: bool, person: bool
    ) -> None:
        holders = self.by_value.setdefault((record.pool, code, key), [])
        row_key = self._key(record, plan, code, key)
        if plan.unique >> code & 1:
            if holders and holders != [record.pid]:
                raise LostRace("a unique value has an owner")
            self._row(row_key, None).pid = record.pid
            holders[:] = [record.pid]
            return
        row = self._row(row_key, None)
        row.pid = record.pid
        row.seen, row.set_seen = None, True
        crowded = (record.pool, code, key) in self.crowded
        others = [pid for pid in holders if pid != record.pid]
        if (others or crowded) and competes(code, plan, protected):
            row.seen = record.seen_ms
            record.flags |= SHARED
        if not crowded:
            self._compete(others, plan, code, key)
        if record.pid not in holders:
            holders.append(record.pid)
        if crowded:
            self._count(record.pool, code, key, 1 if person else 0)
        elif len(holders) > FEW and plan.ranked >> code & 1:
            people = sum(is_person(mask_of(self.records[p]), plan) for p in holders)
            self.crowded[record.pool, code, key] = people
            marker = (record.pool * SLOTS + code, key)
            self._crowd_new[marker] = people
            # who changed before is counted already
            self._crowd_more.pop(marker, None)

    def _compete(self, others: list[int], plan: Plan, code: int, key: str) -> None:
        """Let the records that had a value alone compete for it by last seen from now on."""
        for pid in others:
            other = self.records[pid]
            if competes(code, plan, protects(other, mask_of(other), plan)):
                row = self._row(self._key(other, plan, code, key), pid)
                row.seen, row.set_seen = other.seen_ms, True
                if not other.flags & SHARED:
                    other.flags |= SHARED
                    self._changed.add(pid)

    def _count(self, pool: int, code: int, key: str, more: int) -> None:
        """Count a known person more or fewer on a value, where it is crowded."""
        if not more:
            return
        if (pool, code, key) in self.crowded:
            self.crowded[pool, code, key] += more
        marker = (pool * SLOTS + code, key)
        if marker in self._crowd_new:
            self._crowd_new[marker] += more
        else:
            self._crowd_more[marker] = self._crowd_more.get(marker, 0) + more

    # -- writing ----------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to write."""
        parts = (self._new, self._changed, self._rows, self._ledger, self._replays, self.extra)
        return not any((*parts, self.batches))

    async def save(self, tx: Transaction) -> None:
        """Write everything."""
        records = self.records
        await tx.many(
            sql.PROFILE_ADD,
            [
                (r.pid, r.pool, r.created_ms, r.seen_ms, r.flags, r.source, pack_values(r))
                for r in map(records.__getitem__, sorted(self._new))
            ],
        )
        await tx.many(
            sql.PROFILE_SET,
            [
                (r.seen_ms, r.seen_ms, r.flags, pack_values(r), r.pid)
                for r in map(records.__getitem__, sorted(self._changed - self._new))
            ],
        )
        await save_rows(tx, self._rows)
        seen = sorted(self._seen.items())
        await tx.many(sql.IDENTITY_SEEN, [(at, *key, at) for key, at in seen])
        await tx.many(
            sql.CROWD_ADD, [(*key, people) for key, people in sorted(self._crowd_new.items())]
        )
        await tx.many(
            sql.CROWD_COUNT, [(n, *key) for key, n in sorted(self._crowd_more.items()) if n]
        )
        await save_ledger(tx, self._ledger)
        # after the ledger: what this transaction did to an erased person goes too
        for pool in sorted({records[pid].pool for pid in self.redact}):
            theirs = {pid: whole for pid, whole in self.redact.items() if records[pid].pool == pool}
            await redact(tx, pool, theirs, self.now_ms)
        await tx.many(sql.REPLAY_PUT, self._replays)
        if self.batches:
            await keep_batches(tx, self.batches)
        for statement, row in self.extra:
            await tx.run(statement, *row)
