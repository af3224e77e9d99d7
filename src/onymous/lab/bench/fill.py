"""Stores filled for measurements: through the flows, or for large ones through the store port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import msgspec

from onymous.app import Core, calm_collector, running
from onymous.flows.answers import Answer, Question
from onymous.flows.identity import CODE_OF
from onymous.flows.tenants import apply
from onymous.flows.working import Origin
from onymous.lab.bench.traffic import HOT_STAMP, KEY, TENANTS
from onymous.rules.ledger import ATTACHED, CREATED, Change, Entry
from onymous.rules.records import KNOWN, Value
from onymous.settings import Settings
from onymous.store import sql as statements

#: profiles written in one transaction of the loader
PIECE = 10_000
TOGETHER = 256
_encode = msgspec.msgpack.Encoder().encode


async def tenants(settings: Settings) -> dict[str, str]:
    """Make the tenants of the benchmark; return secrets by input."""
    async with running(settings) as core:
        out = await apply(core.store, core.key, TENANTS, actor="bench", now_ms=1)
    return {c.input: c.secret for c in out.credentials}


def person(number: int) -> dict[str, str]:
    """Return the identities of one person, as the load generator writes them."""
    return {
        "customerid": f"c{number:010d}",
        "email": f"person{number:010d}@example.org",
        "device_application_stamp": f"7a0cdd5b-1c1c-4222-8333-{number:012d}",
    }


async def through_flows(
    settings: Settings, known: Iterator[dict[str, str]], progress: Callable[[int], None]
) -> int:
    """Let people be identified one after the other; return how many there were."""
    count = 0
    async with running(settings) as core:
        calm_collector()
        caller = core.directory.find(KEY)
        assert caller is not None
        free = asyncio.Semaphore(TOGETHER)

        def done(answer: Answer) -> None:
            free.release()
            assert answer.refusal is None, type(answer.refusal)

        for identities in known:
            await free.acquire()
            question = Question(
                op="identify",
                caller=caller,
                environment="production",
                known=identities,
                now_ms=time.time_ns() // 1_000_000,
            )
            core.resolver.ask(question, done)
            count += 1
            if count % 1000 == 0:
                progress(1000)
                await asyncio.sleep(0)
        for _ in range(TOGETHER):
            await free.acquire()
    return count


async def through_port(
    settings: Settings, start: int, count: int, progress: Callable[[int], None]
) -> None:
    """Write people through the store port, in large transactions: for sizes that take too long."""
    async with running(settings) as core:
        caller = core.directory.find(KEY)
        assert caller is not None
        for first in range(start, start + count, PIECE):
            size = min(PIECE, start + count - first)
            await _piece(core, caller.pool("production"), caller.workspace, first, size)
            progress(size)


async def _piece(core: Core, pool: int, workspace: int, first: int, size: int) -> None:
    codes = [CODE_OF[name] for name in person(0)]
    unique = CODE_OF["customerid"]
    now = time.time_ns() // 1_000_000
    origin = Origin("identify", now, workspace, 1)
    profiles, rows, entries = [], [], []
    async with core.store.write("fill") as tx:
        numbers = await tx.numbers("pid", size)
        ledger = await tx.numbers("ledger", size)
        for pid, seq, number in zip(numbers, ledger, range(first, first + size), strict=True):
            pairs = list(zip(codes, person(number).values(), strict=True))
            values = [Value(c, v, None, now, now, workspace, 1) for c, v in pairs]
            profiles.append((pid, pool, now, now, KNOWN, None, _encode(values)))
            for code, value in pairs:
                holder = 0 if code == unique else pid
                rows.append((pool * 64 + code, value, holder, pid, None))
            changes = [Change(CREATED), *(Change(ATTACHED, c, v) for c, v in pairs)]
            body = _encode(Entry(origin.op, workspace, 1, None, changes))
            entries.append((seq, pid, now, body))
        await tx.many(statements.PROFILE_ADD, profiles)
        await tx.many(statements.IDENTITY_ADD, sorted(rows, key=lambda r: (r[0], r[1], r[2])))
        await tx.many(statements.LEDGER_ADD, entries)


def hot_people(count: int) -> Iterator[dict[str, str]]:
    """Yield known people who all share one device."""
    for number in range(count):
        yield {"customerid": f"hot{number:08d}", "device_application_stamp": HOT_STAMP}
