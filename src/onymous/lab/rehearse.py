"""Rules tried on a scope's own past: replay its journal under today's rules and under new ones.

Both replays run in a throw-away store through the real flows. What is compared is whom the same
requests found: who would become one person, who would become two, and which identity decides it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable

import msgspec

from onymous.app import Core, running
from onymous.flows.answers import Answer, Question
from onymous.flows.identity import NAME_OF, Resolve
from onymous.flows.journal import Noted, read_journal
from onymous.flows.loading import all_records
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.tenants import Caller
from onymous.rules.errors import Refusal
from onymous.rules.identifiers import clean
from onymous.rules.records import mask_of
from onymous.rules.strategies import Plan
from onymous.rules.trace import lines
from onymous.settings import load

PAGE = 2_000
#: requests under way at once, in order
TOGETHER = 256
#: examples told in full
EXAMPLES = 20
#: a device identity on more known people than this is a shared one
SHARED = 3


class Grouping(msgspec.Struct):
    """Who is who after a replay: request -> person (a number of the replay), and how."""

    people: dict[int, int] = {}
    #: request -> type that decided
    by: dict[int, str] = {}
    traces: dict[int, list[str]] = {}
    #: people with a login id
    known: set[int] = set()
    #: identity type -> number of values held by more than `SHARED` known people
    shared: dict[str, int] = {}
    #: people holding several values of a type people have one of
    several: int = 0


class Example(msgspec.Struct, kw_only=True):
    """People who would be merged or split, told for a person."""

    kind: str
    #: people before (split: the one), as MPIDs of today
    people: list[str]
    #: into how many
    into: int
    decided_by: str
    trace: list[str]


class Rehearsal(msgspec.Struct, kw_only=True):
    """What new rules would make of the past."""

    scope: str
    environment: str
    requests: int
    people_before: int
    people_after: int
    known_before: int
    known_after: int
    #: groups of people who would become one, and people who would become several
    merges: int
    splits: int
    merged_known: int
    #: which identity type decides the merges and splits
    by: dict[str, int]
    #: identity values on many known people, per type, before and after
    shared_before: dict[str, int]
    shared_after: dict[str, int]
    #: people holding several values of a login or unique type, before and after
    several_before: int
    several_after: int
    examples: list[Example]


async def journal_of(core: Core, pool: int, since_ms: int) -> AsyncIterator[list[Noted]]:
    """Yield the journal of a pool in order, in pages."""
    after = (0, 0)
    while True:
        async with core.store.read() as session:
            rows = await read_journal(session, pool, since_ms, after, PAGE)
        if not rows:
            return
        after = (rows[-1].first_ms, rows[-1].id)
        yield rows


async def rehearse(
    core: Core,
    name: str,
    pool: int,
    today: Plan,
    tomorrow: Plan,
    since_ms: int,
    progress: Callable[[int], None],
) -> Rehearsal:
    """Replay the journal of a pool under both plans and compare."""
    before = await _replayed(core, pool, today, since_ms, progress)
    after = await _replayed(core, pool, tomorrow, since_ms, progress)
    told = await _people_now(core, pool, since_ms)
    return _compare(core, name, pool, before, after, told)


async def _people_now(core: Core, pool: int, since_ms: int) -> dict[int, int]:
    """Return request -> record it was answered with, to name people by today's MPIDs."""
    out: dict[int, int] = {}
    async for page in journal_of(core, pool, since_ms):
        out |= {item.id: item.body.pid for item in page if item.body.pid is not None}
    return out


async def _replayed(
    core: Core, pool: int, plan: Plan, since_ms: int, progress: Callable[[int], None]
) -> Grouping:
    with tempfile.TemporaryDirectory(prefix="onymous-rehearsal-") as folder:
        flags = {"store": f"sqlite:{folder}/store", "journal": False}
        async with running(load(flags, environ={})) as stage:
            replay = Replay(stage, plan)
            async for page in journal_of(core, pool, since_ms):
                for item in page:
                    await replay.take(item)
                    progress(1)
            await replay.settled()
            await replay.conclude()
            return replay.out


class Replay:
    """One replay of a journal in a throw-away store."""

    def __init__(self, stage: Core, plan: Plan) -> None:
        self.stage, self.plan = stage, plan
        self.out = Grouping()
        #: record of the original -> record of the replay that answered for it last
        self._now: dict[int, int] = {}
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
            caller=self._caller,
            environment="production",
            known={},
            now_ms=item.first_ms,
            previous=stage.mpids.text(previous) if previous is not None else None,
            key_only=body.key_only,
            explain=True,
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
        self.out.people[item.id] = pid
        if item.body.pid is not None:
            self._now[item.body.pid] = pid
        if answer.trace is not None:
            found = [step.type for step in answer.trace.steps if step.left]
            self.out.by[item.id] = found[-1] if found else "none"
            self.out.traces[item.id] = lines(answer.trace)

    async def settled(self) -> None:
        """Wait for every answer."""
        waiting, self._waiting = self._waiting, {}
        await asyncio.gather(*waiting.values())
        await asyncio.sleep(0)

    async def conclude(self) -> None:
        """Look at the people the replay ended with."""
        holders: dict[tuple[int, str], int] = Counter()
        async with self.stage.store.read() as session:
            records = await all_records(session)
        single = self.plan.login | self.plan.unique
        for record in records:
            if not mask_of(record) & (self.plan.login or ~0):
                continue
            self.out.known.add(record.pid)
            counts = Counter(v.code for v in record.values if single >> v.code & 1)
            self.out.several += any(n > 1 for n in counts.values())
            for value in record.values:
                holders[value.code, value.key] += 1
        shared: dict[str, int] = Counter()
        for (code, _), count in holders.items():
            if count > SHARED:
                shared[NAME_OF[code]] += 1
        self.out.shared = dict(shared)


class _Comparison:
    """Who became whom between two replays."""

    def __init__(self, core: Core, before: Grouping, after: Grouping, told: dict[int, int]) -> None:
        self._core, self._told = core, told
        self.before, self.after = before, after
        olds: dict[int, set[int]] = defaultdict(set)
        news: dict[int, set[int]] = defaultdict(set)
        #: (person before, person after) -> a request that shows it
        self._sample: dict[tuple[int, int], int] = {}
        for request, old in before.people.items():
            new = after.people.get(request)
            if new is not None:
                olds[new].add(old)
                news[old].add(new)
                self._sample[old, new] = request
        self.merges = {new: some for new, some in olds.items() if len(some) > 1}
        self.splits = {old: some for old, some in news.items() if len(some) > 1}

    def by(self) -> dict[str, int]:
        """Count which type decides the merges and splits."""
        out: dict[str, int] = Counter()
        for new, some in self.merges.items():
            out[self.after.by.get(self._sample[max(some), new], "none")] += 1
        for old, some in self.splits.items():
            out[self.before.by.get(self._sample[old, max(some)], "none")] += 1
        return dict(out)

    def examples(self) -> list[Example]:
        """Tell some of the merges and splits in full."""
        out = []
        for new, some in list(self.merges.items())[:EXAMPLES]:
            pairs = [(old, new) for old in some]
            out.append(self._example("merge", pairs, (max(some), new), 1))
        for old, some in list(self.splits.items())[:EXAMPLES]:
            pairs = [(old, new) for new in some]
            out.append(self._example("split", pairs, (old, max(some)), len(some)))
        return out

    def _example(
        self, kind: str, pairs: list[tuple[int, int]], last: tuple[int, int], into: int
    ) -> Example:
        requests = [self._sample[pair] for pair in pairs]
        people = {self._core.mpids.text(self._told[r]) for r in requests if r in self._told}
        request = self._sample[last]
        return Example(
            kind=kind,
            people=sorted(people),
            into=into,
            decided_by=self.after.by.get(request, "none"),
            trace=self.after.traces.get(request, []),
        )


def _compare(
    core: Core, name: str, pool: int, before: Grouping, after: Grouping, told: dict[int, int]
) -> Rehearsal:
    found = _Comparison(core, before, after, told)
    merged_known = sum(len(some & before.known) > 1 for some in found.merges.values())
    return Rehearsal(
        scope=name,
        environment="development" if pool % 2 else "production",
        requests=len(before.people),
        people_before=len(set(before.people.values())),
        people_after=len(set(after.people.values())),
        known_before=len(before.known),
        known_after=len(after.known),
        merges=len(found.merges),
        splits=len(found.splits),
        merged_known=merged_known,
        by=found.by(),
        shared_before=before.shared,
        shared_after=after.shared,
        several_before=before.several,
        several_after=after.several,
        examples=found.examples(),
    )
