"""Taking a join of scopes back: its merges are undone, values it took off come back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from onymous.flows.scope_moving import ScopeChange
from onymous.flows.working import Origin, Working
from onymous.rules.ledger import UNMERGED, Change, Entry, Line
from onymous.rules.records import ERASED, MERGED
from onymous.rules.scopes import lost_values
from onymous.rules.strategies import Plan
from onymous.store import history_sql, sql
from onymous.store import scopes_sql as moves
from onymous.store.packing import unpack_record
from onymous.store.port import LostRace, Probe, Transaction

_entries = msgspec.msgpack.Decoder(Entry)
_encode = msgspec.msgpack.Encoder().encode
_ALL = 1 << 62


async def unmerge(tx: Transaction, change: ScopeChange, pids: Sequence[int], now_ms: int) -> None:
    """Undo the merges a join made, where they are still in force and nothing stands on them."""
    for pid in pids:
        move = await tx.rows(moves.MOVE_GET, change.undoes, pid)
        number = move[0][2] if move else None
        rows = await tx.rows(history_sql.MERGE_BY_ID, number) if number else []
        if not rows or rows[0][7] is not None:
            continue
        one, two = rows[0][2], rows[0][3]
        if any(later[0] > number for later in await tx.rows(history_sql.MERGE_OF, two)):
            continue  # an operator merged further: it stays one person
        probe = Probe(rows[0][1], {}, None, (one, two))
        found = {r.pid: r for r in (await tx.find([probe]))[0].records}
        why = f"{change.mark}: {change.reason}"[:500]
        await tx.run(history_sql.MERGE_UNDO, now_ms, change.author, why, number)
        await tx.run(sql.PROFILE_FLAGS, found[one].flags & ~MERGED, one)
        for side, other in ((one, two), (two, one)):
            undone = [Change(UNMERGED, other=other)]
            await _note(tx, side, now_ms, Entry("unmerge", 0, 0, change.mark, undone))


async def _note(tx: Transaction, pid: int, now_ms: int, entry: Entry) -> None:
    numbers = await tx.numbers("ledger", 1)
    await tx.run(sql.LEDGER_ADD, numbers[0], pid, now_ms, _encode(entry))
    await tx.run(sql.JOB_ADD, "identity_changed", now_ms, _encode(numbers))


async def restore(
    tx: Transaction, change: ScopeChange, plan: Plan, pids: Sequence[int], now_ms: int
) -> None:
    """Give profiles back what a join took off them, unless somebody else holds it now."""
    mark = f"scope change {change.undoes}"
    wanted: list[tuple[int, int, str, str | None]] = []
    pools: dict[int, int] = {}
    for pid in pids:
        rows = await tx.rows(sql.PROFILE_BY_PID, pid)
        record = unpack_record(rows[0]) if rows else None
        if record is None or record.flags & ERASED:
            continue
        pools[pid] = record.pool
        told = await tx.rows(sql.LEDGER_OF, pid, _ALL, 1 << 31)
        lines = [Line(seq, at, _entries.decode(bytes(body))) for seq, at, body in told]
        wanted += [(pid, *value) for value in lost_values(lines, mark)]
    if not wanted:
        return
    probes = [Probe(pools[pid], {code: key}, None, (pid,)) for pid, code, key, _ in wanted]
    working = Working([])
    working.load(probes, await tx.find(probes))
    working.now_ms = now_ms
    for pid, code, key, shown in wanted:
        found = working.records.get(pid)
        if found is None or found.pool != pools[pid]:
            raise LostRace("a profile changed before its values could come back")
        held = plan.unique >> code & 1 and working.by_value.get((found.pool, code, key))
        if held or found.holds(code, key) or (plan.single >> code & 1 and found.keys_of(code)):
            continue
        origin = Origin("undo", now_ms, 0, 0, change.mark, quiet=True)
        entry = Entry("undo", 0, 0, change.mark, [])
        working.apply(found, plan, origin, add=[(code, key, shown)], entry=entry)
    await working.save(tx)
