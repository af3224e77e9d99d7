"""Event history as rows: one per event, in the order it came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from onymous.flows.identity import Mpids
from onymous.flows.retrying import retried
from onymous.flows.tenants import Names
from onymous.rules.times import event_time
from onymous.store import history_sql, sql
from onymous.store.compression import Bodies
from onymous.store.port import Session, Store

#: batches read at once
TOGETHER = 1_000
_NAMES = ("event_name", "screen_name")
_decode = msgspec.json.Decoder().decode


class EventRow(msgspec.Struct):
    """One event; `body` is its data as JSON. A batch without events is one row of its own."""

    batch: int
    mpid: str
    environment: str
    at_ms: int
    received_ms: int
    workspace: str
    input: str
    event_type: str
    event_name: str
    body: str


class Exporter:
    """Reads event history for a warehouse."""

    def __init__(self, store: Store, bodies: Bodies, mpids: Mpids, names: Names) -> None:
        self._store, self._bodies, self._mpids, self._names = store, bodies, mpids, names

    async def rows(
        self, *, after: int = 0, from_ms: int = 0, to_ms: int = 1 << 62, workspace: str = ""
    ) -> AsyncIterator[list[EventRow]]:
        """Yield events received within [from, to), in pieces; `after` is a batch number.

        What is written meanwhile is left for the next export, so that none is left out for good.
        """
        newest = await retried(self._newest)
        while True:
            async with self._store.read() as session:
                found = await session.rows(history_sql.BATCHES_AFTER, after, TOGETHER)
                found = [row for row in found if row[0] <= newest]
                if not found:
                    return
                after = found[-1][0]
                pools = await _pools(session, {row[1] for row in found})
                out: list[EventRow] = []
                for row in found:
                    named = self._names.workspace(row[5])
                    if from_ms <= row[4] < to_ms and workspace in ("", named):
                        body = await self._bodies.unpack(session, row[8], row[9])
                        out += self._events(row, pools.get(row[1], 0), named, _decode(body))
            yield out

    async def _newest(self) -> int:
        """Return the number of the newest batch, when none below it is under way."""
        async with self._store.write("export") as tx:
            hold = history_sql.BATCHES_HOLD.get(self._store.engine)
            if hold is not None:
                await tx.run(hold)
            return int((await tx.rows(history_sql.BATCH_NEWEST))[0][0] or 0)

    def _events(
        self, row: tuple[Any, ...], pool: int, workspace: str, raw: dict[str, Any]
    ) -> list[EventRow]:
        events = raw.get("events")
        events = [e for e in events if isinstance(e, dict)] if isinstance(events, list) else []
        base = EventRow(
            row[0],
            self._mpids.text(row[1]),
            "development" if pool % 2 else "production",
            row[2],
            row[4],
            workspace,
            self._names.input(row[6]),
            "",
            "",
            "",
        )
        if not events:
            body = msgspec.json.encode(raw).decode()
            return [msgspec.structs.replace(base, event_type="profile_update", body=body)]
        out = []
        for event in events:
            data = event.get("data")
            data = data if isinstance(data, dict) else {}
            name = next((str(data[n]) for n in _NAMES if data.get(n)), "")
            out.append(
                msgspec.structs.replace(
                    base,
                    at_ms=event_time(data, row[4]),
                    event_type=str(event.get("event_type")),
                    event_name=name,
                    body=msgspec.json.encode(data).decode(),
                )
            )
        return out


async def _pools(session: Session, pids: set[int]) -> dict[int, int]:
    """Return the pool of each profile."""
    ordered = sorted(pids)
    found = await session.each(sql.POOL_OF, [(pid,) for pid in ordered])
    return {pid: rows[0][0] for pid, rows in zip(ordered, found, strict=True) if rows}
