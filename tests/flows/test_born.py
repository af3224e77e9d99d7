"""A new person's first values are noted the short way, exactly as the long way would."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onymous.flows.working import Origin, Working
from onymous.rules.ledger import CREATED, Change, Entry
from onymous.rules.strategies import ScopeConfig, compile_plan

PLANS = [
    compile_plan(
        ScopeConfig(strategy="profile_conversion", login=("customerid",), unique=("email",))
    ),
    compile_plan(ScopeConfig(strategy="profile_link", login=("customerid", "email"))),
    compile_plan(ScopeConfig(strategy="best_match")),
]
VALUES = st.dictionaries(st.integers(0, 40), st.sampled_from("abc"), max_size=6)


def noted(working: Working) -> object:
    """Everything a transaction would write."""
    return copy.deepcopy({k: v for k, v in vars(working).items() if k != "_new"})


@given(st.sampled_from(PLANS), VALUES, VALUES, st.booleans(), st.sampled_from([None, 0, 3]))
def test_the_short_way_says_what_the_long_way_says(
    plan: object, first: dict[int, str], second: dict[int, str], quiet: bool, crowd: int | None
) -> None:
    """One person, then another who may share values, unique ones too, in one transaction."""
    seen = []
    for short in (True, False):
        working = Working([1, 2])
        origin = Origin("identify", 5_000, 1, 2, quiet=quiet)
        try:
            for keys in (first, second):
                record = working.create(7, 4_000, None)
                if crowd is not None and keys:
                    code = min(keys)
                    working.crowded[7, code, keys[code]] = crowd
                if not short:
                    working._new.discard(record.pid)
                entry = Entry("identify", 1, 2, "r", [Change(CREATED)])
                add = [(code, key, None) for code, key in keys.items()]
                working.apply(record, plan, origin, add=add, entry=entry)  # type: ignore[arg-type]
            seen.append(noted(working))
        except Exception as error:
            seen.append(type(error))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("plan", PLANS)
def test_the_short_way_is_taken(plan: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the long way")

    monkeypatch.setattr(Working, "_settle", never)
    working = Working([1])
    record = working.create(7, 4_000, None)
    entry = Entry("identify", 1, 2, "r", [])
    origin = Origin("identify", 5_000, 1, 2)
    working.apply(record, plan, origin, add=[(1, "a", "A")], entry=entry)  # type: ignore[arg-type]
    assert [(v.code, v.key, v.shown) for v in record.values] == [(1, "a", "A")]
