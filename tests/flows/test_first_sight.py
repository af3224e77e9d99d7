"""Many callers, the same person, at the same instant: one MPID, on both engines, in two cores."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.test_cases import settings_of

from onymous.app import Core
from onymous.flows.answers import Answer, Question
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.tenants import Caller
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.store.packing import unpack_record

CONVERSION = ScopeConfig(
    strategy="profile_conversion",
    login=("customerid", "email"),
    unique=("customerid", "email"),
    priority=("customerid", "email", "ios_idfv", "device_application_stamp"),
)
BEST_MATCH = ScopeConfig(strategy="best_match", priority=("email", "ios_idfv"))


def caller(config: ScopeConfig, scope: int = 1) -> Caller:
    return Caller(
        input=0,
        name="test",
        kind="server",
        workspace=0,
        workspace_name="test",
        scope=scope,
        scope_name="test",
        plan=compile_plan(config),
        api_key="",
        secrets=(),
        server_side=True,
    )


@asynccontextmanager
async def two_cores(place: Any, folder: pathlib.Path) -> AsyncIterator[list[Core]]:
    """Two processes, so to speak, on one store."""
    cores = [Core(settings_of(place, folder)) for _ in range(2)]
    for core in cores:
        await core.start()
    try:
        yield cores
    finally:
        for core in cores:
            await core.close()


async def ask(core: Core, who: Caller, op: str, known: dict[str, str], now: int = 1000) -> Answer:
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    question = Question(op=op, caller=who, environment="production", known=known, now_ms=now)
    core.resolver.ask(question, future.set_result)
    return await future


async def profiles(core: Core) -> list[Any]:
    async with core.store.read() as session:
        rows = await session.rows(
            "SELECT pid, pool, created, seen, flags, source, body FROM profile"
        )
    return [unpack_record(row) for row in rows]


async def consistent(core: Core, config: ScopeConfig) -> None:
    """Every value of a profile has its lookup row, and every lookup row its value."""
    plan = compile_plan(config)
    async with core.store.read() as session:
        rows = await session.rows("SELECT slot, value, holder, pid FROM identity WHERE holder >= 0")
        assert await session.rows("SELECT count(*) FROM claim") == [(0,)]
    wanted = set()
    for record in await profiles(core):
        for value in record.values:
            holder = 0 if plan.unique >> value.code & 1 else record.pid
            row = (record.pool * 64 + value.code, value.key, holder, record.pid)
            assert row not in wanted
            wanted.add(row)
    assert {tuple(row) for row in rows} == wanted


@pytest.mark.parametrize(
    ("config", "known"),
    [
        (CONVERSION, {"customerid": "1", "email": "a@x.io"}),
        (CONVERSION, {"ios_idfv": "D", "device_application_stamp": "S"}),
        (BEST_MATCH, {"email": "a@x.io"}),
        (BEST_MATCH, {"email": "a@x.io", "ios_idfv": "D"}),
    ],
    ids=["login ids", "device ids", "best match", "best match mixed"],
)
async def test_one_person(
    place: Any, tmp_path: pathlib.Path, config: ScopeConfig, known: dict[str, str]
) -> None:
    who = caller(config)
    async with two_cores(place, tmp_path) as cores:
        for turn in range(5):
            mine = {name: f"{value}{turn}" for name, value in known.items()}
            asks = [ask(cores[n % 2], who, "identify", mine, 1000 + n) for n in range(64)]
            answers = await asyncio.gather(*asks)
            assert all(a.refusal is None for a in answers)
            assert len({a.mpid for a in answers}) == 1
        assert len(await profiles(cores[0])) == 5
        await consistent(cores[0], config)


async def test_parts_of_one_person_at_once(place: Any, tmp_path: pathlib.Path) -> None:
    who = caller(CONVERSION)
    whole = {"customerid": "1", "email": "a@x.io", "ios_idfv": "D"}
    async with two_cores(place, tmp_path) as cores:
        first = await ask(cores[0], who, "login", whole)
        parts = [{"customerid": "1"}, {"email": "a@x.io", "ios_idfv": "E"}, whole]
        asks = [ask(cores[n % 2], who, "login", parts[n % 3], 2000 + n) for n in range(60)]
        assert {a.mpid for a in await asyncio.gather(*asks)} == {first.mpid}
        await consistent(cores[0], CONVERSION)


async def test_a_unique_value_has_one_owner_whoever_takes_it(
    place: Any, tmp_path: pathlib.Path
) -> None:
    who = caller(CONVERSION)
    async with two_cores(place, tmp_path) as cores:
        people = [
            (await ask(cores[0], who, "login", {"customerid": str(n)})).mpid for n in range(8)
        ]

        async def take(n: int) -> Answer:
            core = cores[n % 2]
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            question = Question(
                op="modify", caller=who, environment="production", known={}, now_ms=3000 + n
            )
            wanted = [Wanted("email", None, "wanted@x.io")]
            mpid = people[n % 8]
            change_identities(core.resolver, question, mpid, wanted, future.set_result)
            return await future

        answers = await asyncio.gather(*(take(n) for n in range(40)))
        assert all(a.refusal is None for a in answers)
        owners = [r for r in await profiles(cores[1]) if r.keys_of(2)]
        assert len(owners) == 1
        await consistent(cores[0], CONVERSION)


async def test_each_logout_makes_its_own_visitor(place: Any, tmp_path: pathlib.Path) -> None:
    who = caller(CONVERSION)
    async with two_cores(place, tmp_path) as cores:
        asks = [ask(cores[n % 2], who, "logout", {"ios_idfv": "D"}, 1000 + n) for n in range(50)]
        answers = await asyncio.gather(*asks)
        assert len({a.mpid for a in answers}) == 50
        latest = await ask(cores[0], who, "identify", {"ios_idfv": "D"}, 5000)
        seen = {r.seen_ms: r.pid for r in await profiles(cores[0])}
        assert latest.mpid is not None
        assert cores[0].mpids.parse(latest.mpid) == seen[max(seen)]
        await consistent(cores[0], CONVERSION)
