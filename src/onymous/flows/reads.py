"""Who read whom: an audit entry for every read of a person, written behind in groups.

Reads of the same person by the same credential within one group are one entry that counts them.
What was noted is written at a graceful stop; where the database cannot keep up, reads are refused
rather than left out.
"""

from __future__ import annotations

import asyncio

import msgspec

from onymous.rules.errors import Busy
from onymous.store import sql
from onymous.store.port import Store

#: entries waiting to be written, and entries of one transaction (it must not hold requests up)
MOST_WAITING, TOGETHER = 200_000, 500
_encode = msgspec.json.Encoder().encode
#: actor, action, MPID, workspace, what was asked for
_Key = tuple[str, str, str, int, str]


class Reads:
    """Collects reads; `flush` writes them to the audit."""

    def __init__(self) -> None:
        #: (time of the first, how many)
        self._noted: dict[_Key, tuple[int, int]] = {}
        self._writing = asyncio.Lock()

    def note(
        self, actor: str, action: str, mpid: str, workspace: int, asked: str, now_ms: int
    ) -> None:
        """Note one read; raises `Busy` when too many wait to be written."""
        key = (actor, action, mpid, workspace, asked)
        first, count = self._noted.get(key, (now_ms, 0))
        if not count and len(self._noted) >= MOST_WAITING:
            raise Busy()
        self._noted[key] = (first, count + 1)

    @property
    def held(self) -> int:
        """Return how many entries wait to be written."""
        return len(self._noted)

    async def flush(self, store: Store) -> int:
        """Write what was noted; return the number of entries. What fails stays noted."""
        async with self._writing:
            noted, self._noted = self._noted, {}
            items, done = list(noted.items()), 0
            try:
                while done < len(items):
                    async with store.write("reads") as tx:
                        await tx.many(sql.AUDIT_ADD, map(_row, items[done : done + TOGETHER]))
                    done += TOGETHER
                    await asyncio.sleep(0)
            finally:
                for key, (first, count) in items[done:]:
                    later = self._noted.get(key, (first, 0))[1]
                    self._noted[key] = (first, count + later)
            return len(items)


def _row(item: tuple[_Key, tuple[int, int]]) -> tuple[object, ...]:
    (actor, action, mpid, workspace, asked), (first, count) = item
    detail = {"workspace": workspace, "asked": asked, "reads": count}
    return first, actor, action, mpid, _encode(detail)
