"""Explained at a glance or the ordinary way: the same bytes, and the same marks."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.rules.test_obvious import CODES, CONFIGS, KEYS, NAMES
from tests.web.serving import Running, running
from tests.web.test_hot import KNOWN, STAMP, identify, one_after_the_other, request

from onymous.crypto import MpidCipher
from onymous.flows.answers import Answer
from onymous.flows.desk import Desk
from onymous.flows.glance import first_label
from onymous.flows.identity import lookup_keys
from onymous.flows.told import Told
from onymous.rules.identity import Ask, answer_flags, decide
from onymous.rules.obvious import obvious
from onymous.rules.records import ERASED, MERGED, SHARED, Record, Value
from onymous.rules.records import KNOWN as PERSON
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.rules.trace import Trace, public
from onymous.web import alike
from onymous.web.glance import wire_of
from onymous.web.wire import identity_body

MPIDS = MpidCipher(bytes(32))
TIMES = st.integers(0, 1 << 53)


@given(
    CONFIGS,
    KEYS,
    st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from("abc"), min_size=1)),
    st.sets(st.sampled_from([PERSON, ERASED, SHARED, MERGED])),
    st.sampled_from(["identify", "login"]),
    st.sampled_from([None, 1, 7, 8]),
    st.tuples(st.integers(1, 1 << 60), TIMES, TIMES),
)
def test_of_all_who_are_alike_the_same_is_said(
    config: ScopeConfig,
    known: dict[str, str],
    held: dict[str, set[str]],
    flags: set[int],
    op: str,
    previous: int | None,
    about: tuple[int, int, int],
) -> None:
    plan, (pid, created, seen) = compile_plan(config), about
    held = {name: held.get(name, set()) | {known.get(name, "c")} for name in {*held, *known}}
    values = [Value(CODES[n], k, None, 0, 0, 0, 0) for n in held for k in sorted(held[n])]
    record = Record(pid, 5, created, seen, sum(flags), None, values)
    keys = dict(sorted((CODES[name], key) for name, key in known.items()))
    has = obvious(record, keys, sum(1 << code for code in keys), plan)
    label = first_label(op, plan, 5, keys)
    assume(has and label and lookup_keys(keys, plan))
    assert label is not None
    number = pid if previous == 1 else previous
    trace = Trace(op, plan.strategy.name)
    decide(Ask(op=op, pool=5, keys=keys, previous=number), plan, [record], 0, trace)
    mpid = MPIDS.text(pid)
    logged_in, ephemeral = answer_flags(record, plan)
    answer = Answer(mpid=mpid, logged_in=logged_in, ephemeral=ephemeral, matched=known)
    answer.trace = public(trace, MPIDS.text)
    row = (pid, 5, created, seen, sum(flags), None, msgspec.msgpack.encode(values))
    told = Told(
        op=op,
        pool=5,
        plan=plan,
        known=known,
        keys=keys,
        label=label,
        row=row,
        until_ms=0,
        mpid=mpid,
        logged_in=logged_in,
        ephemeral=ephemeral,
        has=has,
        matched=known,
    )
    text = None if number is None else MPIDS.text(number)
    said = wire_of(told)[:-1] + LIKE.end(told, mpid, text)
    assert said == identity_body(answer)


#: remembers what it explained from one example to the next
LIKE = alike.Alike()


def test_what_is_explained_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    explained = alike.explained
    monkeypatch.setattr(alike, "explained", lambda *a: made.append(a) or explained(*a))
    monkeypatch.setattr(alike, "MOST_ALIKE", 2)
    memory, code = alike.Alike(), CODES["customerid"]
    plans = [compile_plan(ScopeConfig(strategy="profile_conversion", login=("customerid",)))] * 2
    plans += [compile_plan(ScopeConfig(strategy="profile_link", login=("customerid",)))]
    for plan, previous, count in (
        (plans[0], None, 1),
        (plans[1], None, 1),
        (plans[0], "9", 2),
        (plans[2], None, 3),
        (plans[0], None, 4),
    ):
        told = Told(
            op="login", pool=1, plan=plan, known={}, keys={code: "a"}, label=(1, code, "a"),
            row=(1, 1, 2, 3, 0, None, b""), until_ms=0, mpid="m", logged_in=True, ephemeral=False,
            has=1 << code, matched={},
        )  # fmt: skip
        said = memory.end(told, "m", previous)
        assert (b'"previous":"9"' in said) == (previous is not None)
        assert plan.strategy.name.encode() in said
        assert len(made) == count


async def explained_both_ways(
    it: Running, op: str, known: Any, **more: Any
) -> tuple[list[bytes], bytes]:
    """The bodies of an explained answer: four times with a head that comes again, and past it."""
    auth = f"authorization: {it.basic()['Authorization']}"
    path = f"/v1/{op}?explain=true"
    hot = await one_after_the_other(it, *[request(identify(known, **more), auth, path=path)] * 4)
    override = "x-http-method-override: POST"
    (slow,) = await one_after_the_other(
        it, request(identify(known, **more), auth, override, path=path)
    )
    heads = [sorted(h.partition(b"\r\n\r\n")[0].split(b"\r\n")) for h in (*hot[1:], slow)]
    assert all(h == heads[0] for h in heads)
    bodies = [h.partition(b"\r\n\r\n")[2] for h in hot]
    return bodies, slow.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("op", ["identify", "login"])
async def test_both_ways_explain_the_same(
    place: Any, tmp_path: pathlib.Path, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    submit = Desk.submit_alone
    monkeypatch.setattr(Desk, "submit_alone", lambda *a: taken.append(a) or submit(*a))
    async with running(place, tmp_path) as it:
        first = {**KNOWN["all"], "device_application_stamp": STAMP}
        other = (await it.ask("login", first)).json()["mpid"]
        await it.ask("login", {"customerid": "customer-99", "ios_idfv": "a" * 36})
        # a device of two people: both are named
        shared = {"customerid": "customer-17", "device_application_stamp": STAMP}
        await it.ask("login", {**shared, "customerid": "customer-99"})
        cases = [*KNOWN.values(), first, shared, {"customerid": "customer-99"}]
        for known in cases:
            # what is not known yet is written: after the first answer all of it is
            for more in ({}, {"previous_mpid": "12345"}, {"previous_mpid": other}):
                await it.ask(op, known, **more)
                hot, slow = await explained_both_ways(it, op, known, **more)
                assert set(hot) == {slow}, known
                told = json.loads(slow)
                assert told["trace"]["mpid"] and told["trace_text"]
        instant = it.server.core.store.alone_now is not None
        assert len(taken) >= len(cases) * 3 * 2 if instant else not taken


async def test_who_holds_it_too_is_named_at_once(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        known = {"customerid": "customer-17", "ios_idfv": "a" * 36}
        me = (await it.ask("login", known)).json()["mpid"]

        async def candidates() -> list[str]:
            hot, slow = await explained_both_ways(it, "identify", known)
            assert set(hot) == {slow}
            return [c["mpid"] for c in json.loads(slow)["trace"]["candidates"]]

        assert await candidates() == [me]
        other = (await it.ask("login", {**known, "customerid": "customer-18"})).json()["mpid"]
        assert sorted(await candidates()) == sorted([me, other])
        change = {"identity_type": "ios_idfv", "old_value": "a" * 36, "new_value": None}
        assert (await it.modify(other, [change])).status_code == 200
        assert await candidates() == [me]
        await it.erase(me)
        hot, slow = await explained_both_ways(it, "login", known)
        assert me not in [c["mpid"] for c in json.loads(slow)["trace"]["candidates"]]
        assert set(hot[1:]) == {slow}


async def test_the_same_marks_are_left(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        mpid = (await it.ask("login", KNOWN["all"])).json()["mpid"]
        pid = core.mpids.parse(mpid)
        assert pid is not None
        await core.journal.flush(core.store)
        await core.seen.flush(core.store)
        auth = f"authorization: {it.basic()['Authorization']}"
        bodies = [identify(KNOWN["all"], request_id=f"mine-{n}") for n in range(4)]
        sent = [request(b, auth, path="/v1/identify?explain=true") for b in bodies]
        answers = await one_after_the_other(it, *sent)
        assert all(b'"trace":' in answer for answer in answers)
        assert core.seen.seen_ms(pid) > 0
        assert core.journal.held == 1, "the same request, four times"
        # a repeat is told the same, and not explained, as ever
        (again,) = await one_after_the_other(it, sent[3])
        assert b'"trace":' not in again and mpid.encode() in again
        await core.journal.flush(core.store)
        for n in range(4):
            params = {"request_id": f"mine-{n}", "environment": "production"}
            past = await it.client.get("/v1/explain", params=params, headers=it.basic())
            assert past.status_code == 200 and past.json()["mpid"] == mpid
        assert (
            'onymous_requests_total{operation="identify",status="200"} 5.0'
            in (await it.client.get("/metrics")).text
        )


async def test_only_who_may_is_explained_anything(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        await it.ask("login", KNOWN["all"])
        path = "/v1/identify?explain=true"
        for auth in (
            f"authorization: {it.basic('plain')['Authorization']}",
            "x-mp-key: web-api-key",
        ):
            sent = [request(identify(KNOWN["all"]), auth, path=path)] * 4
            for answer in await one_after_the_other(it, *sent):
                assert answer.startswith(b"HTTP/1.1 403") and b"trace" not in answer
