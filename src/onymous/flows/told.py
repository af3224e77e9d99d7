"""What people known by all they gave were told last, so that it is not worked out again.

The same person asks again and again within minutes. Their row is read each time and compared, byte
for byte, with the one the answer was made from: an answer is never older than the row just read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from onymous.rules.strategies import Plan
from onymous.store.port import Label, Row

#: answers remembered, and for how long: what is erased stays in no memory
MOST_TOLD, TOLD_MS = 16_384, 120_000


class Told(msgspec.Struct):
    """An answer, and all it was made of."""

    op: str
    pool: int
    plan: Plan
    #: the identities as they were given, and as they are compared
    known: Mapping[str, object]
    keys: dict[int, str]
    #: the highest value given, and the row of its only holder
    label: Label
    row: Row
    #: until when it may be told: then it must be written again when a value was seen
    until_ms: int
    mpid: str
    logged_in: bool
    ephemeral: bool
    #: mask of the types the record holds
    has: int
    #: the identities that matched, in type order
    matched: dict[str, str]
    #: the answer as the caller writes it, once it did
    wire: bytes = b""


class Memory:
    """The latest answers by what was asked; too many at once, and all are forgotten."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}
        self._until_ms = 0

    def get(
        self, op: str, pool: int, plan: Plan, known: Mapping[str, object], now_ms: int
    ) -> Told | None:
        """Return what was told to the same question under these rules.

        It may be told again if the only holder of `label` still has the same `row`.
        """
        if now_ms > self._until_ms:
            self._told, self._until_ms = {}, now_ms + TOLD_MS
        try:
            told = self._told.get(hash((op, pool, *known.values())))
        except TypeError:
            return None  # lists and objects are no identities
        if told is None or told.plan is not plan or told.op != op or told.pool != pool:
            return None
        return told if told.known == known and told.until_ms >= now_ms else None

    def put(self, told: Told) -> None:
        """Keep an answer."""
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[hash((told.op, told.pool, *told.known.values()))] = told
