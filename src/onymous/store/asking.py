"""The statements that answer many probes at once on PostgreSQL, and what their rows mean.

Every value of every probe is one element of two arrays. A row is (n, order, pid, ...): `n` is the
place of the value it answers (1 is the first); -n marks one of the latest records that compete
for a crowded value, and 0 a record asked for by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from onymous.rules.records import Record
from onymous.store.packing import SLOTS
from onymous.store.port import CROWDED, FEW, Found, Probe, Row

_VALUES = "unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS w(slot, value, n)"
_ARM = (
    "(SELECT i.holder, i.pid FROM identity i WHERE i.slot = w.slot AND i.value = w.value"
    f" ORDER BY i.holder LIMIT {FEW + 1}) i"
)
_HOT = "unnest($3::bigint[], $4::text[], $5::bigint[]) AS w(slot, value, n)"
#: the same order as the embedded engine's index gives
_HOT_ARM = (
    "(SELECT i.seen, i.pid FROM identity i WHERE i.slot = w.slot AND i.value = w.value"
    f" AND i.seen IS NOT NULL ORDER BY i.seen DESC, i.holder DESC LIMIT {FEW}) i"
)
_BODY = "p.pool, p.created, p.seen, p.flags, p.source, p.body"

#: records of the values of all probes
FIND = (
    f"SELECT w.n, i.holder, i.pid, {_BODY} FROM {_VALUES} CROSS JOIN LATERAL {_ARM}"
    " LEFT JOIN profile p ON p.pid = i.pid"
)
#: the same with the latest records of crowded values, and records asked for by number
FIND_MORE = (
    f"{FIND} UNION ALL SELECT -w.n, -i.seen, i.pid, {_BODY} FROM {_HOT}"
    f" CROSS JOIN LATERAL {_HOT_ARM} LEFT JOIN profile p ON p.pid = i.pid"
    f" UNION ALL SELECT 0, 0, p.pid, {_BODY} FROM profile p WHERE p.pid = ANY($6::bigint[])"
)
#: at most two holders of each value: where there is one, it is the only one
ONLY = (
    f"SELECT w.n, i.holder, i.pid, {_BODY} FROM {_VALUES} CROSS JOIN LATERAL"
    " (SELECT i.holder, i.pid FROM identity i WHERE i.slot = w.slot AND i.value = w.value"
    " AND i.holder >= 0 ORDER BY i.holder LIMIT 2) i JOIN profile p ON p.pid = i.pid"
)
#: who holds the values, without the records: those are read under lock
HOLD = f"SELECT w.n, i.holder, i.pid FROM {_VALUES} CROSS JOIN LATERAL {_ARM}"
HOLD_MORE = (
    f"{HOLD} UNION ALL SELECT -w.n, -i.seen, i.pid FROM {_HOT} CROSS JOIN LATERAL {_HOT_ARM}"
)


class Asking:
    """The values of some probes as arrays, and the way back from rows to probes."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = probes
        self.slots: list[int] = []
        self.values: list[str] = []
        self._where: list[tuple[int, int, str]] = []
        for number, probe in enumerate(probes):
            base = probe.pool * SLOTS
            for code, key in probe.keys.items():
                self.slots.append(base + code)
                self.values.append(key)
                self._where.append((number, code, key))

    def more(self, hot: set[int]) -> tuple[list[int], list[str], list[int], set[int]]:
        """Return what `FIND_MORE` needs beyond the values: crowded values as arrays of slot,
        value and place, and the numbers of records asked for.
        """
        places: list[int] = []
        pids = {pid for probe in self.probes for pid in probe.also}
        if hot:
            for n, (number, _, _) in enumerate(self._where):
                if hash((self.slots[n], self.values[n])) in hot:
                    places.append(n)
                    previous = self.probes[number].previous
                    if previous is not None:
                        pids.add(previous)
        slots, values = [self.slots[n] for n in places], [self.values[n] for n in places]
        return slots, values, [n + 1 for n in places], pids

    def answer(
        self,
        rows: Sequence[Row],
        asked: Sequence[int],
        record: Callable[[Row], Record | None],
    ) -> tuple[list[Found], list[int]]:
        """Return what was found per probe, and the places of crowded values not yet asked for."""
        state = [_Answer(probe) for probe in self.probes]
        latest: dict[int, list[Row]] = {n: [] for n in asked}
        named: dict[int, Row] = {}
        missing: list[int] = []
        for row in sorted(rows, key=itemgetter(0, 1)):
            n = row[0]
            if n < 0:
                latest[-n].append(row)
            elif n == 0:
                named[row[2]] = row
            else:
                number, code, key = self._where[n - 1]
                answer = state[number]
                if row[1] == CROWDED:
                    answer.crowded[code] = row[2]
                    answer.latest[code] = latest.get(n, [])
                    if n not in latest:
                        missing.append(n)
                elif code not in answer.crowded:
                    answer.add(code, key, row, record)
        return [s.found(named, record) for s in state], missing


class _Answer:
    """What is found of one probe so far."""

    __slots__ = ("crowded", "holders", "latest", "probe", "records")

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.records: dict[int, Record] = {}
        self.holders: dict[tuple[int, str], list[int]] = {}
        self.crowded: dict[int, int] = {}
        self.latest: dict[int, list[Row]] = {}

    def add(self, code: int, key: str, row: Row, record: Callable[[Row], Record | None]) -> None:
        """Take a holder of a value."""
        pid = row[2]
        if pid not in self.records:
            made = record(row)
            if made is None:
                return
            self.records[pid] = made
        self.holders.setdefault((code, key), []).append(pid)

    def found(self, named: dict[int, Row], record: Callable[[Row], Record | None]) -> Found:
        """Finish: the latest of crowded values, then records asked for by number."""
        probe = self.probe
        for code in self.crowded:
            self.holders[code, probe.keys[code]] = []
            for row in self.latest[code]:
                self.add(code, probe.keys[code], row, record)
        for pid in probe.also if not self.crowded else (*probe.also, probe.previous):
            if pid is not None and pid not in self.records and pid in named:
                made = record(named[pid])
                if made is not None:
                    self.records[pid] = made
        return Found(list(self.records.values()), self.holders, self.crowded)
