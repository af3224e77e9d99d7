"""Changes of rules that were applied to history, as they are kept and listed."""

from __future__ import annotations

import msgspec

from onymous.flows.tenancy import decode_scope
from onymous.rules.strategies import ScopeConfig
from onymous.store import rules_sql, scopes_sql
from onymous.store.port import Row, Session


async def moved_since(session: Session, change: int) -> int | None:
    """Return the newest join or split that touched a change's scope since and still stands."""
    rows = await session.rows(rules_sql.SCOPES_SINCE, change)
    since = {number for number, _, _ in rows}
    back = {number: undoes for number, undoes, state in rows if state == "done" and undoes in since}
    standing = since - {*back, *back.values()}
    return max(standing, default=None)


async def changed_last(session: Session, scope: int) -> int:
    """Return when a scope's past was last given other rules, or taken back from them; or 0."""
    rows = await session.rows(rules_sql.CHANGE_LAST, scope)
    return max((at for at in rows[0] if at is not None), default=0)


async def undisturbed(session: Session, scope: int, config: ScopeConfig) -> bool:
    """Return whether a scope has these rules, and no join or split goes on."""
    rows = await session.rows(scopes_sql.SCOPE_CONFIG, scope)
    same = bool(rows) and decode_scope(rows[0][0]) == config
    return same and not await session.rows(scopes_sql.CHANGES_OPEN)


class RuleChange(msgspec.Struct, kw_only=True):
    """A change of rules that was applied to history, as it is listed."""

    id: int
    at_ms: int
    scope: int
    actor: str
    reason: str
    undone_ms: int | None = None
    undone_by: str | None = None
    was: ScopeConfig
    became: ScopeConfig


def rule_change(row: Row) -> RuleChange:
    """Return a row of changes of rules."""
    number, at, scope, actor, reason, was, became, undone, by = row
    return RuleChange(
        id=number,
        at_ms=at,
        scope=scope,
        actor=actor,
        reason=reason,
        undone_ms=undone,
        undone_by=by,
        was=decode_scope(was),
        became=decode_scope(became),
    )
