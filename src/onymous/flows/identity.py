"""Identify, login, logout and search: clean, find, decide, write, answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from onymous.flows.answers import Answer, Done, Question, Recent, keep, kept
from onymous.flows.desk import Desk
from onymous.flows.diagnostics import Diagnostics, storable
from onymous.flows.held import conflict_mark
from onymous.flows.journal import Journal
from onymous.flows.told import Memory
from onymous.flows.tombstones import Tombstones
from onymous.flows.working import Origin, Working
from onymous.rules.identifiers import BY_CODE, BY_NAME, Cleaned, clean
from onymous.rules.identity import Ask, Decision, answer_flags, decide, protects, would_be
from onymous.rules.ledger import CREATED, Change, Entry
from onymous.rules.records import MERGED, SHARED, Record, Value, mask_of
from onymous.rules.sharing import competes, shared
from onymous.rules.strategies import Plan
from onymous.rules.trace import SKIPS, Skip, Trace, names_of, public
from onymous.store import sql
from onymous.store.port import FEW, Found, Kept, Probe

#: a value's own last seen time is kept to the day; the record's to the second
VALUE_SEEN_MS = 86_400_000

#: longest chain of merges
MOST_MERGES = 20

CODE_OF: dict[str, int] = {name: t.code for name, t in BY_NAME.items()}
NAME_OF: dict[int, str] = {code: t.name for code, t in BY_CODE.items()}


class Mpids(Protocol):
    """The bijection between internal numbers and MPIDs (crypto.MpidCipher)."""

    def text(self, pid: int) -> str:
        """Return the MPID of an internal number."""

    def parse(self, value: object) -> int | None:
        """Return the internal number of an MPID as it came in, or None."""


class Resolver:
    """Answers identity questions through the desk."""

    def __init__(
        self,
        desk: Desk,
        mpids: Mpids,
        diagnostics: Diagnostics,
        journal: Journal | None = None,
    ) -> None:
        self.desk, self.mpids, self.diagnostics = desk, mpids, diagnostics
        self.journal = journal or Journal(on=False)
        #: source -> destination of merges in force; refreshed now and then (flows/merging.py)
        self.merged: dict[int, int] = {}
        self.recent = Recent()
        #: what people known by all they gave were told last (flows/told.py)
        self.told = Memory()
        #: what erasures are remembered in, outside the database
        self.tombstones: Tombstones | None = None

    def ask(self, question: Question, done: Done) -> None:
        """Answer a question: calls `done` once, now or after the commit it needs.

        Raises a `Refusal` at once for identities that are not acceptable.
        """
        caller = question.caller
        plan = caller.plan
        if question.request_id is not None and not question.read_only:
            again = self.recent.get(question)
            if again is not None and question.op != "search":
                done(again)
                return
        cleaned = clean(
            question.known,
            strict=not (question.fold_keys or caller.fold_keys),
            folding=plan.folding,
            blocked=plan.blocked,
        )
        self.desk.submit(Resolve(self, question, cleaned, done))

    def canonical(self, record: Record) -> int:
        """Return the number of the profile a record stands for: its own, or the one it was merged
        into.
        """
        pid = record.pid
        if record.flags & MERGED:
            for _ in range(MOST_MERGES):
                if pid not in self.merged:
                    break
                pid = self.merged[pid]
        return pid

    def origin(self, question: Question) -> Origin:
        """Return where the changes of a question come from."""
        caller = question.caller
        return Origin(
            question.op, question.now_ms, caller.workspace, caller.input, question.request_id
        )


def request_key(input_id: int, request_id: str | None) -> bytes | None:
    """Return the digest a request id is remembered under, or None without one."""
    if not request_id:
        return None
    return hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=16).digest()


def lookup_keys(keys: dict[int, str], plan: Plan) -> dict[int, str]:
    """Return the identities that must be looked up: ranked or unique types."""
    wanted = plan.ranked | plan.unique
    for code in keys:
        if not wanted >> code & 1:
            return {code: key for code, key in keys.items() if wanted >> code & 1}
    return keys


def competing(record: Record, plan: Plan) -> list[Value]:
    """Return the values through which other records may be found instead, by last seen.

    Not unique ones, which one record holds; and of a protected record only its login ids, for
    through anything else it is found only where a login id has already decided.
    """
    protected = protects(record, mask_of(record), plan)
    return [value for value in record.values if competes(value.code, plan, protected)]


class Resolve:
    """One question at the desk."""

    name = "identity"
    more: tuple[Probe, ...] = ()

    def __init__(
        self, resolver: Resolver, question: Question, cleaned: Cleaned, done: Done
    ) -> None:
        caller = question.caller
        self.done = done
        self._resolver, self._question, self._cleaned = resolver, question, cleaned
        self.plan = self._plan = caller.plan
        self._keys = keys = {CODE_OF[name]: key for name, key in cleaned.keys.items()}
        pool = caller.pool(question.environment)
        previous = None
        if question.previous is not None:
            previous = resolver.mpids.parse(question.previous)
        self.probe = Probe(pool, lookup_keys(keys, self._plan), previous)
        self._asked: Ask | None = None
        #: the record decided for; the answer names the profile it stands for
        self.pid: int | None = None
        self._answer: Answer | None = None

    @property
    def _ask(self) -> Ask:
        """Return the question as the rules take it; what is obvious is answered without."""
        if self._asked is None:
            question, caller = self._question, self._question.caller
            self._asked = Ask(
                op=question.op,
                pool=self.probe.pool,
                keys=self._keys,
                previous=self.probe.previous,
                now_ms=question.now_ms,
                workspace=caller.workspace,
                input=caller.input,
                key_only=question.key_only,
                max_values=question.max_values,
                replace_values=question.replace_values,
            )
        return self._asked

    @property
    def replay(self) -> tuple[int, bytes, bytes] | None:
        """Return what an equal request is known by; only asked for where something is written."""
        question = self._question
        key = request_key(question.caller.input, question.request_id)
        if key is None or question.op == "search":
            return None
        return question.caller.input, key, question.fingerprint()

    def look(self, found: Found, desk: Desk) -> bool:
        """Answer a person already known, or one who is not there, from the snapshot."""
        plan, ask, question = self._plan, self._ask, self._question
        if not found.holders and ask.op == "identify" and not question.read_only and ask.keys:
            return False  # nobody has any of it: who writes decides
        hot = 0
        if found.crowded:
            limit = plan.config.hot_after
            for code, people in found.crowded.items():
                hot |= (people > limit) << code
        if plan.config.hot_after < FEW:
            hot |= shared(ask.keys, plan, found.records)
        why = self._trace()
        decision = decide(ask, plan, found.records, hot, why)
        if decision.refusal is not None or ask.op == "search" or question.read_only:
            if decision.conflict and self._one_person(decision, found.records):
                decision = decide(ask, plan, found.records, hot, why := self._trace())
            answer = self._told(decision, decision.record, why)
            if question.read_only and not (decision.refusal or decision.conflict):
                answer.logged_in, answer.ephemeral = would_be(decision, plan)
            self.done(answer)
            return True
        record = decision.record
        if record is None or decision.changes or decision.conflict:
            return False
        if self._must_touch(record, found.records):
            return False
        desk.seen.touch(record.pid, ask.now_ms)
        self._give(self._told(decision, record, why))
        return True

    def _give(self, answer: Answer) -> None:
        """Answer what needs no writing."""
        self.note()
        self._resolver.recent.put(self._question, answer)
        self.done(answer)

    def _must_touch(self, record: Record, others: Sequence[Record]) -> bool:
        """Whether being seen now must be written at once: values go stale, or a tie changes."""
        ask, horizon = self._ask, self._ask.now_ms - VALUE_SEEN_MS
        for value in record.values:
            if value.last_ms < horizon and ask.keys.get(value.code) == value.key:
                return True
        if not record.flags & SHARED:
            return False
        compete = competing(record, self._plan)
        if any(ask.keys.get(value.code) != value.key for value in compete):
            return True
        return bool(compete) and any(o.seen_ms >= record.seen_ms for o in others if o is not record)

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Decide on locked records and note what to write."""
        ask, plan, question = self._ask, self._plan, self._question
        working.now_ms = ask.now_ms
        if again is not None and again.digest == question.fingerprint():
            self._answer = kept(again.answer, question.known)
            return None
        why = self._trace()
        hot = working.hot(self.probe, plan)
        candidates = working.candidates(self.probe, hot & ~plan.unique)
        decision = decide(ask, plan, candidates, hot, why)
        if decision.conflict and self._one_person(decision, candidates):
            decision = decide(ask, plan, candidates, hot, why := self._trace())
        if decision.refusal is not None:
            self._answer = self._told(decision, None, why)
            return None
        if decision.conflict:
            self._answer = self._told(decision, None, why)
            self._note_conflict(working, decision)
            return None
        if hot:
            self._tell_hot(hot)
        record = decision.record
        if record is None:
            record = working.create(ask.pool, ask.now_ms, decision.source)
        elif not decision.changes:
            if self._must_touch(record, candidates):
                working.refresh(record, ask.keys, ask.now_ms)
                working.touch(record, plan, ask.now_ms)
            else:
                self._resolver.desk.seen.touch(record.pid, ask.now_ms)
            self._answer = self._told(decision, record, why)
            return None
        self._apply(working, record, decision)
        self._answer = self._told(decision, record, why)
        return keep(self._answer)

    def _one_person(self, decision: Decision, records: Sequence[Record]) -> bool:
        """Whether the owners of a feed row were merged: then it is nobody else's."""
        owners = {self._resolver.canonical(r) for r in records if r.pid in decision.conflict}
        self._ask.one_person = len(owners) == 1
        return self._ask.one_person

    def _tell_hot(self, hot: int) -> None:
        """Note which types of the request were shared by too many people to find anybody."""
        question = self._question
        self._resolver.diagnostics.add(
            "hot_value",
            question.now_ms,
            question.caller.workspace,
            question.caller.input,
            question.request_id,
            {"operation": question.op, "types": names_of(hot)},
        )

    def _apply(self, working: Working, record: Record, decision: Decision) -> None:
        ask = self._ask
        shown = self._cleaned.spelling
        changes = [Change(CREATED, other=decision.source)] if decision.create else []
        entry = Entry(
            ask.op,
            ask.workspace,
            ask.input,
            self._question.request_id,
            changes,
            decision.by,
            decision.tie,
            [(code, reason) for code, reason, _ in decision.skipped],
            decision.source,
        )
        working.refresh(record, ask.keys, ask.now_ms)
        working.apply(
            record,
            self._plan,
            self._resolver.origin(self._question),
            add=[(code, key, shown.get(NAME_OF[code])) for code, key in decision.attach],
            remove=decision.replace,
            entry=entry,
        )

    def _note_conflict(self, working: Working, decision: Decision) -> None:
        ask = self._ask
        body = msgspec.msgpack.encode((decision.conflict, ask.keys))
        same, request = conflict_mark(decision.conflict, ask.keys), self._question.request_id
        row = (ask.now_ms, ask.pool, ask.input, storable(request), body, same)
        working.extra.append((sql.CONFLICT_ADD, row))

    def _trace(self) -> Trace | None:
        if not self._question.explain:
            return None
        trace = Trace(self._ask.op, self._plan.strategy.name)
        for skip in self._cleaned.skipped:
            trace.skipped.append(
                Skip(skip.type, skip.why, SKIPS.get(skip.why, "cannot be an identity"))
            )
        return trace

    def _told(self, decision: Decision, record: Record | None, why: Trace | None) -> Answer:
        """Make the answer; flags are those of the record after the decision."""
        text = self._resolver.mpids.text
        question = self._question
        answer = Answer(created=decision.create)
        if why is not None:
            if decision.create and record is not None:
                why.mpid = record.pid
            answer.trace = public(why, text)
        if decision.refusal is not None:
            answer.refusal = decision.refusal()
            return answer
        if decision.conflict:
            answer.conflict = [text(pid) for pid in decision.conflict]
            return answer
        plan = self._plan
        if record is not None:
            self.pid = record.pid
            answer.mpid = text(self._resolver.canonical(record))
            answer.logged_in, answer.ephemeral = answer_flags(record, plan)
        if decision.matched:
            matched = decision.matched
            answer.matched = {
                name: str(question.known[name]).strip()
                for name in self._cleaned.keys
                if matched >> CODE_OF[name] & 1 and name in question.known
            }
        if decision.skipped or self._cleaned.skipped:
            self._resolver.diagnostics.skipped(question, decision.skipped, self._cleaned.skipped)
            if record is not None and not decision.create:
                held, pool = self._resolver.journal.held_back, self.probe.pool
                shown = self._cleaned.spelling
                held.note(question, pool, record, decision.skipped, self._keys, shown)
        return answer

    @property
    def answer(self) -> Answer:
        """Return what `act` decided."""
        if self._answer is None:
            raise ValueError("not decided yet")
        return self._answer

    def note(self) -> None:
        """Note the request in the journal: what was decided is durable."""
        journal = self._resolver.journal
        if journal.on:
            probe = self.probe
            journal.note(self._question, probe.pool, self._keys, probe.previous, self.pid)

    def finish(self) -> None:
        """Answer: what was decided is durable."""
        if self._answer is not None:
            if self._answer.refusal is None:
                self.note()
            self._resolver.recent.put(self._question, self._answer)
            self.done(self._answer)

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self.done(Answer(refusal=error))  # type: ignore[arg-type]
