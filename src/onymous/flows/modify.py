"""Modify: one person's names change; nobody else's record is returned."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from onymous.flows.answers import Answer, Done, Question, keep, kept
from onymous.flows.desk import Desk
from onymous.flows.identity import NAME_OF, Resolver, lookup_keys, request_key
from onymous.flows.working import Origin, Working
from onymous.rules.batches import usable
from onymous.rules.errors import (
    IdentityValueNotString,
    RequestIdReused,
    UnknownIdentityType,
    UnknownMpid,
)
from onymous.rules.identifiers import BY_NAME, FOLDED, clean_value
from onymous.rules.identity import answer_flags
from onymous.rules.ledger import Entry
from onymous.rules.modify import Change, Modified, modify
from onymous.rules.trace import Trace, public
from onymous.store.port import Found, Kept, Probe


class Wanted(msgspec.Struct):
    """One entry of `identity_changes` as it came in."""

    identity_type: str
    old_value: object = None
    new_value: object = None


def change_identities(
    resolver: Resolver, question: Question, mpid: object, wanted: Sequence[Wanted], done: Done
) -> None:
    """Carry out a modify; raises a `Refusal` at once for values that are not acceptable."""
    caller = question.caller
    changes = _clean(question, wanted)
    pid = resolver.mpids.parse(mpid)
    if pid is None:
        done(Answer(refusal=UnknownMpid()))
        return
    resolver.desk.submit_write(
        _Modify(resolver, question, pid, caller.pool(question.environment), changes, done)
    )


def _clean(question: Question, wanted: Sequence[Wanted]) -> list[Change]:
    plan = question.caller.plan
    fold = question.fold_keys or question.caller.fold_keys
    changes = []
    for entry in wanted:
        kind = (FOLDED if fold else BY_NAME).get(entry.identity_type)
        if kind is None:
            raise UnknownIdentityType(type=entry.identity_type)
        sides: list[str | None] = []
        for value in (entry.old_value, entry.new_value):
            if value is not None and not isinstance(value, str):
                raise IdentityValueNotString(type=kind.name)
            sides.append(None if value is None else clean_value(kind, value, plan.folding))
        old, new = sides
        refused = new is None and entry.new_value is not None
        if refused or (new is not None and (kind.name, new) in plan.blocked):
            continue  # a placeholder as new value is no name, and no removal either
        shown = str(entry.new_value).strip() if new is not None else None
        changes.append(Change(kind.code, old, new, shown if shown != new else None))
    return changes


class _Modify:
    """One modify at the desk."""

    name = "modify"

    def __init__(
        self,
        resolver: Resolver,
        question: Question,
        pid: int,
        pool: int,
        changes: list[Change],
        done: Done,
    ) -> None:
        self._resolver, self._question, self._done = resolver, question, done
        self._pid, self._pool, self._changes = pid, pool, changes
        caller = question.caller
        self.plan = caller.plan
        probes = [
            Probe(pool, lookup_keys({c.code: c.new}, caller.plan))
            for c in changes
            if c.new is not None
        ]
        self.probe = Probe(pool, {}, None, (pid,))
        self.more = tuple(probes)
        key = request_key(caller.input, question.request_id)
        self.replay = None if key is None else (caller.input, key, question.fingerprint())
        self._answer: Answer | None = None

    def look(self, found: Found, desk: Desk) -> bool:
        """A modify is decided on locked records only."""
        return False

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Decide on locked records and note what to write."""
        question, plan = self._question, self._question.caller.plan
        working.now_ms = question.now_ms
        if again is not None:
            before = kept(again.answer, {})
            same = again.digest == question.fingerprint()
            # whose names change stands in the path, not in the body
            same = same and before.mpid == self._resolver.mpids.text(self._pid)
            self._answer = before if same else Answer(refusal=RequestIdReused())
            return None
        record = working.records.get(self._pid)
        if record is None or not usable(record, self._pool):
            self._answer = Answer(refusal=UnknownMpid())
            return None
        why = Trace("modify", plan.strategy.name) if question.explain else None
        others = {r.pid: r for probe in self.more for r in working.candidates(probe)}
        out = modify(
            record,
            self._changes,
            list(others.values()),
            plan,
            key_only=question.key_only,
            max_values=question.max_values,
            why=why,
        )
        text = self._resolver.mpids.text
        if out.refusal is not None:
            self._answer = Answer(refusal=out.refusal(type=NAME_OF[out.at_fault]))
            if why is not None:
                self._answer.trace = public(why, text)
            return None
        self._apply(working, out)
        logged_in, ephemeral = answer_flags(record, plan)
        self._answer = Answer(mpid=text(record.pid), logged_in=logged_in, ephemeral=ephemeral)
        self._answer.changes = [(NAME_OF[code], text(pid)) for code, pid in out.results]
        if why is not None:
            self._answer.trace = public(why, text)
        return keep(self._answer)

    def _apply(self, working: Working, out: Modified) -> None:
        question = self._question
        caller = question.caller
        record = working.records[self._pid]
        if not out.results:
            return
        where = (question.now_ms, caller.workspace, caller.input, question.request_id)
        # a backend may rename a person at any time: that is no sight of the device
        origin = Origin("modify", *where, quiet=True)
        working.apply(
            record,
            caller.plan,
            origin,
            add=out.add,
            remove=out.remove,
            take=out.take,
            entry=Entry("modify", caller.workspace, caller.input, question.request_id, []),
        )

    def finish(self) -> None:
        """Answer: what was decided is durable."""
        if self._answer is not None:
            self._note(self._answer)
            self._done(self._answer)

    def _note(self, answer: Answer) -> None:
        journal, question = self._resolver.journal, self._question
        if journal.on and answer.refusal is None:
            where = (question.caller.workspace, question.caller.input)
            journal.note_modify(
                self._pool,
                where,
                question.now_ms,
                self._pid,
                self._changes,
                question.key_only,
                question.request_id,
            )

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self._done(Answer(refusal=error))  # type: ignore[arg-type]
