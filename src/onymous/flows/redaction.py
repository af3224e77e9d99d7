"""Taking an erased person's identities out of what stays behind."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from onymous.flows.copying import take_back
from onymous.flows.journal import LATE_MS, value_marks
from onymous.rules.ledger import ERASED, Entry
from onymous.store import history_sql, sql
from onymous.store.port import LostRace, Probe, Transaction

_encode = msgspec.msgpack.Encoder().encode
_entries = msgspec.msgpack.Decoder(Entry)


async def redact(tx: Transaction, pool: int, pids: dict[int, bool], now_ms: int) -> None:
    """Take every identity value out of the ledger entries of people; the facts stay.

    True: raises `LostRace` if somebody merged with them is not among them, as when another process
    has merged them a moment ago.

    Promises that the journal forgets them too: now, and once more when what other processes had
    not written yet is certainly there. The promise holds digests, no values.
    """
    marks: set[bytes] = set()
    for pid, whole in pids.items():
        if whole:
            await _nobody_else(tx, pid, pids)
        await _take_back_copies(tx, pool, pid)
        rows = await tx.rows(sql.LEDGER_OF, pid, 1 << 62, 1 << 31)
        out = []
        for seq, _, body in rows:
            entry = _entries.decode(bytes(body))
            if all(change.kind == ERASED for change in entry.changes):
                continue
            marks.update(value_marks(pool, [(c.code, c.key) for c in entry.changes if c.key]))
            for change in entry.changes:
                change.key, change.shown = "", None
            entry.request = None
            out.append((_encode(entry), seq))
        await tx.many(sql.LEDGER_REDACT, out)
        await tx.run(history_sql.FEED_REDACT, pid)
    if pids:
        body = _encode((pool, sorted(pids), sorted(marks)))
        for due in (now_ms, now_ms + LATE_MS):
            await tx.run(sql.JOB_ADD, "journal_erase", due, body)


async def _take_back_copies(tx: Transaction, pool: int, pid: int) -> None:
    """Take back what aliases copied from an erased person to other profiles."""
    for number, other in await tx.rows(history_sql.COPIED_FROM, pid):
        await tx.find([Probe(pool, {}, None, (other,))])  # locks it: a batch may change it now
        await take_back(tx, number, other)


async def _nobody_else(tx: Transaction, pid: int, pids: Collection[int]) -> None:
    near = [row[3] for row in await tx.rows(history_sql.MERGE_OF, pid)]
    near += [row[2] for row in await tx.rows(history_sql.MERGES_INTO, pid)]
    if not set(near) <= set(pids):
        raise LostRace("more profiles are this person than this process knows of yet")
