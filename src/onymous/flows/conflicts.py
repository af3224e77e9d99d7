"""Rows of feeds and files whose identities belong to several people (rulings 7)."""

from __future__ import annotations

import msgspec

from onymous.flows.identity import NAME_OF, Mpids
from onymous.flows.merging import Actor
from onymous.rules.errors import NoSuchThing
from onymous.store import review_sql, sql
from onymous.store.port import Row, Store

_decode = msgspec.msgpack.Decoder(tuple[list[int], dict[int, str]]).decode


class Conflict(msgspec.Struct, kw_only=True):
    """A row that changed nothing: whose its identities are, and their types."""

    id: int
    at_ms: int
    pool: int
    input: int
    request_id: str | None
    mpids: list[str]
    types: list[str]


async def conflicts(
    store: Store, mpids: Mpids, after: int = 0, limit: int = 1_000
) -> list[Conflict]:
    """Return conflicts nobody has decided yet, oldest first."""
    async with store.read() as session:
        rows = await session.rows(review_sql.CONFLICTS_WAITING, after, 0, 1 << 40, limit)
    return [conflict_of(row, mpids) for row in rows]


async def conflict(store: Store, mpids: Mpids, number: int) -> Conflict:
    """Return one conflict; raises `NotFound`."""
    async with store.read() as session:
        rows = await session.rows(review_sql.CONFLICT_WAITING, number)
    if not rows:
        raise NoSuchThing(what=f"conflict {number} that waits")
    return conflict_of(rows[0], mpids)


async def drop(store: Store, number: int, actor: Actor) -> None:
    """Take a conflict that is settled off the list; who did it and why is audited."""
    async with store.write("conflict") as tx:
        await tx.run(sql.CONFLICT_DECIDED, number, number)
        detail = msgspec.json.encode({"reason": actor.reason})
        subject = f"conflict {number}"
        await tx.run(sql.AUDIT_ADD, actor.now_ms, actor.name, "conflict", subject, detail)


def conflict_of(row: Row, mpids: Mpids) -> Conflict:
    """Return a row of conflicts."""
    pids, keys = _decode(bytes(row[5]))
    return Conflict(
        id=row[0],
        at_ms=row[1],
        pool=row[2],
        input=row[3],
        request_id=row[4],
        mpids=[mpids.text(pid) for pid in pids],
        types=[NAME_OF[code] for code in keys],
    )
