"""What changes made by hand have in common at the desk: decided on locked records, told to one
who waits, audited, and noted in the journal so that rules tried on the past know of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic

import msgspec

from onymous.flows import journal
from onymous.flows.desk import Desk
from onymous.flows.identity import Resolver
from onymous.flows.merging import Actor
from onymous.flows.working import Working
from onymous.rules.errors import Internal, Refusal
from onymous.store import history_sql, sql
from onymous.store.port import Found, T


class ByHand(Generic[T]):
    """One change by hand; `_out` is what `answer` gives once it is durable."""

    replay: tuple[int, bytes, bytes] | None = None

    def __init__(self, resolver: Resolver, actor: Actor) -> None:
        self._resolver, self._actor = resolver, actor
        self._out: T | Refusal = Internal()
        self._future: asyncio.Future[T | Refusal] = asyncio.get_running_loop().create_future()

    async def answer(self) -> T:
        """Wait until it is durable, or refused; raises the `Refusal`."""
        out = await self._future
        if isinstance(out, Refusal):
            raise out
        return out

    def look(self, found: Found, desk: Desk) -> bool:
        """It is decided on locked records only."""
        return False

    def finish(self) -> None:
        """Answer: what was decided is durable."""
        self._answer()

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was written."""
        self._out = error if isinstance(error, Refusal) else Internal()
        self._answer()

    def _answer(self) -> None:
        if not self._future.done():
            self._future.set_result(self._out)

    def _audit(self, working: Working, action: str, pid: int, **detail: object) -> None:
        """Say in the audit who did it to whom, and why, in the same transaction."""
        actor = self._actor
        said = msgspec.json.encode({**detail, "reason": actor.reason})
        row = (actor.now_ms, actor.name, action, self._resolver.mpids.text(pid), said)
        working.extra.append((sql.AUDIT_ADD, row))

    def _note(
        self,
        working: Working,
        pool: int,
        pid: int,
        changes: Sequence[tuple[int, str | None, str | None]],
    ) -> None:
        """Note in the journal, in the same transaction, how values changed: (type, old, new)."""
        if self._resolver.journal.on:
            noted = journal.by_hand(pool, self._actor.now_ms, pid, list(changes))
            working.extra.append((history_sql.JOURNAL_ADD, noted))
