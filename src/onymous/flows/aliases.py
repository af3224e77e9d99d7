"""Aliases: checked at once, kept with their outcome; history follows by pointer."""

from __future__ import annotations

import msgspec

from onymous.flows.answers import Answer, Question, keep, kept
from onymous.flows.copying import copy_over
from onymous.flows.diagnostics import storable
from onymous.flows.fencing import in_force
from onymous.flows.identity import CODE_OF, Resolver, request_key
from onymous.flows.profiles import canonical
from onymous.flows.retrying import retried
from onymous.rules.aliases import Alias, AliasOutcome, decide_alias, refuse, window
from onymous.rules.errors import AliasInvalid, Refusal, RequestIdReused
from onymous.rules.ledger import ALIASED, Change, Entry
from onymous.rules.records import MERGED, Record
from onymous.store import history_sql, sql
from onymous.store.port import Probe, Store, Transaction

_encode = msgspec.msgpack.Encoder().encode
_STAMP = CODE_OF["device_application_stamp"]


class AliasRequest(msgspec.Struct, kw_only=True):
    """The data of an alias request as it came in."""

    source_mpid: object = None
    destination_mpid: object = None
    start_unixtime_ms: int | None = None
    end_unixtime_ms: int | None = None
    scope: str | None = None
    device_application_stamp: str | None = None
    signed: bool = True
    #: what goes over beside history: attributes, consent; only for server-side credentials
    copy: list[str] = []


async def request_alias(
    resolver: Resolver, store: Store, question: Question, wanted: AliasRequest
) -> Answer:
    """Check and record an alias; the answer's outcome is `applied` or `rejected` with a reason."""
    alias = _alias(resolver, question, wanted)
    request = request_key(question.caller.input, question.request_id)

    async def work() -> Answer:
        async with store.write("alias") as tx:
            if request is not None and (again := await _again(tx, question, request)):
                return again
            pool = question.caller.pool(question.environment)
            await in_force(resolver.desk.fence, tx, pool, question.caller.plan)
            made = await _decide(tx, question, alias, wanted.copy)
            if made.refusal is None and request is not None:
                where = (question.caller.input, request, question.now_ms)
                await tx.run(sql.REPLAY_PUT, *where, question.fingerprint(), keep(made))
            return made

    answer = await retried(work)
    if answer.outcome == "rejected":
        resolver.diagnostics.add(
            "alias_rejected",
            question.now_ms,
            question.caller.workspace,
            question.caller.input,
            question.request_id,
            {"reason": answer.reason},
        )
    return answer


def _alias(resolver: Resolver, question: Question, wanted: AliasRequest) -> Alias:
    """Make the alias asked for; an MPID that cannot be one is number 0, which nobody has."""
    start, end = window(
        wanted.start_unixtime_ms or None,
        wanted.end_unixtime_ms or None,
        question.now_ms,
        question.caller.plan,
    )
    return Alias(
        source=resolver.mpids.parse(wanted.source_mpid) or 0,
        destination=resolver.mpids.parse(wanted.destination_mpid) or 0,
        start_ms=start,
        end_ms=end,
        scope=wanted.scope or ("device" if wanted.device_application_stamp else "mpid"),
        device_stamp=wanted.device_application_stamp,
        signed=wanted.signed,
    )


async def _decide(tx: Transaction, question: Question, alias: Alias, copy: list[str]) -> Answer:
    """Decide an alias on locked records and record it with its outcome."""
    plan, pool = question.caller.plan, question.caller.pool(question.environment)
    probe = Probe(pool, {}, None, (alias.source, alias.destination))
    records = {r.pid: r for r in (await tx.find([probe]))[0].records if r.pool == pool}
    one, two = records.get(alias.source), records.get(alias.destination)
    refusal: type[Refusal] | None = refuse(alias, one, two, plan)
    if refusal is not None or one is None or two is None:
        return Answer(refusal=(refusal or AliasInvalid)())
    rows = await tx.rows(sql.ALIASES_TOUCHING, one.pid, two.pid, one.pid, two.pid)
    prior = [
        Alias(source=s, destination=d, start_ms=a, end_ms=b, scope=c, device_stamp=e)
        for s, d, a, b, c, e in rows
    ]
    outcome = decide_alias(alias, one, two, prior, plan, _STAMP)
    if one.flags & MERGED and await canonical(tx, one.pid) != await canonical(tx, two.pid):
        # the history of one person would count for another one too
        outcome = AliasOutcome(reason="source_is_merged")
    await _record(tx, question, pool, alias, outcome, (one, two))
    if outcome.applied and copy:
        number = (await tx.rows(history_sql.ALIAS_LATEST, one.pid, two.pid))[0][0]
        await copy_over(tx, number, one.pid, two.pid, copy)
    said = "applied" if outcome.applied else "rejected"
    return Answer(outcome=said, reason=outcome.reason or None)


async def _again(tx: Transaction, question: Question, request: bytes) -> Answer | None:
    """Return the answer of an equal request before this one; refuse another body."""
    key = (question.caller.input, request)
    found = (await tx.replays([key])).get(key)
    if found is None:
        return None
    if found.digest != question.fingerprint():
        return Answer(refusal=RequestIdReused())
    return kept(found.answer, {})


async def _record(
    tx: Transaction,
    question: Question,
    pool: int,
    alias: Alias,
    outcome: AliasOutcome,
    records: tuple[Record, Record],
) -> None:
    caller = question.caller
    now = question.now_ms
    await tx.run(
        sql.ALIAS_ADD,
        pool,
        alias.source,
        alias.destination,
        alias.start_ms,
        alias.end_ms,
        alias.scope,
        alias.device_stamp,
        now,
        now + caller.plan.config.alias_delay_s * 1000,
        caller.input,
        storable(question.request_id),
        "applied" if outcome.applied else "rejected",
        outcome.reason,
    )
    if not outcome.applied:
        return
    numbers = await tx.numbers("ledger", 2)
    for seq, record, other in zip(numbers, records, reversed(records), strict=True):
        change = Change(ALIASED, other=other.pid)
        entry = Entry("alias", caller.workspace, caller.input, question.request_id, [change])
        await tx.run(sql.LEDGER_ADD, seq, record.pid, now, _encode(entry))
    await tx.run(sql.JOB_ADD, "identity_changed", now, _encode(numbers))


async def add_alias(store: Store, pool: int, alias: Alias) -> None:
    """Record an applied alias as it is, past the checks (scenarios, importers)."""
    row = (pool, alias.source, alias.destination, alias.start_ms, alias.end_ms, alias.scope)
    async with store.write("alias") as tx:
        await tx.run(sql.ALIAS_ADD, *row, None, 0, 0, 0, None, "applied", "")
