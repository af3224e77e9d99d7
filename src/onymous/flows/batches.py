"""Batches with an MPID: theirs if it exists, else resolved like an identify (section 7)."""

from __future__ import annotations

from collections.abc import Callable

from onymous.flows.answers import Answer, Done, Question
from onymous.flows.desk import Desk
from onymous.flows.identity import CODE_OF, NAME_OF, Resolver, lookup_keys
from onymous.flows.seen import SeenBuffer
from onymous.flows.working import Origin, Working
from onymous.rules.batches import stated, usable
from onymous.rules.errors import LookupRefusal, Refusal
from onymous.rules.identifiers import Cleaned, clean
from onymous.rules.identity import Ask, Decision, answer_flags
from onymous.rules.ledger import Entry
from onymous.rules.records import SHARED, Record
from onymous.rules.trace import Trace, public
from onymous.store.port import Found, Kept, Probe


def resolve_batch(resolver: Resolver, question: Question, mpid: object, done: Done) -> None:
    """Find whose a batch is; answers `mpid` None where nobody is (accepted, quarantined)."""
    question.fold_keys = True
    question.op = "events"

    def by_identities() -> None:
        resolver.ask(question, lambda answer: done(_quarantined(answer)))

    pid = resolver.mpids.parse(mpid) if mpid is not None else None
    if pid is None:
        by_identities()
        return
    plan = question.caller.plan
    cleaned = clean(question.known, strict=False, folding=plan.folding, blocked=plan.blocked)
    resolver.desk.submit(Stated(resolver, question, cleaned, pid, done, by_identities))


def _quarantined(answer: Answer) -> Answer:
    """A batch nobody can be found for is not an error: it is set aside."""
    if isinstance(answer.refusal, LookupRefusal):
        return Answer(reason="no_usable_identity", trace=answer.trace)
    return answer


class Stated:
    """A batch that names its MPID, at the desk."""

    name = "events"
    more: tuple[Probe, ...] = ()
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(
        self,
        resolver: Resolver,
        question: Question,
        cleaned: Cleaned,
        pid: int,
        done: Done,
        otherwise: Callable[[], None],
    ) -> None:
        caller = question.caller
        self.plan = caller.plan
        self._resolver, self._question, self._cleaned = resolver, question, cleaned
        self._done, self._otherwise, self._pid = done, otherwise, pid
        keys = {CODE_OF[name]: key for name, key in cleaned.keys.items()}
        pool = caller.pool(question.environment)
        self._ask = Ask(op="events", pool=pool, keys=keys, now_ms=question.now_ms)
        self._ask.max_values = question.max_values
        self.probe = Probe(pool, lookup_keys(keys, caller.plan), None, (pid,))
        self._answer: Answer | None = None

    def _decide(self, record: Record, others: list[Record], why: Trace | None) -> Decision:
        caller = self._question.caller
        return stated(
            self._ask, record, others, caller.plan, server_side=caller.server_side, why=why
        )

    def look(self, found: Found, desk: Desk) -> bool:
        """Answer from the snapshot where the batch adds nothing."""
        record = next((r for r in found.records if r.pid == self._pid), None)
        if record is None or not usable(record, self._ask.pool):
            self._otherwise()
            return True
        why = self._trace()
        decision = self._decide(record, found.records, why)
        if decision.changes or record.flags & SHARED:
            # where it competes by last seen, being seen decides ties: written at once
            return False
        desk.seen.touch(record.pid, self._ask.now_ms)
        self._done(self._told(decision, record, why))
        return True

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Add what the batch may add."""
        record = working.records.get(self._pid)
        if record is None or not usable(record, self._ask.pool):
            self._answer = None
            return None
        why = self._trace()
        decision = self._decide(record, [], why)
        self._apply(working, record, decision)
        self._answer = self._told(decision, record, why)
        return None

    def _apply(self, working: Working, record: Record, decision: Decision) -> None:
        question = self._question
        caller = question.caller
        working.apply(
            record,
            caller.plan,
            Origin("events", question.now_ms, caller.workspace, caller.input, question.request_id),
            add=[
                (code, key, self._cleaned.spelling.get(NAME_OF[code]))
                for code, key in decision.attach
            ],
            entry=Entry("events", caller.workspace, caller.input, question.request_id, []),
        )

    def attribute(self, working: Working, seen: SeenBuffer) -> Answer:
        """Decide for a batch that is kept in the same transaction; the MPID must be usable."""
        question, record = self._question, working.records[self._pid]
        why = self._trace()
        decision = self._decide(record, [], why)
        if decision.changes:
            self._apply(working, record, decision)
        elif record.flags & SHARED:
            working.touch(record, question.caller.plan, question.now_ms)
        else:
            seen.touch(record.pid, question.now_ms)
        return self._told(decision, record, why)

    def _trace(self) -> Trace | None:
        if not self._question.explain:
            return None
        return Trace("events", self._question.caller.plan.strategy.name)

    def _told(self, decision: Decision, record: Record, why: Trace | None) -> Answer:
        plan = self._question.caller.plan
        logged_in, ephemeral = answer_flags(record, plan)
        if decision.skipped:
            self._resolver.diagnostics.skipped(self._question, decision.skipped)
            ask, shown = self._ask, self._cleaned.spelling
            held = self._resolver.journal.held_back
            held.note(self._question, ask.pool, record, decision.skipped, ask.keys, shown)
        text = self._resolver.mpids.text
        return Answer(
            mpid=text(record.pid),
            logged_in=logged_in,
            ephemeral=ephemeral,
            trace=public(why, text) if why is not None else None,
        )

    def finish(self) -> None:
        """Answer, or resolve by identities where the profile went away meanwhile."""
        if self._answer is None:
            self._otherwise()
        else:
            self._done(self._answer)

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        refusal = error if isinstance(error, Refusal) else None
        self._done(Answer(refusal=refusal))
