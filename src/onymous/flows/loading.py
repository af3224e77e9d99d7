"""Load records as they are, past the rules: for scenarios, importers and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from onymous.flows.working import Origin, Working
from onymous.rules.identifiers import BY_NAME
from onymous.rules.ledger import CREATED, Change, Entry
from onymous.rules.records import KNOWN, Record
from onymous.rules.strategies import Plan
from onymous.store import sql
from onymous.store.packing import unpack_record
from onymous.store.port import Probe, Session, Store


class Given(msgspec.Struct, kw_only=True):
    """A record to load; values are comparison keys by type name."""

    ids: Mapping[str, Sequence[str]]
    created_ms: int = 0
    seen_ms: int = 0
    source: int | None = None
    was_known: bool = False


async def load(store: Store, pool: int, plan: Plan, given: Sequence[Given]) -> list[int]:
    """Load records in one transaction and return their numbers, in order.

    `source` is the place of another record in `given`.
    """
    async with store.write("load") as tx:
        probes = []
        for record in given:
            for name, values in record.ids.items():
                probes += [Probe(pool, {BY_NAME[name].code: value}) for value in values]
        founds = await tx.find(probes)
        working = Working(await tx.numbers("pid", len(given)))
        working.load(probes, founds)
        pids: list[int] = []
        made_all = [working.create(pool, record.created_ms, None) for record in given]
        for record, made in zip(given, made_all, strict=True):
            source = None if record.source is None else made_all[record.source].pid
            made.source, made.seen_ms = source, record.seen_ms
            made.flags |= KNOWN if record.was_known else 0
            add = [(BY_NAME[n].code, v, None) for n, values in record.ids.items() for v in values]
            entry = Entry("load", 0, 0, None, [Change(CREATED, other=source)], source=source)
            origin = Origin("load", record.seen_ms, 0, 0)
            working.apply(made, plan, origin, add=add, entry=entry)
            pids.append(made.pid)
        await working.save(tx)
    return pids


async def read_record(store: Store, pid: int) -> Record | None:
    """Return a record by its number, or None."""
    async with store.read() as session:
        rows = await session.rows(sql.PROFILE_BY_PID, pid)
    return unpack_record(rows[0]) if rows else None


async def all_records(session: Session) -> list[Record]:
    """Return every record of a (small) store, in order of creation."""
    out: list[Record] = []
    while rows := await session.rows(sql.PROFILES_AFTER, out[-1].pid if out else 0, 5_000):
        out += map(unpack_record, rows)
    return out
