"""Invariants of a whole store: records against ledger and lookup rows, crowded counters, flags."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from onymous.app import Core
from onymous.flows.loading import all_records
from onymous.rules.identity import is_person
from onymous.rules.ledger import Entry, Line, as_of
from onymous.rules.records import ERASED, ORPHANED, Record, mask_of
from onymous.rules.strategies import Plan

_entries = msgspec.msgpack.Decoder(Entry)
_LEDGER = "SELECT seq, pid, at, body FROM ledger ORDER BY seq"
_ROWS = "SELECT slot, value, holder, pid, seen FROM identity"
#: problems told at most
MOST = 50


async def problems(core: Core, plans: Mapping[int, Plan]) -> list[str]:
    """Return what is wrong in a store; `plans` are the rules by scope number.

    Records of scopes that are not in `plans` are checked as far as that goes without rules. Loaded
    records (scenarios) have no ledger: only records that have one are compared with it.
    """
    async with core.store.read() as session:
        records = {r.pid: r for r in await all_records(session)}
        ledger: dict[int, list[Line]] = defaultdict(list)
        for seq, pid, at, body in await session.rows(_LEDGER):
            ledger[pid].append(Line(seq, at, _entries.decode(bytes(body))))
        rows = await session.rows(_ROWS)
        claims = await session.rows("SELECT count(*) FROM claim")
    out = [*_ledgers(records, ledger), *_lookups(records, rows, plans)]
    if core.store.engine == "postgresql" and claims[0][0]:
        out.append(f"{claims[0][0]} claims were left behind")
    return out[:MOST]


def _ledgers(records: dict[int, Record], ledger: dict[int, list[Line]]) -> list[str]:
    out = []
    for pid, lines in ledger.items():
        record = records.get(pid)
        if record is None:
            out.append(f"profile {pid} is in the ledger only")
            continue
        held = {(v.code, v.key) for v in record.values}
        told = {(code, key) for code, key, *_ in as_of(lines, 1 << 62)}
        if held != told and not record.flags & ERASED:
            out.append(f"profile {pid}: its ledger tells {len(told)} values, it holds {len(held)}")
        if record.flags & ERASED and record.values:
            out.append(f"profile {pid} is erased and holds values")
        if bool(record.flags & ORPHANED) != (not record.values) and not record.flags & ERASED:
            out.append(f"profile {pid}: the flag orphaned is wrong")
    return out


def _lookups(
    records: dict[int, Record],
    rows: list[tuple[int, str, int, int, int | None]],
    plans: Mapping[int, Plan],
) -> list[str]:
    out = []
    found: set[tuple[int, int, str]] = set()
    crowded: dict[tuple[int, str], int] = {}
    holders: dict[tuple[int, str], list[int]] = defaultdict(list)
    for slot, value, holder, pid, _ in rows:
        if holder == -1:
            crowded[slot, value] = pid
            continue
        holders[slot, value].append(pid)
        found.add((pid, slot % 64, value))
        record = records.get(pid)
        if record is None or not record.holds(slot % 64, value):
            out.append(f"a lookup row of type {slot % 64} names profile {pid}, which lacks it")
        plan = plans.get(slot // 128)
        if plan is not None and (holder == 0) != bool(plan.unique >> slot % 64 & 1):
            out.append(f"a lookup row of type {slot % 64} has the wrong holder")
    for record in records.values():
        for v in record.values:
            if (record.pid, v.code, v.key) not in found:
                out.append(f"profile {record.pid} has no lookup row of type {v.code}")
    for (slot, value), pids in holders.items():
        plan = plans.get(slot // 128)
        if plan is None:
            continue
        if plan.unique >> slot % 64 & 1 and len(set(pids)) > 1:
            out.append(f"a unique value of type {slot % 64} is on {len(set(pids))} profiles")
        people = sum(is_person(mask_of(records[p]), plan) for p in pids if p in records)
        if (slot, value) in crowded and crowded[slot, value] != people:
            out.append(
                f"a crowded value of type {slot % 64} counts {crowded[slot, value]} people,"
                f" {people} hold it"
            )
    return out
