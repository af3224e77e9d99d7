"""Looking at a database without changing it, not even its schema."""

from __future__ import annotations

import pathlib

import apsw

from onymous.later import module
from onymous.store import online_backup, sql
from onymous.store.arrays import numbered
from onymous.store.port import StoreError

asyncpg = module("asyncpg")
#: seconds until an unreachable server is reported
CONNECT_S = 10.0


async def schema_version(url: str) -> int:
    """Return the schema version of the database a store setting names; raises `StoreError`."""
    if url.startswith(("postgresql://", "postgres://")):
        return await _postgres(url)
    folder = pathlib.Path(url.removeprefix("sqlite:"))
    online_backup.refuse_unserved(folder)
    db = online_backup.reading(folder / "onymous.db")
    try:
        return int(db.execute(sql.META_GET, ("schema_version",)).get)
    except (apsw.Error, TypeError):
        raise StoreError("the database is damaged, or not Onymous's") from None
    finally:
        db.close()


async def _postgres(url: str) -> int:
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        why = getattr(error, "sqlstate", None) or type(error).__name__
        raise StoreError(f"cannot connect to the database ({why})") from None
    try:
        return int(await connection.fetchval(numbered(sql.META_GET), "schema_version"))
    except (asyncpg.PostgresError, TypeError):
        raise StoreError("the database holds nothing of Onymous: start a server once") from None
    finally:
        await connection.close()
