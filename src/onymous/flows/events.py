"""Batches of events on their way in: read, bounded, brought to the desk."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from onymous.flows.desk import Desk, Work
from onymous.flows.identity import Resolver
from onymous.flows.spool import Accepted, Keeping
from onymous.flows.taking import Done, Gate, Incoming, Take, Taken, request_of
from onymous.flows.tenants import Caller
from onymous.flows.working import Working
from onymous.rules.errors import BatchTooLarge, Busy, InvalidData, Refusal
from onymous.rules.events import is_development, read_batch, too_young
from onymous.rules.profiles import Context
from onymous.rules.tenants import FEED_KINDS
from onymous.rules.trimming import trimmed
from onymous.rules.withholding import withheld
from onymous.store.compression import Bodies
from onymous.store.port import Found, Kept, Probe

__all__ = ["Done", "Events", "Gate", "Incoming", "Taken", "context_of", "now", "platform"]

#: most bytes of one batch (documented limit)
MOST_BYTES = 128 * 1024
#: bytes of batches that may wait for the disk
MOST_HELD = 64 << 20
_encode = msgspec.json.encode


class Events:
    """Takes batches through the desk."""

    def __init__(self, resolver: Resolver, bodies: Bodies, *, most_held: int = MOST_HELD) -> None:
        self.resolver, self.bodies = resolver, bodies
        self._most_held = most_held
        #: bytes of batches that wait now
        self.held = 0
        self._contexts: dict[int, tuple[Caller, Context]] = {}

    def take(self, item: Incoming, done: Done) -> None:
        """Take a batch: `done` is called once it is durable and applied.

        Raises a `Refusal` at once for a batch that cannot be read; nothing was kept then.
        """
        work = self._work(item, done)
        if work is None:
            done(Taken(dropped="historical_too_young"))
        elif work.stated:
            self.resolver.desk.submit(work)
        else:
            self.resolver.desk.submit_write(work)

    def row(self, item: Incoming, done: Done) -> Take:
        """Return a row of a file as work for a transaction of its caller; may raise a `Refusal`."""
        work = self._work(item, done)
        if work is None:
            raise InvalidData(what="a row of a file is not historical")
        work.whole()
        return work

    def take_all(
        self, items: Iterable[Incoming], count: int, done: Callable[[list[Taken]], object]
    ) -> None:
        """Take the `count` batches of one call, in order, in one transaction.

        `done` is called once. A batch that cannot be read is set aside; where the desk has no
        room, nothing is kept at all.
        """
        bundle = _Bundle(self.resolver.desk, count, done)
        for n, item in enumerate(items):
            settle = functools.partial(bundle.settle, n)
            try:
                work = self._work(item, settle)
            except Busy as refusal:
                bundle.stop(refusal)
                return
            except Refusal as refusal:
                bundle.works.append(self.aside(item, type(refusal).__name__, settle))
                continue
            if work is None:
                settle(Taken(dropped="historical_too_young"))
            else:
                bundle.works.append(work)
        bundle.start()

    def aside(self, item: Incoming, reason: str, done: Done) -> Work:
        """Return the work that keeps a batch aside, for a person to look at."""
        caller, raw = item.caller, item.raw

        def kept(refusal: Refusal | None) -> None:
            if refusal is None:
                self._note(item, "batch_quarantined", reason)
                done(Taken(quarantined=reason))
            else:
                done(Taken(refusal=refusal))

        body = item.body
        if isinstance(raw, Mapping):
            less, _ = withheld(raw, keep_ip=caller.keep_ip, restrict=caller.restrict_device_ids)
            body = item.body if less is raw else _encode(less)
        row = Accepted(
            kind="quarantine",
            at_ms=item.now_ms,
            workspace=caller.workspace,
            input=caller.input,
            development=isinstance(raw, Mapping) and is_development(raw),
            body=body,
            reason=reason,
        )
        return Keeping(row, kept)

    def _work(self, item: Incoming, done: Done) -> Take | None:
        """Read a batch; None for one its path does not take."""
        if not isinstance(item.raw, Mapping):
            raise InvalidData(what="expected one batch, a JSON object")
        size = len(item.body)
        most = item.most_bytes or MOST_BYTES
        if size > most:
            raise BatchTooLarge(most=most)
        if self.held and self.held + size > self._most_held:
            raise Busy()
        caller, given = item.caller, item.raw
        # however it is sent, what a feed says is a row of it
        item.feed = item.feed or caller.kind in FEED_KINDS
        raw, notes = withheld(given, keep_ip=caller.keep_ip, restrict=caller.restrict_device_ids)
        raw = trimmed(raw, size, notes)
        batch = read_batch(
            raw,
            item.now_ms,
            platform=platform(caller),
            at_ms=item.at_ms,
            changes_only=caller.strict_uac,
        )
        if item.historical:
            if too_young(raw, item.now_ms):
                self._note(item, "batch_dropped", "historical_too_young")
                return None
            raw = {**raw, "source_info": {"is_historical": True}}
        if raw is not given:
            item.raw, item.body = raw, _encode(raw)
        batch.notes += [*notes, *item.notes]
        size = len(item.body)
        self.held += size

        def settled(taken: Taken) -> None:
            self.held -= size
            done(taken)

        packed = self.bodies.pack(item.body)
        return Take(self.resolver, item, batch, self._context(caller), packed, settled)

    def _context(self, caller: Caller) -> Context:
        """Return what of an input matters to profiles, made once per version of the input."""
        known = self._contexts.get(caller.input)
        if known is None or known[0] is not caller:
            known = self._contexts[caller.input] = (caller, context_of(caller))
        return known[1]

    def _note(self, item: Incoming, kind: str, reason: str) -> None:
        caller = item.caller
        where = (item.now_ms, caller.workspace, caller.input, request_of(item.raw))
        self.resolver.diagnostics.add(kind, *where, {"reason": reason})


class _Bundle:
    """The batches of one call: looked at first, then written together."""

    def __init__(self, desk: Desk, count: int, done: Callable[[list[Taken]], object]) -> None:
        self._desk, self._done = desk, done
        self.works: list[Work] = []
        self._out: list[Taken | None] = [None] * count
        self._left = count
        self._looking = 0
        self._over = False

    def settle(self, n: int, taken: Taken) -> None:
        """Note what became of one batch; the last one ends the call."""
        self._out[n] = taken
        self._left -= 1
        if not self._left and not self._over:
            self._over = True
            self._done([t for t in self._out if t is not None])

    def start(self) -> None:
        """Look at what names an MPID, then hand everything to the writer."""
        if not self.works:
            if not self._out:
                self._done([])
            return
        peeks = [_Peek(self, w) for w in self.works if isinstance(w, Take) and w.stated]
        self._looking = len(peeks)
        for peek in peeks:
            self._desk.submit(peek)
        if not peeks:
            self._desk.submit_together(self.works)

    def looked(self) -> None:
        """One more batch was looked at."""
        self._looking -= 1
        if not self._looking and not self._over:
            self._desk.submit_together(self.works)

    def stop(self, error: Exception) -> None:
        """Give everything up: nothing was kept."""
        works, self.works = self.works, []
        if not self._over:
            for work in works:
                work.fail(error)
        if not self._over:
            self._over = True
            refusal = error if isinstance(error, Refusal) else Busy()
            self._done([Taken(refusal=refusal) for _ in self._out])


class _Peek:
    """Looks at a batch of a bundle in the snapshot of this tick."""

    name = "events"
    more: tuple[Probe, ...] = ()
    replay: tuple[int, bytes, bytes] | None = None

    def __init__(self, bundle: _Bundle, take: Take) -> None:
        self._bundle, self._take, self.probe = bundle, take, take.probe

    def look(self, found: Found, desk: Desk) -> bool:
        """Let the batch look; it is written with its bundle."""
        self._take.look(found, desk)
        self._bundle.looked()
        return True

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Nothing: the bundle writes."""
        return None

    def finish(self) -> None:
        """Nothing: the bundle answers."""

    def fail(self, error: Exception) -> None:
        """Give the bundle up."""
        self._bundle.stop(error)


def platform(caller: Caller) -> str:
    """Return the platform an input or feed stands for."""
    return caller.act_as or caller.kind


def context_of(caller: Caller) -> Context:
    """Return what of an input matters to profiles."""
    if caller.kind != "partner_feed":
        return Context(caller.input, platform(caller), True, caller.purposes)
    own = (f"{caller.partner}_",) if caller.partner else ()
    return Context(caller.input, platform(caller), False, caller.purposes, own)


def now() -> int:
    """Return the time in milliseconds."""
    return time.time_ns() // 1_000_000
