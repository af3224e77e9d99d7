"""Undo one ledger entry: preview, exact, refused where later changes depend on it (rulings 22)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from onymous.flows.by_hand import ByHand
from onymous.flows.desk import Desk
from onymous.flows.identity import NAME_OF, Resolver
from onymous.flows.merging import Actor
from onymous.flows.working import Origin, Working
from onymous.rules.batches import usable
from onymous.rules.errors import CannotUndo, NoSuchThing, Refusal
from onymous.rules.ledger import TAKEN, UNDONE, Change, Entry, Line
from onymous.rules.records import Record
from onymous.rules.strategies import Plan
from onymous.rules.undoing import Inverse, invert
from onymous.store import sql
from onymous.store.port import Found, Kept, Probe, Store

_entries = msgspec.msgpack.Decoder(Entry)
_ALL = 1 << 62
Holder = Callable[[int, str], int | None]


class Undone(msgspec.Struct, kw_only=True):
    """One value an undoing moves: detached, attached, or given back to `mpid`."""

    change: str
    identity_type: str
    value: str
    mpid: str | None = None


class UndoAnswer(msgspec.Struct, kw_only=True):
    """What an undoing did, or would do."""

    mpid: str
    entry: str
    dry_run: bool
    changes: list[Undone]


class Undoing:
    """Undoes entries of the ledger."""

    def __init__(self, resolver: Resolver, store: Store) -> None:
        self._resolver, self._store = resolver, store

    async def undo(
        self,
        plan: Plan,
        pool: int,
        mpid: object | None,
        entry: int,
        actor: Actor,
        *,
        dry_run: bool,
    ) -> UndoAnswer:
        """Undo an entry of a profile's history (None: whose ever it is in this pool).

        Raises `NoSuchThing` or `CannotUndo`.
        """
        async with self._store.read() as session:
            rows = await session.rows(sql.LEDGER_BY_SEQ, entry)
            pid = rows[0][0] if rows else None
            if pid is None or (mpid is not None and self._resolver.mpids.parse(mpid) != pid):
                raise _nothing(entry)
            told = await session.rows(sql.LEDGER_OF, pid, _ALL, 1 << 31)
        lines = [Line(seq, at, _entries.decode(bytes(body))) for seq, at, body in told]
        line = next(line for line in lines if line.seq == entry)
        work = _Undo(self._resolver, plan, pool, pid, line, lines, actor)
        if dry_run:
            self._resolver.desk.submit(work)
        else:
            self._resolver.desk.submit_write(work)
        inverse = await work.answer()
        return self._told(self._resolver.mpids.text(pid), entry, inverse, dry_run)

    def _told(self, mpid: str, entry: int, inverse: Inverse, dry_run: bool) -> UndoAnswer:
        text = self._resolver.mpids.text
        changes = [
            *(
                Undone(change="detached", identity_type=NAME_OF[c], value=k)
                for c, k in inverse.remove
            ),
            *(
                Undone(change="attached", identity_type=NAME_OF[c], value=s or k)
                for c, k, s in inverse.add
            ),
            *(
                Undone(change="given_back", identity_type=NAME_OF[c], value=s or k, mpid=text(pid))
                for c, k, s, pid in inverse.give
            ),
        ]
        return UndoAnswer(mpid=mpid, entry=str(entry), dry_run=dry_run, changes=changes)


def _nothing(entry: int) -> NoSuchThing:
    return NoSuchThing(what=f"entry {entry} of a profile here")


def _moves(
    pid: int, out: Inverse
) -> Iterator[tuple[int, list[tuple[int, str | None, str | None]]]]:
    """Yield whose values change, and how: (type, old, new) of each, those that go first."""
    gone = [*out.remove, *((code, key) for code, key, _, _ in out.give)]
    own: list[tuple[int, str | None, str | None]] = [(code, key, None) for code, key in gone]
    own += [(code, None, key) for code, key, _ in out.add]
    if own:
        yield pid, own
    for code, key, _, other in out.give:
        yield other, [(code, None, key)]


class _Undo(ByHand[Inverse]):
    """One undoing at the desk."""

    name = "undo"

    def __init__(
        self,
        resolver: Resolver,
        plan: Plan,
        pool: int,
        pid: int,
        line: Line,
        lines: Sequence[Line],
        actor: Actor,
    ) -> None:
        super().__init__(resolver, actor)
        self.plan = self._plan = plan
        self._pool, self._pid = pool, pid
        self._line, self._lines = line, lines
        changes = line.entry.changes
        others = {c.other for c in changes if c.kind == TAKEN and c.other is not None}
        self.probe = Probe(pool, {}, None, (pid, *sorted(others)))
        self.more = tuple(Probe(pool, {c.code: c.key}) for c in changes if c.code and c.key)

    def look(self, found: Found, desk: Desk) -> bool:
        """Show what an undoing would do, from the snapshot."""
        records = {r.pid: r for r in found.records if usable(r, self._pool)}
        self._out = self._decide(records, lambda code, key: None)
        self._answer()
        return True

    def act(self, working: Working, again: Kept | None) -> bytes | None:
        """Decide on locked records and take the entry back."""
        records = {pid: r for pid, r in working.records.items() if usable(r, self._pool)}

        def holder(code: int, key: str) -> int | None:
            holders = working.by_value.get((self._pool, code, key))
            return holders[0] if holders else None

        self._out = self._decide(records, holder)
        if isinstance(self._out, Inverse):
            self._apply(working, records, self._out)
        return None

    def _decide(self, records: dict[int, Record], holder: Holder) -> Inverse | Refusal:
        record = records.get(self._pid)
        if record is None:  # of another tenant, or erased: as if there were no such entry
            return _nothing(self._line.seq)
        plan = self._plan
        out = invert(self._line, record, records, holder, self._lines, plan.unique)
        return CannotUndo(what=out.why) if out.why else out

    def _apply(self, working: Working, records: dict[int, Record], out: Inverse) -> None:
        actor, plan, record = self._actor, self._plan, records[self._pid]
        origin = Origin("undo", actor.now_ms, actor.workspace, actor.input, actor.request_id)

        def entry() -> Entry:
            mark = Change(UNDONE, shown=str(self._line.seq))
            return Entry("undo", actor.workspace, actor.input, actor.request_id, [mark])

        working.apply(record, plan, origin, add=out.add, remove=out.remove, entry=entry())
        for code, key, shown, pid in out.give:
            other = records[pid]
            add, take = [(code, key, shown)], [(code, key, record.pid)]
            working.apply(other, plan, origin, add=add, take=take, entry=entry())
        self._audit(working, "undo", self._pid, entry=self._line.seq)
        for pid, changes in _moves(self._pid, out):
            self._note(working, self._pool, pid, changes)
