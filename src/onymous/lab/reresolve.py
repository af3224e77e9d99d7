"""Plans what new rules make of the people there are: the journal is replayed under the new rules,
and records are compared with what came out.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable

from onymous.app import Core, running
from onymous.flows.carrying import pool_pages
from onymous.flows.journal import Noted
from onymous.flows.loading import all_records
from onymous.lab.rehearse import Replay, journal_of
from onymous.rules.identifiers import BY_CODE, clean_value
from onymous.rules.records import Record, Value
from onymous.rules.reresolving import Part, Target, plan_moves
from onymous.rules.strategies import Plan
from onymous.settings import load


async def planned(core: Core, pool: int, plan: Plan, progress: Callable[[int], None]) -> list[Part]:
    """Return the moves that carry a pool over to new rules."""
    target = await target_of(core, pool, plan, progress)
    records: list[Record] = []
    async with core.store.read() as session:
        async for page in pool_pages(session, pool):
            records += page
    return plan_moves(records, target, plan, lambda value: folded(value, plan))


def folded(value: Value, plan: Plan) -> str:
    """Return the comparison key of a value under the folding of other rules."""
    return clean_value(BY_CODE[value.code], value.text, plan.folding) or value.key


async def target_of(core: Core, pool: int, plan: Plan, progress: Callable[[int], None]) -> Target:
    """Replay the journal of a pool in a throw-away store and return whom it ended with."""
    await core.journal.flush(core.store)
    out, asked = Target(), {}
    with tempfile.TemporaryDirectory(prefix="onymous-rehearsal-") as folder:
        flags = {"store": f"sqlite:{folder}/store", "journal": False}
        async with running(load(flags, environ={})) as stage:
            replay = Replay(stage, plan, why=False)
            async for page in journal_of(core, pool, 0):
                for item in page:
                    await replay.take(item)
                    if item.body.pid is not None:
                        asked[item.id] = item.body.pid
                        _note(out, item, plan)
                    progress(1)
            await replay.settled()
            async with stage.store.read() as session:
                records = await all_records(session)
    out.people = {r.pid: {(v.code, v.key) for v in r.values} for r in records if r.values}
    found = replay.out.people.items()
    out.votes = dict(Counter((asked[n], person) for n, person in found if n in asked))
    return out


def _note(out: Target, item: Noted, plan: Plan) -> None:
    """Remember which values a record was asked for by, and where each first came from."""
    body = item.body
    pairs = [*body.keys.items()]
    pairs += [(code, new) for code, _, new in body.changes if new is not None]
    known = out.evidence.setdefault(body.pid or 0, set())
    for code, key in pairs:
        value = Value(code, key, None, item.first_ms, item.last_ms, item.workspace, item.input)
        key = folded(value, plan)
        value.shown, value.key = (value.key if value.key != key else None), key
        known.add((code, key))
        out.origins.setdefault((code, key), value)
