"""Lookup rows and ledger entries of one transaction, written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from onymous.rules.ledger import Entry
from onymous.store import sql
from onymous.store.port import Transaction

_encode = msgspec.msgpack.Encoder().encode

#: slot, value, holder
RowKey = tuple[int, str, int]


class Row(msgspec.Struct):
    """A lookup row as the database has it and as it shall be (pid None: absent)."""

    was: int | None
    pid: int | None
    seen: int | None = None
    set_seen: bool = False


async def save_rows(tx: Transaction, rows: Mapping[RowKey, Row]) -> None:
    """Write lookup rows in the order of their keys."""
    remove, move, add, compete = [], [], [], []
    for (slot, value, holder), row in sorted(rows.items(), key=lambda r: r[0]):
        if row.pid is None:
            if row.was is not None:
                remove.append((slot, value, holder, row.was))
        elif row.was is None:
            add.append((slot, value, holder, row.pid, row.seen))
        elif row.pid != row.was:
            move.append((row.pid, slot, value, row.was))
        elif row.set_seen:
            compete.append((row.seen, slot, value, holder))
    await tx.many(sql.IDENTITY_REMOVE, remove)
    await tx.many(sql.IDENTITY_MOVE, move)
    await tx.many(sql.IDENTITY_ADD, add)
    await tx.many(sql.IDENTITY_COMPETE, compete)


async def save_ledger(tx: Transaction, entries: Sequence[tuple[int, int, Entry]]) -> None:
    """Write ledger entries, (record, time, entry), and promise what follows from them."""
    if not entries:
        return
    numbers = await tx.numbers("ledger", len(entries))
    rows = [
        (seq, pid, at, _encode(entry))
        for seq, (pid, at, entry) in zip(numbers, entries, strict=True)
    ]
    await tx.many(sql.LEDGER_ADD, rows)
    await tx.run(sql.JOB_ADD, "identity_changed", entries[0][1], _encode(numbers))
