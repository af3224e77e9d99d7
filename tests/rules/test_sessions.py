"""A session that two profiles of one person both told of."""

from __future__ import annotations

import pytest

from onymous.rules.profiles import Person, combine
from onymous.rules.sessions import twice, within


@pytest.mark.parametrize(
    ("names", "more", "counts", "others", "expected"),
    [
        ([1, 2], [2, 3], {"web": 2}, {"web": 2}, {"web": 1}),
        ([1, 2], [3, 4], {"web": 2}, {"web": 2}, {}),
        ([1, 2], [1, 2], {"web": 2}, {"ios": 2}, {"ios": 2}),
        ([1, 2], [1, 2], {"web": 1, "ios": 1}, {"ios": 1, "web": 1}, {"ios": 1, "web": 1}),
        ([1, 2, 3], [1, 2, 3], {"web": 9}, {"ios": 1, "web": 2}, {"web": 2, "ios": 1}),
        # a name without a session counted: none goes below zero
        ([1, 2], [1, 2], {"web": 2}, {"web": 1}, {"web": 1}),
    ],
)
def test_sessions_two_profiles_counted(
    names: list[int],
    more: list[int],
    counts: dict[str, int],
    others: dict[str, int],
    expected: dict[str, int],
) -> None:
    assert twice(names, more, counts, others) == expected


def test_three_profiles_with_one_session_count_it_once() -> None:
    one, two, three = (Person(1, 2, n, sessions={"web": 1}, started=[7]) for n in (1, 2, 3))
    for order in ((one, two, three), (three, one, two)):
        both = combine(combine(order[0], order[1]), order[2])
        assert (both.sessions, both.started) == ({"web": 1}, [7])


def test_of_a_part_of_a_history_only_what_is_sure_is_left_out() -> None:
    assert within(2, counted=5, window=5) == 2
    assert within(2, counted=5, window=4) == 1
    assert within(2, counted=5, window=1) == 0
