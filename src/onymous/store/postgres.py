"""PostgreSQL, and engines that speak its protocol: several processes on one database.

No advisory locks and nothing only this engine has in the hot path. What a decision is based on is
held by two kinds of ordinary row locks, always taken in this order:

1. Claims. Whoever changes the holders of a (slot, value) inserts its row in `claim` first, in
   sorted order, and deletes it before the commit. A second transaction that inserts the same row
   waits for the end of the first; as claims are never left behind, it then succeeds, and what it
   reads afterwards (a new statement, so a new snapshot) includes what the first one wrote.
2. Profiles. Whoever changes a record, or which of its rows compete, holds the lock of its row.

Both orders are the same everywhere, so that waiting in a circle is rare; where it happens the
server ends one transaction, which becomes `LostRace` and runs again.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice

from onymous.rules.records import Record
from onymous.store import asking
from onymous.store.arrays import Batch, batched, inserted, looked_up, numbered
from onymous.store.asking import Asking
from onymous.store.migrating import migrate
from onymous.store.packing import slot, unpack_record
from onymous.store.partitions import drop_old, partition
from onymous.store.pool import Connection, Pool, explained
from onymous.store.port import Found, Kept, Label, LostRace, Probe, Row, StoreError, T, Writes
from onymous.store.postgres_sql import (
    CLAIM,
    CLAIM_MANY,
    FEW_CLAIMS,
    HELD,
    LOCK,
    NUMBERS,
    RECORDS,
    RELEASE,
    REPLAYS,
    SKIP,
    UNCLAIM,
)
from onymous.store.settle import settled

#: rows in one array statement
MOST_ROWS = 4096
#: crowded values a process remembers, so that it asks for their latest records at once
MOST_HOT = 100_000

Claim = tuple[int, str]


class _Shared:
    """What the sessions of one store share: translated statements and known crowded values."""

    def __init__(self) -> None:
        self.batches: dict[str, Batch | None] = {}
        self.lookups: dict[str, str] = {}
        #: hashes of (slot, value), so that no identity is kept in memory
        self.hot: set[int] = set()

    def heat(self, ask: Asking, places: Iterable[int]) -> None:
        """Remember crowded values."""
        if len(self.hot) > MOST_HOT:
            self.hot.clear()
        for n in places:
            self.hot.add(hash((ask.slots[n - 1], ask.values[n - 1])))


class PostgresSession:
    """Plain statements on one connection."""

    def __init__(self, connection: Connection, shared: _Shared) -> None:
        self._connection, self._shared = connection, shared

    async def rows(self, statement: str, *args: object) -> list[Row]:
        """Return all rows of a statement."""
        return list(map(tuple, await self._connection.fetch(numbered(statement), *args)))

    async def each(self, statement: str, keys: Sequence[Sequence[object]]) -> list[list[Row]]:
        """Run a SELECT once per key, all in one statement; rows in order of keys."""
        out: list[list[Row]] = [[] for _ in keys]
        if not keys:
            return out
        known = self._shared.lookups
        if statement not in known:
            plan = await self._connection.prepare(numbered(statement))
            known[statement] = looked_up(statement, [t.name for t in plan.get_parameters()])
        rows = await self._connection.fetch(known[statement], *zip(*keys, strict=True))
        for row in rows:
            out[row[0] - 1].append(tuple(row)[1:])
        return out

    async def run(self, statement: str, *args: object) -> None:
        """Run a statement that returns nothing."""
        await self._connection.execute(numbered(statement), *args)

    async def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once per row; as one array statement where that means the same."""
        remaining = iter(rows)
        while some := list(islice(remaining, MOST_ROWS)):
            if len(some) == 1:
                await self.run(statement, *some[0])
                continue
            batch = await self._batch(statement)
            if batch is None or not _distinct(some, batch.key):
                await self._connection.executemany(numbered(statement), some)
            else:
                await self._connection.execute(batch.text, *zip(*some, strict=True))

    async def _batch(self, statement: str) -> Batch | None:
        known = self._shared.batches
        if statement not in known:
            plan = await self._connection.prepare(numbered(statement))
            known[statement] = batched(statement, [t.name for t in plan.get_parameters()])
        return known[statement]


class PostgresTransaction(PostgresSession):
    """A write transaction; see the top of this file for what it holds."""

    def __init__(self, connection: Connection, shared: _Shared) -> None:
        super().__init__(connection, shared)
        self._claims: set[Claim] = set()

    async def find(self, probes: Sequence[Probe]) -> list[Found]:
        """Claim every value, then read who holds them, then lock and read the records."""
        ask = Asking(probes)
        also = sorted({pid for probe in probes for pid in probe.also})
        wanted = set(zip(ask.slots, ask.values, strict=True))
        for record in await self._records(RECORDS, also):
            wanted |= _values(record)
        await self._claim(wanted)
        founds, locked = await self._locked(ask)
        for pid in also:
            if pid in locked and not _values(locked[pid]) <= self._claims:
                raise LostRace("a record changed before it was locked")
        _check_holders(founds, locked)
        return founds

    async def _locked(self, ask: Asking) -> tuple[list[Found], dict[int, Record]]:
        """Read and lock what is found through claimed values."""
        while True:
            rows, asked, pids = await self._holders(ask)
            locked = {r.pid: r for r in await self._records(LOCK, sorted(pids))}
            founds, missing = ask.answer(rows, asked, _by_number(locked))
            if not missing:
                return founds, locked
            self._shared.heat(ask, missing)

    async def _records(self, statement: str, pids: Sequence[int]) -> list[Record]:
        if not pids:
            return []
        return [unpack_record(row) for row in await self._connection.fetch(statement, pids)]

    async def _holders(self, ask: Asking) -> tuple[list[Row], list[int], set[int]]:
        """Return rows for `Asking.answer`, the crowded places asked for, the records to lock."""
        slots, values, places, pids = ask.more(self._shared.hot)
        rows: list[Row] = []
        if places:
            args = (ask.slots, ask.values, slots, values, places)
            rows = list(await self._connection.fetch(asking.HOLD_MORE, *args))
        elif ask.slots:
            rows = list(await self._connection.fetch(asking.HOLD, ask.slots, ask.values))
        named = [(0, 0, pid) for pid in pids]
        # of a crowded value only its latest records are wanted, not its first
        crowded = {row[0] for row in rows if row[1] == -1 and row[0] > 0}
        found = {row[2] for row in rows if row[0] not in crowded}
        return rows + named, places, found | pids

    async def _claim(self, wanted: set[Claim]) -> None:
        """Own the claim of every value; waits for the transactions that own them now."""
        for _ in range(10):
            missing = sorted(wanted - self._claims)
            if not missing:
                return
            slots, values = [c[0] for c in missing], [c[1] for c in missing]
            if len(missing) > FEW_CLAIMS:
                done = await self._connection.execute(CLAIM_MANY, slots, values)
                if done == f"INSERT 0 {len(missing)}":
                    self._claims.update(missing)
                    return
                # what was had now is nobody else's until the end, also while it is let go
                await self._connection.execute(UNCLAIM, slots, values)
                continue
            rows = await self._connection.fetch(CLAIM, slots, values)
            self._claims.update((row[0], row[1]) for row in rows)
            if len(rows) < len(missing):
                # the claim of a transaction that committed without deleting it is free for all
                await self._connection.execute(UNCLAIM, *_columns(wanted - self._claims))
        raise LostRace("a claim could not be had")

    async def held(self, values: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """Claim values and return those that somebody holds."""
        if not values:
            return set()
        await self._claim(set(values))
        columns = list(zip(*values, strict=True))
        return {(row[0], row[1]) for row in await self._connection.fetch(HELD, *columns)}

    async def append(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Add rows by COPY."""
        if rows:
            table, columns = inserted(statement)
            await self._connection.copy_records_to_table(table, columns=columns, records=rows)

    async def replays(self, keys: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], Kept]:
        """Return the kept answers of requests."""
        if not keys:
            return {}
        rows = await self._connection.fetch(REPLAYS, [k[0] for k in keys], [k[1] for k in keys])
        return {(row[0], row[1]): Kept(row[2], row[3]) for row in rows}

    async def numbers(self, name: str, count: int) -> list[int]:
        """Return new increasing numbers of a sequence; some may stay unused for ever."""
        return sorted(row[0] for row in await self._connection.fetch(NUMBERS[name], count))

    async def skip(self, name: str, to: int) -> None:
        """Never again give a number below `to` of a sequence; holds even if this is undone."""
        await self._connection.fetch(SKIP[name], to)

    async def release(self) -> None:
        """Delete the claims; the last thing before the commit."""
        values: dict[int, list[str]] = {}
        for number, value in sorted(self._claims):
            values.setdefault(number, []).append(value)
        if len(self._claims) <= FEW_CLAIMS:
            every = sorted({v for some in values.values() for v in some})
            if every:
                await self._connection.execute(RELEASE, list(values), every)
            return
        for number, some in values.items():
            await self._connection.execute(RELEASE, [number], some)


class PostgresStore:
    """A database that several processes may serve."""

    engine = "postgresql"
    find_now: Callable[[Sequence[Probe]], list[Found]] | None = None
    only_now: Callable[[Sequence[Label]], list[Row | None]] | None = None
    alone_now: Callable[[Sequence[Probe]], list[Row | None]] | None = None
    rows_now: Callable[..., list[Row]] | None = None

    def __init__(self, url: str, *, connections: int = 4) -> None:
        self._url, self._connections = url, connections
        self._pool: Pool | None = None
        self._shared = _Shared()

    async def start(self) -> None:
        """Connect and bring the schema up to date; safe when several processes start at once."""
        pool = Pool(self._url, self._connections)
        try:
            async with _lent(pool, "start") as connection:
                await migrate(connection)
                await partition(connection, time.time_ns() // 1_000_000)
        except BaseException:
            await pool.close()
            raise
        self._pool = pool

    async def close(self) -> None:
        """Wait for what is under way and close."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def scrub(self) -> None:
        """Nothing: vacuuming and the archive of the WAL are the database's own business."""

    async def upkeep(self, now_ms: int, before_ms: int = 0) -> None:
        """Make the partitions of this month and the two after it; drop those of old months."""
        async with _lent(self._open, "upkeep") as connection:
            await partition(connection, now_ms)
            await drop_old(connection, before_ms)

    async def find(self, probes: Sequence[Probe]) -> list[Found]:
        """Answer all probes by one statement, so from one snapshot."""
        ask = Asking(probes)
        async with _lent(self._open, "find") as connection:
            while True:
                slots, values, places, pids = ask.more(self._shared.hot)
                if places or pids:
                    args = (ask.slots, ask.values, slots, values, places, list(pids))
                    rows = await connection.fetch(asking.FIND_MORE, *args)
                elif ask.slots:
                    rows = await connection.fetch(asking.FIND, ask.slots, ask.values)
                else:
                    rows = []
                founds, missing = ask.answer(rows, places, _unpacked)
                if not missing:
                    return founds
                # met for the first time: ask everything again, with their latest records
                self._shared.heat(ask, missing)

    async def only(self, labels: Sequence[Label]) -> list[Row | None]:
        """Return per value the one record that holds it; None where nobody or several do."""
        slots, values = [slot(pool, code) for pool, code, _ in labels], [v for _, _, v in labels]
        async with _lent(self._open, "only") as connection:
            rows = await connection.fetch(asking.ONLY, slots, values)
        held: dict[int, Row | None] = {}
        for row in rows:
            held[row[0]] = None if row[0] in held else row
        return [tuple(row)[2:] if (row := held.get(n + 1)) else None for n in range(len(labels))]

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PostgresSession]:
        """Open a session in which all statements see the same snapshot."""
        async with _lent(self._open, "read") as connection:
            # a BEGIN given up half-way would be believed not to have happened
            await settled(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield PostgresSession(connection, self._shared)
            await settled(connection.execute("COMMIT"))

    @asynccontextmanager
    async def write(self, name: str) -> AsyncIterator[PostgresTransaction]:
        """Open the named write transaction.

        An error of the commit itself other than `LostRace` leaves open whether it was written.
        """
        async with _lent(self._open, name) as connection:
            await settled(connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED"))
            transaction = PostgresTransaction(connection, self._shared)
            yield transaction
            await transaction.release()
            # the server answers ROLLBACK, and no error, where a statement failed before
            if await settled(connection.execute("COMMIT")) != "COMMIT":
                raise StoreError(f"{name}: a statement had failed, nothing was written")

    async def share(self, name: str, work: Writes[T], *, behind: bool = True) -> T:
        """Run a work in a transaction: the server itself lets commits share the disk."""
        async with PostgresStore.write(self, name) as tx:
            return await work(tx)

    @property
    def _open(self) -> Pool:
        if self._pool is None:
            raise StoreError("the store is not open")
        return self._pool


@asynccontextmanager
async def _lent(pool: Pool, name: str) -> AsyncIterator[Connection]:
    """Lend a connection; after an error what it had begun is rolled back."""
    connection = await pool.take()
    clean = True
    try:
        yield connection
    except BaseException as error:
        clean = await settled(_rolled_back(connection))
        told = explained(name, error)
        if told is error:
            raise
        raise told from None
    finally:
        pool.give(connection, clean=clean)


async def _rolled_back(connection: Connection) -> bool:
    """Roll back; return whether the connection can be used again."""
    if connection.is_closed():
        return False
    try:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=10)
    except Exception:
        return False
    return True


def _unpacked(row: Row) -> Record | None:
    return unpack_record(row[2:]) if row[8] is not None else None


def _by_number(records: dict[int, Record]) -> Callable[[Row], Record | None]:
    return lambda row: records.get(row[2])


def _columns(claims: set[Claim]) -> tuple[list[int], list[str]]:
    ordered = sorted(claims)
    return [c[0] for c in ordered], [c[1] for c in ordered]


def _values(record: Record) -> set[Claim]:
    return {(slot(record.pool, value.code), value.key) for value in record.values}


def _distinct(rows: Sequence[Sequence[object]], key: tuple[int, ...]) -> bool:
    return not key or len({tuple(row[k] for k in key) for row in rows}) == len(rows)


def _check_holders(founds: Sequence[Found], locked: dict[int, Record]) -> None:
    """A record may have lost the value it was found by, between finding and locking it."""
    for found in founds:
        for (code, key), pids in found.holders.items():
            for pid in pids:
                if not locked[pid].holds(code, key):
                    raise LostRace("a record changed before it was locked")
