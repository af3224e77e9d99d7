"""What somebody was called once: value, from, until, by which request, and whose it is now."""

from __future__ import annotations

import msgspec

from onymous.flows.history import Historian
from onymous.flows.identity import NAME_OF
from onymous.flows.profiles import canonical, sides
from onymous.rules.former import Span, spans
from onymous.rules.ledger import Entry, Line
from onymous.rules.records import ERASED
from onymous.store import sql
from onymous.store.packing import slot, unpack_record
from onymous.store.port import Session, Store

_entries = msgspec.msgpack.Decoder(Entry)
#: entries read of each record, newest first; names told; holders named of each
MOST_LINES, MOST, HOLDERS = 2_000, 50, 3


class Former(msgspec.Struct, kw_only=True):
    """A name somebody has no more."""

    identity_type: str
    value: str
    #: 0: from before what was read
    since_ms: int
    until_ms: int
    operation: str
    request_id: str | None
    #: who took it, then
    went_to: str | None = None
    #: who holds it now: a few, for values that many may hold
    now: list[str] = []


async def former_names(
    store: Store, historian: Historian, pool: int, pid: int, now_ms: int
) -> list[Former]:
    """Return the names a person lost, the latest first; those of profiles merged into it too."""
    async with store.read() as session:
        own = [side.pid for side in await sides(session, pid, now_ms) if side.whole]
        keys = [(number, 1 << 62, MOST_LINES) for number in own]
        found: list[Span] = []
        for rows in await session.each(sql.LEDGER_OF, keys):
            found += spans(Line(seq, at, _entries.decode(bytes(body))) for seq, at, body in rows)
        found = sorted(found, key=lambda s: s.entry, reverse=True)[:MOST]
        holders = await _holders(session, pool, found)
    return [
        Former(
            identity_type=NAME_OF[span.code],
            value=span.shown or span.key,
            since_ms=span.since_ms,
            until_ms=span.until_ms,
            operation=span.why.op,
            request_id=span.why.request,
            went_to=historian.mpid(span.went_to) if span.went_to is not None else None,
            now=[historian.mpid(number) for number in now],
        )
        for span, now in zip(found, holders, strict=True)
    ]


async def _holders(session: Session, pool: int, found: list[Span]) -> list[list[int]]:
    """Return who holds each of these values now, as the profiles that stand for them."""
    keys = [(slot(pool, span.code), span.key, -1, HOLDERS) for span in found]
    out: list[list[int]] = []
    for rows in await session.each(sql.HOLDERS, keys) if keys else []:
        records = [unpack_record(row[1:]) for row in rows]
        whole = [await canonical(session, r.pid) for r in records if not r.flags & ERASED]
        out.append(list(dict.fromkeys(whole)))
    return out
