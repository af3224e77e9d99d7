"""Changes of rules that were applied to history: listed, seen before they are undone, undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from onymous.crypto import MasterKey
from onymous.flows import tenancy
from onymous.flows.config_text import text_of
from onymous.flows.configure import apply
from onymous.flows.looking_back import look_back
from onymous.flows.merging import Actor
from onymous.flows.reresolve import Carried
from onymous.flows.rule_changes import RuleChange, moved_since, rule_change
from onymous.flows.unresolve import Unresolve
from onymous.flows.versions import newest as newest_version
from onymous.rules.errors import CannotUndo, NoSuchThing
from onymous.rules.records import ERASED, Record
from onymous.rules.strategies import ScopeConfig
from onymous.store import rules_sql
from onymous.store.packing import unpack_record
from onymous.store.port import Session, Store, Transaction

#: records of a page
PAGE = 5_000
#: what else is done in the transaction of an undoing
Within = Callable[[Transaction, Carried], Awaitable[None]]


async def rule_changes(store: Store, limit: int = 50) -> list[RuleChange]:
    """Return changes of rules applied to history, newest first."""
    async with store.read() as session:
        return [rule_change(row) for row in await session.rows(rules_sql.CHANGES, limit)]


async def pool_pages(session: Session, pool: int) -> AsyncIterator[list[Record]]:
    """Yield the records of a pool in pages, without erased ones."""
    after = 0
    while rows := await session.rows(rules_sql.POOL_AFTER, after, pool, PAGE):
        after = rows[-1][0]
        yield [r for r in map(unpack_record, rows) if not r.flags & ERASED]


async def undoable(session: Session, number: int) -> tuple[RuleChange, int, str]:
    """Return a change that can be undone, the version in force, the document that undoes it.

    Raises `NoSuchThing`, `CannotUndo`.
    """
    rows = await session.rows(rules_sql.CHANGE_BY_ID, number)
    if not rows:
        raise NoSuchThing(what=f"change of rules {number}")
    change = rule_change(rows[0])
    newest = (await session.rows(rules_sql.CHANGE_STANDING, change.scope))[0][0]
    state, ids = await tenancy.read_state(session)
    version = await newest_version(session)
    moved = await moved_since(session, number)
    name = next(n for n, s in ids.scopes.items() if s == change.scope)
    if change.undone_ms is not None:
        raise CannotUndo(what="it is undone already")
    if newest != number:
        raise CannotUndo(what=f"the rules were changed again, undo rules:{newest} first")
    if state.scopes[name] != change.became:
        raise CannotUndo(what="the scope's settings were changed since; bring those back first")
    if moved:
        raise CannotUndo(what=f"scope change {moved} took people along, undo that first")
    state.scopes[name] = change.was
    return change, version, text_of(state)


async def preview_back(store: Store, number: int, *, keep_later: bool = False) -> Carried:
    """Return what `take_back` would do; raises as that does, and keeps nobody waiting."""
    async with store.read() as session:
        change, _, _ = await undoable(session, number)
    return await look_back(store, change, keep_later=keep_later)


async def take_back(
    store: Store,
    key: MasterKey,
    number: int,
    actor: Actor,
    *,
    keep_later: bool = False,
    within: Within | None = None,
) -> Carried:
    """Give people and rules back as they were before a change of rules.

    `within` is done in the same transaction. Raises `NoSuchThing`, `CannotUndo` where the rules
    changed again since or a join or split took people along, `DependsOn` where a value moved again
    (`keep_later`: such people are left alone), `ConfigChanged` where somebody else was faster.
    """
    async with store.read() as session:
        _, version, document = await undoable(session, number)
    back = Unresolve(number, actor, keep_later=keep_later)

    async def around(tx: Transaction, scope: int, was: ScopeConfig, becomes: ScopeConfig) -> None:
        await back(tx, scope, was, becomes)
        if within is not None:
            await within(tx, back.done)

    await apply(
        store,
        key,
        document,
        actor=actor.name,
        reason=f"undo of rules:{number}: {actor.reason}"[:500],
        now_ms=actor.now_ms,
        expected=version,
        around=around,
    )
    return msgspec.structs.replace(back.done)
