"""The journal: distinct identity requests after cleaning, written behind.

Rules are rehearsed on it, and answers that changed nothing are told again from it. It holds
identities, so it is kept for a while only, goes with a person's erasure, and can be off.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from onymous.flows.answers import Question
from onymous.flows.held import HeldBack, erase_held, mark
from onymous.rules.modify import Change
from onymous.store import history_sql as sql
from onymous.store.port import Row, Session, Store, Transaction
from onymous.store.rules_sql import PLAN_KEYS_DROP
from onymous.store.sql import CONFLICT_DROP, CONFLICTS

_encode = msgspec.msgpack.Encoder().encode
_blake2b = hashlib.blake2b
#: entries held between two flushes; of more, new ones are left out and counted
MOST_HELD = 30_000
#: request ids held between two flushes; of more, the later ones cannot be explained afterwards
MOST_ASKED = 10_000
#: rows written in one transaction
TOGETHER = 128
#: rows whose times are read at once
TIMES = 20_000
#: an erasure looks once more after what other processes wrote behind
LATE_MS = 60_000


class Body(msgspec.Struct, array_like=True):
    """What of a request matters to rules."""

    #: type code -> comparison key
    keys: dict[int, str]
    previous: int | None
    key_only: bool
    #: the record answered the last time
    pid: int | None
    #: modify: (type, old, new)
    changes: list[tuple[int, str | None, str | None]] = []
    #: modify: whose
    target: int | None = None


class Noted(msgspec.Struct):
    """A request of the journal."""

    id: int
    pool: int
    op: str
    workspace: int
    input: int
    first_ms: int
    last_ms: int
    count: int
    body: Body


_body = msgspec.msgpack.Decoder(Body).decode
_conflict = msgspec.msgpack.Decoder(tuple[list[int], dict[int, str]]).decode
_Key = tuple[object, ...]


class _Held:
    """A request seen since the last flush."""

    __slots__ = ("body", "count", "digest", "first", "last", "pid", "previous", "workspace")

    def __init__(
        self, workspace: int, now_ms: int, previous: int | None, body: Body | None
    ) -> None:
        self.workspace, self.first, self.previous, self.body = workspace, now_ms, previous, body
        self.last, self.count, self.digest = now_ms, 0, b""
        self.pid: int | None = None


#: (request id, entry, when, whom it found)
_Asked = tuple[str, _Held, int, int | None]


class Journal:
    """Collects requests; `flush` writes them, and what was held back."""

    def __init__(self, *, on: bool, asked: bool = True, review: bool = False) -> None:
        self.on = on
        self.held_back = HeldBack(on=review)
        self._most_asked = MOST_ASKED if asked else 0
        self._held: dict[_Key, _Held] = {}
        #: requests with an id since the last flush
        self._asked: list[_Asked] = []
        #: requests left out because too many came between two flushes
        self.dropped = 0

    def note(
        self,
        question: Question,
        pool: int,
        keys: dict[int, str],
        previous: int | None,
        pid: int | None,
    ) -> None:
        """Note an identify, login, logout, feed row or batch, and whom it found."""
        source = question.caller.input
        # whom it found is last: found again, another person says something new
        key = (pool, question.op, source, question.key_only, *keys, *keys.values(), pid)
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= MOST_HELD:
                self.dropped += 1
                return
            # the body is made when it is written: what it says stands in the key
            workspace = question.caller.workspace
            held = self._held[key] = _Held(workspace, question.now_ms, previous, None)
        held.last = question.now_ms
        held.count += 1
        held.pid = pid
        if question.request_id and len(self._asked) < self._most_asked:
            self._asked.append((question.request_id, held, question.now_ms, pid))

    def note_modify(
        self,
        pool: int,
        where: tuple[int, int],
        now_ms: int,
        target: int,
        changes: list[Change],
        key_only: bool,
        request_id: str | None,
    ) -> None:
        """Note a modify of a record; `where` is its workspace and input."""
        told = [(c.code, c.old, c.new) for c in changes]
        key = (pool, "modify", where[1], key_only, target, *told)
        held = self._held.get(key)
        if held is None:
            if len(self._held) >= MOST_HELD:
                self.dropped += 1
                return
            body = Body({}, None, key_only, target, told, target)
            held = self._held[key] = _Held(where[0], now_ms, None, body)
        held.last = now_ms
        held.count += 1
        if request_id and len(self._asked) < self._most_asked:
            self._asked.append((request_id, held, now_ms, target))

    @property
    def held(self) -> int:
        """Return how many entries wait to be written."""
        return len(self._held)

    async def flush(self, store: Store) -> int:
        """Write what was noted; return the number of entries. What fails stays noted."""
        held, self._held = self._held, {}
        asked, self._asked = self._asked, []
        items = list(held.items())
        done = told = 0
        try:
            while done < len(items):
                await _file(store, items[done : done + TOGETHER])
                done += TOGETHER
            while told < len(asked):
                await self._number(store, asked[told : told + TOGETHER])
                told += TOGETHER
        except BaseException:
            self._take_back(items[done:], asked[told:])
            raise
        await self.held_back.flush(store)
        return len(items)

    def _take_back(self, items: list[tuple[_Key, _Held]], asked: list[_Asked]) -> None:
        """Hold again what could not be written."""
        for key, old in items:
            new = self._held.get(key)
            if new is None:
                if len(self._held) < MOST_HELD:
                    self._held[key] = old
                else:
                    self.dropped += 1
            else:
                new.first, new.count = old.first, old.count + new.count
        self._asked = [*asked, *self._asked][: self._most_asked]

    async def _number(self, store: Store, some: list[_Asked]) -> None:
        """File request ids under their entries."""

        async def work(tx: Transaction) -> None:
            found = await tx.each(sql.JOURNAL_NUMBER, [(item[1].digest,) for item in some])
            numbered = [
                (request_digest(request), rows[0][0], at, pid)
                for (request, _, at, pid), rows in zip(some, found, strict=True)
                if rows
            ]
            await tx.many(sql.ASKED_ADD, numbered)

        await store.share("journal", work)


async def _file(store: Store, some: list[tuple[_Key, _Held]]) -> None:
    rows = [_row(key, item) for key, item in some]
    await store.share("journal", lambda tx: tx.many(sql.JOURNAL_ADD, rows))


def _row(key: _Key, item: _Held) -> tuple[object, ...]:
    item.digest = hashlib.blake2b(_encode(key), digest_size=16).digest()
    body = item.body
    if body is None:
        half = (len(key) - 5) // 2
        known: Any = dict(zip(key[4 : 4 + half], key[4 + half : -1], strict=True))
        body = Body(known, item.previous, bool(key[3]), item.pid)
    return (
        item.digest,
        key[0],
        key[1],
        item.workspace,
        key[2],
        item.first,
        item.last,
        item.count,
        _encode(body),
    )


def by_hand(
    pool: int, now_ms: int, target: int, changes: list[tuple[int, str | None, str | None]]
) -> tuple[object, ...]:
    """Return the entry of a change an operator made, (type, old, new) of each value.

    It is written with the change: what was taken away by hand must not come back when rules are
    applied to history. It names no input: no sender's rights limit it.
    """
    key = (pool, "modify", 0, False, target, *changes)
    held = _Held(0, now_ms, None, Body({}, None, False, target, changes, target))
    held.count = 1
    return _row(key, held)


def fresh_rows(
    pool: int, where: tuple[int, int], now_ms: int, people: Iterable[tuple[dict[int, str], int]]
) -> list[tuple[object, ...]]:
    """Return the entries of feed rows that made somebody: (values by type code, number) of each.

    The same as noting each and writing it; nobody can have said this before.
    """
    workspace, source = where
    out: list[tuple[object, ...]] = []
    for keys, pid in people:
        key = (pool, "feed", source, False, *keys, *keys.values(), pid)
        digest = _blake2b(_encode(key), digest_size=16).digest()
        body = _encode((keys, None, False, pid, (), None))
        out.append((digest, pool, "feed", workspace, source, now_ms, now_ms, 1, body))
    return out


def request_digest(request_id: str) -> bytes:
    """Return what a request id is filed under."""
    return hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=16).digest()


async def when_noted(session: Session, pool: int, since_ms: int) -> array[int]:
    """Return the numbers of a pool's requests in the order of time.

    A request that came again stands twice: when it came first, and, below zero, when it came last.
    """
    return (await noted_after(session, pool, since_ms, -1))[0]


async def noted_after(
    session: Session, pool: int, since_ms: int, after_ms: int
) -> tuple[array[int], int]:
    """Return the same of what came after a time, and the time of the latest."""
    numbers, times, after = array("q"), array("q"), 0
    while rows := await session.rows(sql.JOURNAL_TIMES, after, pool, since_ms, TIMES):
        after = rows[-1][0]
        for number, first, last, count in rows:
            if first > after_ms:
                numbers.append(number)
                times.append(first)
            if count > 1 and last > after_ms:
                numbers.append(-number)
                times.append(last)
    order = sorted(range(len(times)), key=times.__getitem__)
    return array("q", (numbers[place] for place in order)), max(times, default=after_ms)


async def noted_ones(session: Session, numbers: Sequence[int]) -> list[Noted]:
    """Return requests by number, without erased ones; one below zero as it came last."""
    found = await session.each(sql.JOURNAL_BY_ID, [(abs(number),) for number in numbers])
    out = []
    for number, rows in zip(numbers, found, strict=True):
        for item in map(noted, rows):
            if number < 0:
                item.id, item.first_ms = number, item.last_ms
            out.append(item)
    return out


def noted(row: Row) -> Noted:
    """Return a row of the journal."""
    number, pool, op, workspace, source, first, last, count, body = row
    return Noted(number, pool, op, workspace, source, first, last, count, _body(bytes(body)))


def value_marks(pool: int, values: list[tuple[int, str]]) -> list[bytes]:
    """Return what an erasure job may name values by: digests, never the values."""
    return [mark(pool, code, key) for code, key in values]


async def erase_from_journal(store: Store, journal: Journal, body: bytes) -> None:
    """Take every request out that names one of the values or records of an erased person.

    So it is with values held back and rows of feeds that belong to several people; the
    engine then lets go of what it deleted.
    """
    pool, pids, marks = msgspec.msgpack.decode(body, type=tuple[int, list[int], list[bytes]])
    await journal.flush(store)
    wanted, people, after = set(marks), set(pids), 0
    while True:
        async with store.read() as session:
            rows = await session.rows(sql.JOURNAL_AFTER, after, 2_000)
        if not rows:
            break
        after = rows[-1][0]
        gone = [
            (item.id,)
            for item in map(noted, rows)
            if item.pool == pool and _concerns(item, people, wanted)
        ]
        if gone:
            async with store.write("journal.erase") as tx:
                await tx.many(sql.JOURNAL_DROP, gone)

    async with store.write("feed.erase") as tx:  # it may have been told while they were erased
        await tx.many(sql.FEED_REDACT, [(pid,) for pid in pids])
        await tx.run(PLAN_KEYS_DROP)  # a replay may have met them in the journal
    await erase_held(store, pool, people, wanted)
    await _erase_conflicts(store, pool, people, wanted)
    await store.scrub()


async def _erase_conflicts(store: Store, pool: int, people: set[int], marks: set[bytes]) -> None:
    async with store.read() as session:
        rows = await session.rows(CONFLICTS, 0, 1 << 31)
    gone = []
    for row in rows:
        pids, keys = _conflict(bytes(row[5]))
        theirs = any(mark(pool, code, key) in marks for code, key in keys.items())
        if row[2] == pool and (theirs or people & set(pids)):
            gone.append((row[0],))
    if gone:
        async with store.write("conflicts.erase") as tx:
            await tx.many(CONFLICT_DROP, gone)


def _concerns(item: Noted, people: set[int], marks: set[bytes]) -> bool:
    body = item.body
    if body.pid in people or body.target in people or body.previous in people:
        return True
    values = [*body.keys.items()]
    values += [(code, v) for code, old, new in body.changes for v in (old, new) if v is not None]
    return any(mark(item.pool, code, key) in marks for code, key in values)
