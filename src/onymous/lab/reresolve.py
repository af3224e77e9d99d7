"""Plans what new rules make of the people there are: the journal is replayed under the new rules,
and records are compared with what came out.

What is known of people lies in a throw-away file meanwhile, and those who share no value and no
request are planned apart, so that memory does not grow with a scope.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from operator import itemgetter

import msgspec

from onymous.app import Core, running
from onymous.flows.carrying import pool_pages
from onymous.flows.journal import Noted, noted_after
from onymous.lab.rehearse import Replay, journal_page
from onymous.lab.resuming import Keeping, Stand
from onymous.lab.throwaway import throwaway
from onymous.rules.grouping import Groups
from onymous.rules.identifiers import BY_CODE, Folding, clean_value
from onymous.rules.records import Record, Value
from onymous.rules.reresolving import Crowd, Key, Part, Target, plan_moves
from onymous.rules.strategies import Plan
from onymous.settings import load
from onymous.store import scratch_sql as sql
from onymous.store import sql as store_sql
from onymous.store.packing import unpack_record
from onymous.store.port import FEW
from onymous.store.scratch import Scratch

#: nodes planned at once
TOGETHER = 2_000
#: people of a replay read at once, and requests
PAGE, ASKED = 5_000, 2_000
#: looks for requests that came while others were replayed
MOST_ROUNDS = 5

_encode = msgspec.msgpack.Encoder().encode
_record = msgspec.msgpack.Decoder(Record).decode
_keys = msgspec.msgpack.Decoder(set[Key]).decode
_value = msgspec.msgpack.Decoder(Value).decode
_crowd = msgspec.msgpack.Decoder(Crowd).decode
_part = msgspec.msgpack.Decoder(Part).decode


class Parts:
    """Parts of a plan, read one by one from where they lie; as often as wanted."""

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    def __iter__(self) -> Iterator[Part]:
        """Yield each part."""
        return (_part(row[0]) for row in self._scratch.rows(sql.PARTS))


@asynccontextmanager
async def planned(
    core: Core,
    pool: int,
    plan: Plan,
    progress: Callable[[int], None],
    keeping: Keeping | None = None,
) -> AsyncIterator[Parts]:
    """Plan the moves that carry a pool over to new rules; the plan lies in a file until the end.

    `keeping` lets it go on where a killed one was.
    """
    with contextlib.closing(Scratch()) as scratch:
        past = Past(core, pool, plan, scratch)
        await past.replay(progress, keeping)
        await past.take_records()
        past.plan_all()
        yield Parts(scratch)


def folded(value: Value, plan: Plan) -> str:
    """Return the comparison key of a value under the folding of other rules."""
    return _refold(value.code, value.text, plan.folding) or value.key


@functools.lru_cache(maxsize=32_768)
def _refold(code: int, text: str, folding: Folding) -> str | None:
    return clean_value(BY_CODE[code], text, folding)


class Past:
    """What is known of the people of one pool, and what a replay under new rules makes of them."""

    def __init__(self, core: Core, pool: int, plan: Plan, scratch: Scratch) -> None:
        self._core, self._pool, self._plan, self.scratch = core, pool, plan, scratch
        self._votes: list[tuple[int, int]] = []

    async def replay(self, progress: Callable[[int], None], keeping: Keeping | None = None) -> None:
        """Replay the journal in a throw-away store and keep whom it ended with."""
        await self._core.journal.flush(self._core.store)
        with throwaway() as folder:
            stand = await keeping.begin(self.scratch, folder) if keeping is not None else None
            if stand is None:
                stand = await self._noted(Stand(array("q"), -1))
            else:
                progress(stand.done)
            flags = {"store": f"sqlite:{folder}/store", "journal": False}
            async with running(load(flags, environ={})) as stage:
                replay = Replay(stage, self._plan, why=False, found=self._found, now=stand.now)
                for _ in range(MOST_ROUNDS):
                    await self._ask(replay, stand, progress, keeping)
                    before = len(stand.numbers)
                    # what came while it was replayed
                    await self._noted(stand)
                    if len(stand.numbers) == before:
                        break
                await self._take_people(stage)

    async def _noted(self, stand: Stand) -> Stand:
        """Let requests follow that are in the journal since."""
        async with self._core.store.read() as session:
            since = stand.newest_ms + 1
            more, newest = await noted_after(session, self._pool, since, stand.newest_ms)
        stand.numbers.extend(more)
        stand.newest_ms = newest
        return stand

    async def _ask(
        self,
        replay: Replay,
        stand: Stand,
        progress: Callable[[int], None],
        keeping: Keeping | None,
    ) -> None:
        """Ask again what was not asked yet."""
        while some := stand.numbers[stand.done : stand.done + ASKED]:
            page = await journal_page(self._core, some)
            self._note(page)
            for item in page:
                await replay.take(item)
                progress(1)
            stand.done += len(some)
            if keeping is not None and keeping.due:
                await replay.settled()
                self._file_votes()
                await keeping.keep(replay.stage, self.scratch, stand)
            self._file_votes()
        await replay.settled()
        self._file_votes()

    def _found(self, item: Noted, person: int) -> None:
        if item.body.pid is not None:
            self._votes.append((item.body.pid, person))

    def _file_votes(self) -> None:
        votes, self._votes = self._votes, []
        self.scratch.many(sql.VOTE_ADD, votes)

    def _note(self, page: list[Noted]) -> None:
        """Remember which values a record was asked for by, and where each first came from."""
        evidence, origins = [], []
        for item in page:
            body = item.body
            if body.pid is None or item.id < 0:
                continue
            pairs = [*body.keys.items()]
            pairs += [(code, new) for code, _, new in body.changes if new is not None]
            for code, key in pairs:
                value = Value(code, key, None, item.first_ms, item.last_ms, item.workspace, 0)
                value.input, key = item.input, folded(value, self._plan)
                value.shown, value.key = (value.key if value.key != key else None), key
                evidence.append((body.pid, code, key))
                origins.append((code, key, _encode(value)))
        self.scratch.many(sql.EVIDENCE_ADD, evidence)
        self.scratch.many(sql.ORIGIN_ADD, origins)

    async def _take_people(self, stage: Core) -> None:
        after = 0
        async with stage.store.read() as session:
            while rows := await session.rows(store_sql.PROFILES_AFTER, after, PAGE):
                after = rows[-1][0]
                people = [r for r in map(unpack_record, rows) if r.values]
                held = {r.pid: {(v.code, v.key) for v in r.values} for r in people}
                self._take((2 * pid + 1, _encode(keys), keys) for pid, keys in held.items())

    async def take_records(self) -> None:
        """Take the records of today, with their values as the new rules fold them."""
        async with self._core.store.read() as session:
            async for page in pool_pages(session, self._pool):
                self._take((2 * r.pid, _encode(r), self._folded(r)) for r in page)

    def _folded(self, record: Record) -> set[Key]:
        return {(v.code, folded(v, self._plan)) for v in record.values}

    def _take(self, nodes: Iterable[tuple[int, bytes, set[Key]]]) -> None:
        some = list(nodes)
        self.scratch.many(sql.NODE_ADD, [(node, body) for node, body, _ in some])
        held = [(*key, node) for node, _, keys in some for key in keys]
        self.scratch.many(sql.HOLDING_ADD, held)

    # -- planning ---------------------------------------------------------------------------

    def plan_all(self) -> None:
        """Plan who moves, group by group, and file the parts."""
        groups, scratch = self._groups(), self.scratch
        nodes = scratch.rows(sql.NODES)
        scratch.many(sql.MEMBER_ADD, ((groups.root(node), node) for (node,) in nodes))
        some: list[int] = []
        for _, members in itertools.groupby(scratch.rows(sql.MEMBERS), itemgetter(0)):
            some += [node for _, node in members]
            if len(some) >= TOGETHER:
                self._plan_some(some)
                some = []
        self._plan_some(some)

    def _groups(self) -> Groups:
        """Put together who shares a request, or a value that few have or one only may have."""
        groups, scratch = Groups(), self.scratch
        for record, person in scratch.rows(sql.VOTES):
            groups.join(2 * record, 2 * person + 1)
        rows = scratch.rows(sql.HOLDINGS)
        for (code, key), some in itertools.groupby(rows, itemgetter(0, 1)):
            nodes = [row[2] for row in some]
            records = [node // 2 for node in nodes if not node % 2]
            if len(records) > FEW and not self._plan.unique >> code & 1:
                crowd = Crowd(self._first(records, (code, key)), len(records) < len(nodes))
                scratch.many(sql.CROWD_ADD, [(code, key, _encode(crowd))])
                continue
            for node in nodes[1:]:
                groups.join(nodes[0], node)
        return groups

    def _first(self, records: list[int], key: Key) -> Value:
        """Return a value as the first of its holders knows it."""
        found = (v for pid in records for v in self._record(pid).values if v.code == key[0])
        return min((v for v in found if folded(v, self._plan) == key[1]), key=lambda v: v.first_ms)

    def _record(self, pid: int) -> Record:
        return _record(next(self.scratch.rows(sql.NODE_OF, 2 * pid))[0])

    def _plan_some(self, nodes: list[int]) -> None:
        records, target = self.known_of(nodes)
        parts = plan_moves(records, target, self._plan, lambda value: folded(value, self._plan))
        self.scratch.many(sql.PART_ADD, [(_encode(part),) for part in parts])

    def known_of(self, nodes: Iterable[int]) -> tuple[list[Record], Target]:
        """Return records and people, and all that is known of them."""
        out, records, rows = Target(), [], self.scratch.rows
        for node in nodes:
            if node % 2:
                out.people[node // 2] = _keys(next(rows(sql.NODE_OF, node))[0])
                continue
            pid = node // 2
            records.append(self._record(pid))
            out.votes |= {(pid, person): count for person, count in rows(sql.VOTES_OF, pid)}
            out.evidence[pid] = set(rows(sql.EVIDENCE_OF, pid))
        held = set().union(*map(self._folded, records))
        wanted = set().union(*out.people.values())
        for key in held | wanted:
            for (body,) in rows(sql.CROWD_OF, *key):
                out.crowds[key] = _crowd(body)
        for key in wanted - held - out.crowds.keys():
            for (body,) in rows(sql.ORIGIN_OF, *key):
                out.origins[key] = _value(body)
        return records, out
