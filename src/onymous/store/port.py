"""What may be asked of a database. Each method's docstring is its contract; one suite tests all.

Both engines offer a `Session` (plain statements from `onymous.store.sql`), so most nouns are
written once. Only finding identities and taking locks differ, because the engines must.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import msgspec

from onymous.rules.records import Record

Row = tuple[Any, ...]
T = TypeVar("T")

#: holder of the row that marks a crowded value
CROWDED = -1
#: a value on more records than this is crowded: candidates then come by last seen
FEW = 8


class StoreError(Exception):
    """The database could not do what was asked."""


class Unwritable(StoreError):
    """A value cannot be kept by this database: what brought it fails, nothing else needs to."""


class LostRace(StoreError):
    """Another process changed what a decision was based on; the work runs again."""


class SchemaMismatch(StoreError):
    """The database was written by a version of Onymous this one does not understand."""


#: one value of a pool: (pool, type code, comparison key)
Label = tuple[int, int, str]


class Probe(msgspec.Struct):
    """Whose are these identities? Only types worth looking up are in `keys`."""

    pool: int
    keys: dict[int, str]
    #: a record looked at for crowded values (previous_mpid)
    previous: int | None = None
    #: records needed anyway (modify, batches with an MPID)
    also: tuple[int, ...] = ()


class Found(msgspec.Struct):
    """What the store knows about a probe."""

    #: every record that holds a given value; of crowded values only the latest `FEW`
    records: list[Record]
    #: (type code, key) -> numbers of the records found through it
    holders: dict[tuple[int, str], list[int]]
    #: type code -> known people holding the value, where it is crowded
    crowded: dict[int, int]


class Kept(msgspec.Struct):
    """The answer once given to a request, and the digest of that request's body."""

    digest: bytes
    answer: bytes


class Session(Protocol):
    """Plain statements; `?` stands for an argument."""

    async def rows(self, statement: str, *args: object) -> list[Row]:
        """Return all rows of a statement."""

    async def each(self, statement: str, keys: Sequence[Sequence[object]]) -> list[list[Row]]:
        """Run a SELECT once per key, as one round where the engine can; rows in order of keys."""

    async def run(self, statement: str, *args: object) -> None:
        """Run a statement that returns nothing."""

    async def many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run a statement once per row."""


class Transaction(Session, Protocol):
    """A write transaction: all or nothing, durable when its block ends without an error."""

    async def find(self, probes: Sequence[Probe]) -> list[Found]:
        """Find with locks: what is returned cannot change before this transaction ends.

        The values of all probes are claimed first, in sorted order, so that two first sights of
        the same person cannot both create (rulings 8).
        """

    async def held(self, values: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """Claim values, as (slot, key), and return those that somebody holds."""

    async def append(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a plain INSERT once per row, all of them new, as fast as the engine can."""

    async def replays(self, keys: Sequence[tuple[int, bytes]]) -> dict[tuple[int, bytes], Kept]:
        """Return the kept answers of requests, by (input, request id digest)."""

    async def numbers(self, name: str, count: int) -> list[int]:
        """Return `count` new increasing numbers of the sequence `pid` or `ledger`."""

    async def skip(self, name: str, to: int) -> None:
        """Never again give a number below `to` of a sequence; it never goes back."""


#: what is done in a transaction that may be shared
Writes = Callable[[Transaction], Awaitable[T]]


class Store(Protocol):
    """An engine."""

    #: "sqlite" or "postgresql"
    engine: str
    #: find on the caller's thread without waiting, where the engine can; else None
    find_now: Callable[[Sequence[Probe]], list[Found]] | None
    #: `only` on the caller's thread without waiting, where the engine can; else None
    only_now: Callable[[Sequence[Label]], list[Row | None]] | None
    #: per probe the record that holds its first value, None where nobody or anybody else holds any
    #: of its values; on the caller's thread without waiting, where the engine can; else None
    alone_now: Callable[[Sequence[Probe]], list[Row | None]] | None
    #: run one SELECT on the caller's thread without waiting, where the engine can; else None
    rows_now: Callable[..., list[Row]] | None

    async def start(self) -> None:
        """Open, migrate to the newest schema; raise `SchemaMismatch` if that is impossible."""

    async def close(self) -> None:
        """Finish what is under way and close."""

    async def scrub(self) -> None:
        """Let go of what was deleted, as far as the engine keeps it beside the data (the WAL)."""

    async def upkeep(self, now_ms: int, before_ms: int = 0) -> None:
        """Do what the engine itself needs from time to time (partitions of the months ahead).

        Whole parts of event history that were received before a time go at once, where the engine
        keeps it in parts.
        """

    async def find(self, probes: Sequence[Probe]) -> list[Found]:
        """Answer all probes from one snapshot, without locks."""

    async def only(self, labels: Sequence[Label]) -> list[Row | None]:
        """Return per value the one record that holds it; None where nobody or several do.

        As rows of the columns `sql.RECORD`, which compare equal while nothing of it has changed.
        """

    def read(self) -> AbstractAsyncContextManager[Session]:
        """Open a session for reading one snapshot."""

    def write(self, name: str) -> AbstractAsyncContextManager[Transaction]:
        """Open the named write transaction; the block may run again only by its caller.

        Raises `LostRace` when the engine found a conflict; nothing was written then.
        """

    async def share(self, name: str, work: Writes[T], *, behind: bool = True) -> T:
        """Run a work in a write transaction of its name and return when it is durable.

        Where the engine waits for the disk alone, works share that wait: a work takes a few
        milliseconds at most, awaits nothing but statements, and does not run again by itself.
        One that nobody waits for (`behind`) may wait a few milliseconds for others.
        Raises what the work raises, and what `write` does.
        """
