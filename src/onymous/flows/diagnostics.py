"""Diagnostics: where the wire stays silent, a person can still see what was not done, and why.

Entries name types and reasons, never values. They are written behind; of more than fit between
two flushes the oldest are dropped and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from onymous.flows.answers import Question
from onymous.rules.identifiers import Skipped
from onymous.rules.trace import name_of
from onymous.store import sql
from onymous.store.port import Store

Row = tuple[int, str, int, int, str | None, bytes]
#: seconds between looks while someone waits
LOOK_S = 0.5
MOST, MOST_WAIT_S = 1_000, 60


class Diagnostics:
    """Collects entries; `flush` writes them."""

    def __init__(self, most: int = 5_000) -> None:
        self._rows: deque[Row] = deque(maxlen=most)
        self.counts: dict[str, int] = {}

    def skipped(
        self,
        question: Question,
        skipped: Iterable[tuple[int, str, int | None]],
        cleaned: Iterable[Skipped] = (),
    ) -> None:
        """Note identities of a request that changed nothing."""
        what = [{"type": name_of(code), "reason": reason} for code, reason, _ in skipped]
        what += [{"type": s.type, "reason": s.why} for s in cleaned]
        caller = question.caller
        self.add(
            "identity_skipped",
            question.now_ms,
            caller.workspace,
            caller.input,
            question.request_id,
            {"operation": question.op, "skipped": what},
        )

    def add(
        self,
        kind: str,
        at_ms: int,
        workspace: int,
        input_id: int,
        request: str | None,
        detail: dict[str, object],
    ) -> None:
        """Note something a person should be able to see."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        body = msgspec.json.encode(detail)
        self._rows.append((at_ms, kind, workspace, input_id, storable(request), body))

    @property
    def held(self) -> int:
        """Return how many entries wait to be written."""
        return len(self._rows)

    async def flush(self, store: Store) -> int:
        """Write what was noted; return the number of entries. What fails stays noted."""
        rows = list(self._rows)
        if not rows:
            return 0
        self._rows.clear()
        try:
            async with store.write("diagnostics") as tx:
                await tx.many(sql.DIAGNOSTIC_ADD, rows)
        except BaseException:
            self._rows = deque([*rows, *self._rows], self._rows.maxlen)
            raise
        return len(rows)


def storable(request: str | None) -> str | None:
    """Return a request id as every engine can keep it: text of PostgreSQL has no NUL."""
    return request.replace("\0", "\ufffd") if request and "\0" in request else request


class Diagnosed(msgspec.Struct, kw_only=True):
    """An entry as people read it."""

    id: int
    at_ms: int
    kind: str
    workspace: int
    input: int
    request_id: str | None
    detail: Any


async def read_diagnostics(
    store: Store, *, after: int = 0, kind: str = "", limit: int = 100
) -> list[Diagnosed]:
    """Return the latest entries after a number, oldest first."""
    async with store.read() as session:
        rows = await session.rows(sql.DIAGNOSTICS_LATEST, after, kind, kind, limit)
    return [_diagnosed(row) for row in reversed(rows)]


async def follow_diagnostics(
    store: Store, workspace: int, *, after: int | None, kind: str, limit: int, wait_s: float
) -> list[Diagnosed]:
    """Return entries of one workspace in order after a number; None: the latest ones.

    Waits up to `wait_s` seconds for the first one after a number.
    """
    if after is None:
        async with store.read() as session:
            rows = await session.rows(sql.DIAGNOSTICS_LAST_OF, workspace, kind, kind, limit)
        return [_diagnosed(row) for row in reversed(rows)]
    give_up = time.monotonic() + wait_s
    while True:
        async with store.read() as session:
            rows = await session.rows(sql.DIAGNOSTICS_OF, after, workspace, kind, kind, limit)
        if rows or time.monotonic() >= give_up:
            return [_diagnosed(row) for row in rows]
        await asyncio.sleep(LOOK_S)


def _diagnosed(row: Sequence[Any]) -> Diagnosed:
    return Diagnosed(
        id=row[0],
        at_ms=row[1],
        kind=row[2],
        workspace=row[3],
        input=row[4],
        request_id=row[5],
        detail=msgspec.json.decode(bytes(row[6])),
    )
