"""How long a profile is told of: a rolling time, begun again by anything heard of the person."""

from __future__ import annotations

from onymous.flows.profiles import ProfileView
from onymous.flows.seen import SeenBuffer, last_seen
from onymous.store.packing import unpack_record
from onymous.store.port import Store
from onymous.store.sql import PROFILE_BY_PID

DAY_MS = 86_400_000


class Lifetime:
    """Says whether a profile has aged out. Its record stays: whoever returns has the same MPID."""

    def __init__(self, store: Store, noted: SeenBuffer, days: int) -> None:
        self._store, self._noted, self._ms = store, noted, days * DAY_MS

    async def over(self, view: ProfileView, now_ms: int) -> bool:
        """Return whether nothing was heard of a person for longer than the lifetime."""
        if not self._ms or now_ms - view.stored_ms <= self._ms:
            return False
        heard = 0
        async with self._store.read() as session:
            for pid in (view.pid, *view.merged):
                rows = await session.rows(PROFILE_BY_PID, pid)
                seen = unpack_record(rows[0]).seen_ms if rows else 0
                written = await last_seen(session, pid)
                heard = max(heard, seen, written, self._noted.seen_ms(pid))
        return now_ms - heard > self._ms
