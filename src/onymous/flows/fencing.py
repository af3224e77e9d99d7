"""Rules change while others write: nobody writes by old rules what new rules will read.

A change of rules that moves people is announced first. From then on each process makes sure, in
every write transaction, that the rules it knows are still in force; it does so too when it has not
looked for a while. Requests caught by the change itself are answered 503 and come again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from onymous.flows import tenancy
from onymous.flows.alive import is_gone, myself
from onymous.flows.credentials import transact
from onymous.rules.errors import Busy
from onymous.store import sql
from onymous.store import tenants_sql as tenants
from onymous.store.port import Store, StoreError, Transaction

FENCE = "rules_fence"
#: how long an announcement holds where its process dies and nobody can know; writers only look
HOLDS_MS = 6 * 3_600_000
#: after this long every process has seen an announcement
GRACE_S = 6.0
#: a process that has not looked for so long looks before it writes
LEASE_S = 3.0


class RulesChanged(StoreError):
    """The rules a transaction was decided by are not in force any more."""

    def __init__(self) -> None:
        super().__init__("the rules were changed meanwhile, nothing was written: start again")


class Known(Protocol):
    """What a process knows of the rules (the directory of callers)."""

    fenced_until: int

    def plan_of(self, scope: int) -> object:
        """Return the rules of a scope, or None for one nobody calls."""

    @property
    def read_version(self) -> int:
        """Return which change of tenancy was read last."""

    async def refresh_if_changed(self) -> bool:
        """Read the rules again if they changed."""


class Fence:
    """Asked first in every write transaction of one process."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._looked = time.monotonic()
        self._first = known.read_version
        self._task: asyncio.Future[None] | None = None

    async def look(self) -> None:
        """Read the rules again if they changed."""
        await self._known.refresh_if_changed()
        self._looked = time.monotonic()

    async def __call__(self, tx: Transaction, works: Sequence[Any]) -> None:
        """Raise `RulesChanged` where rules are changing and those known are not in force.

        Once a process has seen rules change it also looks whether works were made under old ones.
        """
        if self._late or self._moved or self._known.fenced_until:
            await self.hold(tx, [(w.probe.pool // 2, getattr(w, "plan", None)) for w in works])

    async def hold(self, tx: Transaction, decided: Sequence[tuple[int, object]]) -> None:
        """Hold the rules in force until the transaction ends; by (scope, rules) it decides.

        Raises `RulesChanged` as `__call__` does.
        """
        known, late = self._known, self._late
        if late or known.fenced_until > time.time_ns() // 1_000_000:
            await self._ask(tx)
        # after asking: while it waited for the change itself, this process may have read new rules
        if self._moved:
            self.check(decided)

    @property
    def _late(self) -> bool:
        """Return whether this process has not looked for a while."""
        return time.monotonic() - self._looked > LEASE_S

    @property
    def _moved(self) -> bool:
        """Return whether tenancy was read again: works under way may be made under old rules."""
        return self._known.read_version != self._first

    def check(self, decided: Sequence[tuple[int, object]]) -> None:
        """Raise `RulesChanged` where the rules known now are others than those decided by."""
        for scope, plan in decided:
            if plan is not None and self._known.plan_of(scope) not in (plan, None):
                raise RulesChanged

    async def _ask(self, tx: Transaction) -> None:
        known = self._known
        rows = await tx.rows(tenants.FENCE_HOLD if known.fenced_until else tenants.VERSION_GET)
        if rows and int(bytes(rows[0][0])) != known.read_version:
            self._task = asyncio.ensure_future(self.look())
            raise RulesChanged
        self._looked = time.monotonic()


async def in_force(fence: Fence | None, tx: Transaction, pool: int, plan: object) -> None:
    """Hold the rules a transaction outside the desk is decided by; raises `Busy` for old ones."""
    if fence is None:
        return
    try:
        await fence.hold(tx, [(pool // 2, plan)])
    except RulesChanged:
        raise Busy() from None


async def announced(
    store: Store, work: Callable[[], Awaitable[None]], grace_s: float = GRACE_S
) -> None:
    """Announce a change of rules, wait until everybody knows, do it, and wait until they read it.

    Several may be announced at once; writers look until the last one is over.
    """
    mine = f"{FENCE} {secrets.token_hex(8)} {myself()}"

    async def announce(tx: Transaction) -> None:
        until = b"%d" % (time.time_ns() // 1_000_000 + HOLDS_MS)
        await tx.run(sql.META_PUT, mine, until)
        await tx.run(sql.META_PUT, FENCE, until)
        await tenancy.changed(tx)

    await transact(store, "rules.announce", announce)
    try:
        await asyncio.sleep(grace_s)
        await work()
    finally:
        await _end(store, [mine])
    # who asks next must not be answered by a process that has not read the new rules yet
    await asyncio.sleep(min(grace_s, LEASE_S))


async def end_left_over(store: Store) -> int:
    """End announcements whose process died here, or whose time is over; return how many."""
    now = time.time_ns() // 1_000_000
    async with store.read() as session:
        rows = await session.rows(tenants.FENCES)
    dead = [name for name, until in rows if int(bytes(until)) <= now or is_gone(_who(name))]
    if dead:
        # waits for the transaction of a change, also of one whose process died over its commit
        await _end(store, dead)
    return len(dead)


async def _end(store: Store, names: Sequence[str]) -> None:
    async def over(tx: Transaction) -> None:
        await tx.many(tenants.FENCE_END, [(name,) for name in names])
        now = time.time_ns() // 1_000_000
        others = [int(bytes(row[1])) for row in await tx.rows(tenants.FENCES)]
        if not any(until > now for until in others):
            await tx.run(tenants.FENCE_DROP)
        await tenancy.changed(tx)

    await transact(store, "rules.over", over)


def _who(name: str) -> str:
    """Return which process an announcement is of, from its name; versions before told nothing."""
    return name.split(" ")[2] if name.count(" ") == 2 else ""
