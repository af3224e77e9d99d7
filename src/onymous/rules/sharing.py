"""Values that several hold: who competes for them, and when too many do."""

from __future__ import annotations

from collections.abc import Sequence

from onymous.rules.identity import is_person
from onymous.rules.records import ERASED, Record, mask_of
from onymous.rules.strategies import Plan


def shared(keys: dict[int, str], plan: Plan, candidates: Sequence[Record]) -> int:
    """Return the types whose value more than `hot_after` of these people hold.

    For limits so low that the store does not count by itself: then these are all who hold it.
    """
    people: dict[int, int] = {}
    for record in candidates:
        if record.flags & ERASED or not is_person(mask_of(record), plan):
            continue
        for value in record.values:
            if keys.get(value.code) == value.key:
                people[value.code] = people.get(value.code, 0) + 1
    bits = 0
    for code, count in people.items():
        bits |= (count > plan.config.hot_after) << code
    return bits & plan.ranked


def competes(code: int, plan: Plan, protected: bool) -> bool:
    """Whether a record with a value of this type may be found through it alone."""
    if plan.unique >> code & 1:
        return False
    return not protected or bool(plan.login >> code & 1)
