"""Batches, aliases, merges and undoings at the same moment, from two processes' worth of cores.

In which order they took effect is the product's to say; what stands must be possible, and
every profile must show exactly what a naive model makes of it.
"""

from __future__ import annotations

import asyncio
import pathlib
import random
from typing import Any

import pytest
from tests.flows.test_merging import with_more
from tests.lab.test_history_audit import PEOPLE, START, VISITORS, World
from tests.web.serving import running

from onymous.flows.aliases import AliasRequest, request_alias
from onymous.lab.history_auditor import Pointer
from onymous.rules.errors import Refusal

ALIASES = (
    "SELECT id, source, destination, start_ms, end_ms FROM alias WHERE outcome = 'applied'"
    " ORDER BY id"
)
MERGES = "SELECT id, source, destination FROM merge WHERE undone IS NULL ORDER BY id"


async def alias(world: World) -> None:
    rng = world.rng
    one, two = rng.choice(VISITORS), rng.choice(PEOPLE)
    start = START + rng.randrange(10_000) * 1000
    wanted = AliasRequest(
        source_mpid=world.mpids[one],
        destination_mpid=world.mpids[two],
        start_unixtime_ms=start,
        end_unixtime_ms=start + rng.randrange(5_000) * 1000,
        scope="mpid",
    )
    question = world.question("alias")
    await request_alias(world.core.resolver, world.core.store, question, wanted)


async def merge(world: World) -> None:
    one, two = world.rng.choice(PEOPLE + VISITORS[:2]), world.rng.choice(PEOPLE)
    args = (world.mpids[one], world.mpids[two], world.actor())
    await world.core.merging.merge(world.caller.plan, world.pool, *args)


async def undo(world: World) -> None:
    number = world.rng.randrange(1, 30)
    if world.rng.random() < 0.5:
        await world.core.merging.undo_merge(world.pool, number, world.actor())
    else:
        await world.core.merging.undo_alias(world.pool, number, world.actor())


async def tried(work: Any) -> None:
    try:
        await work
    except Refusal:
        return


async def standing(world: World) -> None:
    """Take over into the model what stands, and see that each of it may stand beside the others."""
    names = {world.core.mpids.parse(mpid): who for who, mpid in world.mpids.items()}
    async with world.core.store.read() as session:
        aliases = await session.rows(ALIASES)
        merges = await session.rows(MERGES)
    model = world.model
    model.aliases, model.merges = [], []
    for number, source, destination, start, end in aliases:
        new = Pointer(number, names[source], names[destination], start, end)
        assert model.may_alias(new), (new, model.aliases)
        model.aliases.append(new)
    for number, source, destination in merges:
        made = Pointer(number, names[source], names[destination])
        assert model.may_merge(made), (made, model.merges)
        model.merges.append(made)


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_stands_after_a_crowd_is_possible_and_exact(
    place: Any, tmp_path: pathlib.Path, seed: int
) -> None:
    async with running(place, tmp_path) as it:
        await with_more(it)
        world = World(it, random.Random(seed))
        await world.meet()
        for _ in range(15):
            # one for each person, or which of two began a session would be open
            batches = {b.who: b for b in (world.batch() for _ in range(6))}
            fresh = [b for b in batches.values() if b.name not in world.model.names]
            some = [alias, alias, merge, merge, merge, undo, undo]
            works = [tried(world.rng.choice(some)(world)) for _ in range(8)]
            await asyncio.gather(*works, *map(world.send, [*fresh, *fresh]))
            for batch in fresh:
                world.model.send(batch)
            await standing(world)
            for who in (*PEOPLE, *VISITORS):
                await world.check(who)
