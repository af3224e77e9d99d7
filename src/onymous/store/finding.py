"""One probe answered on an open connection of the embedded engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import apsw

from onymous.rules.records import Record
from onymous.store import sql
from onymous.store.packing import SLOTS, unpack_record
from onymous.store.port import CROWDED, FEW, Found, Probe, Row

_ARM = (
    "SELECT * FROM (SELECT {n}, i.holder, i.pid FROM identity i"
    " WHERE i.slot = ? AND i.value = ? ORDER BY i.holder LIMIT " + str(FEW + 1) + ")"
)
#: the record that holds a value if nobody else does
_ALONE = (
    f"SELECT {sql.RECORD} FROM identity i JOIN profile p ON p.pid = i.pid"
    " WHERE i.slot = ? AND i.value = ? AND i.holder >= 0"
)
#: added once for each value, the first one too: nobody else holds it
_NOBODY_ELSE = (
    " AND NOT EXISTS (SELECT 1 FROM identity o"
    " WHERE o.slot = ? AND o.value = ? AND o.holder >= 0 AND o.pid <> i.pid)"
)
#: the counted people of a crowded value stand in its marker row
_CROWD = "SELECT pid FROM identity WHERE slot = ? AND value = ? AND holder = -1"


@functools.lru_cache(65)
def _arms(count: int) -> str:
    """Return the statement that finds so many identities in a single round through the engine."""
    return " UNION ALL ".join(_ARM.format(n=n) for n in range(count))


@functools.lru_cache(65)
def _alone(count: int) -> str:
    return _ALONE + _NOBODY_ELSE * count + " LIMIT 1"


def alone_in(cursor: apsw.Cursor, probe: Probe) -> Row | None:
    """Return the record that holds the first value of a probe, if nobody else holds any of them."""
    base = probe.pool * SLOTS
    args: list[object] = []
    for code, key in probe.keys.items():
        args += (base + code, key)
    execute: Callable[..., Any] = cursor.execute
    rows: list[Row] = execute(_alone(len(probe.keys)), args[:2] + args).fetchall()
    return rows[0] if rows else None


def find_in(cursor: apsw.Cursor, probe: Probe) -> Found:
    """Answer one probe; `cursor` is used again and again, as making one costs half a lookup."""
    execute: Callable[..., Any] = cursor.execute
    codes = list(probe.keys)
    records: dict[int, Record] = {}
    holders: dict[tuple[int, str], list[int]] = {}
    crowded: dict[int, int] = {}
    if codes:
        base = probe.pool * SLOTS
        args: list[object] = []
        for code, key in probe.keys.items():
            args += (base + code, key)
        held: dict[int, None] = {}
        for arm, holder, pid in execute(_arms(len(codes)), args).fetchall():
            code = codes[arm]
            if holder == CROWDED:
                crowded[code] = 0
            elif code not in crowded:
                holders.setdefault((code, probe.keys[code]), []).append(pid)
                held[pid] = None
        for pid in held:
            for row in execute(sql.PROFILE_BY_PID, (pid,)).fetchall():
                records[pid] = unpack_record(row)
    for code in crowded:
        _find_crowded(cursor, probe, code, records, holders, crowded)
    if probe.also or crowded:
        for also in (*probe.also, probe.previous) if crowded else probe.also:
            if also is not None and also not in records:
                for row in execute(sql.PROFILE_BY_PID, (also,)).fetchall():
                    records[also] = unpack_record(row)
    return Found(list(records.values()), holders, crowded)


def _find_crowded(
    cursor: apsw.Cursor,
    probe: Probe,
    code: int,
    records: dict[int, Record],
    holders: dict[tuple[int, str], list[int]],
    crowded: dict[int, int],
) -> None:
    """Read the latest records of a value held by very many, at constant cost."""
    where = (probe.pool * SLOTS + code, probe.keys[code])
    crowded[code] = cursor.execute(_CROWD, where).get
    found = holders.setdefault((code, probe.keys[code]), [])
    found.clear()
    rows: list[Any] = cursor.execute(sql.RECENT, where).fetchall()
    for row in rows:
        if row[1] not in records:
            records[row[1]] = unpack_record(row[1:])
        found.append(row[1])
