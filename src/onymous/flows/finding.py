"""Finding people from the console: by any identity, of one type or of all, or by MPID; exactly."""

from __future__ import annotations

import msgspec

from onymous.flows.identity import NAME_OF, Resolver
from onymous.flows.profiles import canonical
from onymous.flows.seen import last_seen
from onymous.rules.errors import Refusal
from onymous.rules.identifiers import BY_CODE, BY_NAME, clean_value
from onymous.rules.identity_types import TYPES, IdentityType
from onymous.rules.records import ERASED, KNOWN, MERGED, ORPHANED, Record
from onymous.rules.strategies import Plan
from onymous.store import sql
from onymous.store.packing import slot, unpack_record
from onymous.store.port import Session, Store

#: holders of one value that are listed
MOST = 50


class Hit(msgspec.Struct, kw_only=True):
    """Someone found; `names` are (type, value) of the person's identities."""

    mpid: str
    matched_on: list[str]
    known: bool
    orphaned: bool
    created_ms: int
    names: list[tuple[str, str]]


class Finder:
    """Finds people in one pool."""

    def __init__(self, store: Store, resolver: Resolver) -> None:
        self._store, self._resolver = store, resolver

    async def find(self, plan: Plan, pool: int, text: str, kind: str = "") -> list[Hit]:
        """Return whoever holds this value, at most `MOST` per type; `kind` restricts the type.

        The value is cleaned as everywhere, so what is found is what the API would find; MPIDs are
        found where the kind is `mpid` or none.
        """
        found: dict[int, tuple[Record, list[str]]] = {}
        async with self._store.read() as session:
            if kind in ("", "mpid"):
                record = await self._by_mpid(session, pool, text)
                if record is not None:
                    found[record.pid] = (record, ["MPID"])
            keys = _keys(plan, pool, text, kind)
            questions = [(where, key, -1, MOST) for _, where, key in keys]
            rows = await session.each(sql.HOLDERS, questions) if keys else []
            for (code, _, _), holders in zip(keys, rows, strict=True):
                for row in holders:
                    record = unpack_record(row[1:])
                    if record.flags & MERGED:
                        record = await _stands_for(session, record)
                    if record.flags & ERASED:
                        continue
                    matched = found.setdefault(record.pid, (record, []))[1]
                    if NAME_OF[code] not in matched:
                        matched.append(NAME_OF[code])
        return [self._hit(record, matched) for record, matched in found.values()]

    def number(self, mpid: object) -> int | None:
        """Return the internal number of an MPID as it came in, or None for one that is none."""
        return self._resolver.mpids.parse(mpid)

    async def last_seen(self, pid: int) -> int:
        """Return when a profile was last seen by any request, in milliseconds; 0: never."""
        async with self._store.read() as session:
            rows = await session.rows(sql.PROFILE_BY_PID, pid)
            written = await last_seen(session, pid)
        stored = unpack_record(rows[0]).seen_ms if rows else 0
        return max(stored, written, self._resolver.desk.seen.seen_ms(pid))

    async def _by_mpid(self, session: Session, pool: int, text: str) -> Record | None:
        pid = self._resolver.mpids.parse(text.strip())
        if pid is None:
            return None
        rows = await session.rows(sql.PROFILE_BY_PID, await canonical(session, pid))
        record = unpack_record(rows[0]) if rows else None
        if record is None or record.pool != pool or record.flags & ERASED:
            return None
        return record

    def _hit(self, record: Record, matched: list[str]) -> Hit:
        return Hit(
            mpid=self._resolver.mpids.text(record.pid),
            matched_on=matched,
            known=bool(record.flags & KNOWN),
            orphaned=bool(record.flags & ORPHANED),
            created_ms=record.created_ms,
            names=[(BY_CODE[v.code].name, v.text) for v in record.values],
        )


async def _stands_for(session: Session, record: Record) -> Record:
    """Return the record that stands for a merged one."""
    rows = await session.rows(sql.PROFILE_BY_PID, await canonical(session, record.pid))
    return unpack_record(rows[0]) if rows else record


def _keys(plan: Plan, pool: int, text: str, kind: str) -> list[tuple[int, int, str]]:
    """Return (type code, slot, comparison key) of every place the value may stand in."""
    wanted: tuple[IdentityType, ...] = TYPES if not kind else ()
    if kind in BY_NAME:
        wanted = (BY_NAME[kind],)
    out = []
    for each in wanted:
        try:
            key = clean_value(each, text, plan.folding)
        except Refusal:
            continue
        if key is not None:
            out.append((each.code, slot(pool, each.code), key))
    return out
