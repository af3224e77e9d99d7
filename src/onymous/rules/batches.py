"""Batches of events and their identities (formal model section 7, rulings 6)."""

from __future__ import annotations

from collections.abc import Sequence

from onymous.rules.identity import Ask, Decision
from onymous.rules.records import ERASED, Record, mask_of
from onymous.rules.strategies import Plan
from onymous.rules.trace import Trace, name_of


def stated(
    ask: Ask,
    record: Record,
    others: Sequence[Record],
    plan: Plan,
    *,
    server_side: bool,
    why: Trace | None = None,
) -> Decision:
    """Decide a batch whose MPID names `record`: it is theirs, and may add only harmless types.

    A batch with an MPID never adds a login, unique or immutable value; server-side inputs and
    feeds may add the other types.
    """
    decision = Decision(record=record)
    has = mask_of(record)
    room = ask.max_values - len(record.values)
    for code, key in ask.keys.items():
        if has >> code & 1 and record.holds(code, key):
            decision.matched |= 1 << code
        elif plan.single >> code & 1 or not server_side:
            decision.skipped.append((code, "batch_never_adds", None))
        elif len(decision.attach) >= room:
            decision.skipped.append((code, "profile_full", None))
        else:
            decision.attach.append((code, key))
    if why is not None:
        why.outcome, why.mpid, why.why = "found", record.pid, "named by the batch"
        why.given = [name_of(c) for c in ask.keys]
        why.attached = [name_of(c) for c, _ in decision.attach]
        for code, reason, held_by in decision.skipped:
            why.skip(code, reason, held_by)
    return decision


def usable(record: Record | None, pool: int) -> bool:
    """Return whether a stated MPID may be used: it exists in the pool and is not erased."""
    return record is not None and record.pool == pool and not record.flags & ERASED
