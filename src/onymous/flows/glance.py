"""Answers at a glance: most requests are about somebody known by all that is given.

One lookup of the highest value given finds its only holder; if that record holds everything, it is
the answer without a doubt (rules/obvious.py) and nothing is written but that it was seen. All other
requests go the ordinary way (flows/identity.py), which says the same of these, at more cost.
"""

from __future__ import annotations

import msgspec

from onymous.flows.answers import Answer, Question
from onymous.flows.desk import Desk
from onymous.flows.identity import CODE_OF, NAME_OF, VALUE_SEEN_MS, Resolve, Resolver, competing
from onymous.flows.told import Told
from onymous.rules.identifiers import clean, ordinary
from onymous.rules.identity import flags_of
from onymous.rules.obvious import obvious
from onymous.rules.records import MERGED, SHARED, Record
from onymous.rules.strategies import Plan
from onymous.store.packing import unpack_record
from onymous.store.port import Label, Row

#: requests that are often about somebody known by all that is given
PLAIN = frozenset({"identify", "login"})


def first_label(op: str, plan: Plan, pool: int, keys: dict[int, str]) -> Label | None:
    """Return the value whose only holder may answer at a glance, or None."""
    if plan.config.hot_after < 1:
        return None  # what one person holds is shared by too many
    for code in plan.order:
        if code in keys:
            if op == "login" and plan.strategy.login_needs_login_id and not plan.login >> code & 1:
                return None  # it may have to be refused
            return pool, code, keys[code]
    return None


class Aim(msgspec.Struct):
    """What an identify or login by ordinary identities asks, and what it was told last."""

    pool: int
    keys: dict[int, str]
    #: the value whose only holder may answer
    label: Label
    told: Told | None = None


def aim(resolver: Resolver, question: Question, pool: int) -> Aim | None:
    """Return what may answer a question at a glance, or None where something is unusual."""
    plan, known = question.caller.plan, question.known
    told = resolver.told.get(question.op, pool, plan, known, question.now_ms)
    if told is not None:
        return Aim(pool, told.keys, told.label, told)
    keys = ordinary(known, plan.folding, plan.blocked)
    label = first_label(question.op, plan, pool, keys) if keys else None
    return None if keys is None or label is None else Aim(pool, keys, label)


class Known:
    """An identify or login by ordinary identities (`rules.identifiers.ordinary`), at the desk."""

    __slots__ = ("_resolver", "aim", "question")

    def __init__(self, resolver: Resolver, question: Question, aim: Aim) -> None:
        self._resolver, self.question, self.aim = resolver, question, aim

    def glance(self, row: Row, desk: Desk) -> bool:
        """Answer from the only holder of the highest value given; return whether it did."""
        resolver, question = self._resolver, self.question
        aim, pid = self.aim, row[0]
        told = aim.told
        if told is None or told.row != row:
            told = self._judged(unpack_record(row), row)
            if told is None:
                return False
        desk.seen.touch(pid, question.now_ms)
        journal = resolver.journal
        if journal.on:
            previous = question.previous
            if previous is not None:
                previous = resolver.mpids.parse(previous)
            journal.note(question, aim.pool, aim.keys, previous, pid)
        self.told(told)
        return True

    def _judged(self, record: Record, row: Row) -> Told | None:
        """Return what the holder of the highest value given is told, or None where in doubt."""
        resolver, question, keys = self._resolver, self.question, self.aim.keys
        plan = question.caller.plan
        if record.flags & SHARED and competing(record, plan):
            return None  # being seen may decide a tie, and is written at once
        given = 0
        for code in keys:
            given |= 1 << code
        # when a value was seen is kept to the day, and must be written then
        has = obvious(record, keys, given, plan, question.now_ms - VALUE_SEEN_MS)
        if not has:
            return None
        logged_in, ephemeral = flags_of(has, plan)
        oldest = min(v.last_ms for v in record.values if keys.get(v.code) == v.key)
        told = Told(
            op=question.op,
            pool=self.aim.pool,
            plan=plan,
            known=question.known,
            keys=keys,
            label=self.aim.label,
            row=row,
            until_ms=oldest + VALUE_SEEN_MS,
            mpid=resolver.mpids.text(resolver.canonical(record)),
            logged_in=logged_in,
            ephemeral=ephemeral,
            has=has,
            matched=given_of(keys, question),
        )
        if not record.flags & MERGED:  # who it stands for then is not in its row
            resolver.told.put(told)
        return told

    def full(self) -> Resolve:
        """Return the work that answers this the ordinary way."""
        question = self.question
        plan = question.caller.plan
        cleaned = clean(question.known, strict=True, folding=plan.folding, blocked=plan.blocked)
        return Resolve(self._resolver, question, cleaned, self.done)

    def told(self, told: Told) -> None:
        """Answer somebody known by all that was given."""
        raise NotImplementedError

    def done(self, answer: Answer) -> None:
        """Answer what went the ordinary way."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was written."""
        self.done(Answer(refusal=error))  # type: ignore[arg-type]


class _Now(Known):
    """One that is answered on the caller's thread."""

    __slots__ = ("answer",)

    def told(self, told: Told) -> None:
        """Keep the answer."""
        self.answer = answer_of(told)


def answer_of(told: Told) -> Answer:
    """Return an answer at a glance as any other."""
    return Answer(
        mpid=told.mpid,
        logged_in=told.logged_in,
        ephemeral=told.ephemeral,
        matched=dict(told.matched),
    )


def given_of(keys: dict[int, str], question: Question) -> dict[str, str]:
    """Return the identities as they were given, in type order; ordinary ones only."""
    known = question.known
    if len(keys) == len(known) and list(keys) == [CODE_OF[name] for name in known]:
        return known  # type: ignore[return-value]
    return {(name := NAME_OF[code]): known[name] for code in keys}  # type: ignore[misc]


def ask_now(resolver: Resolver, question: Question) -> Answer | None:
    """Answer at once, on this thread, where the engine can and nothing must be written."""
    desk, plan = resolver.desk, question.caller.plan
    find, only = desk.store.find_now, desk.store.only_now
    if find is None or only is None:
        return None
    if question.op in PLAIN and not (question.explain or question.read_only):
        wanted = aim(resolver, question, question.caller.pool(question.environment))
        row = only([wanted.label])[0] if wanted is not None else None
        if wanted is not None and row is not None:
            work = _Now(resolver, question, wanted)
            if work.glance(row, desk):
                return work.answer
    cleaned = clean(question.known, strict=True, folding=plan.folding, blocked=plan.blocked)
    answers: list[Answer] = []
    resolve = Resolve(resolver, question, cleaned, answers.append)
    resolve.look(find([resolve.probe])[0], desk)
    return answers[0] if answers else None
