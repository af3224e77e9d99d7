"""Many callers at once on one scope, and whether the store is whole afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

from onymous.app import Core
from onymous.lab.audit import Audited, Violation
from onymous.lab.audit_trace import contradictions
from onymous.lab.histories import configuration, operation
from onymous.lab.verify import problems as problems_of
from onymous.rules.errors import Internal


async def concurrent(
    cores: list[Core], seed: int, steps: int, scope: int, callers: int = 16
) -> int:
    """Let callers make random requests at the same time, on one or two processes' cores.

    Raises `Violation` where the store contradicts itself afterwards, or an answer names an MPID
    that is not there or fails inside.
    """
    rng = random.Random(seed)
    config = configuration(rng)
    worlds = [Audited(core, config, scope) for core in cores]
    mpids: list[str] = []
    answered: set[str] = set()

    async def caller(number: int) -> None:
        own = random.Random(seed * 1000 + number)
        world = worlds[number % len(worlds)]
        for _ in range(steps // callers):
            op = operation(own, mpids[-12:])
            answer = await world.ask(op)
            if isinstance(answer.refusal, Internal):
                raise Violation(f"{op} failed inside")
            wrong = contradictions(op, answer, config)
            if wrong:
                raise Violation(f"{op}: {wrong}")
            if answer.mpid is not None and op["op"] != "search":
                answered.add(answer.mpid)
                if answer.created:
                    mpids.append(answer.mpid)

    await asyncio.gather(*map(caller, range(callers)))
    found = await problems_of(cores[0], {scope: worlds[0].caller.plan})
    if len(set(mpids)) != len(mpids):
        found.append("an MPID was given twice to new profiles")
    found += await _missing(cores[0], answered)
    if found:
        raise Violation("\n".join([f"seed {seed}", str(config), *found]))
    return steps


async def _missing(core: Core, answered: set[str]) -> list[str]:
    async with core.store.read() as session:
        rows = await session.rows("SELECT pid FROM profile")
    there = {core.mpids.text(row[0]) for row in rows}
    return [f"{mpid} was answered and is not there" for mpid in answered - there]


async def race(cores: list[Core], scope: int, turn: int, kind: str, callers: int = 64) -> None:
    """Let many callers see the same person for the first time; raises unless one MPID comes out."""
    strategy = "best_match" if kind == "email" else "profile_conversion"
    login = [] if kind == "email" else ["customerid"]
    config: dict[str, Any] = {
        "strategy": strategy,
        "priority": ["customerid", "email", "ios_idfv", "device_application_stamp"],
        "login": login,
        "unique": login,
    }
    known = {
        "login": {"customerid": f"c{turn}", "ios_idfv": f"i{turn}"},
        "device": {"ios_idfv": f"i{turn}", "device_application_stamp": f"s{turn}"},
        "email": {"email": f"e{turn}@x.io"},
    }[kind]
    worlds = [Audited(core, config, scope) for core in cores]
    op = {"op": "identify", "known_identities": known}
    answers = await asyncio.gather(*(worlds[n % len(worlds)].ask(op) for n in range(callers)))
    by: dict[str | None, int] = defaultdict(int)
    for answer in answers:
        by[answer.mpid] += 1
    if len(by) != 1 or None in by:
        raise Violation(f"{kind}, turn {turn}: {dict(by)}")
