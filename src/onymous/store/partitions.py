"""Months of event history as partitions of their own, so that old ones can go at once."""

from __future__ import annotations

import datetime

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
            await connection.execute(_MAKE.format(name=name, start=start, end=end))
        except _HARMLESS:
            continue


def _ms(day: datetime.date) -> int:
    at = datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC)
    return int(at.timestamp()) * 1000
