"""An operator's merge of two profiles, its undoing, and the undoing of aliases.

A merge is a pointer: neither record is rewritten, so it costs the same for any history, undoing
is exact, and old MPIDs keep resolving. What arrives afterwards stays with the record it named.
"""

from __future__ import annotations

import msgspec

from onymous.flows.copying import take_back
from onymous.flows.fencing import in_force
from onymous.flows.identity import MOST_MERGES, Resolver
from onymous.flows.profiles import ProfileView, canonical, read_profile
from onymous.flows.retrying import retried
from onymous.rules.errors import (
    AliasNotAvailable,
    DependsOn,
    MergeInvalid,
    NotFound,
    UnknownMpid,
)
from onymous.rules.ledger import MERGED as MERGED_KIND
from onymous.rules.ledger import UNALIASED, UNMERGED, Change, Entry
from onymous.rules.profiles import Attribute
from onymous.rules.records import ERASED, MERGED, Record
from onymous.rules.strategies import Plan
from onymous.store import history_sql, sql
from onymous.store.packing import unpack_record
from onymous.store.port import LostRace, Probe, Row, Session, Store, Transaction

_encode = msgspec.msgpack.Encoder().encode


class Actor(msgspec.Struct, kw_only=True):
    """Who changes something by hand, where from and why."""

    name: str
    reason: str
    now_ms: int
    workspace: int = 0
    input: int = 0
    request_id: str | None = None


class Differing(msgspec.Struct):
    """An attribute both profiles have: the value that will be shown and the one behind it."""

    workspace: int
    name: str
    shown: str | list[str] | None
    hidden: str | list[str] | None


class Preview(msgspec.Struct, kw_only=True):
    """What a merge would make of two profiles."""

    source: str
    destination: str
    #: (type, value) the destination will be found by as well
    names: list[tuple[str, str]]
    differing: list[Differing]
    lifetime_value: float
    first_seen_ms: int
    #: reasons to look twice; a merge is not refused for them
    warnings: list[str]


class MergeView(msgspec.Struct, kw_only=True):
    """A merge as it stands."""

    id: int
    source: str
    destination: str
    at_ms: int
    actor: str
    reason: str
    undone_ms: int | None = None


class Merging:
    """Merges profiles and undoes merges and aliases."""

    def __init__(self, resolver: Resolver, store: Store) -> None:
        self._resolver, self._store = resolver, store

    async def refresh(self) -> None:
        """Read the merges in force; other processes see a new one within a second or two."""
        async with self._store.read() as session:
            rows = await session.rows(history_sql.MERGES)
        self._resolver.merged = {row[1]: row[2] for row in rows}

    async def preview(self, plan: Plan, pool: int, source: object, destination: object) -> Preview:
        """Return what a merge would make; raises what `merge` would refuse."""
        one, two = self._pids(source, destination)
        mpids = self._resolver.mpids
        async with self._store.read() as session:
            await self._check(session, plan, pool, one, two)
            here = await read_profile(session, mpids, pool, two)
            there = await read_profile(session, mpids, pool, one)
        if here is None or there is None:
            raise UnknownMpid()
        return _preview(there, here)

    async def merge(
        self, plan: Plan, pool: int, source: object, destination: object, actor: Actor
    ) -> MergeView:
        """Let `source` be `destination` from now on; returns the merge.

        Raises `AliasNotAvailable` where the strategy keeps profiles apart, `UnknownMpid` for one
        that is not in the pool, `MergeInvalid` for profiles that are one already.
        """
        one, two = self._pids(source, destination)
        number = await retried(lambda: self._merge(plan, pool, one, two, actor))
        await self.refresh()
        text = self._resolver.mpids.text
        return MergeView(
            id=number,
            source=text(one),
            destination=text(two),
            at_ms=actor.now_ms,
            actor=actor.name,
            reason=actor.reason,
        )

    async def _merge(self, plan: Plan, pool: int, one: int, two: int, actor: Actor) -> int:
        async with self._store.write("merge") as tx:
            await in_force(self._resolver.desk.fence, tx, pool, plan)
            # whoever merges the other way round locks the same: two can never make a circle
            top = await canonical(tx, two)
            records = await _locked(tx, pool, (one, two), top)
            if top != await canonical(tx, two):
                raise LostRace("the destination was merged meanwhile")
            await self._check(tx, plan, pool, one, two)
            row = (pool, one, two, actor.now_ms, actor.name, actor.reason)
            await tx.run(history_sql.MERGE_ADD, *row)
            number = int((await tx.rows(history_sql.MERGE_OF, one))[0][0])
            await tx.run(sql.PROFILE_FLAGS, records[one].flags | MERGED, one)
            await _note(tx, MERGED_KIND, "merge", (one, two), actor)
            await self._audit(tx, actor, "merge", number, (one, two))
        return number

    async def merges(self, pool: int, mpid: object) -> list[MergeView]:
        """Return the merges in force into a profile."""
        pid = self._resolver.mpids.parse(mpid) or 0
        async with self._store.read() as session:
            rows = await session.rows(history_sql.MERGES_INTO, pid)
        return [self._view(row) for row in rows if row[1] == pool]

    async def undo_merge(self, pool: int, number: int, actor: Actor) -> MergeView:
        """Undo a merge exactly; raises `DependsOn` where a later merge stands on it."""
        row = await retried(lambda: self._unmerge(pool, number, actor))
        await self.refresh()
        view = self._view(row)
        view.undone_ms = actor.now_ms
        return view

    async def _unmerge(self, pool: int, number: int, actor: Actor) -> Row:
        async with self._store.write("unmerge") as tx:
            rows = await tx.rows(history_sql.MERGE_BY_ID, number)
            if not rows or rows[0][1] != pool or rows[0][7] is not None:
                raise NotFound()
            one, two = rows[0][2], rows[0][3]
            records = await _locked(tx, pool, (one, two))
            for later in await tx.rows(history_sql.MERGE_OF, two):
                if later[0] > number:
                    raise DependsOn(what=f"merge {later[0]}")
            undone = (actor.now_ms, actor.name, actor.reason, number)
            await tx.run(history_sql.MERGE_UNDO, *undone)
            await tx.run(sql.PROFILE_FLAGS, records[one].flags & ~MERGED, one)
            await _note(tx, UNMERGED, "unmerge", (one, two), actor)
            await self._audit(tx, actor, "unmerge", number, (one, two))
        return rows[0]

    async def undo_alias(self, pool: int, number: int, actor: Actor) -> None:
        """Undo an alias: takes exactly what it gave away; raises `NotFound` for none in force."""
        await retried(lambda: self._unalias(pool, number, actor))

    async def _unalias(self, pool: int, number: int, actor: Actor) -> None:
        async with self._store.write("unalias") as tx:
            rows = await tx.rows(history_sql.ALIAS_BY_ID, number)
            if not rows or rows[0][1] != pool or rows[0][9] != "applied":
                raise NotFound()
            one, two = rows[0][2], rows[0][3]
            await _locked(tx, pool, (one, two))
            why = f"undone by {actor.name}: {actor.reason}"
            await tx.run(history_sql.ALIAS_SET, "undone", why, number, "applied")
            await take_back(tx, number, two)
            await _note(tx, UNALIASED, "unalias", (one, two), actor)
            await self._audit(tx, actor, "unalias", number, (one, two))

    def parse(self, mpid: object) -> int | None:
        """Return the number of an MPID, or None for one that was never made."""
        return self._resolver.mpids.parse(mpid)

    def _pids(self, source: object, destination: object) -> tuple[int, int]:
        parse = self._resolver.mpids.parse
        return parse(source) or 0, parse(destination) or 0

    async def _check(self, session: Session, plan: Plan, pool: int, one: int, two: int) -> None:
        if not plan.strategy.merge:
            raise AliasNotAvailable()
        for pid in (one, two):
            rows = await session.rows(sql.PROFILE_BY_PID, pid)
            record = unpack_record(rows[0]) if rows else None
            if record is None or record.pool != pool or record.flags & ERASED:
                raise UnknownMpid()
        if one == two:
            raise MergeInvalid(what="a profile cannot be merged with itself")
        if await session.rows(history_sql.MERGE_OF, one):
            raise MergeInvalid(what="the source is merged already; undo that first")
        pid = two
        for _ in range(MOST_MERGES):
            rows = await session.rows(history_sql.MERGE_OF, pid)
            if not rows:
                return
            pid = rows[0][3]
            if pid == one:
                raise MergeInvalid(what="the destination is merged into the source")
        raise MergeInvalid(what="the chain of merges would be too long")

    async def _audit(
        self, tx: Transaction, actor: Actor, action: str, number: int, pids: tuple[int, int]
    ) -> None:
        """Write down who did what to whom: the destination is the person it is about."""
        source, destination = map(self._resolver.mpids.text, pids)
        detail = {"number": number, "source": source, "reason": actor.reason}
        row = (actor.now_ms, actor.name, action, destination, msgspec.json.encode(detail))
        await tx.run(sql.AUDIT_ADD, *row)

    def _view(self, row: Row) -> MergeView:
        text = self._resolver.mpids.text
        return MergeView(
            id=row[0],
            source=text(row[2]),
            destination=text(row[3]),
            at_ms=row[4],
            actor=row[5],
            reason=row[6],
            undone_ms=row[7],
        )


async def _locked(
    tx: Transaction, pool: int, pids: tuple[int, int], top: int = 0
) -> dict[int, Record]:
    """Read and lock the two records of a pool; raises `UnknownMpid` without both.

    `top`: a further record to lock, of whatever the second one is merged into.
    """
    wanted = pids if top in (0, *pids) else (*pids, top)
    found = (await tx.find([Probe(pool, {}, None, wanted)]))[0].records
    records = {r.pid: r for r in found if r.pool == pool and not r.flags & ERASED}
    if not set(pids) <= set(records):
        raise UnknownMpid()
    return records


async def _note(tx: Transaction, kind: int, op: str, pids: tuple[int, int], actor: Actor) -> None:
    """Write both ledger entries, and promise to tell those who follow changes."""
    numbers = await tx.numbers("ledger", 2)
    for seq, pid, other in zip(numbers, pids, reversed(pids), strict=True):
        entry = Entry(
            op, actor.workspace, actor.input, actor.request_id, [Change(kind, other=other)]
        )
        await tx.run(sql.LEDGER_ADD, seq, pid, actor.now_ms, _encode(entry))
    await tx.run(sql.JOB_ADD, "identity_changed", actor.now_ms, _encode(numbers))


def _preview(source: ProfileView, destination: ProfileView) -> Preview:
    differing = []
    for workspace, theirs in source.workspaces.items():
        ours = destination.workspaces.get(workspace)
        for name, attribute in theirs.attributes.items() if ours is not None else ():
            own = ours.attributes.get(name) if ours is not None else None
            if own is not None and own.value != attribute.value:
                shown, hidden = _newer(own, attribute)
                differing.append(Differing(workspace, name, shown.value, hidden.value))
    have = {(n.type, n.value) for n in destination.user_identities}
    more = [(n.type, n.value) for n in source.user_identities if (n.type, n.value) not in have]
    more += [(n.type, n.value) for n in source.device_identities]
    return Preview(
        source=source.mpid,
        destination=destination.mpid,
        names=more,
        differing=differing,
        lifetime_value=source.lifetime_value + destination.lifetime_value,
        first_seen_ms=min(
            (t for t in (source.first_seen_ms, destination.first_seen_ms) if t), default=0
        ),
        warnings=_warnings(source, destination),
    )


def _newer(one: Attribute, two: Attribute) -> tuple[Attribute, Attribute]:
    return (one, two) if one.at_ms >= two.at_ms else (two, one)


def _warnings(source: ProfileView, destination: ProfileView) -> list[str]:
    """Return what speaks against one person: two names of a kind people have one of."""
    out = []
    for kind in ("customerid", "mobile_number"):
        theirs = {n.value for n in source.user_identities if n.type == kind}
        ours = {n.value for n in destination.user_identities if n.type == kind}
        if theirs and ours and not theirs & ours:
            out.append(f"both have a {kind}, and not the same")
    if any(alias.other != destination.mpid for alias in source.aliases_out):
        out.append("an alias lets the history of the source count for another profile as well")
    if source.known and not destination.known:
        out.append("the source is known, the destination is anonymous: merge the other way round?")
    return out
