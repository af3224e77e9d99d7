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


class Item(msgspec.Struct, kw_only=True):
    """One entry of a timeline: an identity change or a batch."""

    at_ms: int
    #: where the next page begins
    cursor: str
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
        self, pid: int, now_ms: int, *, before: str = "", kind: str = "", limit: int = PAGE
    ) -> tuple[list[Item], str]:
        """Return a page of the timeline of a profile that is nobody's source of a merge.

        `before` is the cursor the page before ended with, `kind` restricts to `identity` or
        `events`. Returns the cursor of the next page as well, or an empty text.
        """
        at, rank, number = _parse(before)
        items: list[tuple[tuple[int, int, int], Item]] = []
        async with self._store.read() as session:
            parts = await sides(session, pid, now_ms)
            if kind != "events":
                bound = number if rank else 0
                items += await self._changes(session, parts, at, bound, limit + 1)
            if kind != "identity":
                bound = _ALL if rank else number
                items += await self._batches(session, parts, at, bound, limit + 1)
        items.sort(key=lambda i: i[0], reverse=True)
        shown = [item for _, item in items[:limit]]
        return shown, shown[-1].cursor if len(items) > limit else ""

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
        self, session: Session, parts: list[Side], at: int, bound: int, limit: int
    ) -> list[tuple[tuple[int, int, int], Item]]:
        pids = [side.pid for side in parts if side.whole]
        keys = [(pid, at, at, bound, limit) for pid in pids]
        out = []
        for pid, rows in zip(pids, await session.each(console_sql.LEDGER_UNTIL, keys), strict=True):
            for seq, when, body in rows:
                told = self._historian.tell(Line(seq, when, _entries.decode(bytes(body))))
                item = Item(
                    at_ms=when,
                    cursor=f"{when}.1.{seq}",
                    mpid=self._historian.mpid(pid),
                    change=told,
                )
                out.append(((when, 1, seq), item))
        return out

    async def _batches(
        self, session: Session, parts: list[Side], at: int, bound: int, limit: int
    ) -> list[tuple[tuple[int, int, int], Item]]:
        keys = [(s.pid, min(at, s.end_ms), s.start_ms, at, bound, limit) for s in parts]
        rows: dict[int, Row] = {}
        for side, found in zip(
            parts, await session.each(history_sql.BATCHES_OF, keys), strict=True
        ):
            rows |= {row[0]: row for row in found if _within(side, row)}
        latest = sorted(rows.values(), key=lambda r: (r[2], r[0]), reverse=True)[:limit]
        out = []
        for row in latest:
            sent = self.tell(row, await self.content(session, row))
            cursor = f"{sent.at_ms}.0.{sent.id}"
            item = Item(at_ms=sent.at_ms, cursor=cursor, mpid=sent.mpid, batch=sent)
            out.append(((sent.at_ms, 0, sent.id), item))
        return out


def _within(side: Side, row: Row) -> bool:
    """Return whether a batch belongs to a side: its person, its window, its device."""
    if row[1] != side.pid or not side.start_ms <= row[2] <= side.end_ms:
        return False
    return side.stamp is None or (row[7] or 0) == device_number(side.stamp)


def _parse(cursor: str) -> tuple[int, int, int]:
    """Return (time, 1 for a change or 0 for a batch, number); of no use: the newest."""
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
