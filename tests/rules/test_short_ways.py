"""The short ways through the rules of batches say what the long ways say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onymous.rules import events, identifiers, trimming
from onymous.rules.errors import Refusal
from onymous.rules.identifiers import FOLDED, Folding, clean
from onymous.rules.trimming import trimmed

NOW = 1_764_000_000_000
TEXT = st.sampled_from(
    ["", "0", "null", " a b ", "Person@Example.org", "c0000000001", "x" * 256, "y" * 257, "\0", "é"]
) | st.text(max_size=12)
SCALAR = st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.floats() | TEXT
IDENTITIES = st.dictionaries(
    st.sampled_from([*FOLDED, "nobody_knows"]), TEXT | st.none() | st.integers(), max_size=6
)
FOLDINGS = st.sampled_from([Folding(), Folding(email_lower=True, phone_e164=True)])
BLOCKED = st.sampled_from([frozenset(), frozenset({("customerid", "c0000000001")})])
TIMES = st.sampled_from([NOW, NOW - 5, str(NOW), NOW + 90_000_000, 0, -1, 1 << 60, 1.5, True, None])
ATTRIBUTES = st.dictionaries(TEXT | st.just("n" * 257), SCALAR | st.just("v" * 4097), max_size=4)
DATA = st.fixed_dictionaries(
    {},
    optional={
        "timestamp_unixtime_ms": TIMES,
        "event_name": TEXT | st.just("attribution"),
        "screen_name": TEXT | st.just("s" * 300) | st.integers(),
        "action_identifier": TEXT | st.just("a" * 101),
        "custom_event_type": st.sampled_from(["navigation", "attribution", None, 1]),
        "custom_attributes": ATTRIBUTES | st.none() | st.just({f"{n}": "" for n in range(101)}),
        "is_goal_defined": st.booleans(),
        "lifetime_value_change": st.sampled_from([1, 2.5, "3"]),
        "location": st.sampled_from([None, {}, {"latitude": 1, "longitude": 2}, "nowhere"]),
        "product_action": st.sampled_from([None, {"action": "purchase", "total_amount": 3}]),
    },
)
EVENTS = st.lists(
    st.none()
    | st.fixed_dictionaries(
        {"event_type": st.sampled_from([*events.KINDS, "else"])},
        optional={"data": DATA | st.none()},
    ),
    max_size=4,
)


@given(IDENTITIES, FOLDINGS, BLOCKED)
def test_identities_without_a_second_look(
    given_: dict[str, object], folding: Folding, blocked: frozenset[tuple[str, str]]
) -> None:
    short = clean(given_, strict=False, folding=folding, blocked=blocked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identifiers, "_plain", lambda *_: None)
        long = clean(given_, strict=False, folding=folding, blocked=blocked)
    assert short == long
    assert [*short.keys] == [*long.keys], "and in the same order"


@given(EVENTS)
def test_batches_within_the_limits(batch: list[Any]) -> None:
    raw = {"events": batch, "mpid": "1"}
    size = len(repr(raw))
    short: list[str] = []
    out = trimmed(raw, size, short)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trimming, "_fits", lambda *_: False)
        long: list[str] = []
        assert repr(trimmed(raw, size, long)) == repr(out)
    assert short == long
    assert short or out is raw


@given(EVENTS)
def test_silent_events(batch: list[Any]) -> None:
    def read() -> str:
        try:
            return repr(events.read_batch({"events": batch}, NOW))
        except Refusal as refusal:
            return repr(refusal)

    short = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_SILENT", frozenset())
        assert read() == short
