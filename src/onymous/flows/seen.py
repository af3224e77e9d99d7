"""Last seen times of profiles, written behind (rulings 9): at most a minute late, and only where
no tie depends on them.

One row holds the seconds of 512 profiles, so that a million visitors a minute cost a few thousand
small writes, not a million.
"""

from __future__ import annotations

import array
import functools
from collections.abc import Iterable, Mapping

from onymous.rules.records import Record
from onymous.store import sql
from onymous.store.port import Session, Store

#: profiles per block
BLOCK = 512
_SHIFT, _LOW = 9, BLOCK - 1
_EMPTY = bytes(4 * BLOCK)


class SeenBuffer:
    """Collects last seen times; `flush` writes them."""

    def __init__(self) -> None:
        self._blocks: dict[int, array.array[int]] = {}

    def touch(self, pid: int, now_ms: int) -> None:
        """Note that a profile was seen."""
        block = self._blocks.get(pid >> _SHIFT)
        if block is None:
            block = self._blocks[pid >> _SHIFT] = array.array("I", _EMPTY)
        block[pid & _LOW] = now_ms // 1000

    def seen_ms(self, pid: int) -> int:
        """Return the last time noted here and not yet written, or 0."""
        block = self._blocks.get(pid >> _SHIFT)
        return block[pid & _LOW] * 1000 if block is not None else 0

    async def flush(self, store: Store, most: int = 256) -> int:
        """Write what was noted, in transactions of `most` blocks; return the blocks written."""
        blocks, self._blocks = self._blocks, {}
        numbers = sorted(blocks)
        for start in range(0, len(numbers), most):
            some = numbers[start : start + most]
            try:
                await store.share("seen", functools.partial(_merge, some, blocks))
            except BaseException:
                self._keep({n: blocks[n] for n in numbers[start:]})
                raise
        return len(numbers)

    def _keep(self, blocks: dict[int, array.array[int]]) -> None:
        """Take back what could not be written."""
        for number, old in blocks.items():
            new = self._blocks.get(number)
            merged = old if new is None else array.array("I", map(max, old, new))
            self._blocks[number] = merged


async def _merge(
    numbers: Iterable[int], blocks: Mapping[int, array.array[int]], tx: Session
) -> None:
    for number in numbers:
        await _merge_one(tx, number, blocks[number])


async def _merge_one(tx: Session, number: int, new: array.array[int]) -> None:
    rows = await tx.rows(sql.SEEN_TAKE, number, new.tobytes())
    old = array.array("I", bytes(rows[0][0]))
    if old == new:
        return
    new = array.array("I", map(max, old, new))
    await tx.run(sql.SEEN_PUT, number, new.tobytes())


async def last_seen(session: Session, pid: int) -> int:
    """Return the written-behind last seen time of a profile in milliseconds, or 0."""
    rows = await session.rows(sql.SEEN_GET, pid >> _SHIFT)
    if not rows:
        return 0
    return array.array("I", bytes(rows[0][0]))[pid & _LOW] * 1000


async def freshen(session: Session, records: Iterable[Record], noted: SeenBuffer) -> list[Record]:
    """Set last seen of records to what was written behind, where that is later; return those.

    For requests that take login values away: a record that starts to compete by last seen must
    not compete with an old time.
    """
    some = sorted(records, key=lambda r: r.pid)
    blocks = sorted({r.pid >> _SHIFT for r in some})
    found = await session.each(sql.SEEN_GET, [(block,) for block in blocks])
    times = {
        block: array.array("I", bytes(rows[0][0]))
        for block, rows in zip(blocks, found, strict=True)
        if rows
    }
    later = []
    for record in some:
        block = times.get(record.pid >> _SHIFT)
        written = block[record.pid & _LOW] * 1000 if block is not None else 0
        seen_ms = max(written, noted.seen_ms(record.pid))
        if seen_ms > record.seen_ms:
            record.seen_ms = seen_ms
            later.append(record)
    return later
