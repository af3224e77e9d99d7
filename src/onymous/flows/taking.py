"""One batch at the desk: whose it is, and what it changes, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from onymous.flows.answers import Answer, Question
from onymous.flows.arrivals import Arrival, Arrived, Key, once_keys
from onymous.flows.batches import Stated
from onymous.flows.desk import Desk
from onymous.flows.identity import Resolve, Resolver
from onymous.flows.tenants import Caller
from onymous.flows.working import Working
from onymous.rules.batches import usable
from onymous.rules.errors import Internal, LookupRefusal, Refusal
from onymous.rules.events import Batch, batch_names
from onymous.rules.identifiers import clean
from onymous.rules.profiles import Context
from onymous.rules.records import ERASED
from onymous.store import sql
from onymous.store.port import Found, Kept, LostRace, Probe

Done = Callable[["Taken"], Any]
#: most characters of a name that diagnostics repeat
_MOST_REQUEST = 128


class Gate(Protocol):
    """Limits what callers that showed nothing but a public key may make (rulings 12)."""

    def enter(self, question: Question) -> Refusal | None:
        """Return why identities may not be resolved now, or None."""

    def left(self, answer: Answer) -> None:
        """Note what was made."""


class Incoming(msgspec.Struct, kw_only=True):
    """One batch as it came in."""

    caller: Caller
    raw: Mapping[str, Any]
    #: the batch as JSON text, kept as it is
    body: bytes
    now_ms: int
    historical: bool = False
    #: most bytes it may have; 0: the documented limit. SDKs cannot make one smaller
    most_bytes: int = 0
    max_values: int = 200
    #: nothing but a public key was shown; then `gate` says what may be made
    key_only: bool = False
    gate: Gate | None = None
    #: the row of the spool it waited in; it goes with the batch
    spooled: int | None = None
    #: that row is one of the quarantine: it stays where nobody is found again
    aside: bool = False
    #: what was done to its text before it could be read
    notes: tuple[str, ...] = ()
    #: trace of the decision wanted
    explain: bool = False
    #: rows of feeds and files: values may be replaced, people are never joined (rulings 7)
    feed: bool = False
    #: its sender keeps what is not taken, as a file keeps its rows: nothing is set aside
    kept: bool = False
    replace_values: bool = False
    #: the time a row says it is from
    at_ms: int | None = None


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


class Take(Arrival):
    """One batch at the desk."""

    name = "events"
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(
        self,
        resolver: Resolver,
        item: Incoming,
        batch: Batch,
        context: Context,
        packed: tuple[int, bytes],
        done: Done,
    ) -> None:
        caller, plan = item.caller, item.caller.plan
        self.plan = plan
        self._resolver, self._item, self._batch, self._done = resolver, item, batch, done
        self._context, self._packed = context, packed
        self._question = question = _question(item, batch)
        cleaned = clean(question.known, strict=False, folding=plan.folding, blocked=plan.blocked)
        self._pool = caller.pool(question.environment)
        self._pid = resolver.mpids.parse(batch.mpid) if batch.mpid is not None else None
        self._used_stated = self._erased = False
        self._stated: Stated | None = None
        self._resolve = Resolve(resolver, question, cleaned, _nobody)
        self.probe = self._resolve.probe
        if self._pid is not None:
            self._stated = Stated(resolver, question, cleaned, self._pid, _nobody, _nothing)
            self.probe = self._stated.probe
        elif batch.mpid is not None:
            batch.notes.append("mpid_unusable")
        self.more: tuple[Probe, ...] = ()
        names = batch_names(item.raw)
        if item.spooled is not None:
            # two who take it out of the spool at the same time are repeats of one another
            names.append(f"spool:{item.spooled}")
        self.keys: tuple[Key, ...] = once_keys(caller.input, batch.development, names)
        self._entered = False
        self.taken = Taken()

    @property
    def stated(self) -> bool:
        """Whether the batch names an MPID; then it matters whether that can be used."""
        return self._stated is not None

    @property
    def size(self) -> int:
        """Return how many bytes the batch has."""
        return len(self._item.body)

    def whole(self) -> None:
        """Ask for its identities at once, as if its MPID could not be used."""
        if self._stated is not None:
            self.more = (self._resolve.probe,)

    def look(self, found: Found, desk: Desk) -> bool:
        """A batch always writes; but see whether its MPID can be used."""
        if self._stated is not None:
            record = next((r for r in found.records if r.pid == self._pid), None)
            if not usable(record, self._pool):
                self.more = (self._resolve.probe,)
        return False

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Find whose it is and note what to write."""
        refused = self.taken.refusal if self._entered else None
        self.taken = Taken(refusal=refused)
        if self.keys and not working.accepted.isdisjoint(self.keys):
            self.taken.dropped = "duplicate"
            self._unspool(working)
            return None
        answer = self._whose(working)
        if answer is None:
            return None
        self.taken.answer = answer
        if answer.mpid is None:
            self._set_aside(working, answer)
            return None
        self.taken.mpid = answer.mpid
        # what arrives stays with the record it named, also after a merge (rulings 22)
        pid = self._pid if self._used_stated else self._resolve.pid
        if pid is None:
            raise Internal()
        working.accepted.update(self.keys)
        workspace = self._item.caller.workspace
        working.batches.append(
            Arrived(pid, workspace, self._batch, self._context, self.keys, *self._packed)
        )
        self._unspool(working)
        return None

    def _unspool(self, working: Working) -> None:
        if self._item.spooled is not None:
            working.extra.append((sql.SPOOL_DROP, (self._item.spooled,)))

    def _whose(self, working: Working) -> Answer | None:
        """Return whose the batch is; None where a public key may not ask now."""
        self._used_stated = False
        if self._stated is not None:
            record = working.records.get(self._pid or 0)
            if usable(record, self._pool):
                self._used_stated = True
                return self._stated.attribute(working, self._resolver.desk.seen)
            if not self.more:
                self.more = (self._resolve.probe,)
                raise LostRace("the profile of a batch went away")
            if record is not None and record.pool == self._pool and record.flags & ERASED:
                self._erased = True
            self._batch.notes.append("mpid_erased" if self._erased else "mpid_unknown")
        gate = self._item.gate
        if gate is not None and not self._entered:
            self._entered = True
            self.taken.refusal = gate.enter(self._question)
        if self.taken.refusal is not None:
            return None
        self._resolve.act(working, None)
        return self._resolve.answer

    def _set_aside(self, working: Working, answer: Answer) -> None:
        """Keep a batch nobody can be found for, so that a person can look at it."""
        self.taken.conflict = answer.conflict
        if answer.conflict and self._item.kept:
            return
        if self._erased:
            # nothing may be kept of who was erased
            self.taken.dropped = "erased"
            self._unspool(working)
            return
        item = self._item
        self.taken.quarantined = _why_aside(answer)
        if item.kept or item.aside:
            return
        self._unspool(working)
        body = msgspec.msgpack.encode(item.body)
        request = self.keys[0][1].hex() if self.keys else None
        row = (item.now_ms, "quarantine", item.caller.workspace, item.caller.input)
        more = (int(self._batch.development), request, body, self.taken.quarantined)
        working.extra.append((sql.SPOOL_ADD, (*row, *more)))

    def finish(self) -> None:
        """Answer: the batch is durable and applied."""
        if self.taken.mpid is not None and not self._used_stated:
            self._resolve.note()
        answer = self.taken.answer
        if self._item.gate is not None and answer is not None and not self._used_stated:
            self._item.gate.left(answer)
        self._diagnose()
        if self._batch.notes:
            self.taken.notes = sorted(set(self._batch.notes))
        self._done(self.taken)

    def _diagnose(self) -> None:
        taken, item = self.taken, self._item
        if taken.dropped is None and taken.quarantined is None and not self._batch.notes:
            return
        add = self._resolver.diagnostics.add
        where = (item.now_ms, item.caller.workspace, item.caller.input, request_of(item.raw))
        if taken.dropped is not None:
            add("batch_dropped", *where, {"reason": taken.dropped})
        if taken.quarantined is not None and not item.aside:
            add("batch_quarantined", *where, {"reason": taken.quarantined})
        if self._batch.notes and taken.dropped != "duplicate":
            add("batch_noted", *where, {"reasons": sorted(set(self._batch.notes))})

    def fail(self, error: Exception) -> None:
        """Answer with an error: nothing was kept."""
        refusal = error if isinstance(error, Refusal) else Internal()
        self._done(Taken(refusal=refusal))


def _why_aside(answer: Answer) -> str:
    """Return the reason for which a batch is set aside."""
    refusal = answer.refusal
    if answer.conflict:
        return "conflict"
    if isinstance(refusal, LookupRefusal) or refusal is None:
        return "no_usable_identity"
    return type(refusal).__name__


def request_of(raw: object) -> str | None:
    """Return what the sender calls a batch, for diagnostics."""
    name = raw.get("source_request_id") if isinstance(raw, Mapping) else None
    return name[:_MOST_REQUEST] if isinstance(name, str) and name else None


def _question(item: Incoming, batch: Batch) -> Question:
    return Question(
        op="feed" if item.feed else "events",
        caller=item.caller,
        environment="development" if batch.development else "production",
        known=batch.identities,
        now_ms=item.now_ms,
        request_id=request_of(item.raw),
        fold_keys=True,
        key_only=item.key_only,
        replace_values=item.replace_values,
        explain=item.explain,
        max_values=item.max_values,
    )


def _nobody(answer: Answer) -> None:
    """The inner decision is answered by the batch itself."""


def _nothing() -> None:
    """What follows an unusable MPID is decided by the batch itself."""
