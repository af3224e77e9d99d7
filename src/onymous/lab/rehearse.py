"""Rules tried on a scope's own past: replay its journal under today's rules and under new ones.

Both replays run in a throw-away store through the real flows. What is compared is whom the same
requests found: who would become one person, who would become two, and which identity decides it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from onymous.app import Core, running
from onymous.flows.answers import Answer, Question
from onymous.flows.identity import CODE_OF, NAME_OF, Resolve
from onymous.flows.journal import Noted, noted_ones, when_noted
from onymous.flows.loading import all_records
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.rule_changes import changed_last
from onymous.flows.tenants import Caller
from onymous.lab.rehearsed import (
    SHARED,
    Comparison,
    Grouping,
    Pair,
    Rehearsal,
    decided_by,
    told,
)
from onymous.lab.throwaway import throwaway
from onymous.rules.errors import Refusal
from onymous.rules.grouping import Numbers
from onymous.rules.identifiers import BY_CODE, clean, clean_value
from onymous.rules.records import mask_of
from onymous.rules.strategies import USER_MASK, Plan
from onymous.rules.trace import lines
from onymous.settings import load
from onymous.store import history_sql

PAGE = 2_000
#: requests under way at once, in order
TOGETHER = 256


async def journal_of(core: Core, pool: int, since_ms: int) -> AsyncIterator[list[Noted]]:
    """Yield the journal of a pool in the order of time, in pages.

    A request that came again is there twice, the second time with its number below zero.
    """
    async with core.store.read() as session:
        numbers = await when_noted(session, pool, since_ms)
    for start in range(0, len(numbers), PAGE):
        yield await journal_page(core, numbers[start : start + PAGE])


async def journal_page(core: Core, numbers: Sequence[int]) -> list[Noted]:
    """Return requests of the journal by number."""
    async with core.store.read() as session:
        return await noted_ones(session, numbers)


async def journal_size(core: Core, pool: int, since_ms: int) -> int:
    """Return how many requests of a pool a replay asks."""
    await core.journal.flush(core.store)
    async with core.store.read() as session:
        return int((await session.rows(history_sql.JOURNAL_SIZE, pool, since_ms))[0][0])


async def rehearse(
    core: Core,
    name: str,
    pool: int,
    today: Plan,
    tomorrow: Plan,
    since_ms: int,
    progress: Callable[[int], None],
    reveal: bool = False,
) -> Rehearsal:
    """Replay the journal of a pool under both plans and tell what differs.

    `reveal` shows the identity values that decide as they are; else they are masked.
    """
    found = await compared(core, pool, (today, tomorrow), since_ms, progress, reveal)
    return told(found, name, "development" if pool % 2 else "production")


async def compared(
    core: Core,
    pool: int,
    plans: tuple[Plan, Plan],
    since_ms: int,
    progress: Callable[[int], None],
    reveal: bool = False,
) -> Comparison:
    """Replay the journal of a pool under both plans and compare."""
    single = plans[0].login | plans[0].unique | plans[1].login | plans[1].unique
    before = await _replayed(core, pool, plans[0], single, since_ms, progress)
    after = await _replayed(core, pool, plans[1], single, since_ms, progress)
    now = await _people_now(core, pool, since_ms, before)
    return Comparison(before, after, now, core.mpids.text, reveal)


async def _people_now(core: Core, pool: int, since_ms: int, before: Grouping) -> dict[int, int]:
    """Return request -> record it was answered with, to name people by today's MPIDs.

    What came again found the same person under today's rules, or it were another request of the
    journal. Where the replay knows better, because it does not know what lay between, it is let go.
    """
    out: dict[int, int] = {}
    async with core.store.read() as session:
        changed_ms = await changed_last(session, pool // 2)
    async for page in journal_of(core, pool, since_ms):
        for item in page:
            if item.body.pid is not None:
                out[item.id] = item.body.pid
            people, first = before.people, before.people.get(-item.id)
            if item.id < 0 and item.last_ms >= changed_ms and people.get(item.id) != first:
                people.pop(item.id, None)
    return out


async def _replayed(
    core: Core,
    pool: int,
    plan: Plan,
    single: int,
    since_ms: int,
    progress: Callable[[int], None],
) -> Grouping:
    with throwaway() as folder:
        flags = {"store": f"sqlite:{folder}/store", "journal": False}
        async with running(load(flags, environ={})) as stage:
            replay = Replay(stage, plan)
            async for page in journal_of(core, pool, since_ms):
                for item in page:
                    await replay.take(item)
                    progress(1)
            await replay.settled()
            await replay.conclude(single)
            return replay.out


class Replay:
    """One replay of a journal in a throw-away store."""

    def __init__(
        self,
        stage: Core,
        plan: Plan,
        *,
        why: bool = True,
        tell: bool = True,
        found: Callable[[Noted, int], None] | None = None,
        now: Numbers | None = None,
    ) -> None:
        """`why`: note what decides each request; `tell`: keep its trace too.

        `found` is told whom each request found; without it that is noted in `out`. `now` is what
        a replay knew that goes on.
        """
        self.stage, self.plan, self._why, self._tell = stage, plan, why, tell
        self.out = Grouping()
        self._found = found or self._note
        #: record of the original -> record of the replay that answered for it last
        self._now = Numbers() if now is None else now
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._caller = Caller(
            input=0,
            name="rehearsal",
            kind="server",
            workspace=0,
            workspace_name="rehearsal",
            scope=1,
            scope_name="rehearsal",
            plan=plan,
            api_key="",
            secrets=(),
            server_side=True,
        )

        # what an operator takes away, no rule holds fast
        free = msgspec.structs.replace(plan, immutable=0)
        self._operator = msgspec.structs.replace(self._caller, plan=free)

    async def take(self, item: Noted) -> None:
        """Ask one request of the journal again, after all before it."""
        if item.op == "modify" or item.body.previous is not None:
            await self.settled()
        if len(self._waiting) >= TOGETHER:
            await self.settled()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            self._ask(item, future)
        except Refusal as refusal:
            future.set_result(Answer(refusal=refusal))
        self._waiting[item.id] = future
        future.add_done_callback(lambda f: self._answered(item, f.result()))

    def _ask(self, item: Noted, future: asyncio.Future[Answer]) -> None:
        body, stage = item.body, self.stage
        previous = self._now.get(body.previous) if body.previous is not None else None
        question = Question(
            op=item.op,
            caller=self._caller if item.input or item.op != "modify" else self._operator,
            environment="production",
            known={},
            now_ms=item.first_ms,
            previous=stage.mpids.text(previous) if previous is not None else None,
            key_only=body.key_only,
            explain=self._why,
        )
        if item.op == "modify":
            target = self._now.get(body.target or 0)
            if target is None:
                future.set_result(Answer())
                return
            wanted = [Wanted(NAME_OF[code], old, new) for code, old, new in body.changes]
            mpid = stage.mpids.text(target)
            change_identities(stage.resolver, question, mpid, wanted, future.set_result)
            return
        keys = {NAME_OF[code]: key for code, key in body.keys.items()}
        plan = self.plan
        cleaned = clean(keys, strict=False, folding=plan.folding, blocked=plan.blocked)
        work = Resolve(stage.resolver, question, cleaned, future.set_result)
        # in order: one that changes nothing must still see what those before it changed
        stage.desk.submit_write(work)

    def _answered(self, item: Noted, answer: Answer) -> None:
        pid = self.stage.mpids.parse(answer.mpid) if answer.mpid else None
        if pid is None:
            return
        self._found(item, pid)
        if item.body.pid is not None:
            self._now.put(item.body.pid, pid)
        if answer.trace is not None:
            kind = decided_by(answer.trace)
            if kind is not None:
                code = CODE_OF[kind]
                self.out.by[item.id] = (code, self._key(code, item.body.keys.get(code, "")))
            if self._tell:
                self.out.traces[item.id] = lines(answer.trace)

    def _note(self, item: Noted, pid: int) -> None:
        self.out.people[item.id] = pid

    async def settled(self) -> None:
        """Wait for every answer."""
        waiting, self._waiting = self._waiting, {}
        await asyncio.gather(*waiting.values())
        await asyncio.sleep(0)

    def _key(self, code: int, key: str) -> str:
        """Return a value of the journal as these rules fold it."""
        return clean_value(BY_CODE[code], key, self.plan.folding) or key

    async def conclude(self, single: int) -> None:
        """Look at the people the replay ended with; `single`: types people have one value of."""
        holders: dict[Pair, int] = Counter()
        async with self.stage.store.read() as session:
            records = await all_records(session)
        for record in records:
            counts = Counter(v.code for v in record.values if single >> v.code & 1)
            if any(n > 1 for n in counts.values()):
                self.out.several.add(record.pid)
            if not mask_of(record) & (self.plan.login or USER_MASK):
                continue
            self.out.known.add(record.pid)
            for value in record.values:
                holders[value.code, value.key] += 1
        self.out.shared = {pair: count for pair, count in holders.items() if count > SHARED}
