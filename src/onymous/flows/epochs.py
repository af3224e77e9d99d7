"""Epochs: a database that came back from a backup starts anew, beyond every number ever given.

The first number of an epoch is made of the time it begins: a millisecond stands for two million
profile numbers. No database hands out numbers that fast, so however far it got after the backup,
its numbers lie below those of an epoch that begins later (docs/decisions).
"""

from __future__ import annotations

import msgspec

from onymous.crypto import MOST
from onymous.flows.erasure import erase_record
from onymous.flows.journal import Journal, erase_from_journal
from onymous.flows.tombstones import (
    CLIENT_GONE,
    CLIENT_OFF,
    CLIENT_ON,
    EPOCH,
    ERASED,
    SECRET,
    TOKEN,
    Line,
    Mark,
    OutsideProblem,
    Tombstones,
    database_id,
)
from onymous.flows.working import Working
from onymous.rules.records import ERASED as ERASED_FLAG
from onymous.rules.records import Record
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.store import backup_sql, credentials_sql, sql, tenants_sql
from onymous.store.packing import slot
from onymous.store.port import Probe, Session, Store, Transaction

#: 2025-01-01: epochs count from here
ORIGIN_MS = 1_735_689_600_000
#: profile numbers, and ledger and feed numbers, that a millisecond stands for (as powers of two;
#: the latter stay exact in JSON)
PID_BITS, LEDGER_BITS = 21, 10
#: numbers left free after what is known to be given, where the clock is behind
GAP = 1 << 32
_scope = msgspec.json.Decoder(ScopeConfig).decode
_epoch = msgspec.json.Decoder(dict[str, int]).decode
_wanted = msgspec.msgpack.Decoder(tuple[int, list[int], list[bytes]]).decode


class Renewed(msgspec.Struct, kw_only=True):
    """What a new epoch did."""

    database: str
    #: its first profile number
    first: int
    #: people erased again, erased anyway, made after the backup
    erased: int = 0
    already: int = 0
    unknown: int = 0
    #: secrets, clients and tokens revoked again
    revoked: int = 0


async def identify_database(session: Session) -> str:
    """Return the id of a database; raises `OutsideProblem` for one that never served."""
    rows = await session.rows(sql.META_GET, "mpid_key")
    if not rows:
        raise OutsideProblem("the database was never served: there is nothing to restore in it")
    return database_id(bytes(rows[0][0]))


async def how_far(session: Session, now_ms: int) -> Mark:
    """Return how far a database is."""
    rows = await session.rows(sql.META_GET, "epoch")
    first = _epoch(bytes(rows[0][0]))["first"] if rows else 0
    ledger = (await session.rows(backup_sql.LEDGER_NEWEST))[0][0] or 0
    pid = (await session.rows(backup_sql.PIDS_NEWEST))[0][0] or 0
    return Mark(first, ledger, pid, now_ms)


def went_back(now: Mark, before: Mark | None) -> bool:
    """Return whether a database is not as far as it was known to be."""
    if before is None:
        return False
    if now.epoch != before.epoch:
        return now.epoch < before.epoch
    return now.ledger < before.ledger or now.pid < before.pid


def first_number(now_ms: int, given: int) -> int:
    """Return the first profile number of an epoch; `given`: the highest known to be given."""
    first = max((now_ms - ORIGIN_MS) << PID_BITS, given + GAP)
    if not 0 < first < MOST:
        raise OutsideProblem("the clock of this machine cannot be right: set it and run again")
    return first


async def renew(
    store: Store, lines: list[Line], *, given: int, now_ms: int, actor: str, tell: Tombstones
) -> Renewed:
    """Begin a new epoch and do again what must not be forgotten; may be repeated.

    `given` is the highest number known to be given; `tell` is told of the epoch first.
    """
    async with store.read() as session:
        database = await identify_database(session)
        far = await how_far(session, now_ms)
        following = (await session.rows(backup_sql.NEXT[store.engine]["pid"]))[0][0]
        ledger_next = (await session.rows(backup_sql.NEXT[store.engine]["ledger"]))[0][0]
    epochs = [line for line in lines if line.kind == EPOCH]
    _check_clock([line.at_ms for line in epochs], now_ms)
    known = [line.number for line in lines if line.kind in (EPOCH, ERASED)]
    first = first_number(now_ms, max([given, far.pid, following, *known]))
    await tell.remember([Line(EPOCH, now_ms, first)])
    low = max((now_ms - ORIGIN_MS) << LEDGER_BITS, ledger_next + (GAP >> 8))
    done = Renewed(database=database, first=first)
    async with store.write("epoch") as tx:
        await tx.skip("pid", first)
        await tx.skip("ledger", low)
        await tx.run(sql.META_PUT, "epoch", msgspec.json.encode({"first": first, "at_ms": now_ms}))
        await tx.run(sql.META_PUT, "change_feed", b"%d" % low)
        # who follows the feed has seen changes that are no more: they start over
        await tx.run(sql.META_PUT, "feed_from", b"%d" % low)
        detail = msgspec.json.encode({"first": first})
        await tx.run(sql.AUDIT_ADD, now_ms, actor, "epoch.begin", database, detail)
    await _again(store, lines, now_ms, done)
    return done


def _check_clock(times: list[int], now_ms: int) -> None:
    if times and max(times) >= now_ms:
        raise OutsideProblem(
            "the clock of this machine is behind: an epoch began at a time that is still to come;"
            " set the clock and run again"
        )


async def _again(store: Store, lines: list[Line], now_ms: int, done: Renewed) -> None:
    """Erase and revoke again, in the order it happened the first time."""
    seen: set[int] = set()
    for line in lines:
        if line.kind == ERASED and line.number not in seen:
            seen.add(line.number)
            outcome = await _erase_again(store, line, now_ms)
            setattr(done, outcome, getattr(done, outcome) + 1)
        elif line.kind in _REVOKE:
            async with store.write("revoke again") as tx:
                done.revoked += await _REVOKE[line.kind](tx, line, now_ms)
    if done.erased:
        await _forget_requests(store)


async def _erase_again(store: Store, line: Line, now_ms: int) -> str:
    """Erase a person who was erased after the backup; return the field that counts it."""
    pid, probe = line.number, Probe(line.other, {}, None, (line.number,))
    async with store.write("erase again") as tx:
        found = (await tx.find([probe]))[0]
        working = Working([])
        working.load([probe], [found])
        record = working.records.get(pid)
        # by its number alone: a scope may have been joined with another since the backup
        if record is None:
            return "unknown"
        if record.flags & ERASED_FLAG:
            return "already"
        working.now_ms = now_ms
        plan = await plan_of(tx, record)
        erase_record(working, record, plan, (0, 0, None), whole=False)
        await working.save(tx)
    return "erased"


async def _forget_requests(store: Store) -> None:
    """Do the promises to forget people's requests now, before anybody is served."""
    async with store.read() as session:
        rows = await session.rows(backup_sql.JOBS_OF_KIND, "journal_erase")
    whole: dict[int, tuple[set[int], set[bytes]]] = {}
    for (body,) in rows:
        pool, pids, marks = _wanted(bytes(body))
        people, values = whole.setdefault(pool, (set(), set()))
        people.update(pids)
        values.update(marks)
    for pool, (people, values) in whole.items():
        body = msgspec.msgpack.encode((pool, sorted(people), sorted(values)))
        await erase_from_journal(store, Journal(on=False), body)


async def _secret(tx: Transaction, line: Line, now_ms: int) -> int:
    if not await tx.rows(backup_sql.STILL_LIVE, line.number, line.other):
        return 0
    await tx.run(tenants_sql.SEALED_REVOKE, b"", now_ms, line.number)
    return 1


async def _token(tx: Transaction, line: Line, now_ms: int) -> int:
    await tx.run(credentials_sql.REVOKED_ADD, line.name, line.number, line.other)
    return int(line.other * 1000 > now_ms)


async def _client(tx: Transaction, line: Line, now_ms: int) -> int:
    rows = await tx.rows(credentials_sql.CREDENTIAL_BY_CLIENT, line.name)
    if not rows:
        return 0
    if line.kind == CLIENT_GONE:
        await tx.run(credentials_sql.CREDENTIAL_DROP, rows[0][0])
    else:
        await tx.run(credentials_sql.CREDENTIAL_ACTIVE, int(line.kind == CLIENT_ON), rows[0][0])
    return int(line.kind != CLIENT_ON)


_REVOKE = {
    SECRET: _secret,
    TOKEN: _token,
    CLIENT_OFF: _client,
    CLIENT_ON: _client,
    CLIENT_GONE: _client,
}


async def plan_of(session: Session, record: Record) -> Plan:
    """Return the rules of a record's scope; of a scope no document names, as its rows have it."""
    rows = await session.rows(backup_sql.SCOPE_CONFIG, record.pool // 2)
    if rows:
        return compile_plan(_scope(bytes(rows[0][0])))
    unique = 0
    for value in record.values:
        where = (slot(record.pool, value.code), value.key, record.pid)
        if await session.rows(backup_sql.UNIQUE_ROWS, *where):
            unique |= 1 << value.code
    return msgspec.structs.replace(compile_plan(ScopeConfig()), unique=unique)
