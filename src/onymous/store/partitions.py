"""Months of event history as partitions of their own, so that old ones can go at once."""

from __future__ import annotations

import datetime
import re

import asyncpg  # type: ignore[import-untyped]

from onymous.store.pool import Connection

#: months made ahead
AHEAD = 2
_MAKE = "CREATE TABLE IF NOT EXISTS {name} PARTITION OF batch FOR VALUES FROM ({start}) TO ({end})"
#: another process makes the same one, or rows of the month wait in the default partition
_HARMLESS = (
    asyncpg.DuplicateTableError,
    asyncpg.UniqueViolationError,
    asyncpg.InvalidObjectDefinitionError,
    asyncpg.CheckViolationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
)
_PARTS = (
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = to_regclass('batch') ORDER BY c.relname"
)
_MONTH = re.compile(r"batch_(\d{4})_(\d{2})")
#: somebody reads there, or another process was faster
_NOT_NOW = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UndefinedTableError,
)


def months(now_ms: int) -> list[tuple[str, int, int]]:
    """Return (name, first ms, first ms of the next) of this month and those ahead."""
    day = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date().replace(day=1)
    out = []
    for _ in range(AHEAD + 1):
        later = (day + datetime.timedelta(days=32)).replace(day=1)
        out.append((f"batch_{day:%Y_%m}", _ms(day), _ms(later)))
        day = later
    return out


async def partition(connection: Connection, now_ms: int) -> None:
    """Make the partitions that are missing."""
    for name, start, end in months(now_ms):
        if await connection.fetchval("SELECT to_regclass($1)", name) is not None:
            continue
        try:
            await _quickly(connection, _MAKE.format(name=name, start=start, end=end))
        except _HARMLESS:
            continue


async def drop_old(connection: Connection, before_ms: int) -> None:
    """Drop the months whose batches were all received before a time."""
    for (name,) in await connection.fetch(_PARTS):
        match = _MONTH.fullmatch(name)
        if match is None or _ms(_after(int(match[1]), int(match[2]))) > before_ms:
            continue
        try:
            await _quickly(connection, f"DROP TABLE {name}")
        except _NOT_NOW:
            continue


async def _quickly(connection: Connection, statement: str) -> None:
    """Change the parts of history, unless somebody reads there for long.

    The change waits for readers, and everybody else for it: the next upkeep tries again.
    """
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '1s'")
        await connection.execute(statement)


def _after(year: int, month: int) -> datetime.date:
    """Return the first day of the month after one."""
    return datetime.date(year + month // 12, month % 12 + 1, 1)


def _ms(day: datetime.date) -> int:
    at = datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC)
    return int(at.timestamp()) * 1000
