"""A batch of events: whose it is, and what it changes, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from onymous.flows.answers import Answer, Question
from onymous.flows.arrivals import Arrival, Arrived, Key, once_key
from onymous.flows.batches import Stated
from onymous.flows.desk import Desk
from onymous.flows.identity import Resolve, Resolver
from onymous.flows.tenants import Caller
from onymous.flows.working import Working
from onymous.rules.batches import usable
from onymous.rules.errors import BatchTooLarge, Internal, LookupRefusal, Refusal
from onymous.rules.events import Batch, batch_id, read_batch, too_young
from onymous.rules.identifiers import clean
from onymous.rules.profiles import Context
from onymous.rules.withholding import withheld
from onymous.store import sql
from onymous.store.compression import Bodies
from onymous.store.port import Found, Kept, LostRace, Probe

#: most bytes of one batch (documented limit)
MOST_BYTES = 128 * 1024
Done = Callable[["Taken"], Any]


class Incoming(msgspec.Struct, kw_only=True):
    """One batch as it came in."""

    caller: Caller
    raw: Mapping[str, Any]
    #: the batch as JSON text, kept as it is
    body: bytes
    now_ms: int
    historical: bool = False
    max_values: int = 200
    #: the row of the spool it waited in; it goes with the batch
    spooled: int | None = None
    #: trace of the decision wanted
    explain: bool = False
    #: rows of feeds and files: values may be replaced, people are never joined (rulings 7)
    feed: bool = False
    replace_values: bool = False
    #: the time a row says it is from
    at_ms: int | None = None
    #: the key a repeat is known by, where the batch does not say
    key: Key | None = None


class Taken(msgspec.Struct, kw_only=True):
    """What became of a batch."""

    #: whose it is; None where it was set aside or dropped
    mpid: str | None = None
    #: accepted before, or dropped by the rules of its path
    dropped: str | None = None
    #: kept aside for a person to look at
    quarantined: str | None = None
    notes: list[str] = []
    #: feeds: profiles the row's identities belong to; nothing was changed
    conflict: list[str] = []
    answer: Answer | None = None
    refusal: Refusal | None = None


class Events:
    """Takes batches through the desk."""

    def __init__(self, resolver: Resolver, bodies: Bodies) -> None:
        self.resolver, self.bodies = resolver, bodies

    def take(self, item: Incoming, done: Done) -> None:
        """Take a batch: `done` is called once it is durable and applied.

        Raises a `Refusal` at once for a batch that cannot be read; nothing was kept then.
        """
        if len(item.body) > MOST_BYTES:
            raise BatchTooLarge(most=MOST_BYTES)
        caller = item.caller
        raw, why = withheld(item.raw, keep_ip=caller.keep_ip, restrict=caller.restrict_device_ids)
        if why:
            item.raw, item.body = raw, msgspec.json.encode(raw)
        kind = platform(caller)
        batch = read_batch(item.raw, item.now_ms, platform=kind, at_ms=item.at_ms)
        batch.notes += why
        if item.historical and too_young(item.raw, item.now_ms):
            self._note(item, "historical_too_young")
            done(Taken(dropped="historical_too_young"))
            return
        work = _Take(self, item, batch, done)
        if work.stated:
            self.resolver.desk.submit(work)
        else:
            self.resolver.desk.submit_write(work)

    def _note(self, item: Incoming, reason: str) -> None:
        caller = item.caller
        self.resolver.diagnostics.add(
            "batch_dropped", item.now_ms, caller.workspace, caller.input, None, {"reason": reason}
        )


def platform(caller: Caller) -> str:
    """Return the platform an input or feed stands for."""
    return caller.act_as or caller.kind


def context_of(caller: Caller) -> Context:
    """Return what of an input matters to profiles."""
    return Context(caller.input, platform(caller), caller.kind != "partner_feed", caller.purposes)


class _Take(Arrival):
    """One batch at the desk."""

    name = "events"
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(self, events: Events, item: Incoming, batch: Batch, done: Done) -> None:
        caller, resolver = item.caller, events.resolver
        self._events, self._item, self._batch, self._done = events, item, batch, done
        environment = "development" if batch.development else "production"
        question = Question(
            op="feed" if item.feed else "events",
            caller=caller,
            environment=environment,
            known=batch.identities,
            now_ms=item.now_ms,
            fold_keys=True,
            replace_values=item.replace_values,
            explain=item.explain,
            max_values=item.max_values,
        )
        plan = caller.plan
        cleaned = clean(question.known, strict=False, folding=plan.folding, blocked=plan.blocked)
        self._pool = caller.pool(environment)
        self._pid = resolver.mpids.parse(batch.mpid) if batch.mpid is not None else None
        self._used_stated = False
        self._stated: Stated | None = None
        self._resolve = Resolve(resolver, question, cleaned, _nobody)
        self.probe = self._resolve.probe
        if self._pid is not None:
            self._stated = Stated(resolver, question, cleaned, self._pid, _nobody, _nothing)
            self.probe = self._stated.probe
        self.more: tuple[Probe, ...] = ()
        self.key: Key | None = item.key or once_key(
            caller.input, batch.development, batch_id(item.raw)
        )
        self.dictionary, self.packed = events.bodies.pack(item.body)
        self.taken = Taken()

    @property
    def stated(self) -> bool:
        """Whether the batch names an MPID; then it matters whether that can be used."""
        return self._stated is not None

    def look(self, found: Found, desk: Desk) -> bool:
        """A batch always writes; but see whether its MPID can be used."""
        if self._stated is not None:
            record = next((r for r in found.records if r.pid == self._pid), None)
            if not usable(record, self._pool):
                self.more = (self._resolve.probe,)
        return False

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Find whose it is and note what to write."""
        self.taken = Taken()
        if self._item.spooled is not None:
            working.extra.append((sql.SPOOL_DROP, (self._item.spooled,)))
        if self.key is not None and self.key in working.accepted:
            self.taken.dropped = "duplicate"
            return None
        answer = self._whose(working)
        self.taken.answer = answer
        if answer.mpid is None:
            self._set_aside(working, answer)
            return None
        self.taken.mpid = answer.mpid
        # what arrives stays with the record it named, also after a merge (rulings 22)
        pid = self._pid if self._used_stated else self._resolve.pid
        if pid is None:
            raise Internal()
        if self.key is not None:
            working.accepted.add(self.key)
        caller, batch = self._item.caller, self._batch
        context = context_of(caller)
        working.batches.append(
            Arrived(pid, caller.workspace, batch, context, self.key, self.dictionary, self.packed)
        )
        return None

    def _whose(self, working: Working) -> Answer:
        self._used_stated = False
        if self._stated is not None:
            record = working.records.get(self._pid or 0)
            if usable(record, self._pool):
                self._used_stated = True
                return self._stated.attribute(working, self._events.resolver.desk.seen)
            if not self.more:
                self.more = (self._resolve.probe,)
                raise LostRace("the profile of a batch went away")
        self._resolve.act(working, None)
        return self._resolve.answer

    def _set_aside(self, working: Working, answer: Answer) -> None:
        """Keep a batch nobody can be found for, so that a person can look at it."""
        if answer.conflict:
            self.taken.conflict = answer.conflict
            return
        refusal = answer.refusal
        self.taken.quarantined = (
            "no_usable_identity"
            if isinstance(refusal, LookupRefusal) or refusal is None
            else type(refusal).__name__
        )
        if self._item.feed:
            return
        caller, item = self._item.caller, self._item
        body = msgspec.msgpack.encode(item.body)
        row = (item.now_ms, "quarantine", caller.workspace, caller.input)
        request = None if self.key is None else self.key[1].hex()
        working.extra.append((sql.SPOOL_ADD, (*row, int(self._batch.development), request, body)))

    def finish(self) -> None:
        """Answer: the batch is durable and applied."""
        if self.taken.mpid is not None and not self._used_stated:
            self._resolve.note()
        self._diagnose()
        self.taken.notes = sorted(set(self._batch.notes))
        self._done(self.taken)

    def _diagnose(self) -> None:
        taken, caller = self.taken, self._item.caller
        add = self._events.resolver.diagnostics.add
        where = (self._item.now_ms, caller.workspace, caller.input, None)
        if taken.dropped is not None:
            add("batch_dropped", *where, {"reason": taken.dropped})
        if taken.quarantined is not None:
            add("batch_quarantined", *where, {"reason": taken.quarantined})
        if self._batch.notes:
            add("batch_noted", *where, {"reasons": sorted(set(self._batch.notes))})

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was kept."""
        refusal = error if isinstance(error, Refusal) else Internal()
        self._done(Taken(refusal=refusal))


def _nobody(answer: Answer) -> None:
    """The inner decision is answered by the batch itself."""


def _nothing() -> None:
    """What follows an unusable MPID is decided by the batch itself."""


def now() -> int:
    """Return the time in milliseconds."""
    return time.time_ns() // 1_000_000
