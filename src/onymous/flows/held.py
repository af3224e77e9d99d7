"""Values held back from a record, kept for a person to decide.

One row per record, type and value, written behind and bounded. It holds identities: it goes with
an erasure, as the journal does, and is kept for `review_days` after the value came last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from onymous.flows.answers import Question
from onymous.flows.diagnostics import storable
from onymous.rules.identifiers import BY_CODE
from onymous.rules.records import Record
from onymous.store import review_sql as sql
from onymous.store.port import Row, Store

#: reasons a person can do something about
REASONS = ("stale_value", "profile_full")
#: values held between two flushes; of more, new ones are left out and counted
MOST_HELD = 5_000
#: rows kept in the database; of more, those that came longest ago go
MOST_KEPT = 100_000
#: rows written in one transaction
TOGETHER = 512

_encode = msgspec.msgpack.Encoder().encode


class Body(msgspec.Struct, array_like=True):
    """The personal part of a row."""

    key: str
    #: as received, where it differs from the key
    shown: str | None
    #: what the record had of this type when the value was held back
    had: list[str]


body_of = msgspec.msgpack.Decoder(Body).decode


class _Item:
    __slots__ = ("body", "count", "first", "last", "pool", "reason", "source")

    def __init__(self, question: Question, pool: int, reason: str) -> None:
        self.pool, self.reason = pool, reason
        self.first = self.last = question.now_ms
        self.count, self.body = 0, b""
        q, caller = question, question.caller
        self.source = (
            q.op,
            int(q.key_only),
            caller.workspace,
            caller.input,
            storable(q.request_id),
        )


class HeldBack:
    """Collects values; `flush` writes them."""

    def __init__(self, *, on: bool) -> None:
        self.on = on
        self._items: dict[tuple[int, int, str], _Item] = {}
        #: values left out because too many came between two flushes
        self.dropped = 0

    def note(
        self,
        question: Question,
        pool: int,
        record: Record,
        skipped: Iterable[tuple[int, str, int | None]],
        keys: dict[int, str],
        spelling: dict[str, str],
    ) -> None:
        """Note what a request gave and the record it found did not take."""
        if not self.on or question.read_only or question.op == "search":
            return
        for code, reason, _ in skipped:
            if reason not in REASONS or code not in keys:
                continue
            where = (record.pid, code, keys[code])
            item = self._items.get(where)
            if item is None:
                if len(self._items) >= MOST_HELD:
                    self.dropped += 1
                    continue
                item = self._items[where] = _Item(question, pool, reason)
            item.last, item.count = question.now_ms, item.count + 1
            item.body = _encode(
                Body(keys[code], spelling.get(BY_CODE[code].name), sorted(record.keys_of(code)))
            )

    @property
    def held(self) -> int:
        """Return how many values wait to be written."""
        return len(self._items)

    async def flush(self, store: Store) -> None:
        """Write what was noted. What fails stays noted."""
        items, self._items = self._items, {}
        rows, done = [_row(where, item) for where, item in items.items()], 0
        try:
            while done < len(rows):
                async with store.write("held") as tx:
                    await tx.many(sql.HELD_ADD, rows[done : done + TOGETHER])
                done += TOGETHER
        except BaseException:
            for where, item in list(items.items())[done:]:
                self._items.setdefault(where, item)
            raise


def _row(where: tuple[int, int, str], item: _Item) -> tuple[object, ...]:
    digest = hashlib.blake2b(_encode(where), digest_size=16).digest()
    return (
        digest,
        item.pool,
        where[0],
        where[1],
        item.reason,
        *item.source,
        item.first,
        item.last,
        item.count,
        item.body,
        0,
    )


def mark(pool: int, code: int, key: str) -> bytes:
    """Return what an erasure job may name a value by: a digest, never the value."""
    text = f"{pool}:{code}:{key}".encode("utf-8", "replace")
    return hashlib.blake2b(text, digest_size=12).digest()


def conflict_mark(pids: list[int], keys: dict[int, str]) -> bytes:
    """Return what tells the same people and values of a feed's row again."""
    body = _encode((sorted(pids), sorted(keys.items())))
    return hashlib.blake2b(body, digest_size=16).digest()


async def erase_held(store: Store, pool: int, people: set[int], marks: set[bytes]) -> None:
    """Take out every row of an erased person, and every row with one of their values."""
    after = 0
    while True:
        async with store.read() as session:
            rows = await session.rows(sql.HELD_AFTER, after, 2_000)
        if not rows:
            return
        after = rows[-1][0]
        gone = [(row[0],) for row in rows if row[2] in people or _theirs(row, pool, marks)]
        if gone:
            async with store.write("held.erase") as tx:
                await tx.many(sql.HELD_DROP, gone)


def _theirs(row: Row, pool: int, marks: set[bytes]) -> bool:
    body = body_of(bytes(row[4]))
    return row[1] == pool and any(mark(pool, row[3], k) in marks for k in (body.key, *body.had))
