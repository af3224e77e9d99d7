"""Records for store tests: what the flows would write, written plainly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from onymous.rules.records import Record, Value
from onymous.store import sql
from onymous.store.packing import pack_values, slot
from onymous.store.port import Found, Probe, Store, Transaction

POOL = 4
#: type codes of these tests: login ids are unique, devices are not
LOGIN, EMAIL, DEVICE = 1, 7, 20
UNIQUE = {LOGIN}
NOW = 1_750_000_000_000


def record(pid: int, values: dict[int, str], *, pool: int = POOL, seen: int = NOW) -> Record:
    """Make a record."""
    rows = [Value(code, key, None, NOW, NOW, 1, 2) for code, key in values.items()]
    return Record(pid, pool, NOW, seen, 0, None, rows)


async def add(tx: Transaction, *records: Record, compete: Iterable[int] = ()) -> None:
    """Write new records with their lookup rows; those of `compete` compete by last seen."""
    await tx.many(
        sql.PROFILE_ADD,
        [
            (r.pid, r.pool, r.created_ms, r.seen_ms, r.flags, r.source, pack_values(r))
            for r in records
        ],
    )
    compete = set(compete)
    await tx.many(
        sql.IDENTITY_ADD,
        [
            (
                slot(r.pool, v.code),
                v.key,
                0 if v.code in UNIQUE else r.pid,
                r.pid,
                r.seen_ms if v.code in compete else None,
            )
            for r in records
            for v in r.values
        ],
    )


async def written(store: Store, *records: Record, compete: Iterable[int] = ()) -> None:
    """Write new records in a transaction of their own."""
    async with store.write("add") as tx:
        await tx.find([Probe(r.pool, {v.code: v.key for v in r.values}) for r in records])
        await add(tx, *records, compete=compete)


async def crowd(store: Store, value: str, size: int, *, people: int = 0) -> None:
    """Write `size` records of one device, seen one after the other, and its marker."""
    records = [record(n, {DEVICE: value}, seen=NOW + n) for n in range(1, size + 1)]
    async with store.write("crowd") as tx:
        await add(tx, *records, compete=[DEVICE])
        await tx.many(sql.CROWD_ADD, [(slot(POOL, DEVICE), value, people)])


async def see(store: Store, probe: Probe) -> Found:
    """Ask every way there is and return the answer, which must be the same each time."""
    (found,) = await store.find([probe])
    async with store.write("see") as tx:
        (locked,) = await tx.find([probe])
    assert locked == found
    if store.find_now is not None:
        assert store.find_now([probe]) == [found]
    return found


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """Start a store and close it at the end."""
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def pids(found: Found) -> list[int]:
    """Return the numbers of the records found, sorted."""
    return sorted(r.pid for r in found.records)
