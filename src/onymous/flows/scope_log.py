"""Joins and splits as they are listed: who, why, how far, what became of the profiles."""

from __future__ import annotations

import msgspec

from onymous.flows import tenancy
from onymous.flows.scope_changes import scope_change
from onymous.store import scopes_sql as moves
from onymous.store.port import Session, Store


class Done(msgspec.Struct, kw_only=True):
    """A join or split as it is listed."""

    id: int
    kind: str
    source: str
    target: str
    state: str
    at_ms: int
    author: str
    reason: str
    undoes: int | None
    #: moved, twin, lost, left, merged -> profiles
    profiles: dict[str, int]
    #: numbers of profiles that were left behind, for want of a choice (at most 100)
    left: list[int]


async def changes(store: Store) -> list[Done]:
    """Return joins and splits, newest first."""
    async with store.read() as session:
        _, ids = await tenancy.read_state(session)
        scopes = {number: name for name, number in ids.scopes.items()}
        found = [scope_change(row) for row in await session.rows(moves.CHANGES)]
        return [
            Done(
                id=c.id,
                kind=c.kind,
                source=scopes[c.source],
                target=scopes[c.target],
                state=c.state,
                at_ms=c.at_ms,
                author=c.author,
                reason=c.reason,
                undoes=c.undoes,
                profiles=await _counts(session, c.id),
                left=[row[0] for row in await session.rows(moves.MOVES_LEFT, c.id)],
            )
            for c in found
        ]


async def _counts(session: Session, number: int) -> dict[str, int]:
    rows = await session.rows(moves.MOVES_COUNT, number)
    return {row[0]: row[1] for row in rows} | {"merged": sum(row[2] for row in rows)}
