"""Bringing the schema of a PostgreSQL database up to date."""

from __future__ import annotations

import asyncio
import random

import asyncpg  # type: ignore[import-untyped]

from onymous.store import schema, sql
from onymous.store.arrays import numbered
from onymous.store.pool import Connection
from onymous.store.port import SchemaMismatch, StoreError

#: tries while other processes migrate the same database
MOST_TRIES = 100
_EXISTS = (
    "SELECT count(*) FROM information_schema.tables"
    " WHERE table_schema = current_schema() AND table_name = 'meta'"
)
#: what losing the race for creating the same table looks like
_RACES = (
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InternalServerError,
)


async def migrate(connection: Connection) -> None:
    """Apply what is missing in one transaction; refuse a schema from the future.

    Processes that start at once take turns: in an empty database at creating the table `meta`,
    later at the lock of its row `schema_version`.
    """
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise StoreError("the database must have the encoding UTF8")
    for turn in range(MOST_TRIES):
        try:
            async with connection.transaction(isolation="read_committed"):
                await _apply(connection)
            return
        except _RACES:
            await asyncio.sleep(random.random() * min(0.01 * 2**turn, 0.5))
    raise StoreError("the schema could not be brought up to date: too many processes try")


async def _apply(connection: Connection) -> None:
    version = 0
    if await connection.fetchval(_EXISTS):
        text = await connection.fetchval(f"{numbered(sql.META_GET)} FOR UPDATE", "schema_version")
        if text is None:
            raise SchemaMismatch("the database holds a table named meta that is not Onymous's")
        version = int(text)
        needs = int(await connection.fetchval(numbered(sql.META_GET), "compatible_version"))
        if needs > schema.SCHEMA_VERSION:
            raise SchemaMismatch(
                f"the database needs schema version {needs} or newer, this is"
                f" {schema.SCHEMA_VERSION}: upgrade Onymous"
            )
    for number, script in schema.migrations("postgresql", version):
        for statement in schema.statements(script):
            await connection.execute(statement)
        for name, value in (
            ("schema_version", str(number)),
            ("compatible_version", str(schema.COMPATIBLE_VERSION)),
        ):
            await connection.execute(numbered(sql.META_PUT), name, value.encode())
