"""A change of rules is planned group by group, and says what a plan of everybody at once says."""

from __future__ import annotations

import contextlib
import pathlib
import random
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

import pytest
from tests.lab.test_reresolve import actor, agrees, document, live, people, start
from tests.web.serving import Running, running

from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows.configure import parse
from onymous.lab.reresolve import Past, folded, planned
from onymous.lab.throwaway import throwaway
from onymous.lab.verify import problems
from onymous.rules.grouping import Groups, Numbers
from onymous.rules.reresolving import Move, Part, plan_moves
from onymous.rules.strategies import Plan, compile_plan
from onymous.store import scratch_sql
from onymous.store.scratch import Scratch

TABLET = {"roku_publisher_id": "tablet"}


def test_numbers_keep_what_was_put_under_them() -> None:
    rng, numbers, told = random.Random(1), Numbers(), dict[int, int]()
    for _ in range(500):
        number = rng.choice([rng.randrange(50), rng.randrange(1 << 40)])
        told[number] = rng.choice([0, rng.randrange(1 << 40)])
        numbers.put(number, told[number])
    assert {number: numbers.get(number) for number in told} == told
    assert numbers.get(1 << 41) is None and numbers.get(60) is None


def test_groups_are_what_is_connected() -> None:
    rng = random.Random(2)
    for _ in range(50):
        groups, sets = Groups(), {n: {n} for n in range(20)}
        for _ in range(rng.randrange(25)):
            one, other = rng.randrange(20), rng.randrange(20)
            groups.join(one, other)
            both = sets[one] | sets[other]
            for n in both:
                sets[n] = both
        assert [groups.root(n) for n in range(20)] == [min(sets[n]) for n in range(20)]


async def tablet(it: Running, count: int) -> None:
    """One tablet in a shop: everybody who uses it, known and not, leaves a record behind."""
    for n in range(count):
        known = {"customerid": f"shop{n}", "email": f"shop{n}@x.io"}
        await it.ask("login", {**known, **TABLET}, who="stranger")
        await it.ask("identify", {"email": f"shop{n}@x.io", **TABLET}, who="stranger")
        await it.ask("logout", {**TABLET, "other2": f"visit{n}"}, who="stranger")


def plain(parts: list[Part]) -> Counter[Any]:
    """What parts say, however records to be made are numbered."""

    def told(move: Move) -> Any:
        add = sorted((v.code, v.key, v.shown, v.first_ms, v.workspace, v.input) for v in move.add)
        pid, into = max(move.pid, 0), max(move.into or 0, 0)
        return pid, tuple(move.remove), tuple(map(str, add)), into, move.had

    return Counter(frozenset(map(told, part.moves)) for part in parts)


async def whole(it: Running, pool: int, plan: Plan) -> list[Part]:
    """Plan everybody at once."""
    with contextlib.closing(Scratch()) as scratch:
        past = Past(it.server.core, pool, plan, scratch)
        await past.replay(lambda n: None)
        await past.take_records()
        past.plan_all()  # finds the values of many
        records, target = past.known_of(row[0] for row in scratch.rows(scratch_sql.NODES))
        assert target.crowds
        return plan_moves(records, target, plan, lambda value: folded(value, plan))


@pytest.mark.parametrize("new", ["wider", "folding", "best", "link"])
async def test_group_by_group_is_as_at_once(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any, new: str
) -> None:
    monkeypatch.setattr("onymous.lab.reresolve.TOGETHER", 3)
    async with running(place, tmp_path) as it:
        _, pool = await start(it, "bare")
        await live(it, 11, 120)
        await tablet(it, 12)
        plan = compile_plan(parse(document(new))[0].scopes["others"])
        async with planned(it.server.core, pool, plan, lambda n: None) as parts:
            apart = list(parts)
            assert plain(list(parts)) == plain(apart)  # as often as wanted
        assert plain(apart) == plain(await whole(it, pool, plan))
        assert plain(apart) or new == "link"


def rules(name: str) -> dict[int, Plan]:
    """The rules of each scope, by its number."""
    scopes = parse(document(name))[0].scopes
    return {1: compile_plan(scopes["people"]), 2: compile_plan(scopes["others"])}


async def test_who_shares_a_tablet_is_nobody_elses(place: Any, tmp_path: pathlib.Path) -> None:
    """Rules change over people who share one device with many: each stays apart, and comes back."""
    async with running(place, tmp_path) as it:
        core = it.server.core
        _, pool = await start(it, "bare")
        await tablet(it, 15)
        before = await people(it, pool)
        _, (carried,) = await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        assert not carried.left
        await agrees(it, pool, "wider")
        assert await problems(core, rules("wider")) == []
        for values, *_ in (await people(it, pool)).values():
            assert len({v[1] for v in values if str(v[1]).startswith("shop")}) <= 2
        await core.directory.load()
        await undo_rules(core, carried.change, actor(), 0.0, keep_later=False)
        assert await problems(core, rules("bare")) == []
        after = await people(it, pool)
        assert {p: v for p, v in after.items() if v[0] or p in before} == before


def test_what_a_killed_rehearsal_left_goes_with_the_next(
    tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import sys, os, signal\n"
        "from onymous.lab.throwaway import throwaway\n"
        "with throwaway() as folder:\n"
        "    open(folder + '/values', 'w').close()\n"
        "    print(folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [sys.executable, "-c", script]
    told = subprocess.run(words, env={"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, check=False)
    left = pathlib.Path(told.stdout.decode().strip())
    assert (left / "values").exists() and left.parent == tmp_path
    with throwaway() as mine:
        assert not left.exists()
        with throwaway():  # one that is in use stays
            assert pathlib.Path(mine).exists()
    assert not [*tmp_path.iterdir()]
