"""What people known by all they gave were told last, so that it is not worked out again.

The same person asks again and again within minutes. Their row is read each time and compared, byte
for byte, with the one the answer was made from: an answer is never older than the row just read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from onymous.rules.strategies import Plan
from onymous.store.port import Row

#: people remembered (a power of two), and for how long: what is erased stays in no memory
MOST_TOLD, TOLD_MS = 16_384, 120_000
_PLACE = MOST_TOLD - 1


class Told(msgspec.Struct):
    """An answer, and all it was made of."""

    row: Row
    plan: Plan
    #: the identities as they were given
    known: Mapping[str, object]
    #: until when it may be told: then it must be written again when a value was seen
    until_ms: int
    mpid: str
    logged_in: bool
    ephemeral: bool
    #: the identities that matched, in type order
    matched: dict[str, str]
    #: the answer as the caller writes it, once it did
    wire: bytes = b""


class Memory:
    """One place per number: who comes later takes it."""

    def __init__(self) -> None:
        self._places: list[Told | None] = [None] * MOST_TOLD
        self._until_ms = 0

    def get(self, row: Row, plan: Plan, known: Mapping[str, object], now_ms: int) -> Told | None:
        """Return the answer made from this very row for these identities under these rules."""
        if now_ms > self._until_ms:
            self._places, self._until_ms = [None] * MOST_TOLD, now_ms + TOLD_MS
        told = self._places[row[0] & _PLACE]
        if told is None or told.row != row or told.plan is not plan:
            return None
        return told if told.known == known and told.until_ms >= now_ms else None

    def put(self, told: Told) -> None:
        """Keep an answer."""
        self._places[told.row[0] & _PLACE] = told
