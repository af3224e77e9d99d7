"""Joins and splits of scopes, with the server running: planned, done in pieces, taken back.

The workspaces that go over are held (their requests are answered 503) from the start until every
profile is on its side, so that nobody looks for a person who is on the way. Every piece is one
transaction with its place in it: a process that dies is taken over by any other.
"""

from __future__ import annotations

import asyncio
import json
import time

import msgspec

from onymous.flows import tenancy, versions
from onymous.flows.retrying import retried
from onymous.flows.scope_moving import Choices, Piece, ScopeChange
from onymous.flows.scope_restoring import restore, unmerge
from onymous.flows.seen import SeenBuffer
from onymous.rules.strategies import Plan, compile_plan
from onymous.store import scopes_sql as moves
from onymous.store import sql
from onymous.store.packing import SLOTS
from onymous.store.port import Row, Session, Store, Transaction
from onymous.store.review_sql import HELD_FOLLOW

#: every process reads who is held within this time
SETTLE_MS = 4_000
#: profiles in one transaction: it must not hold requests up
TOGETHER = 64
#: how long one job goes on before it lets others have their turn
WHILE_S = 2.0
#: after the workspaces went over: when to look for what slow processes still wrote behind
SWEEPS_MS = (SETTLE_MS, 15_000, 60_000)
#: taking a join back, state after state: who came over goes home and gets back what they lost,
#: then those who were met since; then what was in the way of others
_BACK = {
    "unmerging": "moving",
    "moving": "restoring",
    "restoring": "parting",
    "parting": "restoring again",
    "restoring again": "",
}
_choices = msgspec.json.Decoder(Choices).decode


async def read_change(session: Session, number: int) -> ScopeChange | None:
    """Return a join or split, or None."""
    rows = await session.rows(moves.CHANGE_GET, number)
    return scope_change(rows[0]) if rows else None


def scope_change(row: Row) -> ScopeChange:
    """Return a join or split from its row."""
    number, kind, source, target, workspaces, body, author, reason, at_ms = row[:9]
    state, due, cursor, high, undoes = row[9:]
    return ScopeChange(
        id=number,
        kind=kind,
        source=source,
        target=target,
        workspaces=json.loads(bytes(workspaces)),
        choices=_choices(bytes(body)),
        author=author,
        reason=reason,
        at_ms=at_ms,
        state=state,
        due=due,
        cursor=cursor,
        high=high,
        undoes=undoes,
    )


class ScopeChanger:
    """Does what was begun, piece by piece."""

    def __init__(self, store: Store, seen: SeenBuffer) -> None:
        self._store, self._seen = store, seen

    async def step(self, number: int, now_ms: int, *, hurry: bool = False) -> int | None:
        """Do one piece of a change; return when to go on (now: 0), or None when it is done.

        `hurry` waits for nobody: only where no other process serves.
        """
        async with self._store.read() as session:
            change = await read_change(session, number)
        if change is None or change.state == "done":
            return None
        if change.due > now_ms and not hurry:
            return change.due
        if change.state == "waiting":
            await self._start(change, now_ms)
        elif change.state == "sweeping":
            return await self._sweep(change, now_ms)
        elif change.kind == "unjoin":
            await self._pieces(change, now_ms, _BACK[change.state])
        else:
            await self._pieces(change, now_ms, "")
        return 0

    async def over(self, number: int) -> bool:
        """Return whether the workspaces of a change have gone over."""
        async with self._store.read() as session:
            change = await read_change(session, number)
        return change is None or change.state in ("sweeping", "done")

    async def _start(self, change: ScopeChange, now_ms: int) -> None:
        """Everybody knows who is held: erasures under way end first, then people may go over."""
        async with self._store.read() as session:
            erasing = await session.rows(sql.JOB_OF_KIND, "journal_erase")
        if erasing:  # it names the journal by pool
            await self._to(change, "waiting", now_ms + 1_000)
            return
        if change.joins:
            await self._follow(change)
        await self._to(change, "unmerging" if change.kind == "unjoin" else "moving")

    async def _follow(self, change: ScopeChange) -> None:
        """Let requests and conflicts kept by pool follow the workspaces."""

        async def work() -> None:
            async with self._store.write("scope.follow") as tx:
                for workspace in change.workspaces:
                    for pool, over in change.pools():
                        await tx.run(moves.JOURNAL_FOLLOW, over, pool, workspace)
                        await tx.run(moves.CONFLICTS_FOLLOW, over, pool, workspace)
                        await tx.run(HELD_FOLLOW, over, pool, workspace)

        await retried(work)

    async def _to(self, change: ScopeChange, state: str, due: int = 0) -> None:
        async def work() -> None:
            async with self._store.write("scope.state") as tx:
                if await self._mine(tx, change):
                    await tx.run(moves.CHANGE_STATE, state, due, 0, change.high, change.id)

        await retried(work)

    async def _mine(self, tx: Transaction, change: ScopeChange) -> bool:
        """Lock the change; return whether nobody went on with it since it was read."""
        await tx.run(moves.CHANGE_LOCK, change.id)
        now = await read_change(tx, change.id)
        return now is not None and (now.state, now.cursor) == (change.state, change.cursor)

    # -- pieces -------------------------------------------------------------------------------

    async def _pieces(self, change: ScopeChange, now_ms: int, then: str) -> None:
        """Do the next profiles of a state, or go on to the next state."""
        pids = await self._next(change)
        if pids:
            await self._piece(change, pids, now_ms)
        elif then:
            await self._to(change, then)
        else:
            await self._switch(change, now_ms)

    async def _next(self, change: ScopeChange) -> list[int]:
        async with self._store.read() as session:
            if change.state in ("unmerging", "restoring", "restoring again"):
                asked: tuple[object, ...] = (change.undoes, change.cursor, TOGETHER)
                rows = await session.rows(moves.MOVES_AFTER, *asked)
            else:
                pools = [pool for pool, _ in change.pools()]
                asked = (change.cursor, *pools, TOGETHER)
                rows = await session.rows(moves.PIDS_AFTER, *asked)
        return [row[0] for row in rows]

    async def _piece(self, change: ScopeChange, pids: list[int], now_ms: int) -> None:
        async def work() -> None:
            async with self._store.write("scope.move") as tx:
                if not await self._mine(tx, change):
                    return
                plan = await _plan(tx, change.source)
                if change.state == "unmerging":
                    await unmerge(tx, change, pids, now_ms)
                elif change.state.startswith("restoring"):
                    await restore(tx, change, plan, pids, now_ms)
                else:
                    await Piece(tx, change, plan, now_ms).run(pids, self._seen)
                if change.state != "sweeping":
                    await tx.run(moves.CHANGE_CURSOR, pids[-1], change.id)

        await retried(work)

    # -- the workspaces go over ---------------------------------------------------------------

    async def _switch(self, change: ScopeChange, now_ms: int) -> None:
        async def work() -> None:
            async with self._store.write("scope.switch") as tx:
                await tenancy.lock(tx)
                if not await self._mine(tx, change):
                    return
                high = int((await tx.rows(moves.PID_NEWEST))[0][0] or 0)
                for workspace in change.workspaces:
                    await tx.run(moves.WORKSPACE_SCOPE, change.target, workspace)
                await self._version(tx, change, now_ms)
                await tx.run(moves.HOLDS_DROP, change.id)
                due = now_ms + SWEEPS_MS[0]
                await tx.run(moves.CHANGE_STATE, "sweeping", due, 0, high, change.id)
                await tenancy.changed(tx)

        await retried(work)

    async def _version(self, tx: Transaction, change: ScopeChange, now_ms: int) -> None:
        await versions.found(tx, now_ms)
        _, ids = await tenancy.read_state(tx)
        scopes = {number: name for name, number in ids.scopes.items()}
        names = {number: name for name, number in ids.workspaces.items()}
        way = f"scope: {scopes[change.source]} -> {scopes[change.target]}"
        steps = [f"~ workspace {names[w]}: {way} ({change.kind})" for w in change.workspaces]
        author = versions.Author(name=change.author, reason=change.reason)
        await versions.record(tx, author, steps, now_ms)
        detail = msgspec.json.encode({"reason": change.reason, "steps": steps})
        subject = f"scope change {change.id}"
        await tx.run(sql.AUDIT_ADD, now_ms, change.author, f"scope.{change.kind}", subject, detail)

    # -- what slow processes wrote behind -----------------------------------------------------

    async def _sweep(self, change: ScopeChange, now_ms: int) -> int | None:
        """Take over what was written on the old side by processes that did not know yet."""
        await self._follow(change)
        while pids := await self._behind(change):
            await self._piece(change, pids, now_ms)
            if set(await self._behind(change)) >= set(pids):
                break
        turn = change.cursor + 1
        last = turn >= len(SWEEPS_MS)
        due = 0 if last else now_ms + SWEEPS_MS[turn]

        async def work() -> None:
            async with self._store.write("scope.swept") as tx:
                if await self._mine(tx, change):
                    state = "done" if last else "sweeping"
                    await tx.run(moves.CHANGE_STATE, state, due, turn, change.high, change.id)

        await retried(work)
        return None if last else due

    async def _behind(self, change: ScopeChange) -> list[int]:
        """Return profiles on the old side that are younger than the switch, or should not be."""
        out: list[int] = []
        async with self._store.read() as session:
            if change.joins:
                if await session.rows(moves.WORKSPACES_IN, change.source):
                    return []
                for pool, _ in change.pools():
                    low = pool * SLOTS
                    rows = await session.rows(moves.PIDS_FOUND, low, low + SLOTS, TOGETHER)
                    out += [row[0] for row in rows]
                asked = [(change.id, pid) for pid in out]
                left = await session.each(moves.MOVE_GET, asked)
                gone = zip(out, left, strict=True)
                return [p for p, rows in gone if not rows or rows[0][0] != "left"]
            rows = await session.rows(
                moves.PIDS_AFTER, change.high, *(p for p, _ in change.pools()), TOGETHER
            )
            return [row[0] for row in rows]


async def _plan(session: Session, scope: int) -> Plan:
    rows = await session.rows(moves.SCOPE_CONFIG, scope)
    return compile_plan(tenancy.decode_scope(rows[0][0]))


async def do_scope_change(store: Store, changer: ScopeChanger, body: bytes) -> None:
    """Go on with a join or split for a while, and promise the rest."""
    number = msgspec.msgpack.decode(body, type=int)
    until = time.monotonic() + WHILE_S
    due: int | None = 0
    while due == 0 and time.monotonic() < until:
        due = await changer.step(number, time.time_ns() // 1_000_000)
    if due is not None:
        async with store.write("scope.promise") as tx:
            await tx.run(sql.JOB_ADD, "scope_change", due, body)


async def finish(
    changer: ScopeChanger, number: int, *, hurry: bool = False, sweep: bool = True
) -> None:
    """Do a change here and now (commands, tests).

    `hurry` waits for nobody: only where no other process serves. Without `sweep`, what slow
    processes may still write behind is left to the job.
    """
    while sweep or not await changer.over(number):
        now_ms = time.time_ns() // 1_000_000
        due = await changer.step(number, now_ms, hurry=hurry)
        if due is None:
            return
        if due > now_ms and not hurry:
            await asyncio.sleep(min(due - now_ms, 500) / 1000)
