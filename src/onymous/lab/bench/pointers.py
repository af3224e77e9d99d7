"""What must not grow with history: aliases, merges, undo, a person's first page; disk per batch."""

from __future__ import annotations

import asyncio
import pathlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Iterator
from typing import Any

import msgspec

from onymous.app import Core, calm_collector
from onymous.app import running as running_core
from onymous.flows.activity import NEWEST, Asked, Filter
from onymous.flows.aliases import AliasRequest, request_alias
from onymous.flows.answers import Question
from onymous.flows.events import Incoming, Taken
from onymous.flows.merging import Actor
from onymous.flows.tenants import Caller
from onymous.lab.bench.rows import Bench, Line
from onymous.lab.bench.traffic import KEY, PEOPLE, SERVER_KEY, batch
from onymous.store import history_sql as sql

#: events of the small and of the large history
FEW, MANY = 2, 100_000
#: batches that bring the many
BROUGHT = 500
#: bytes that one batch may take
GOAL = 350
_json = msgspec.json.Decoder()


def flat(bench: Bench) -> Iterator[Line]:
    """Alias, merge and their undoing: a person of 2 events against one of 100,000."""
    bench.progress("aliases and merges")
    url = bench.store("pointers", 100)
    small, large = asyncio.run(_pointed(bench, url))
    slowest = max(statistics.median(v) for v in large.values()) * 1000
    ratio = max(statistics.median(large[k]) / statistics.median(small[k]) for k in large)
    yield Line(
        what="alias, merge, unmerge, undo: 2 to 100,000 events",
        goal="<= 1.5x, < 10 ms",
        measured=f"at most {ratio:.2f}x, {slowest:.1f} ms",
        met=ratio <= 1.5 and slowest < 10,
        detail=", ".join(
            f"{name} {statistics.median(small[name]) * 1000:.1f} ->"
            f" {statistics.median(large[name]) * 1000:.1f} ms"
            for name in large
        ),
    )


async def _pointed(bench: Bench, url: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    out = []
    async with running_core(bench.settings(url)) as core:
        calm_collector()
        caller = core.directory.find(SERVER_KEY)
        assert caller is not None
        for n, (calls, each) in enumerate(((1, FEW), (BROUGHT, MANY // BROUGHT))):
            pids = [
                await _lived(core, caller, f"{n}{known}", calls, each, known=known)
                for known in (False, True)
            ]
            out.append(await _timed(core, caller, pids, bench.rounds * 4))
    return out[0], out[1]


async def _lived(
    core: Core, caller: Caller, name: str, calls: int, each: int, *, known: bool
) -> int:
    """Let somebody do many things; return whose profile it is."""
    taken: Taken | None = None
    at = time.time_ns() // 1_000_000 - 1_000_000
    for n in range(calls):
        events = [
            {"event_type": "custom_event", "data": {"event_name": "x", "n": k}} for k in range(each)
        ]
        raw: dict[str, Any] = {"mp_deviceid": f"bench-{name}", "events": events}
        if known:
            raw["user_identities"] = {"customerid": f"bench-{name}"}
        taken = await _take(core, caller, raw, at + n)
    assert taken is not None
    pid = core.mpids.parse(taken.mpid)
    assert pid is not None, taken
    return pid


async def _take(core: Core, caller: Caller, raw: Any, now_ms: int) -> Taken:
    future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
    item = Incoming(caller=caller, raw=raw, body=msgspec.json.encode(raw), now_ms=now_ms)
    core.events.take(item, future.set_result)
    return await future


async def _timed(core: Core, caller: Caller, pids: list[int], times: int) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {"merge": [], "unmerge": [], "alias": [], "undo of alias": []}
    pool = caller.pool("production")
    one, two = (core.mpids.text(pid) for pid in pids)

    async def clocked(name: str, work: Awaitable[Any]) -> Any:
        start = time.perf_counter()
        result = await work
        out[name].append(time.perf_counter() - start)
        return result

    for _ in range(times):
        now = time.time_ns() // 1_000_000
        actor = Actor(name="bench", reason="bench", now_ms=now)
        merge = await clocked("merge", core.merging.merge(caller.plan, pool, one, two, actor))
        await clocked("unmerge", core.merging.undo_merge(pool, merge.id, actor))
        question = Question(
            op="alias", caller=caller, environment="production", known={}, now_ms=now
        )
        wanted = AliasRequest(source_mpid=one, destination_mpid=two)
        answer = await clocked("alias", request_alias(core.resolver, core.store, question, wanted))
        assert answer.outcome == "applied", (answer.outcome, answer.reason)
        async with core.store.read() as session:
            number = (await session.rows(sql.ALIAS_LATEST, *pids))[0][0]
        await clocked("undo of alias", core.merging.undo_alias(pool, number, actor))
    return out


def first_page(bench: Bench) -> Iterator[Line]:
    """The first page of somebody's history, among many stored batches."""
    url = bench.store("history", PEOPLE)
    count = bench.scale
    bench.progress(f"filling {count} batches")
    times = asyncio.run(_pages(bench, url, count))
    slow = sorted(times)[int(len(times) * 0.99)] * 1000
    usual = statistics.median(times) * 1000
    yield Line(
        what=f"first page of a history at {count:,} batches stored",
        goal="< 5 ms (at 10 million)",
        measured=f"{usual:.2f} ms, p99 {slow:.1f} ms",
        met=usual < 5,
        detail="50 entries of a random person, batches unpacked, in process",
    )


async def _pages(bench: Bench, url: str, count: int) -> list[float]:
    async with running_core(bench.settings(url)) as core:
        calm_collector()
        caller = core.directory.find(KEY)
        assert caller is not None
        await _stored(core, caller, count)
        times = []
        scope = caller.pool("production") >> 1
        for n in range(200):
            asked = Asked(
                scope=scope,
                workspace=caller.workspace,
                pid=1 + n * 7919 % PEOPLE,
                readable=frozenset((caller.workspace_name,)),
                now_ms=1 << 61,
            )
            start = time.perf_counter()
            page = await core.activity.page(asked, Filter(), NEWEST, 50)
            times.append(time.perf_counter() - start)
            assert len(page.items) == min(50, len(page.items)) and page.items
    return times


async def _stored(core: Core, caller: Caller, count: int) -> None:
    """Write batches as `keep_batches` does, many in a transaction."""
    packed = [core.bodies.pack(batch(n, n)) for n in range(1_000)]
    at = 1_760_000_000_000
    for first in range(0, count, 20_000):
        rows = []
        for n in range(first, min(first + 20_000, count)):
            number, body = packed[n % 1_000]
            pid = 1 + n * 7 % PEOPLE
            row = (pid, at + n, 0, 0, at + n, caller.workspace, caller.input, None, number, body)
            rows.append(row)
        async with core.store.write("fill") as tx:
            await tx.many(sql.BATCH_ADD, rows)


def batch_size(bench: Bench) -> Iterator[Line]:
    """Bytes on disk per batch of 1.4 KB."""
    count = 20_000
    bench.progress(f"taking {count} batches")
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        url = f"sqlite:{folder}/disk"
        bench.fill(url, PEOPLE)
        before = _bytes(folder)
        asyncio.run(_taken(bench, url, count))
        each = (_bytes(folder) - before) / count
    yield Line(
        what="disk per event batch of 1.4 KB, indexes included",
        goal=f"<= {GOAL} bytes",
        measured=f"{each:.0f} bytes",
        met=each <= GOAL,
        detail=f"{count:,} batches of {PEOPLE:,} people, with what they change in profiles,"
        " what counts, and the memory of repeats",
    )


def _bytes(folder: str) -> int:
    return sum(f.stat().st_size for f in (pathlib.Path(folder) / "disk").glob("onymous.db"))


async def _taken(bench: Bench, url: str, count: int) -> None:
    async with running_core(bench.settings(url)) as core:
        caller = core.directory.find(KEY)
        assert caller is not None
        now = time.time_ns() // 1_000_000
        for first in range(0, count, 200):
            bodies = [batch(10**9 + n, n * 7 % PEOPLE) for n in range(first, first + 200)]
            await asyncio.gather(*(_take(core, caller, _json.decode(b), now) for b in bodies))
            if first == 4_000:
                # a store learns its dictionary from what it has seen
                await core.upkeep.run(now)
