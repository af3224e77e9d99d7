"""Lookup rows and flags laid out anew where a scope's rules change, inside one transaction.

A unique value stands under holder 0, any other under its record; who is known, and who competes
for a value by last seen, follow from the login types.
"""

from __future__ import annotations

import msgspec

from onymous.rules.grouping import Numbers
from onymous.rules.identity import is_person, protects
from onymous.rules.ledger import ATTACHED, TAKEN, Entry
from onymous.rules.records import ERASED, KNOWN, SHARED, Record, mask_of
from onymous.rules.sharing import competes
from onymous.rules.strategies import USER_MASK, Plan
from onymous.store import rules_sql, sql
from onymous.store.packing import SLOTS, unpack_record
from onymous.store.port import FEW, Transaction

_entries = msgspec.msgpack.Decoder(Entry)
#: records read at once
PAGE = 2_000


def between(old: Plan, new: Plan) -> Plan:
    """Return the new rules, with only those types unique that both rules call unique."""
    return msgspec.structs.replace(new, unique=old.unique & new.unique)


async def loosen(tx: Transaction, pool: int, old: Plan, new: Plan) -> None:
    """Let values of types that are unique no more stand under their records."""
    for code in codes(old.unique & ~new.unique):
        await tx.run(rules_sql.UNIQUE_OFF, pool * SLOTS + code)


async def tighten(tx: Transaction, pool: int, old: Plan, new: Plan) -> None:
    """Let values of types that became unique stand alone; each must have one holder by now."""
    for code in codes(new.unique & ~old.unique):
        await tx.run(rules_sql.CROWDS_OFF, pool * SLOTS + code)
        await tx.run(rules_sql.UNIQUE_ON, pool * SLOTS + code)


def codes(bits: int) -> list[int]:
    """Return the type codes of a mask."""
    return [code for code in range(SLOTS) if bits >> code & 1]


async def shared(tx: Transaction, pool: int, code: int, more_than: int) -> list[str]:
    """Return the values of a type that more records than that hold."""
    rows = await tx.rows(rules_sql.SHARED, pool * SLOTS + code, more_than)
    return [row[0] for row in rows]


class Before(msgspec.Struct):
    """Flags that changed, as they were."""

    flags: Numbers = msgspec.field(default_factory=Numbers)
    #: records whose flags could not be found again from what they hold
    lost: list[int] = []


async def relay(tx: Transaction, pool: int, old: Plan, new: Plan) -> Before:
    """Set flags and competing rows of every record by new rules; returns what they were."""
    out = Before()
    mid, after = between(old, new), 0
    while rows := await tx.rows(rules_sql.POOL_AFTER, after, pool, PAGE):
        after = rows[-1][0]
        flags, seen = [], []
        for record in map(unpack_record, rows):
            if record.flags & ERASED:
                continue
            has = mask_of(record)
            was = protects(record, has, old)
            bits = await _known(tx, record, has, new)
            if bits != record.flags and not is_person(has, old) and record.flags & KNOWN:
                out.lost.append(record.pid)
            before, record.flags = record.flags, bits
            now = protects(record, has, new)
            if was != now or has & (old.login ^ new.login) or old.unique != new.unique:
                seen += _compete(record, mid, now)
            if record.flags != before:
                out.flags.put(record.pid, before)
                flags.append((record.flags & ~before, ~(before & ~record.flags), record.pid))
        await tx.many(rules_sql.FLAGS, flags)
        await tx.many(sql.IDENTITY_COMPETE, seen)
    await _crowds(tx, pool, new)
    return out


async def _known(tx: Transaction, record: Record, has: int, new: Plan) -> int:
    """Return the flags under new rules: known is who holds, or once held, what counts now."""
    if is_person(has, new):
        return record.flags | KNOWN
    if not record.flags & KNOWN:
        return record.flags
    counts = USER_MASK if new.best_match else new.login
    for _, _, body in await tx.rows(sql.LEDGER_OF, record.pid, 1 << 62, 1 << 31):
        for change in _entries.decode(bytes(body)).changes:
            if change.kind in (ATTACHED, TAKEN) and counts >> change.code & 1:
                return record.flags
    return record.flags & ~KNOWN


def _compete(record: Record, plan: Plan, protected: bool) -> list[tuple[int | None, int, str, int]]:
    out: list[tuple[int | None, int, str, int]] = []
    for value in record.values:
        if plan.unique >> value.code & 1:
            continue
        at = record.seen_ms if competes(value.code, plan, protected) else None
        if at is not None:
            record.flags |= SHARED
        out.append((at, record.pool * SLOTS + value.code, value.key, record.pid))
    return out


async def _crowds(tx: Transaction, pool: int, new: Plan) -> None:
    """Count the known people on each crowded value, and mark those that were not ranked before."""
    first = pool * SLOTS
    for code in codes(new.ranked & ~new.unique):
        for value in await shared(tx, pool, code, FEW):
            await tx.run(sql.CROWD_ADD, first + code, value, 0)
    for slot, value in await tx.rows(rules_sql.CROWDS, first, first + SLOTS):
        people, holder = 0, 0
        while rows := await tx.rows(sql.HOLDERS, slot, value, holder, PAGE):
            holder = rows[-1][0]
            records = [unpack_record(row[1:]) for row in rows]
            people += sum(is_person(mask_of(r), new) for r in records)
        await tx.run(rules_sql.CROWD_SET, people, slot, value)
