"""A few connections to one PostgreSQL database: opened when needed, replaced when lost.

No reset between uses: nothing of ours leaves anything behind in a session, and the usual reset
commands do not exist on every engine that speaks the protocol.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg  # type: ignore[import-untyped]

from onymous.store.port import LostRace, StoreError, Unwritable

#: an `asyncpg.Connection`; the driver carries no types
Connection: TypeAlias = Any

#: seconds until an unreachable server is reported
CONNECT_S = 10.0
#: what makes plans stay right while tables grow; engines that do not know a hint go without
HINTS = (
    "SET enable_seqscan = off",
    # the first holders of a crowded value must not cost a look at all of them
    "SET enable_bitmapscan = off",
    "SET jit = off",
    # else the server plans some statements anew each time: for few values that costs more than they
    "SET plan_cache_mode = force_generic_plan",
    # a transaction whose process hangs or vanished must not hold its claims for ever
    "SET idle_in_transaction_session_timeout = '60s'",
    "SET lock_timeout = '20s'",
)
#: nothing was written, and running again may succeed
RERUN = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)
_LOST = (asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, OSError)


def explained(name: str, error: BaseException) -> BaseException:
    """Return the error of the store port for an error of the driver.

    The driver's messages may hold identity values; only the SQLSTATE code is kept of them.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, RERUN):
        return LostRace(f"{name}: conflict ({getattr(error, 'sqlstate', None) or 'plan'})")
    if isinstance(error, _LOST):
        return StoreError(f"{name}: the connection to the database was lost")
    if isinstance(error, asyncpg.DataError):
        return Unwritable(f"{name}: the database keeps no such value ({error.sqlstate})")
    if isinstance(error, asyncpg.PostgresError):
        return StoreError(f"{name}: the database refused a statement ({error.sqlstate})")
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return Unwritable(f"{name}: the database driver takes no such value")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return StoreError(f"{name}: the database driver failed ({type(error).__name__})")
    return error


class Pool:
    """At most `size` connections; who asks for more waits."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size = url, size
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []

    async def take(self) -> Connection:
        """Return a connection that is the caller's until `give`.

        Raises `StoreError` when the server cannot be reached.
        """
        await self._free.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
            return await self._connect()
        except BaseException:
            self._free.release()
            raise

    def give(self, connection: Connection, *, clean: bool = True) -> None:
        """Take a connection back; one that is not clean is closed, so that nothing leaks."""
        if connection.is_closed():
            pass
        elif clean and not connection.is_in_transaction():
            self._idle.append(connection)
        else:
            connection.terminate()
        self._free.release()

    async def close(self) -> None:
        """Wait until every connection is back, and close them all."""
        for _ in range(self._size):
            await self._free.acquire()
        idle, self._idle = self._idle, []
        for connection in idle:
            try:
                await connection.close(timeout=CONNECT_S)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                connection.terminate()
        for _ in range(self._size):
            self._free.release()

    async def _connect(self) -> Connection:
        try:
            connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_S,
                statement_cache_size=512,
                max_cached_statement_lifetime=0,
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            why = getattr(error, "sqlstate", None) or type(error).__name__
            raise StoreError(f"cannot connect to the database ({why})") from None
        try:
            await _prepare(connection)
        except BaseException as error:
            connection.terminate()
            raise explained("connect", error) from None
        return connection


async def _prepare(connection: Connection) -> None:
    """Make the session durable and its plans steady."""
    for hint in HINTS:
        try:
            await connection.execute(hint)
        except asyncpg.PostgresError:
            continue
    # an answer is given only for what is on disk; stricter settings of the server stay
    if await connection.fetchval("SHOW synchronous_commit") == "off":
        await connection.execute("SET synchronous_commit = on")
