"""What most requests get, decided at a glance: one record holds all that was given.

It says what `rules.identity.decide` would say, or nothing. A test compares the two.
"""

from __future__ import annotations

from onymous.rules.records import ERASED, KNOWN, Record
from onymous.rules.strategies import Plan


def obvious(
    record: Record, keys: dict[int, str], given: int, plan: Plan, horizon_ms: int = 0
) -> int:
    """Return the mask of the types a record holds if it is the answer without a doubt, else 0.

    `record` is the only one that holds any of `keys`, none of which is hot; `given` is their mask.
    Without a doubt: it holds every one of them, and a login id of it is given if it is protected.
    Nothing is said where one of them was last seen before `horizon_ms`: that must be written.
    """
    has = hits = 0
    for value in record.values:
        code = value.code
        bit = 1 << code
        has |= bit
        if keys.get(code) == value.key:
            if value.last_ms < horizon_ms:
                return 0
            hits |= bit
    if hits != given or record.flags & ERASED or plan.immutable or not given & plan.ranked:
        return 0
    if given & plan.login & plan.ranked or plan.strategy.name == "best_match":
        return has
    protected = has & plan.login or (record.flags & KNOWN and plan.config.sticky_known)
    return 0 if protected else has
