"""The product and the auditor agree over random histories, and a broken product is caught."""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.test_cases import settings_of

from onymous.app import running
from onymous.flows import identity as identity_flow
from onymous.flows.working import Working
from onymous.lab.audit import Audited, Violation, history, shrunk
from onymous.lab.concurrent import concurrent, race
from onymous.lab.histories import configuration, operation
from onymous.lab.verify import problems
from onymous.rules import identity as identity_rules
from onymous.rules.trace import Trace, public


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories_agree(place: Any, tmp_path: pathlib.Path, seed: int) -> None:
    async with running(settings_of(place, tmp_path)) as core:
        try:
            await history(core, 7_000 + seed, 120, 100 + seed)
        except Violation:
            pytest.fail(await shrunk(core, 7_000 + seed, 120, 1_000))


@pytest.mark.parametrize("seed", range(3))
async def test_many_callers_leave_a_whole_store(
    place: Any, tmp_path: pathlib.Path, seed: int
) -> None:
    chosen = settings_of(place, tmp_path)
    async with running(chosen) as one, running(chosen) as two:
        await concurrent([one, two], seed, 320, 100 + seed)


@pytest.mark.parametrize("kind", ["login", "device", "email"])
async def test_races_make_one_person(place: Any, tmp_path: pathlib.Path, kind: str) -> None:
    chosen = settings_of(place, tmp_path)
    async with running(chosen) as one, running(chosen) as two:
        for turn in range(10):
            await race([one, two], 7, turn, kind)


def no_protection(patch: Any) -> None:
    patch.setattr(identity_rules, "protects", lambda record, has, plan: False)


def forgets_to_attach(patch: Any) -> None:
    old: Callable[..., None] = identity_rules._attach

    def attach(ask: Any, keys: dict[int, str], *rest: Any) -> None:
        old(ask, dict(list(keys.items())[:1]), *rest)

    patch.setattr(identity_rules, "_attach", attach)


def stale_ties(patch: Any) -> None:
    patch.setattr(Working, "touch", lambda self, record, plan, now_ms: None)


def says_nobody_is_known(patch: Any) -> None:
    patch.setattr(identity_flow, "answer_flags", lambda record, plan: (False, True))


@pytest.mark.parametrize(
    "broken", [no_protection, forgets_to_attach, stale_ties, says_nobody_is_known]
)
async def test_a_broken_product_is_caught(
    tmp_path: pathlib.Path, monkeypatch: Any, broken: Callable[[Any], None]
) -> None:
    class Place:
        engine, url = "sqlite", str(tmp_path / "store")

    broken(monkeypatch)
    async with running(settings_of(Place, tmp_path)) as core:
        caught = None
        for seed in range(40):
            try:
                await history(core, seed, 120, 100 + seed)
            except Violation as violation:
                caught = str(violation)
                break
        assert caught is not None


def drops_what_was_attached(trace: Trace) -> None:
    trace.attached = trace.attached[:-1]


def forgets_a_candidate(trace: Trace) -> None:
    trace.candidates = trace.candidates[1:]


def tells_another_tie(trace: Trace) -> None:
    if trace.tie is not None:
        trace.tie.by = "created" if trace.tie.by != "created" else "last_seen"


def calls_nobody_known(trace: Trace) -> None:
    for candidate in trace.candidates:
        candidate.known = False


def tells_another_time(trace: Trace) -> None:
    for candidate in trace.candidates:
        candidate.last_seen_ms = -candidate.last_seen_ms


@pytest.mark.parametrize(
    "lie",
    [
        drops_what_was_attached,
        forgets_a_candidate,
        tells_another_tie,
        calls_nobody_known,
        tells_another_time,
    ],
)
async def test_a_lying_trace_is_caught(
    tmp_path: pathlib.Path, monkeypatch: Any, lie: Callable[[Trace], None]
) -> None:
    """The answer is right, but its trace alone would lead elsewhere."""

    class Place:
        engine, url = "sqlite", str(tmp_path / "store")

    def lying(trace: Trace, text: Callable[[int], str]) -> Trace:
        out = public(trace, text)
        lie(out)
        return out

    monkeypatch.setattr(identity_flow, "public", lying)
    async with running(settings_of(Place, tmp_path)) as core:
        for seed in range(40):
            try:
                await history(core, seed, 120, 100 + seed)
            except Violation as violation:
                assert "told" in str(violation) or "follows" in str(violation)
                return
    pytest.fail("nobody noticed")


class Shrinking(RuleBasedStateMachine):
    """Hypothesis chooses the seeds: it looks for the history that breaks, and shrinks it."""

    run: Callable[[int, int], None]

    @initialize()
    def start(self) -> None:
        self.scope = 0

    @rule(seed=st.integers(0, 1 << 30), steps=st.integers(1, 40))
    def live(self, seed: int, steps: int) -> None:
        type(self).scope = type(self).scope + 1
        self.run(seed, steps)

    scope = 10_000


def test_hypothesis_finds_no_history(tmp_path: pathlib.Path) -> None:
    class Place:
        engine, url = "sqlite", str(tmp_path / "store")

    loop = asyncio.new_event_loop()
    manager = running(settings_of(Place, tmp_path))
    core = loop.run_until_complete(manager.__aenter__())
    scopes = iter(range(20_000, 1 << 30))

    class Machine(Shrinking):
        def run(self, seed: int, steps: int) -> None:
            loop.run_until_complete(history(core, seed, steps, next(scopes)))

    chosen = settings(
        max_examples=15,
        stateful_step_count=10,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    try:
        case = Machine.TestCase
        case.settings = chosen
        case().runTest()
    finally:
        loop.run_until_complete(manager.__aexit__(None, None, None))
        loop.close()


@pytest.mark.parametrize("seed", [0, 4])
async def test_groups_in_one_transaction_count_people_once(
    place: Any, tmp_path: pathlib.Path, seed: int
) -> None:
    """Someone made and changed in the same commit was once counted twice on a crowded value."""
    rng = random.Random(seed)
    config = configuration(rng) | {"sticky_known": False}
    async with running(settings_of(place, tmp_path)) as core:
        audited = Audited(core, config, 500)
        mpids: list[str] = []
        for _ in range(180):
            ops = [operation(rng, mpids[-12:]) for _ in range(rng.choice([1, 1, 4, 12]))]
            answers = await asyncio.gather(*map(audited.ask, ops))
            mpids += [a.mpid for a in answers if a.created and a.mpid]
        assert await problems(core, {500: audited.caller.plan}) == []


async def test_a_modify_makes_nobody_the_last_seen(place: Any, tmp_path: pathlib.Path) -> None:
    """Who was seen last, by a time written behind, is found, not whom a backend renamed since."""
    stamp = "device_application_stamp"
    config = configuration(random.Random(1)) | {
        "strategy": "profile_link",
        "priority": ["customerid", stamp],
        "login": ["customerid"],
        "unique": ["customerid"],
        "immutable": [],
        "hot_after": 100,
    }
    device = {stamp: "stamp-number-1"}
    async with running(settings_of(place, tmp_path)) as core:
        audited = Audited(core, config, 501)
        await audited.step({"op": "identify", "known_identities": {**device, "other": "o0"}})
        await audited.step({"op": "identify", "known_identities": {stamp: "stamp-number-2"}})
        first, second = audited.mpids
        await audited.step({"op": "identify", "known_identities": device})
        # somebody known on the device: from now on the first record competes, by a stale time
        known = {**device, "customerid": "customer-1"}
        await audited.step({"op": "identify", "known_identities": known})
        change = {"identity_type": stamp, "old_value": None, "new_value": "stamp-number-1"}
        await audited.step({"op": "modify", "mpid": second, "identity_changes": [change]})
        await audited.step({"op": "identify", "known_identities": device})
        pid = core.mpids.parse(first)
        assert pid is not None and core.seen.seen_ms(pid) > 0
