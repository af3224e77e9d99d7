"""Random lives of two scopes whose rules change over their past while they are joined and split.

Requests, changes of rules, their undoing, joins, splits, their undoing and rollbacks in any order,
with sixteen callers beside each. What is refused changes nothing; after each step lookups say what
records say, unique values have one holder by the rules in force, everybody who was told an MPID
is somebody, and nobody answers for two customers.
"""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from tests.flows.going import TWO
from tests.flows.test_scope_audit import Life

from onymous.app import running
from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows import tenancy
from onymous.flows.carrying import rule_changes
from onymous.flows.config_text import text_of
from onymous.flows.loading import all_records
from onymous.flows.merging import Actor
from onymous.flows.scope_planning import wanted_undo
from onymous.flows.tenants import apply, rollback
from onymous.flows.versions import newest
from onymous.rules.errors import Refusal
from onymous.rules.identifiers import BY_NAME
from onymous.rules.records import ERASED, KNOWN, MERGED
from onymous.rules.strategies import compile_plan
from onymous.settings import load

LOGINS = (("customerid",), ("customerid", "email"), ("customerid", "email", "mobile_number"))
DROP = {"customerid": "drop", "email": "drop", "mobile_number": "drop"}
CUSTOMER = BY_NAME["customerid"].code
CALLERS = 16


class Ruled(Life):
    """Two scopes, their people and their rules."""

    #: what happened, for the story of a failure
    log: list[str]

    async def step(self, kind: str, *, crowd: bool) -> None:
        """Do something, beside a crowd or alone; refused or not, all must hold afterwards."""
        before = None if crowd else await self.whole()
        work = getattr(self, f"_{kind}")()
        done = await (self._crowded(work) if crowd else self._tried(work))
        self.log.append(f"{kind}{' in a crowd' if crowd else ''}: {done}")
        if before is not None and done is not None:
            assert await self.whole() == before, self.log
        await self.holds()

    async def _tried(self, work: Awaitable[None]) -> str | None:
        """Return why it was refused, or None."""
        try:
            await work
        except Refusal as refusal:
            return refusal.message
        finally:
            await self.core.directory.load()
            await self.core.merging.refresh()
        return None

    async def _crowded(self, work: Awaitable[None]) -> str | None:
        over = asyncio.Event()

        async def caller() -> None:
            for _ in range(30):
                await self.live(1)
                if over.is_set():
                    return
                await asyncio.sleep(0)

        callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        try:
            return await self._tried(work)
        finally:
            over.set()
            await asyncio.gather(*callers)

    # -- what may happen ----------------------------------------------------------------------

    async def _rules(self) -> None:
        async with self.core.store.read() as session:
            state, _ = await tenancy.read_state(session)
        name = self._chance.choice(sorted(state.scopes))
        login = self._chance.choice(LOGINS)
        for other in state.scopes if self._chance.random() < 0.5 else [name]:
            state.scopes[other] = msgspec.structs.replace(
                state.scopes[other], login=login, unique=login
            )
        actor = Actor(name="ann", reason="try", now_ms=self._now)
        await carry_over(self.core, text_of(state), actor, 0.0, quiet=True)

    async def _unrules(self) -> None:
        changes = await rule_changes(self.core.store)
        if changes:
            number = self._chance.choice(changes[:2]).id
            actor = Actor(name="ann", reason="back", now_ms=self._now)
            await undo_rules(self.core, number, actor, 0.0, keep_later=False)

    async def _join(self) -> None:
        source, target = self._chance.sample(["red", "blue"], 2)
        await self.change(source=source, target=target, types=DROP)

    async def _split(self) -> None:
        name = f"own{len(self.log)}"
        source = self._chance.choice(["red", "blue"])
        await self.change("split", source=source, target=name, workspaces=["club"])

    async def _unscope(self) -> None:
        async with self.core.store.read() as session:
            rows = await session.rows("SELECT max(id) FROM scope_change WHERE undoes IS NULL")
        wanted = await wanted_undo(self.core.store, rows[0][0] or 0, DROP)
        await self.finish(await self.begin_wanted(wanted))

    async def _rollback(self) -> None:
        async with self.core.store.read() as session:
            last = await newest(session)
        number = self._chance.randrange(1, last + 1)
        where = (self.core.store, self.core.key, number)
        await rollback(*where, actor="ann", reason="back", now_ms=self._now)

    async def _live(self) -> None:
        await self.live(10)

    # -- what must hold -----------------------------------------------------------------------

    async def whole(self) -> Any:
        """Who is who, by records, lookups and rules."""
        async with self.core.store.read() as session:
            records = await all_records(session)
            state, _ = await tenancy.read_state(session)
        told = {
            r.pid: (r.pool, r.flags & (KNOWN | MERGED), sorted((v.code, v.key) for v in r.values))
            for r in records
            if r.values or r.flags & MERGED
        }
        return told, await self.lookups(), state.scopes

    async def holds(self) -> None:
        """Check what must always hold, by the rules in force."""
        async with self.core.store.read() as session:
            state, ids = await tenancy.read_state(session)
            records = [r for r in await all_records(session) if not r.flags & ERASED]
            rows = await session.rows("SELECT slot, value, holder FROM identity WHERE holder >= 0")
        plans = {ids.scopes[name]: compile_plan(config) for name, config in state.scopes.items()}
        await self.audit(())
        # a unique value stands alone under 0, any other under its record: or readers miss it
        for slot, value, holder in rows:
            unique = plans[slot // 64 // 2].unique >> slot % 64 & 1
            assert (holder == 0) == bool(unique), (slot, value, holder, self.log)
        customers: dict[int, set[str]] = {}
        for r in records:
            one = r.pid
            while one in self.core.resolver.merged:
                one = self.core.resolver.merged[one]
            customers.setdefault(one, set()).update(r.keys_of(CUSTOMER))
        assert all(len(names) <= 1 for names in customers.values()), self.log


@asynccontextmanager
async def ruled(place: Any, folder: pathlib.Path, seed: int) -> AsyncIterator[Ruled]:
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    given = {"store": url, "master_key_file": str(folder / "master.key")}
    async with running(load(given, environ={})) as core:
        sets = ", login: [customerid], unique: [customerid]"
        text = TWO.format(strategy="profile_conversion", sets=sets)
        await apply(core.store, core.key, text, actor="test", now_ms=2)
        await core.directory.load()
        it = Ruled(core, random.Random(seed))
        it.log = []
        yield it


STEPS = ("rules", "rules", "unrules", "unrules", "join", "split", "unscope", "rollback", "live")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("crowd", [False, True], ids=["alone", "in a crowd"])
async def test_rules_and_scopes_change_in_any_order(
    place: Any, tmp_path: pathlib.Path, seed: int, crowd: bool
) -> None:
    async with ruled(place, tmp_path, seed) as it:
        chance = random.Random(seed + 50)
        await it.live(40)
        await it.holds()
        for _ in range(9):
            await it.step(chance.choice(STEPS), crowd=crowd)
            await it.live(8)
        await it.holds()
        assert any(line.endswith(": None") for line in it.log), it.log


async def test_rules_taken_back_at_once_were_never_changed(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """Joined, changed, changed again: taken back in reverse everything is as it was."""
    async with ruled(place, tmp_path, 11) as it:
        await it.live(60)
        start = await it.whole()
        join = await it.change(source="red", target="blue", types=DROP)
        seen = [await it.whole()]
        for _ in range(2):
            await it.step("rules", crowd=False)
            seen.append(await it.whole())
        for change in [c for c in await rule_changes(it.core.store) if c.undone_ms is None]:
            actor = Actor(name="ann", reason="back", now_ms=9)
            await undo_rules(it.core, change.id, actor, 0.0, keep_later=False)
            await it.core.directory.load()
            await it.holds()
        after = await it.whole()
        kept = {p: v for p, v in after[0].items() if p in seen[0][0]}
        assert kept == seen[0][0] and after[1:] == seen[0][1:]
        await it.undo(join)
        await it.holds()
        ended = await it.whole()
        assert ended[1] == start[1] and ended[2]["blue"] == start[2]["blue"]
