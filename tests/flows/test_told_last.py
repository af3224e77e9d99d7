"""What people known by all they gave were told last."""

from __future__ import annotations

from typing import Any

from onymous.flows.told import MOST_TOLD, TOLD_MS, Memory, Told
from onymous.rules.strategies import ScopeConfig, compile_plan

PLAN = compile_plan(ScopeConfig(strategy="profile_conversion", login=("customerid",)))
ROW: tuple[Any, ...] = (7, 1, 1, 1, 0, None, b"values")
KNOWN: dict[str, object] = {"customerid": "customer-1"}


def told(**more: Any) -> Told:
    asked = {"op": "login", "pool": 3, "plan": PLAN, "known": KNOWN, "keys": {1: "customer-1"}}
    found = {"label": (3, 1, "customer-1"), "row": ROW, "until_ms": 100}
    answer = {"mpid": "1", "logged_in": True, "ephemeral": False, "has": 2, "matched": {}}
    return Told(**(asked | found | answer | more))


def test_it_is_told_only_for_the_same_question_under_the_same_rules() -> None:
    memory, one = Memory(), told()
    assert memory.get("login", 3, PLAN, KNOWN, 1) is None
    memory.put(one)
    assert memory.get("login", 3, PLAN, dict(KNOWN), 100) is one
    assert memory.get("login", 3, PLAN, KNOWN, 101) is None, "seen must be written again"
    assert memory.get("identify", 3, PLAN, KNOWN, 100) is None
    assert memory.get("login", 4, PLAN, KNOWN, 100) is None
    changed = compile_plan(ScopeConfig(strategy="profile_link", login=("customerid",)))
    assert memory.get("login", 3, changed, KNOWN, 100) is None
    assert memory.get("login", 3, PLAN, {"other": "customer-1"}, 100) is None
    assert memory.get("login", 3, PLAN, {**KNOWN, "email": "a@b.c"}, 100) is None
    assert memory.get("login", 3, PLAN, {"customerid": ["customer-1"]}, 100) is None


def test_it_keeps_a_bounded_number_for_a_bounded_time() -> None:
    memory = Memory()
    assert memory.get("login", 3, PLAN, KNOWN, 1_000) is None
    memory.put(told(until_ms=1 << 50))
    assert memory.get("login", 3, PLAN, KNOWN, 1_000 + TOLD_MS)
    for n in range(MOST_TOLD):
        memory.put(told(known={"customerid": str(n)}))
    assert memory.get("login", 3, PLAN, KNOWN, 1_000) is None
    memory.put(told(until_ms=1 << 50))
    assert memory.get("login", 3, PLAN, KNOWN, 1_000)
    assert memory.get("login", 3, PLAN, KNOWN, 1_001 + TOLD_MS) is None, "nothing stays for long"
