"""Aliases and merges of a person with what became of them; and the audit."""

from __future__ import annotations

from typing import Any

import msgspec

from onymous.flows.identity import Mpids
from onymous.store import console_sql as sql
from onymous.store.port import Store


class AliasTie(msgspec.Struct, kw_only=True):
    """An alias that touches a profile; `outcome` is applied, rejected or undone."""

    id: int
    source: str
    destination: str
    start_ms: int
    end_ms: int
    scope: str
    at_ms: int
    effective_ms: int
    outcome: str
    reason: str


class MergeTie(msgspec.Struct, kw_only=True):
    """A merge that touches a profile, undone or in force."""

    id: int
    source: str
    destination: str
    at_ms: int
    actor: str
    reason: str
    undone_ms: int | None
    undone_by: str | None
    undone_reason: str | None


class Audited(msgspec.Struct, kw_only=True):
    """One entry of the audit."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Ties:
    """Reads aliases, merges and the audit."""

    def __init__(self, store: Store, mpids: Mpids) -> None:
        self._store, self._mpids = store, mpids

    async def of(self, pool: int, pid: int) -> tuple[list[AliasTie], list[MergeTie]]:
        """Return the newest 100 aliases and merges that touch a profile, newest first."""
        text = self._mpids.text
        async with self._store.read() as session:
            aliases = await session.rows(sql.ALIASES_TOUCHING, pool, pid, pid)
            merges = await session.rows(sql.MERGES_TOUCHING, pool, pid, pid)
        return [
            AliasTie(
                id=row[0],
                source=text(row[1]),
                destination=text(row[2]),
                start_ms=row[3],
                end_ms=row[4],
                scope=row[5],
                at_ms=row[6],
                effective_ms=row[7],
                outcome=row[8],
                reason=row[9],
            )
            for row in aliases
        ], [
            MergeTie(
                id=row[0],
                source=text(row[1]),
                destination=text(row[2]),
                at_ms=row[3],
                actor=row[4],
                reason=row[5],
                undone_ms=row[6],
                undone_by=row[7],
                undone_reason=row[8],
            )
            for row in merges
        ]

    async def brought(self, source: int, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Return what a profile did in a window: worth in millionths, and batches."""
        async with self._store.read() as session:
            batches = await session.rows(sql.BATCHES_WITHIN, source, start_ms, end_ms)
            worth = await session.rows(sql.WORTH_WITHIN, source, start_ms, end_ms)
        return worth[0][0] or 0, batches[0][0]

    async def audit(self, before: int, limit: int, subject: str = "") -> tuple[list[Audited], int]:
        """Return a page of the audit, newest first, and where the next begins; 0: nowhere.

        `subject` is an MPID, or whatever else is done something to; empty: all.
        """
        asked = (before or 1 << 62, limit + 1)
        async with self._store.read() as session:
            if subject:
                rows = await session.rows(sql.AUDITS_OF, subject, *asked)
            else:
                rows = await session.rows(sql.AUDITS, *asked)
        out = []
        for number, at, actor, action, subject, packed in rows[:limit]:
            detail = msgspec.json.decode(bytes(packed)) if packed else {}
            out.append(
                Audited(
                    id=number,
                    at_ms=at,
                    actor=actor,
                    action=action,
                    subject=subject,
                    detail=detail if isinstance(detail, dict) else {},
                )
            )
        return out, out[-1].id if len(rows) > limit else 0
