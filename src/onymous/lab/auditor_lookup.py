"""The auditor's pool: who is eligible, who is found, what may be attached or changed."""

from __future__ import annotations

from onymous.lab.auditor_types import USER_TYPES, Config, Identities, Record, Refused, key


class Pool:
    """All records of one scope and environment; every question scans them all."""

    def __init__(self, config: Config, records: list[Record]) -> None:
        """Work on the given list itself."""
        self.config = config
        self.records = records

    def get(self, mpid: str) -> Record | None:
        """Find a record that is not erased by its MPID."""
        return next((r for r in self.records if r.mpid == mpid and not r.erased), None)

    def holds(self, record: Record, kind: str, value: str) -> bool:
        """Say whether a record has a value, compared in its normal form."""
        wanted = key(self.config, kind, value)
        return any(key(self.config, kind, v) == wanted for v in record.ids.get(kind, []))

    def holders(self, kind: str, value: str) -> list[Record]:
        """List all records that hold a value."""
        return [r for r in self.records if not r.erased and self.holds(r, kind, value)]

    def known(self, record: Record) -> bool:
        """Say whether a record has a value of a login type."""
        return any(record.ids.get(t) for t in self.config.login)

    def protected(self, record: Record) -> bool:
        """Say whether a record is known, or was known once under the sticky rule."""
        return self.known(record) or (self.config.sticky_known and record.was_known)

    def person(self, record: Record) -> bool:
        """Say whether a record is of a person: without login types, one with a user identity."""
        if self.config.strategy == "best_match":
            return any(record.ids.get(t) for t in USER_TYPES)
        return self.known(record)

    def hot(self, kind: str, value: str) -> bool:
        """Say whether more than the allowed number of known people hold a value."""
        held = [r for r in self.holders(kind, value) if self.person(r)]
        return len(held) > self.config.hot_after

    def vetoed(self, record: Record, kind: str, q: Identities) -> bool:
        """Say whether a higher login type of the request contradicts the record."""
        if self.config.login_conflict == "return_match" or kind not in self.config.login:
            return False
        for higher in self.order(q):
            if higher == kind:
                return False
            held = higher in self.config.login and record.ids.get(higher)
            if held and not self.holds(record, higher, q[higher]):
                return True
        return False

    def order(self, q: Identities) -> list[str]:
        """Give the request's ranked types, login types first."""
        ranked = [t for t in self.config.priority if t in q]
        logins = [t for t in ranked if t in self.config.login]
        return logins + [t for t in ranked if t not in self.config.login]

    def eligible(self, record: Record, kind: str, q: Identities, search: bool) -> bool:
        """Say whether a record may be found through one type of the request."""
        config = self.config
        if record.erased or self.vetoed(record, kind, q):
            return False
        if self.protected(record):
            # A vetoed login value must not open the record to a shared device id either.
            proofs = [
                t
                for t in q
                if t in config.login
                and self.holds(record, t, q[t])
                and not self.vetoed(record, t, q)
                and not self.hot(t, q[t])
            ]
            if not proofs:
                return False
        guards = any(record.ids.get(t) for t in config.immutable)
        if search and config.search_requires_immutable and config.immutable:
            guards = True
        shown = [t for t in config.immutable if t in q and self.holds(record, t, q[t])]
        return bool(shown) or not guards

    def lookup(self, q: Identities, previous: str | None, search: bool = False) -> Record | None:
        """Walk the priority and narrow, then break ties; None when nobody is found."""
        cur: list[Record] = []
        for kind in self.order(q):
            held = [r for r in self.holders(kind, q[kind]) if self.eligible(r, kind, q, search)]
            if self.hot(kind, q[kind]):
                held = [r for r in held if r.mpid == previous and not self.protected(r)]
            if not held:
                continue
            both = [r for r in cur if r in held]
            cur = held if not cur else (both or cur)
            if len(cur) == 1:
                break
        return min(cur, key=lambda r: self._rank(r, previous)) if cur else None

    def _rank(self, record: Record, previous: str | None) -> tuple[bool, int, int, int, str]:
        number = int(record.mpid) if record.mpid.lstrip("-").isdigit() else 0
        return (record.mpid != previous, -record.last_seen, -record.created, number, record.mpid)

    def attach(self, record: Record, kind: str, value: str, replace: bool = False) -> None:
        """Add a value as identify may: never taken from another, never a second login value."""
        config = self.config
        if self.holds(record, kind, value):
            return
        others = [r for r in self.holders(kind, value) if r is not record]
        if kind in config.unique and others:
            return
        single = {*config.login, *config.unique, *config.immutable}
        if kind in single and record.ids.get(kind):
            if replace and kind not in config.immutable:
                record.ids[kind] = [value]
            return
        record.ids.setdefault(kind, []).append(value)

    def replace_lower(self, record: Record, q: Identities) -> None:
        """Let a feed row replace values ranked below the login type that matched it."""
        ranked = [t for t in self.order(q) if t in self.config.login]
        first = next((t for t in ranked if self.holds(record, t, q[t])), None)
        if first is None:
            return
        for kind, value in q.items():
            lower = kind not in ranked or ranked.index(kind) > ranked.index(first)
            single = kind in self.config.login or kind in self.config.unique
            if lower and single and not [r for r in self.holders(kind, value) if r is not record]:
                self.attach(record, kind, value, replace=True)

    def change(
        self, record: Record, kind: str, old: str | None, new: str | None, key_only: bool
    ) -> list[str]:
        """Apply one change of modify; give the MPIDs that changed, the losing ones first."""
        config = self.config
        present = old is not None and self.holds(record, kind, old)
        if new is None:
            if not present:
                return []
            if kind in config.immutable:
                raise Refused(400, "VALIDATION_ERROR")
            self._drop(record, kind, old or "")
            return [record.mpid]
        held = record.ids.get(kind, [])
        single = kind in config.login or kind in config.unique
        if held and (new in held if not single else held == [new]) and not (present and old != new):
            return []
        others = [r for r in self.holders(kind, new) if r is not record]
        if kind in config.immutable and (held or others):
            raise Refused(400, "VALIDATION_ERROR")
        takes = others if kind in config.unique else []
        if key_only and (takes or (kind in config.login and held and not present)):
            raise Refused(400, "VALIDATION_ERROR")
        for other in takes:
            other.was_known = other.was_known or self.known(other)
            self._drop(other, kind, new)
        if present:
            self._drop(record, kind, old or "")
        if single:
            record.ids.pop(kind, None)
        if not self.holds(record, kind, new):
            record.ids.setdefault(kind, []).append(new)
        return [r.mpid for r in takes] + [record.mpid]

    def _drop(self, record: Record, kind: str, value: str) -> None:
        record.was_known = record.was_known or self.known(record)
        gone = key(self.config, kind, value)
        kept = [v for v in record.ids[kind] if key(self.config, kind, v) != gone]
        record.ids[kind] = kept
        if not kept:
            del record.ids[kind]
