"""Undoing a change of rules, asked of a server: promised, done by a process of its own, told.

The one transaction takes as long as the scope is large; no server does it on the loop that answers.
Its outcome is written in it: whoever dies over it has done all of it, or nothing, and it is done
again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from onymous.crypto import MasterKey
from onymous.flows import tenancy
from onymous.flows.carrying import preview_back, take_back, undoable
from onymous.flows.credentials import transact
from onymous.flows.fencing import announced
from onymous.flows.jobs import MOST_TRIES
from onymous.flows.merging import Actor
from onymous.flows.reresolve import Carried
from onymous.flows.rule_changes import rule_change
from onymous.flows.versions import Author
from onymous.rules.errors import ConfigChanged, NoSuchThing, Refusal
from onymous.store import rules_sql, sql
from onymous.store.port import Row, Session, Store, Transaction

#: kind of the job
JOB = "undo_rules"
#: changes told at once
MOST = 50
WAITING, DONE, REFUSED = "waiting", "done", "refused"
_encode = msgspec.json.Encoder().encode
_outcome = msgspec.json.Decoder(dict[str, Any]).decode


class Asked(msgspec.Struct, kw_only=True):
    """An undoing asked of a server."""

    id: int
    change: int
    at_ms: int
    author: str
    reason: str
    keep_later: bool
    #: waiting, done or refused
    state: str
    ended_ms: int | None = None
    #: done: what it did; refused: why
    outcome: dict[str, Any] = {}


def in_numbers(seen: Carried) -> dict[str, int]:
    """Return what an undoing did, or would do."""
    return {"records": seen.records, "unmerged": seen.merged, "left": seen.left}


class Told(msgspec.Struct, kw_only=True):
    """A change of rules as it is told over HTTP, and the undoing asked of it last."""

    id: int
    scope: str
    at_ms: int
    author: str
    reason: str
    #: standing, undoing or undone
    state: str
    undone_ms: int | None
    undone_by: str | None
    undo: Asked | None


async def _told(session: Session, rows: Sequence[Row]) -> list[Told]:
    _, ids = await tenancy.read_state(session)
    scopes = {number: name for name, number in ids.scopes.items()}
    out = []
    for c in map(rule_change, rows):
        undo = await asked_last(session, c.id)
        coming = undo is not None and undo.state == WAITING
        state = "undone" if c.undone_ms is not None else "undoing" if coming else "standing"
        out.append(
            Told(
                id=c.id,
                scope=scopes[c.scope],
                at_ms=c.at_ms,
                author=c.actor,
                reason=c.reason,
                state=state,
                undone_ms=c.undone_ms,
                undone_by=c.undone_by,
                undo=undo,
            )
        )
    return out


async def asked_last(session: Session, change: int) -> Asked | None:
    """Return what was asked last of a change of rules, or None."""
    rows = await session.rows(rules_sql.UNDO_LAST, change)
    return _asked(rows[0]) if rows else None


async def ask(store: Store, change: int, author: Author, now_ms: int, *, keep_later: bool) -> Asked:
    """Promise to undo a change of rules; what is under way already is returned as it is.

    Raises `NoSuchThing` or `CannotUndo`, as far as that can be told at once.
    """
    async with store.read() as session:
        before = await asked_last(session, change)
        if before is not None and before.state == WAITING and await _coming(session, before.id):
            return before

    async def work(tx: Transaction) -> Asked:
        asked = await asked_last(tx, change)
        if asked is None or asked.state != WAITING:
            await undoable(tx, change)
            asked = await _add(tx, change, author, now_ms, keep_later)
        elif await _coming(tx, asked.id):
            return asked
        await tx.run(sql.JOB_ADD, JOB, now_ms, msgspec.msgpack.encode(asked.id))
        return asked

    return await transact(store, "rules.undo_asked", work)


async def _add(
    tx: Transaction, change: int, author: Author, now_ms: int, keep_later: bool
) -> Asked:
    who = (author.name.strip(), author.reason.strip())
    row = (change, now_ms, *who, int(keep_later), WAITING)
    number = (await tx.rows(rules_sql.UNDO_ADD, *row))[0][0]
    detail = {"reason": author.reason, "keep_later": keep_later, "undo": number}
    subject = f"rules:{change}"
    await tx.run(sql.AUDIT_ADD, now_ms, author.name, "rules.undo", subject, _encode(detail))
    return _asked((await tx.rows(rules_sql.UNDO_BY_ID, number))[0])


async def _coming(session: Session, number: int) -> bool:
    """Return whether somebody does an undoing, or will."""
    body, now = msgspec.msgpack.encode(number), time.time_ns() // 1_000_000
    return bool(await session.rows(rules_sql.UNDO_JOB, JOB, body, MOST_TRIES, now))


async def carry_out(store: Store, key: MasterKey, number: int, grace_s: float) -> None:
    """Do what was asked, unless that is done; why it cannot be done is told."""
    async with store.read() as session:
        rows = await session.rows(rules_sql.UNDO_BY_ID, number)
    asked = _asked(rows[0]) if rows else None
    if asked is None or asked.state != WAITING:
        return
    change, keep_later, now = asked.change, asked.keep_later, time.time_ns() // 1_000_000
    actor = Actor(name=asked.author, reason=asked.reason, now_ms=now)

    async def within(tx: Transaction, done: Carried) -> None:
        await tx.run(rules_sql.UNDO_END, DONE, now, _encode(in_numbers(done)), number, WAITING)

    async def work() -> None:
        await take_back(store, key, change, actor, keep_later=keep_later, within=within)

    try:
        # seen before it is announced: what is refused keeps nobody waiting
        await preview_back(store, change, keep_later=keep_later)
        await announced(store, work, grace_s)
    except ConfigChanged:  # by somebody else, meanwhile: it is tried again
        raise
    except Refusal as refusal:
        why = {"code": refusal.code, "message": refusal.message, "hint": refusal.hint}
        async with store.write("rules.undo_refused") as tx:
            row = (REFUSED, now, _encode(why), number, WAITING)
            await tx.run(rules_sql.UNDO_END, *row)


class Rules:
    """Changes of rules of one store: told, looked at, asked to be undone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> list[Told]:
        """Return changes of rules, newest first."""
        async with self._store.read() as session:
            rows = await session.rows(rules_sql.CHANGES, MOST)
            return await _told(session, rows)

    async def one(self, number: int) -> Told:
        """Return one change of rules; raises `NoSuchThing`."""
        async with self._store.read() as session:
            rows = await session.rows(rules_sql.CHANGE_BY_ID, number)
            if not rows:
                raise NoSuchThing(what=f"change of rules {number}")
            return (await _told(session, rows))[0]

    async def look(self, number: int, *, keep_later: bool) -> dict[str, int]:
        """Return what undoing would do; raises as it does, and keeps nobody waiting."""
        return in_numbers(await preview_back(self._store, number, keep_later=keep_later))

    async def undo(self, number: int, author: Author, now_ms: int, *, keep_later: bool) -> Told:
        """Promise to undo one; raises as `ask` does."""
        await ask(self._store, number, author, now_ms, keep_later=keep_later)
        return await self.one(number)


def _asked(row: Row) -> Asked:
    number, change, at, author, reason, keep, state, ended, told = row
    return Asked(
        id=number,
        change=change,
        at_ms=at,
        author=author,
        reason=reason,
        keep_later=bool(keep),
        state=state,
        ended_ms=ended,
        outcome=_outcome(bytes(told)) if told is not None else {},
    )
