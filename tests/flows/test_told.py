"""What people known by all they gave were told last."""

from __future__ import annotations

from typing import Any

from onymous.flows.told import MOST_TOLD, TOLD_MS, Memory, Told
from onymous.rules.strategies import ScopeConfig, compile_plan

PLAN = compile_plan(ScopeConfig(strategy="profile_conversion", login=("customerid",)))
ROW: tuple[Any, ...] = (7, 1, 1, 1, 0, None, b"values")
KNOWN: dict[str, object] = {"customerid": "customer-1"}


def told(**more: Any) -> Told:
    about = {"row": ROW, "plan": PLAN, "known": KNOWN, "until_ms": 100}
    answer = {"mpid": "1", "logged_in": True, "ephemeral": False, "matched": {}}
    return Told(**(about | answer | more))


def test_it_is_told_only_for_the_same_row_rules_and_identities_of_the_day() -> None:
    memory, one = Memory(), told()
    assert memory.get(ROW, PLAN, KNOWN, 1) is None
    memory.put(one)
    assert memory.get((*ROW[:6], b"values"), PLAN, dict(KNOWN), 100) is one
    assert memory.get((*ROW[:6], b"other"), PLAN, KNOWN, 100) is None
    assert memory.get((*ROW[:4], 1, *ROW[5:]), PLAN, KNOWN, 100) is None
    changed = compile_plan(ScopeConfig(strategy="profile_link", login=("customerid",)))
    assert memory.get(ROW, changed, KNOWN, 100) is None
    assert memory.get(ROW, PLAN, {**KNOWN, "email": "a@b.c"}, 100) is None
    assert memory.get(ROW, PLAN, KNOWN, 101) is None, "seen must be written again"


def test_it_keeps_a_bounded_number_for_a_bounded_time() -> None:
    memory, other = Memory(), (7 + MOST_TOLD, *ROW[1:])
    assert memory.get(ROW, PLAN, KNOWN, 1_000) is None
    memory.put(told(until_ms=1 << 50))
    assert memory.get(other, PLAN, KNOWN, 1_000) is None, "its place is another's"
    memory.put(told(row=other, until_ms=1 << 50))
    assert memory.get(ROW, PLAN, KNOWN, 1_000) is None
    assert memory.get(other, PLAN, KNOWN, 1_000 + TOLD_MS)
    assert memory.get(other, PLAN, KNOWN, 1_001 + TOLD_MS) is None, "nothing stays for long"
