"""The auditor: a second, slow and obvious model of identity resolution.

Every question scans every record. It shares no code with the product's rules, so that an
error in one shows as a disagreement with the other.
"""

from __future__ import annotations

from typing import Any

from onymous.lab.auditor_lookup import Pool
from onymous.lab.auditor_types import (
    NEW,
    USER_TYPES,
    Config,
    Expected,
    Identities,
    Record,
    Refused,
    clean,
    clean_value,
)

_DAY_MS = 86_400_000


class Model:
    """One pool (scope and environment) of identity records, judged by brute force."""

    def __init__(self, config: Config, records: list[Record] | None = None) -> None:
        """Start from given records; the list is copied."""
        self.config = config
        self.records = _copies(records or [])
        self.aliases: list[dict[str, Any]] = []

    def expect(self, op: dict[str, Any], now_ms: int) -> Expected:
        """Say what must happen, on a copy; this model does not change."""
        work = _Work(self.config, _copies(self.records), [*map(dict, self.aliases)], now_ms)
        try:
            answer = work.run(op)
        except Refused as refusal:
            return Expected(
                refusal.status, refusal.code, records=self.records, aliases=self.aliases
            )
        answer.records = work.pool.records
        answer.aliases = work.aliases
        return answer

    def commit(self, expected: Expected, new_mpid: str | None = None) -> None:
        """Apply an expectation; a created record gets the MPID that was really given."""
        self.records = _copies(expected.records)
        self.aliases = [*map(dict, expected.aliases)]
        for record in self.records:
            if record.mpid == NEW:
                if new_mpid is None:
                    raise ValueError("the request creates a record: its MPID is needed")
                record.mpid = new_mpid


def _copies(records: list[Record]) -> list[Record]:
    return [record.copied() for record in records]


class _Work:
    """One request on a private copy of the pool."""

    def __init__(
        self, config: Config, records: list[Record], aliases: list[dict[str, Any]], now: int
    ) -> None:
        self.config = config
        self.pool = Pool(config, records)
        self.aliases = aliases
        self.now = now

    def run(self, op: dict[str, Any]) -> Expected:
        name = op["op"]
        if name in ("identify", "login"):
            return self.identify(op, clean(op.get("known_identities") or {}))
        run = {
            "logout": self.logout,
            "search": self.search,
            "modify": self.modify,
            "events": self.events,
            "feed": self.feed,
            "alias": self.alias,
            "erase": self.erase,
        }[name]
        return run(op)

    def identify(self, op: dict[str, Any], q: Identities) -> Expected:
        config = self.config
        if not q:
            raise Refused(400, "LOOKUP_ERROR")
        logins = [t for t in q if t in config.login]
        if op["op"] == "login" and config.strategy == "profile_isolation" and not logins:
            raise Refused(400, "LOOKUP_ERROR")
        found = self.pool.lookup(q, op.get("previous_mpid"))
        creates = config.strategy in ("profile_link", "profile_isolation")
        if found is not None and (self.pool.known(found) or not logins or not creates):
            return self.returned(found, q, op)
        return self.create(q, found if creates else None)

    def returned(self, record: Record, q: Identities, op: dict[str, Any]) -> Expected:
        matched = {t: v for t, v in q.items() if self.pool.holds(record, t, v)}
        may = self.config.identify_may_replace and op["op"] in ("identify", "login")
        for kind, value in q.items():
            own = may and not (op.get("key_only") and kind in self.config.login)
            self.pool.attach(record, kind, value, replace=own)
        record.last_seen = self.now
        return self.answer(record, matched)

    def create(self, q: Identities, source: Record | None) -> Expected:
        record = Record(NEW, created=self.now, last_seen=self.now)
        self.pool.records.append(record)
        for kind, value in q.items():
            self.pool.attach(record, kind, value)
        if not record.ids:
            raise Refused(400, "LOOKUP_ERROR")
        record.source = source.mpid if source else None
        return self.answer(record, {})

    def answer(self, record: Record, matched: Identities) -> Expected:
        known = self.pool.known(record)
        record.was_known = record.was_known or known
        ephemeral = not known
        if self.config.strategy == "best_match":
            ephemeral = not any(t in USER_TYPES for t in record.ids)
        return Expected(200, None, record.mpid, known, ephemeral, matched)

    def logout(self, op: dict[str, Any]) -> Expected:
        q = clean(op.get("known_identities") or {})
        if self.config.strategy == "best_match":
            return self.identify(op, q)
        guarded = set(self.config.login) | set(self.config.unique)
        q = {t: v for t, v in q.items() if t not in guarded}
        if not q:
            raise Refused(400, "LOOKUP_ERROR")
        if self.config.strategy == "profile_isolation":
            found = self.pool.lookup(q, op.get("previous_mpid"))
            if found is not None and not self.pool.known(found):
                return self.returned(found, q, op)
        return self.create(q, None)

    def search(self, op: dict[str, Any]) -> Expected:
        q = clean(op.get("known_identities") or {})
        if not q:
            raise Refused(400, "LOOKUP_ERROR")
        if op.get("reach") == "any" and not op.get("key_only"):
            holders = [
                r.mpid
                for r in self.pool.records
                if not r.erased and any(self.pool.holds(r, t, v) for t, v in q.items())
            ]
            return Expected(
                200 if holders else 404, None if holders else "NOT_FOUND_ERROR", matches=holders
            )
        found = self.pool.lookup(q, None, search=True)
        if found is None:
            raise Refused(404, "NOT_FOUND_ERROR")
        matched = {t: v for t, v in q.items() if self.pool.holds(found, t, v)}
        return self.answer(found, matched)

    def modify(self, op: dict[str, Any]) -> Expected:
        record = self.pool.get(op["mpid"])
        if record is None:
            raise Refused(400, "LOOKUP_ERROR")
        results: list[dict[str, str]] = []
        for change in op["identity_changes"]:
            kind = change["identity_type"]
            clean({kind: None})
            old = clean_value(change.get("old_value"))
            new = clean_value(change.get("new_value"))
            if new is None and change.get("new_value") is not None:
                continue
            for mpid in self.pool.change(record, kind, old, new, bool(op.get("key_only"))):
                results.append({"identity_type": kind, "modified_mpid": mpid})
        answer = self.answer(record, {})
        answer.is_ephemeral = answer.matched_identities = None
        answer.change_results = results
        return answer

    def events(self, op: dict[str, Any]) -> Expected:
        q = clean(op.get("identities") or {})
        record = self.pool.get(op["mpid"]) if op.get("mpid") else None
        if record is not None:
            guarded = {*self.config.login, *self.config.unique, *self.config.immutable}
            for kind, value in q.items():
                if op.get("server_side") and kind not in guarded:
                    self.pool.attach(record, kind, value)
            record.last_seen = self.now
            return Expected(202, None, record.mpid)
        return self.batch(op, q)

    def batch(self, op: dict[str, Any], q: Identities) -> Expected:
        before = _copies(self.pool.records)
        try:
            return Expected(202, None, self.identify(op, q).mpid)
        except Refused:
            self.pool.records = before
            return Expected(202, None, None)

    def feed(self, op: dict[str, Any]) -> Expected:
        q = clean(op.get("identities") or {})
        personal = {*self.config.login, *self.config.unique}
        owners = {r.mpid for t, v in q.items() if t in personal for r in self.pool.holders(t, v)}
        if len(owners) > 1:
            return Expected(202, None, None, outcome="conflict")
        if op.get("replace_values"):
            found = self.pool.lookup(q, None)
            if found is not None:
                self.pool.replace_lower(found, q)
        return self.batch(op, q)

    def erase(self, op: dict[str, Any]) -> Expected:
        record = self.pool.get(op["mpid"])
        if record is None:
            raise Refused(400, "LOOKUP_ERROR")
        record.ids, record.erased = {}, True
        gone = record.mpid
        self.aliases = [a for a in self.aliases if gone not in (a["source"], a["destination"])]
        return Expected(200)

    def alias(self, op: dict[str, Any]) -> Expected:
        if self.config.strategy in ("profile_isolation", "best_match"):
            raise Refused(403, None)
        data = op["data"]
        now = op.get("now_ms", self.now)
        names = data.get("source_mpid"), data.get("destination_mpid")
        source, target = (self.pool.get(n) if n else None for n in names)
        end = data.get("end_unixtime_ms", now)
        start = data.get("start_unixtime_ms", now - 90 * _DAY_MS)
        if source is None or target is None or source is target or start > end:
            raise Refused(400, None)
        fine = not self._alias_clash(names[0], names[1], start, end)
        if self.config.alias_source_must_be_anonymous or op.get("key_only"):
            fine = fine and not self.pool.protected(source) and self.pool.protected(target)
        if op.get("key_only"):
            stamps = source.ids.get("device_application_stamp", [])
            fine = fine and any(
                self.pool.holds(target, "device_application_stamp", s) for s in stamps
            )
        if fine:
            self.aliases.append(
                {"source": names[0], "destination": names[1], "start": start, "end": end}
            )
        return Expected(202, outcome="applied" if fine else "rejected")

    def _alias_clash(self, source: object, target: object, start: int, end: int) -> bool:
        for old in self.aliases:
            if old["destination"] == source or old["source"] == target:
                return True
            if old["source"] == source and old["start"] <= end and start <= old["end"]:
                return True
        return False


def compare(expected: Expected, answer: dict[str, Any], taken: set[str] | None = None) -> list[str]:
    """List, in words, where an answer differs; `taken` are MPIDs that cannot be new."""
    problems: list[str] = []
    if answer.get("status") != expected.status:
        problems.append(f"status {answer.get('status')} instead of {expected.status}")
    for name in ("code", "is_logged_in", "is_ephemeral", "matched_identities", "outcome"):
        wanted = getattr(expected, name)
        if wanted is not None and name in answer and answer[name] != wanted:
            problems.append(f"{name} {answer[name]!r} instead of {wanted!r}")
    problems += _compare_mpid(expected, answer, taken or set())
    if expected.change_results is not None and "change_results" in answer:
        wanted, got = (
            sorted(map(str, map(dict.items, rows)))
            for rows in (expected.change_results, answer["change_results"])
        )
        if wanted != got:
            problems.append(
                f"change_results {answer['change_results']} instead of {expected.change_results}"
            )
    return problems


def _compare_mpid(expected: Expected, answer: dict[str, Any], taken: set[str]) -> list[str]:
    if "mpid" not in answer or expected.status >= 400:
        return []
    got = answer["mpid"]
    if expected.mpid == NEW:
        fresh = isinstance(got, str) and got not in taken
        return [] if fresh else [f"mpid {got!r} instead of a new record"]
    if expected.mpid is not None and got != expected.mpid:
        return [f"mpid {got!r} instead of {expected.mpid!r}"]
    if expected.mpid is None and expected.status == 202 and got is not None:
        return [f"mpid {got!r} instead of no record"]
    return []


def story(history: list[dict[str, Any]]) -> str:
    """Tell the requests that led to a violation, one numbered line each."""
    lines = []
    for number, op in enumerate(history):
        rest = ", ".join(f"{k}={v}" for k, v in op.items() if k != "op")
        lines.append(f"{number}. {op['op']} {rest}")
    return "\n".join(lines)
