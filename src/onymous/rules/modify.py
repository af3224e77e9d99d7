"""Modify: change a person's names without losing the person (formal model, section 6).

A modify never creates or returns another MPID. It is the only request that moves a unique value
from one record to another; an immutable value never moves and never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from onymous.rules.errors import ImmutableChange, OldValueMismatch, Refusal, ValueHeldByAnother
from onymous.rules.records import Record
from onymous.rules.strategies import Plan
from onymous.rules.trace import Skip, Trace, name_of


class Change(msgspec.Struct):
    """One cleaned entry of `identity_changes`; None is an absent side."""

    code: int
    old: str | None
    new: str | None
    #: received spelling of the new value where it differs from the key
    shown: str | None = None


class Modified(msgspec.Struct, kw_only=True):
    """What a modify changes, in order; a refusal changes nothing at all (A11)."""

    refusal: type[Refusal] | None = None
    #: the type at fault, where there is a refusal
    at_fault: int = 0
    #: (type, key, spelling) to add to the record
    add: list[tuple[int, str, str | None]] = []
    #: (type, key) to remove from the record
    remove: list[tuple[int, str]] = []
    #: (type, key, holder) moved from another record
    take: list[tuple[int, str, int]] = []
    #: (type, number of the record that changed), losing records first
    results: list[tuple[int, int]] = []


def modify(
    record: Record,
    changes: Sequence[Change],
    others: Sequence[Record],
    plan: Plan,
    *,
    key_only: bool = False,
    max_values: int = 200,
    why: Trace | None = None,
) -> Modified:
    """Decide a modify of `record`; `others` must hold every holder of a unique new value."""
    work = _Work(record, others, plan, key_only, max_values)
    for change in changes:
        refusal = work.apply(change)
        if refusal is not None:
            if why is not None:
                why.outcome, why.why = "refused", refusal(type=name_of(change.code)).message
            return Modified(refusal=refusal, at_fault=change.code)
    out = work.result()
    if why is not None:
        _tell(out, work, why)
    return out


class _Work:
    """The record's values while the changes of one request are applied in order."""

    def __init__(
        self,
        record: Record,
        others: Sequence[Record],
        plan: Plan,
        key_only: bool,
        max_values: int,
    ) -> None:
        self.record, self.plan, self.key_only = record, plan, key_only
        self.others, self.max_values = others, max_values
        self.before = {(v.code, v.key) for v in record.values}
        self.now: dict[tuple[int, str], str | None] = {
            (v.code, v.key): v.shown for v in record.values
        }
        self.taken: dict[tuple[int, str], int] = {}
        self.results: list[tuple[int, int]] = []
        self.skipped: list[tuple[int, str]] = []

    def apply(self, change: Change) -> type[Refusal] | None:
        """Apply one change, or return why the whole request is refused."""
        code, old, new = change.code, change.old, change.new
        held = [key for c, key in self.now if c == code]
        if new is None:
            return self._remove(code, old, held)
        going = held if self.plan.single >> code & 1 else [k for k in held if k == old]
        going = [k for k in going if k != new]
        refusal = self._refused(code, old, new, held, going)
        if refusal is not None:
            return refusal
        if new in held and not going:
            return None
        if not going and len(self.now) >= self.max_values:
            self.skipped.append((code, "profile_full"))
            return None
        self._take(code, new)
        for key in going:
            del self.now[code, key]
        self.now[code, new] = change.shown
        self._changed(code, self.record.pid)
        return None

    def _remove(self, code: int, old: str | None, held: list[str]) -> type[Refusal] | None:
        if old is None or old not in held:
            return None
        if self.plan.immutable >> code & 1:
            return ImmutableChange
        del self.now[code, old]
        self._changed(code, self.record.pid)
        return None

    def _refused(
        self, code: int, old: str | None, new: str, held: list[str], going: list[str]
    ) -> type[Refusal] | None:
        bit = 1 << code
        if self.plan.immutable & bit and going:
            return ImmutableChange
        holder = self._holder(code, new)
        if holder is not None:
            if self.plan.immutable & bit:
                return ImmutableChange
            if self.key_only:
                return ValueHeldByAnother
        if self.key_only and self.plan.login & bit and any(k != old for k in going):
            return OldValueMismatch
        return None

    def _holder(self, code: int, key: str) -> int | None:
        if not self.plan.unique >> code & 1 or (code, key) in self.taken:
            return None
        for other in self.others:
            if other.pid != self.record.pid and other.holds(code, key):
                return other.pid
        return None

    def _take(self, code: int, key: str) -> None:
        holder = self._holder(code, key)
        if holder is not None:
            self.taken[code, key] = holder
            self._changed(code, holder)

    def _changed(self, code: int, pid: int) -> None:
        if (code, pid) not in self.results:
            self.results.append((code, pid))

    def result(self) -> Modified:
        """Return the net effect; a value added and removed again is no change."""
        add = [(c, k, s) for (c, k), s in self.now.items() if (c, k) not in self.before]
        gone = [(c, k) for c, k in self.before if (c, k) not in self.now]
        take = [(c, k, holder) for (c, k), holder in self.taken.items()]
        return Modified(add=add, remove=sorted(gone), take=take, results=self.results)


def _tell(out: Modified, work: _Work, why: Trace) -> None:
    why.outcome = "modified" if out.results else "unchanged"
    why.mpid = work.record.pid
    why.why = "named in the path"
    why.attached = [name_of(c) for c, _, _ in out.add]
    why.removed = [name_of(c) for c, _ in out.remove]
    for code, _, holder in out.take:
        why.taken.append(Skip(name_of(code), "taken", "unique: modify moves it", holder))
    for code, reason in work.skipped:
        why.skip(code, reason)
