"""User activity: what one person did in a workspace and how their identities changed, merged.

Newest first. Windows of aliases and merged profiles belong to the person as long as they do.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onymous.flows.arrivals import device_number
from onymous.flows.history import Changed, Historian
from onymous.flows.profiles import Side, canonical, sides
from onymous.rules.batches import usable
from onymous.rules.errors import NotFound
from onymous.rules.ledger import Entry, Line
from onymous.rules.records import Record
from onymous.rules.times import event_time
from onymous.store import credentials_sql as sql
from onymous.store.compression import Bodies
from onymous.store.packing import unpack_record
from onymous.store.port import Row, Session, Store
from onymous.store.sql import PROFILE_BY_PID

#: entries of one page; batches looked at for one page where few fit the filter
PAGE, MOST_PAGE, MOST_LOOKED = 50, 500, 2_000
#: events listed of one batch; the raw batch has them all
MOST_EVENTS = 100
#: what an identity change is called where event types are asked for
IDENTITY_CHANGE = "identity_change"
_NAMES = ("event_name", "screen_name")
#: place of an entry: time, 1 for a batch and 0 for a change, number
Place = tuple[int, int, int]
NEWEST: Place = (1 << 61, 1, 1 << 61)
_entries = msgspec.msgpack.Decoder(Entry)
_json = msgspec.json.Decoder()


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries of a timeline are wanted."""

    from_ms: int = 0
    to_ms: int = 1 << 61
    #: numbers; 0 for all
    input: int = 0
    #: device application stamp
    device: str | None = None
    event_type: str | None = None


class Did(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event of a batch."""

    event_type: str
    name: str | None = None
    at_ms: int


class Item(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry: `type` is `batch` or `identity_change`."""

    type: str
    id: str
    at_ms: int
    #: whose it was when it happened: another MPID after a merge or by an alias
    mpid: str
    #: where it came in; left out where that is no business of the one who asks
    workspace: str | None = None
    input: str | None = None
    received_ms: int | None = None
    platform: str | None = None
    device: str | None = None
    events: list[Did] | None = None
    #: how many events the batch has
    events_total: int | None = None
    operation: str | None = None
    request_id: str | None = None
    changes: list[Changed] | None = None


class Page(msgspec.Struct, kw_only=True):
    """A page of a timeline; `next` goes on, None at its end."""

    mpid: str
    environment: str
    items: list[Item]
    next: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whose timeline is asked for, and what of it may be told."""

    scope: int
    workspace: int
    pid: int
    #: names of the workspaces that may be told
    readable: frozenset[str]
    now_ms: int


class Activity:
    """Reads timelines."""

    def __init__(self, store: Store, historian: Historian, bodies: Bodies) -> None:
        self._store, self._historian, self._bodies = store, historian, bodies

    async def page(self, asked: Asked, wanted: Filter, after: Place, limit: int) -> Page:
        """Return the entries after a place; raises `NotFound` for an unknown person.

        Where few entries fit, a page may end early, with a place to go on from.
        """
        async with self._store.read() as session:
            record = await _record(session, asked)
            found = await sides(session, record.pid, asked.now_ms)
            items, place = await self._items(session, found, asked, wanted, after, limit)
        return Page(
            mpid=self._historian.mpid(record.pid),
            environment="development" if record.pool % 2 else "production",
            items=items,
            next=".".join(map(str, place)) if place is not None else None,
        )

    async def batch(self, asked: Asked, number: int) -> tuple[str, bytes]:
        """Return the person's MPID and a batch as it was sent; raises `NotFound`."""
        async with self._store.read() as session:
            record = await _record(session, asked)
            rows = await session.rows(sql.ACTIVITY_BATCH, number)
            found = await sides(session, record.pid, asked.now_ms)
            if not rows or not any(_belongs(rows[0], side, asked.workspace) for side in found):
                raise NotFound()
            body = await self._bodies.unpack(session, rows[0][4], rows[0][5])
        return self._historian.mpid(record.pid), body

    async def _items(
        self,
        session: Session,
        found: list[Side],
        asked: Asked,
        wanted: Filter,
        after: Place,
        limit: int,
    ) -> tuple[list[Item], Place | None]:
        items: list[Item] = []
        looked = 0
        while True:
            rows = await _next(session, found, asked.workspace, wanted, after, limit + 1)
            for place, row in rows[: limit + 1]:
                looked += 1
                item = await self._told(session, place, row, asked, wanted)
                if item is not None and len(items) == limit:
                    return items, after
                after = place
                if item is not None:
                    items.append(item)
            if len(rows) <= limit:
                return items, None
            if looked >= MOST_LOOKED:
                return items, after

    async def _told(
        self, session: Session, place: Place, row: Row, asked: Asked, wanted: Filter
    ) -> Item | None:
        """Return an entry as it is shown, or None where the filter leaves it out."""
        if place[1] == 0:
            return self._change(row, asked, wanted)
        body = await self._bodies.unpack(session, row[5], row[6])
        return self._batch(row, _json.decode(body), asked, wanted)

    def _batch(self, row: Row, raw: Any, asked: Asked, wanted: Filter) -> Item | None:
        raw = raw if isinstance(raw, dict) else {}
        given = raw.get("events")
        events = [e for e in given if isinstance(e, dict)] if isinstance(given, list) else []
        kinds = {e.get("event_type") for e in events if isinstance(e.get("event_type"), str)}
        if wanted.event_type is not None and wanted.event_type not in kinds:
            return None
        info = raw.get("device_info")
        names = self._historian.names
        return Item(
            type="batch",
            id=str(row[0]),
            at_ms=row[2],
            mpid=self._historian.mpid(row[1]),
            workspace=names.workspace(asked.workspace),
            input=names.input(row[4]),
            received_ms=row[3],
            platform=_text(info.get("platform")) if isinstance(info, dict) else None,
            device=_text(raw.get("mp_deviceid")),
            events=[_did(e, row[3]) for e in events[:MOST_EVENTS]],
            events_total=len(events),
        )

    def _change(self, row: Row, asked: Asked, wanted: Filter) -> Item | None:
        line = Line(row[0], row[2], _entries.decode(bytes(row[3])))
        if wanted.input not in (0, line.entry.input):
            return None
        told = self._historian.tell(line)
        ours = told.workspace in asked.readable
        return Item(
            type=IDENTITY_CHANGE,
            id=told.entry,
            at_ms=told.at_ms,
            mpid=self._historian.mpid(row[1]),
            workspace=told.workspace if ours else None,
            input=told.input if ours else None,
            operation=told.operation,
            request_id=told.request_id if ours else None,
            changes=told.changes,
        )


async def _record(session: Session, asked: Asked) -> Record:
    rows = await session.rows(PROFILE_BY_PID, await canonical(session, asked.pid))
    record = unpack_record(rows[0]) if rows else None
    if record is None or record.pool // 2 != asked.scope or not usable(record, record.pool):
        raise NotFound()
    return record


async def _next(
    session: Session, found: list[Side], workspace: int, wanted: Filter, after: Place, limit: int
) -> list[tuple[Place, Row]]:
    """Return the next rows of all sides, newest first, at least `limit` where there are so many."""
    at, kind, number = after
    rows: dict[Place, Row] = {}
    if wanted.event_type != IDENTITY_CHANGE:
        # a batch stands before the changes of its millisecond
        bound = number if kind else 0
        own = device_number(wanted.device)
        keys = []
        for side in found:
            device = own or device_number(side.stamp)
            if own and side.stamp is not None and device_number(side.stamp) != own:
                continue
            low, high = max(side.start_ms, wanted.from_ms), min(side.end_ms, wanted.to_ms, at)
            given = (wanted.input, wanted.input, device, device, limit)
            keys.append((side.pid, low, high, at, bound, workspace, *given))
        for more in await session.each(sql.ACTIVITY_BATCHES, keys):
            rows |= {(row[2], 1, row[0]): row for row in more}
    if wanted.event_type in (None, IDENTITY_CHANGE) and wanted.device is None:
        bound = (1 << 61) if kind else number
        high = min(wanted.to_ms, at)
        asked = [(s.pid, wanted.from_ms, high, at, bound, limit) for s in found if s.whole]
        for more in await session.each(sql.ACTIVITY_CHANGES, asked):
            rows |= {(row[2], 0, row[0]): row for row in more}
    return sorted(rows.items(), key=lambda r: r[0], reverse=True)


def _belongs(row: Row, side: Side, workspace: int) -> bool:
    pid, at, where, device = row[:4]
    return (
        (pid, where) == (side.pid, workspace)
        and side.start_ms <= at <= side.end_ms
        and (side.stamp is None or device == device_number(side.stamp))
    )


def _did(event: dict[str, Any], received_ms: int) -> Did:
    data = event.get("data")
    data = data if isinstance(data, dict) else {}
    name = next((text for n in _NAMES if (text := _text(data.get(n)))), None)
    kind = _text(event.get("event_type")) or "unknown"
    return Did(event_type=kind, name=name, at_ms=event_time(data, received_ms))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
