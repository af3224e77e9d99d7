"""Search with reach `any`: every holder of any given identifier (rulings 2).

For credentials that hold `search:any`. Priority, protection, hot values and block lists do not
count here; what was erased is not found.
"""

from __future__ import annotations

import msgspec

from onymous.flows.answers import Answer, Match, Question
from onymous.flows.identity import CODE_OF, NAME_OF, Resolver
from onymous.flows.seen import last_seen
from onymous.rules.errors import NoIdentities, NotFound
from onymous.rules.identifiers import BY_CODE, clean
from onymous.rules.identity import answer_flags, is_person
from onymous.rules.records import ORPHANED, Record, mask_of
from onymous.rules.strategies import Plan
from onymous.store import sql
from onymous.store.packing import slot, unpack_record
from onymous.store.port import Session, Store

#: holders on one page
PAGE = 100
#: up to so many holders come in the order of when they were seen; more of them by number
SORTED = 500


class _Hit(msgspec.Struct):
    record: Record
    matched: int
    seen_ms: int = 0


async def search_any(resolver: Resolver, store: Store, question: Question, page: int = 0) -> Answer:
    """Find every holder of the given identities, best match first; one page of `PAGE`."""
    caller = question.caller
    plan = caller.plan
    strict = not (question.fold_keys or caller.fold_keys)
    cleaned = clean(question.known, strict=strict, folding=plan.folding)
    keys = {CODE_OF[name]: key for name, key in cleaned.keys.items()}
    if not keys:
        return Answer(refusal=NoIdentities())
    pool = caller.pool(question.environment)
    async with store.read() as session:
        hits = await _holders(session, pool, keys, max(SORTED, (page + 1) * PAGE) + 1)
        if not hits:
            return Answer(refusal=NotFound())
        # the same order for every page: a page sorted by what it read itself would lose people
        hits.sort(key=lambda h: (_rank(h.matched, plan), h.record.pid))
        some = hits[page * PAGE : (page + 1) * PAGE]
        if len(hits) <= SORTED:
            await _see(resolver, session, hits)
            hits.sort(key=lambda h: (_rank(h.matched, plan), -h.seen_ms, h.record.pid))
            some = hits[page * PAGE : (page + 1) * PAGE]
            best = hits[0]
        else:
            first = hits[:PAGE] + await _latest(session, pool, keys, hits[0].matched)
            await _see(resolver, session, [*first, *some])
            best = min(first, key=lambda h: (_rank(h.matched, plan), -h.seen_ms))
    logged_in, ephemeral = answer_flags(best.record, plan)
    return Answer(
        mpid=resolver.mpids.text(best.record.pid),
        logged_in=logged_in,
        ephemeral=ephemeral,
        matched={NAME_OF[c]: str(_given(question, c)) for c in keys if best.matched >> c & 1},
        matches=[_match(resolver, hit, plan) for hit in some],
        next_page=str(page + 1) if len(hits) > (page + 1) * PAGE else None,
    )


def _given(question: Question, code: int) -> object:
    return question.known.get(NAME_OF[code], "")


async def _see(resolver: Resolver, session: Session, hits: list[_Hit]) -> None:
    """Note when each holder was seen, also what is not written yet."""
    for hit in hits:
        written = await last_seen(session, hit.record.pid)
        noted = resolver.desk.seen.seen_ms(hit.record.pid)
        hit.seen_ms = max(hit.record.seen_ms, written, noted)


async def _latest(session: Session, pool: int, keys: dict[int, str], matched: int) -> list[_Hit]:
    """Return who was seen last among those that compete for the values that rank best."""
    out = []
    for code, key in keys.items():
        if matched >> code & 1:
            for row in await session.rows(sql.RECENT, slot(pool, code), key):
                record = unpack_record(row[1:])
                out.append(_Hit(record, _matched(record, keys)))
    return out


def _matched(record: Record, keys: dict[int, str]) -> int:
    """Return the mask of the given values a record holds."""
    bits = 0
    for value in record.values:
        bits |= (keys.get(value.code) == value.key) << value.code
    return bits


async def _holders(session: Session, pool: int, keys: dict[int, str], most: int) -> list[_Hit]:
    """Return the holders of each value, at most `most` per value."""
    hits: dict[int, _Hit] = {}
    for code, key in keys.items():
        for row in await session.rows(sql.HOLDERS, slot(pool, code), key, -1, most):
            record = unpack_record(row[1:])
            if record.pid not in hits:
                hits[record.pid] = _Hit(record, _matched(record, keys))
    return list(hits.values())


def _rank(matched: int, plan: Plan) -> int:
    """Return the rank of the best type matched; unranked types come last."""
    for rank, code in enumerate(plan.order):
        if matched >> code & 1:
            return rank
    return len(plan.order)


def _match(resolver: Resolver, hit: _Hit, plan: Plan) -> Match:
    record = hit.record
    has = mask_of(record)
    user: dict[str, list[str]] = {}
    device: dict[str, list[str]] = {}
    for value in record.values:
        side = user if BY_CODE[value.code].klass == "user" else device
        side.setdefault(NAME_OF[value.code], []).append(value.text)
    return Match(
        mpid=resolver.mpids.text(record.pid),
        known=is_person(has, plan) if not plan.best_match else bool(user),
        orphaned=bool(record.flags & ORPHANED) or not has & plan.ranked,
        matched_on=[NAME_OF[c] for c in plan_order(hit.matched)],
        user_identities=user,
        device_identities=device,
        last_seen_ms=hit.seen_ms,
    )


def plan_order(bits: int) -> list[int]:
    """Return the type codes of a mask in code order."""
    return [code for code in BY_CODE if bits >> code & 1]
