"""Taking an erased person's identities out of what stays behind."""

from __future__ import annotations

import msgspec

from onymous.flows.copying import take_back
from onymous.flows.journal import LATE_MS, value_marks
from onymous.rules.ledger import ERASED, Entry
from onymous.store import history_sql, sql
from onymous.store.port import Probe, Transaction

_encode = msgspec.msgpack.Encoder().encode
_entries = msgspec.msgpack.Decoder(Entry)


async def redact(tx: Transaction, pool: int, pids: list[int], now_ms: int) -> None:
    """Take every identity value out of the ledger entries of people; the facts stay.

    Promises that the journal forgets them too: now, and once more when what other processes had
    not written yet is certainly there. The promise holds digests, no values.
    """
    marks: set[bytes] = set()
    for pid in pids:
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
    if pids:
        body = _encode((pool, pids, sorted(marks)))
        for due in (now_ms, now_ms + LATE_MS):
            await tx.run(sql.JOB_ADD, "journal_erase", due, body)


async def _take_back_copies(tx: Transaction, pool: int, pid: int) -> None:
    """Take back what aliases copied from an erased person to other profiles."""
    for number, other in await tx.rows(history_sql.COPIED_FROM, pid):
        await tx.find([Probe(pool, {}, None, (other,))])  # locks it: a batch may change it now
        await take_back(tx, number, other)
