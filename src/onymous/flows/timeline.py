"""A person's timeline: identity changes and batches as one list, newest first; and one batch.

It follows merges and aliases as the profile does: what is shown is what counts for the person.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onymous.flows.arrivals import device_number
from onymous.flows.history import Happened, Historian
from onymous.flows.profiles import Side, sides
from onymous.flows.tenants import Directory
from onymous.rules.ledger import Entry, Line
from onymous.store import console_sql, history_sql, sql
from onymous.store.compression import Bodies
from onymous.store.port import Row, Session, Store

_ALL = 1 << 62
_entries = msgspec.msgpack.Decoder(Entry)
_json = msgspec.json.Decoder()
#: entries of one page; events named of one batch
PAGE, MOST_NAMED = 40, 6
#: entries looked at for one page where few are wanted
MOST_LOOKED = 2_000
#: place of an entry: time, 1 for a change or 0 for a batch, number
Place = tuple[int, int, int]
_NAMES = {"custom_event": "event_name", "screen_view": "screen_name"}


class Sent(msgspec.Struct, kw_only=True):
    """One batch as a list shows it; it holds no identity values."""

    id: int
    mpid: str
    at_ms: int
    received_ms: int
    workspace: str
    input: str
    platform: str
    #: (kind of event, its name or empty, how many)
    events: list[tuple[str, str, int]]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are wanted; as it is: all."""

    #: `identity` or `events`
    kind: str = ""
    from_ms: int = 0
    to_ms: int = _ALL
    #: number of an input; 0: all
    input: int = 0
    event_type: str = ""
    #: device application stamp
    device: str = ""

    @property
    def changes(self) -> bool:
        """Return whether identity changes may be among them: those are of no event, no device."""
        return self.kind != "events" and not self.event_type and not self.device


class Item(msgspec.Struct, kw_only=True):
    """One entry of a timeline: an identity change or a batch."""

    at_ms: int
    mpid: str
    change: Happened | None = None
    batch: Sent | None = None


class Timeline:
    """Reads timelines."""

    def __init__(
        self, store: Store, historian: Historian, directory: Directory, bodies: Bodies
    ) -> None:
        self._store, self._historian = store, historian
        self._directory, self._bodies = directory, bodies

    async def page(
        self,
        pid: int,
        now_ms: int,
        *,
        before: str = "",
        wanted: Wanted | None = None,
        limit: int = PAGE,
    ) -> tuple[list[Item], str]:
        """Return a page of the timeline of a profile that is nobody's source of a merge.

        `before` is the cursor the page before ended with. Returns the cursor of the next page as
        well, or an empty text. Where few entries fit, a page may end early.
        """
        wanted = wanted or Wanted()
        place = min(_parse(before), (wanted.to_ms, 1, _ALL))
        out: list[Item] = []
        looked = 0
        async with self._store.read() as session:
            parts = await sides(session, pid, now_ms)
            while True:
                found = await self._next(session, parts, place, wanted, limit + 1)
                for at, item in found[:limit]:
                    if item is not None and len(out) == limit:
                        return out, _text(place)
                    place, looked = at, looked + 1
                    if item is not None:
                        out.append(item)
                if len(found) <= limit:
                    return out, ""
                if looked >= MOST_LOOKED:
                    return out, _text(place)

    async def _next(
        self, session: Session, parts: list[Side], place: Place, wanted: Wanted, limit: int
    ) -> list[tuple[Place, Item | None]]:
        """Return the next entries, newest first; None stands for one that is not wanted."""
        at, rank, number = place
        items: list[tuple[Place, Item | None]] = []
        if wanted.changes:
            bound = number if rank else 0
            items += await self._changes(session, parts, at, bound, wanted, limit)
        if wanted.kind != "identity":
            bound = _ALL if rank else number
            items += await self._batches(session, parts, at, bound, wanted, limit)
        return sorted(items, key=lambda i: i[0], reverse=True)[:limit]

    async def batch(self, pid: int, number: int, now_ms: int) -> tuple[Sent, dict[str, Any]] | None:
        """Return a batch of a person and its content, or None for one that is not theirs."""
        async with self._store.read() as session:
            rows = await session.rows(history_sql.BATCH_BY_ID, number)
            if not rows:
                return None
            parts = await sides(session, pid, now_ms)
            if not any(_within(side, rows[0]) for side in parts):
                return None
            content = await self.content(session, rows[0])
        return self.tell(rows[0], content), content

    async def request(self, pid: int, entry: int) -> tuple[str, int]:
        """Return the id of the request behind an entry of a profile, and its input; empty: none."""
        async with self._store.read() as session:
            rows = await session.rows(sql.LEDGER_BY_SEQ, entry)
        if not rows or rows[0][0] != pid:
            return "", 0
        found = _entries.decode(bytes(rows[0][2]))
        return found.request or "", found.input

    async def content(self, session: Session, row: Row) -> dict[str, Any]:
        """Return what a batch says, as it was sent."""
        body = await self._bodies.unpack(session, row[8], row[9])
        content = _json.decode(body)
        return content if isinstance(content, dict) else {}

    def tell(self, row: Row, content: dict[str, Any]) -> Sent:
        """Return a row of a batch as a list shows it."""
        names = self._directory.names
        device = content.get("device_info")
        platform = device.get("platform") if isinstance(device, dict) else None
        return Sent(
            id=row[0],
            mpid=self._historian.mpid(row[1]),
            at_ms=row[2],
            received_ms=row[4],
            workspace=names.workspace(row[5]),
            input=names.input(row[6]),
            platform=platform if isinstance(platform, str) else "",
            events=_events(content),
        )

    async def _changes(
        self,
        session: Session,
        parts: list[Side],
        at: int,
        bound: int,
        wanted: Wanted,
        limit: int,
    ) -> list[tuple[Place, Item | None]]:
        pids = [side.pid for side in parts if side.whole]
        keys = [(pid, at, at, bound, limit) for pid in pids]
        out: list[tuple[Place, Item | None]] = []
        for pid, rows in zip(pids, await session.each(console_sql.LEDGER_UNTIL, keys), strict=True):
            for seq, when, body in rows:
                if when < wanted.from_ms:
                    break
                line = Line(seq, when, _entries.decode(bytes(body)))
                item = None
                if wanted.input in (0, line.entry.input):
                    told, mpid = self._historian.tell(line), self._historian.mpid(pid)
                    item = Item(at_ms=when, mpid=mpid, change=told)
                out.append(((when, 1, seq), item))
        return out

    async def _batches(
        self,
        session: Session,
        parts: list[Side],
        at: int,
        bound: int,
        wanted: Wanted,
        limit: int,
    ) -> list[tuple[Place, Item | None]]:
        keys = [
            (s.pid, min(at, s.end_ms), max(s.start_ms, wanted.from_ms), at, bound, limit)
            for s in parts
        ]
        rows: dict[int, Row] = {}
        theirs: set[int] = set()
        for side, found in zip(
            parts, await session.each(history_sql.BATCHES_OF, keys), strict=True
        ):
            rows |= {row[0]: row for row in found}
            theirs |= {row[0] for row in found if _within(side, row)}
        latest = sorted(rows.values(), key=lambda r: (r[2], r[0]), reverse=True)[:limit]
        out: list[tuple[Place, Item | None]] = []
        for row in latest:
            item = None
            if row[0] in theirs and _wanted(row, wanted):
                content = await self.content(session, row)
                if _has(content, wanted.event_type):
                    sent = self.tell(row, content)
                    item = Item(at_ms=sent.at_ms, mpid=sent.mpid, batch=sent)
            out.append(((row[2], 0, row[0]), item))
        return out


def _wanted(row: Row, wanted: Wanted) -> bool:
    if wanted.input not in (0, row[6]):
        return False
    return not wanted.device or (row[7] or 0) == device_number(wanted.device)


def _has(content: dict[str, Any], kind: str) -> bool:
    events = content.get("events")
    some = events if isinstance(events, list) else ()
    return not kind or any(isinstance(e, dict) and e.get("event_type") == kind for e in some)


def _within(side: Side, row: Row) -> bool:
    """Return whether a batch belongs to a side: its person, its window, its device."""
    if row[1] != side.pid or not side.start_ms <= row[2] <= side.end_ms:
        return False
    return side.stamp is None or (row[7] or 0) == device_number(side.stamp)


def _text(place: Place) -> str:
    return ".".join(map(str, place))


def _parse(cursor: str) -> Place:
    """Return a place; of no use: the newest."""
    parts = cursor.split(".")
    if len(parts) == 3 and all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        return int(parts[0]), int(parts[1] == "1"), int(parts[2])
    return _ALL, 1, _ALL


def _events(content: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return what happened in a batch, equal events counted, in the order they came."""
    counts: dict[tuple[str, str], int] = {}
    events = content.get("events")
    for event in events if isinstance(events, list) else ():
        if not isinstance(event, dict):
            continue
        kind, data = str(event.get("event_type") or "event"), event.get("data")
        name = _name(kind, data) if isinstance(data, dict) else ""
        counts[kind, name] = counts.get((kind, name), 0) + 1
    return [(kind, name, count) for (kind, name), count in counts.items()][:MOST_NAMED]


def _name(kind: str, data: dict[str, Any]) -> str:
    if kind == "commerce_event" and isinstance(data.get("product_action"), dict):
        action = data["product_action"]
        name, amount = action.get("action"), action.get("total_amount")
        if isinstance(name, str) and isinstance(amount, int | float):
            name = f"{name} {amount:,.2f}"
    else:
        name = data.get(_NAMES.get(kind, "event_name"))
    return name[:80] if isinstance(name, str) else ""
