"""What taking a change of rules back would do, read beside the traffic: nobody waits for it."""

from __future__ import annotations

import asyncio

from onymous.flows.relaying import between
from onymous.flows.reresolve import Carried
from onymous.flows.rule_changes import RuleChange
from onymous.flows.unresolve import BEYOND, Step, depends, grouped, loaded, parts_back
from onymous.rules.errors import DependsOn
from onymous.rules.grouping import Groups
from onymous.rules.strategies import Plan, compile_plan
from onymous.store import rules_sql
from onymous.store.port import Session, Store

#: records looked at before others have their turn
TOGETHER = 50


async def look_back(store: Store, change: RuleChange, *, keep_later: bool) -> Carried:
    """Return what taking a change back would do; raises `DependsOn` as that does."""
    looking = _Looking(store, change, keep_later=keep_later)
    async with store.read() as session:
        await looking.look(session)
    return looking.done


class _Looking:
    def __init__(self, store: Store, change: RuleChange, *, keep_later: bool) -> None:
        self._store, self._change, self._keep_later = store, change, keep_later
        plans = compile_plan(change.became), compile_plan(change.was)
        self._plan: Plan = between(*plans)
        self.done = Carried(change=change.id)

    async def look(self, session: Session) -> None:
        rounds = await self._rounds(session)
        known = {part for parts in rounds for part in parts}
        some, count = list(rounds), 0
        async for page in parts_back(session, self._change.id):
            for part in page.keys() - known:
                some.append({part: page[part]})
                count += len(page[part])
                if count >= TOGETHER:
                    await self._some(session, some)
                    some, count = [], 0
        await self._some(session, some)

    async def _rounds(self, session: Session) -> list[dict[int, list[Step]]]:
        """Return parts of several rounds that concern the same people, together."""
        groups, met = Groups(), dict[int, int]()
        found = await session.rows(rules_sql.STEPS_AGAIN, self._change.id, BEYOND)
        for part, pid in found:
            groups.join(part, met.setdefault(pid, part))
        out: dict[int, dict[int, list[Step]]] = {}
        for part in sorted({part for part, _ in found}):
            rows = await session.rows(rules_sql.STEPS_OF, self._change.id, part)
            out.setdefault(groups.root(part), {}).update(grouped(rows))
        return list(out.values())

    async def _some(self, session: Session, some: list[dict[int, list[Step]]]) -> None:
        """Look at parts, each perhaps with those of other rounds."""
        if not some:
            return
        told = [_over_all(parts) for parts in some]
        working = await loaded(session, told, self._store.find)
        for parts, steps in zip(some, told, strict=True):
            why = await depends(session, self._change.scope, self._plan, working, steps)
            if why and not self._keep_later:
                raise DependsOn(what=why)
            self._count(parts, left=bool(why))
        await asyncio.sleep(0)

    def _count(self, parts: dict[int, list[Step]], *, left: bool) -> None:
        if left:
            self.done.left += len(parts)
            return
        for steps in parts.values():
            self.done.records += len(steps)
            self.done.merged += sum(step.into is not None for step in steps)


def _over_all(parts: dict[int, list[Step]]) -> list[Step]:
    """Return what parts of several rounds did to each record, all in all."""
    out: dict[int, Step] = {}
    for _, steps in sorted(parts.items()):
        for step in steps:
            before = out.get(step.pid, step)
            into = before.into if step.into is None else step.into
            out[step.pid] = Step(step.pid, into, before.flags, before.was, step.became)
    return list(out.values())
