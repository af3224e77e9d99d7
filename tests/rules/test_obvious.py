"""What is decided at a glance is what the decision function decides."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from onymous.flows.glance import first_label
from onymous.flows.identity import lookup_keys
from onymous.rules.identity import Ask, decide
from onymous.rules.identity_types import BY_NAME
from onymous.rules.obvious import obvious
from onymous.rules.records import ERASED, KNOWN, Record, Value, mask_of
from onymous.rules.strategies import STRATEGIES, ScopeConfig, compile_plan
from onymous.store.port import Probe

NAMES = ("customerid", "email", "other", "device_application_stamp", "ios_idfv")
CODES = {name: BY_NAME[name].code for name in NAMES}
#: few values, so that records share them
KEYS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("abc"), min_size=1)
RECORDS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from("abc"), min_size=1)),
        st.sampled_from([0, 0, KNOWN, ERASED]),
        st.integers(1, 3),
    ),
    max_size=5,
)
CONFIGS = st.builds(
    ScopeConfig,
    strategy=st.sampled_from(sorted(STRATEGIES)),
    priority=st.permutations(NAMES).flatmap(
        lambda p: st.integers(1, len(p)).map(lambda n: tuple(p[:n]))
    ),
    login=st.sampled_from([("customerid",), ("customerid", "email"), ("email",)]),
    unique=st.sampled_from([("customerid",), ("customerid", "email"), ()]),
    immutable=st.sampled_from([(), (), ("customerid",)]),
    sticky_known=st.booleans(),
    login_conflict=st.sampled_from(["new_record", "return_match"]),
)


@given(CONFIGS, KEYS, RECORDS, st.sampled_from(["identify", "login"]), st.sampled_from([None, 1]))
@example(
    ScopeConfig(strategy="profile_link", login=("email",), unique=()),
    {"email": "a", "ios_idfv": "a"},
    [({"email": {"a"}, "ios_idfv": {"a"}}, 0, 1), ({"ios_idfv": {"a"}}, 0, 3)],
    "login",
    None,
)
def test_a_glance_says_what_the_rules_say(
    config: ScopeConfig,
    known: dict[str, str],
    made: list[tuple[dict[str, set[str]], int, int]],
    op: str,
    previous: int | None,
) -> None:
    plan = compile_plan(config)
    keys = dict(sorted((CODES[name], key) for name, key in known.items()))
    records = [
        Record(n, 0, 0, seen, flags, None, [
            Value(CODES[name], key, None, 0, 0, 0, 0)
            for name, some in values.items()
            for key in sorted(some)
        ])
        for n, (values, flags, seen) in enumerate(made, 1)
    ]  # fmt: skip
    probe = Probe(0, lookup_keys(keys, plan), previous)
    label = first_label(op, plan, 0, keys)
    if label is None:
        return
    holders = [r for r in records if r.holds(label[1], label[2])]
    if len(holders) != 1:
        return
    only = holders[0]
    if not (has := obvious(only, keys, sum(1 << code for code in keys), plan)):
        return
    looked_up = [r for r in records if any(r.holds(c, k) for c, k in probe.keys.items())]
    ask = Ask(op=op, pool=0, keys=keys, previous=previous)
    decision = decide(ask, plan, looked_up)
    assert decision.record is only
    assert has == mask_of(only)
    assert decision.matched == sum(1 << code for code in keys)
    assert not (decision.changes or decision.skipped or decision.refusal or decision.conflict)


@given(st.sampled_from(sorted(STRATEGIES)), st.sets(st.sampled_from(NAMES), min_size=1))
def test_a_person_known_by_all_that_is_given_is_seen_at_a_glance(
    strategy: str, given_names: set[str]
) -> None:
    plan = compile_plan(ScopeConfig(strategy=strategy, login=("email",), unique=("email",)))
    values = [Value(CODES[n], "a", None, 0, 0, 0, 0) for n in NAMES]
    keys = {CODES[n]: "a" for n in given_names}
    seen = obvious(Record(1, 0, 0, 0, KNOWN, None, values), keys, sum(1 << c for c in keys), plan)
    assert bool(seen) == (strategy == "best_match" or any(plan.login >> c & 1 for c in keys))
