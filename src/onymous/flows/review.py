"""The review: what was held back is accepted by a person, or refused with a reason.

Two kinds wait: values a record did not take (`v12`), and rows of feeds that belong to several
people (`c7`). An accept is an ordinary, undoable change, decided again at that moment.
"""

from __future__ import annotations

import re
import time

import msgspec

from onymous.flows.accepting import Accept, HeldRow, held_row
from onymous.flows.conflicts import Conflict, conflict_of, drop
from onymous.flows.held import conflict_mark
from onymous.flows.identity import CODE_OF, NAME_OF, Resolver
from onymous.flows.merging import Actor, Merging
from onymous.flows.profiles import canonical
from onymous.flows.quarantine import Spool
from onymous.flows.retrying import retried
from onymous.flows.tenants import Caller
from onymous.rules.errors import BeingDecided, CannotAccept, InvalidData, NoSuchThing, ScopeChanging
from onymous.rules.records import ERASED
from onymous.store import review_sql, sql
from onymous.store.packing import unpack_record
from onymous.store.port import Row, Store

#: how long whoever decides has an entry to themselves
CLAIM_MS = 60_000
_ID = re.compile(r"([cv])([0-9]{1,18})", re.ASCII)
_body = msgspec.msgpack.Decoder(tuple[list[int], dict[int, str]]).decode
#: pools from and to
Pools = tuple[int, int]
ALL: Pools = (0, 1 << 40)


class Waiting(msgspec.Struct, kw_only=True):
    """An entry of the queue: never a value."""

    id: str
    kind: str
    environment: str
    #: what is wrong: stale_value, profile_full or conflict
    reason: str
    types: list[str]
    mpids: list[str]
    input: str
    first_ms: int
    last_ms: int
    count: int = 1
    operation: str | None = None
    #: the caller proved nothing but a public key
    key_only: bool = False
    request_id: str | None = None


class Shown(Waiting, kw_only=True):
    """An entry with its values, and what the people have of these types now."""

    values: dict[str, str]
    now: dict[str, dict[str, list[str]]]


class Decided(msgspec.Struct, kw_only=True):
    """What became of an entry."""

    id: str
    decision: str
    #: who was changed; empty where nothing had to be
    changed: list[str] = []
    #: numbers of the merges made
    merges: list[int] = []
    #: batches of feeds that waited for it, and are applied now
    applied: int = 0


class Review:
    """The queue of what was held back."""

    def __init__(
        self,
        resolver: Resolver,
        store: Store,
        merging: Merging,
        spool: Spool,
        max_values: int,
    ) -> None:
        self._resolver, self._store, self._merging = resolver, store, merging
        self._spool, self._directory, self._max_values = spool, spool.directory, max_values

    async def page(
        self, pools: Pools, after: str | None, limit: int
    ) -> tuple[list[Waiting], str | None]:
        """Return entries after one, and the last if there are more: conflicts, then values."""
        kind, number = _parsed(after) if after else ("c", 0)
        out: list[Waiting] = []
        async with self._store.read() as session:
            if kind == "c":
                args = (number, *pools, limit + 1)
                rows = await session.rows(review_sql.CONFLICTS_WAITING, *args)
                out += [self._of_conflict(conflict_of(row, self._resolver.mpids)) for row in rows]
                number = 0
            if len(out) <= limit:
                args = (number, *pools, limit + 1 - len(out))
                rows = await session.rows(review_sql.HELD_WAITING, *args)
                out += [self._of_value(held_row(row)) for row in rows]
        more = len(out) > limit
        return out[:limit], out[limit - 1].id if more else None

    async def show(self, pools: Pools, entry: str) -> Shown:
        """Return an entry with its values; raises `NotFound`."""
        kind, row = await self._row(pools, entry)
        if kind == "v":
            item = held_row(row)
            pids, keys = [item.pid], {item.code: item.body.shown or item.body.key}
            waiting = self._of_value(item)
        else:
            pids, keys = _body(bytes(row[5]))
            waiting = self._of_conflict(conflict_of(row, self._resolver.mpids))
        now = {}
        for pid in pids:
            values = await self._values(row[1] if kind == "v" else row[2], pid)
            theirs = {NAME_OF[c]: values[c] for c in keys if c in values}
            now[self._resolver.mpids.text(pid)] = theirs
        told = {NAME_OF[code]: key for code, key in keys.items()}
        return Shown(**msgspec.structs.asdict(waiting), values=told, now=now)

    async def accept(self, pools: Pools, entry: str, actor: Actor, into: str = "") -> Decided:
        """Do what was held back; raises a `Refusal` that says why where it cannot be done now.

        `into`: of a conflict, the MPID that stays; the first unless given.
        """
        kind, row = await self._row(pools, entry)
        caller = self._caller(row[1] if kind == "v" else row[2])
        claim = await self._claim(kind, row[0])
        try:
            if kind == "v":
                return await self._accept_value(held_row(row), caller, actor)
            found = conflict_of(row, self._resolver.mpids)
            return await self._accept_conflict(found, _body(bytes(row[5])), caller, actor, into)
        except BaseException:
            await self._leave(kind, row[0], claim)
            raise

    async def refuse(self, pools: Pools, entry: str, actor: Actor) -> Decided:
        """Take an entry off the queue: the same does not come back. Who and why is kept."""
        kind, row = await self._row(pools, entry)
        await self._claim(kind, row[0])
        said: tuple[object, ...] = (actor.now_ms, actor.name, actor.reason)
        detail = msgspec.json.encode({"entry": entry, "reason": actor.reason})
        if kind == "v":
            statement, subject = review_sql.HELD_REFUSE, self._resolver.mpids.text(row[2])
        else:
            statement, subject = review_sql.CONFLICT_REFUSE, f"conflict {row[0]}"
            said = (*said, conflict_mark(*_body(bytes(row[5]))))

        async def work() -> None:
            async with self._store.write("review.refuse") as tx:
                await tx.run(statement, *said, row[0])
                what = (actor.now_ms, actor.name, "review_refuse", subject, detail)
                await tx.run(sql.AUDIT_ADD, *what)

        await retried(work)
        return Decided(id=entry, decision="refused")

    async def _accept_value(self, item: HeldRow, caller: Caller, actor: Actor) -> Decided:
        work = Accept(self._resolver, caller, item, actor, self._max_values)
        self._resolver.desk.submit_write(work)
        done = await work.answer()
        changed = [self._resolver.mpids.text(item.pid)] if done else []
        return Decided(id=f"v{item.id}", decision="accepted", changed=changed)

    async def _accept_conflict(
        self,
        found: Conflict,
        body: tuple[list[int], dict[int, str]],
        caller: Caller,
        actor: Actor,
        into: str,
    ) -> Decided:
        keep = into or found.mpids[0]
        if keep not in found.mpids:
            raise InvalidData(what="into is none of the profiles of this conflict")
        pids, keys = body
        for pid in pids:
            values = await self._values(found.pool, pid)
            if not any(key in values.get(code, ()) for code, key in keys.items()):
                raise CannotAccept(what="a profile has none of these identities any more")
        done = Decided(id=f"c{found.id}", decision="accepted")
        stays = pids[found.mpids.index(keep)]
        for pid, other in zip(pids, found.mpids, strict=True):
            async with self._store.read() as session:
                if await canonical(session, pid) == await canonical(session, stays):
                    continue
            merge = await self._merging.merge(caller.plan, found.pool, other, keep, actor)
            done.merges.append(merge.id)
            done.changed.append(other)
        await drop(self._store, found.id, actor)
        done.applied = (await self._spool.replay_row(found.pool, keys)).applied
        return done

    async def _row(self, pools: Pools, entry: str) -> tuple[str, Row]:
        kind, number = _parsed(entry)
        statement = review_sql.HELD_BY_ID if kind == "v" else review_sql.CONFLICT_WAITING
        async with self._store.read() as session:
            rows = await session.rows(statement, number)
        if not rows or not pools[0] <= rows[0][1 if kind == "v" else 2] <= pools[1]:
            raise NoSuchThing(what=f"entry {entry} that waits")
        return kind, rows[0]

    async def _claim(self, kind: str, number: int) -> int:
        """Keep others from deciding meanwhile; raises `BeingDecided`."""
        now = time.time_ns() // 1_000_000
        take = review_sql.HELD_TAKE if kind == "v" else review_sql.CONFLICT_TAKE

        async def work() -> bool:
            async with self._store.write("review.take") as tx:
                return bool(await tx.rows(take, now + CLAIM_MS, number, now))

        if not await retried(work):
            raise BeingDecided()
        return now + CLAIM_MS

    async def _leave(self, kind: str, number: int, claim: int) -> None:
        """Let others decide: nothing was done."""
        leave = review_sql.HELD_LEAVE if kind == "v" else review_sql.CONFLICT_LEAVE

        async def work() -> None:
            async with self._store.write("review.leave") as tx:
                await tx.run(leave, number, claim)

        await retried(work)

    def _caller(self, pool: int) -> Caller:
        found = [c for c in self._directory.callers() if c.scope == pool // 2]
        if any(c.held for c in found):
            raise ScopeChanging(retry_after_s=5)
        if not found:
            raise CannotAccept(what="its scope has no input any more")
        return found[0]

    async def _values(self, pool: int, pid: int) -> dict[int, list[str]]:
        """Return what a record of a pool holds by type; nothing where there is none."""
        async with self._store.read() as session:
            rows = await session.rows(sql.PROFILE_BY_PID, pid)
        record = unpack_record(rows[0]) if rows else None
        if record is None or record.pool != pool or record.flags & ERASED:
            return {}
        return {value.code: record.keys_of(value.code) for value in record.values}

    def _of_conflict(self, c: Conflict) -> Waiting:
        return Waiting(
            id=f"c{c.id}",
            kind="conflict",
            environment="development" if c.pool % 2 else "production",
            reason="conflict",
            types=sorted(c.types, key=CODE_OF.__getitem__),
            mpids=c.mpids,
            input=self._directory.names.input(c.input),
            first_ms=c.at_ms,
            last_ms=c.at_ms,
            request_id=c.request_id,
        )

    def _of_value(self, item: HeldRow) -> Waiting:
        return Waiting(
            id=f"v{item.id}",
            kind="value",
            environment="development" if item.pool % 2 else "production",
            reason=item.reason,
            types=[NAME_OF[item.code]],
            mpids=[self._resolver.mpids.text(item.pid)],
            input=self._directory.names.input(item.input),
            first_ms=item.first_ms,
            last_ms=item.last_ms,
            count=item.count,
            operation=item.op,
            key_only=bool(item.key_only),
            request_id=item.request,
        )


def _parsed(entry: str) -> tuple[str, int]:
    match = _ID.fullmatch(entry)
    if match is None:
        raise NoSuchThing(what="entry of that name: write v or c and a number")
    return match[1], int(match[2])
