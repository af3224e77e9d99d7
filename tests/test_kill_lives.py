"""Rules and scopes change beside callers; commands and servers are killed, a backup is restored."""

from __future__ import annotations

import asyncio
import pathlib
import random
from typing import Any

import pytest
from tests.test_kill_history import always, ground

from onymous.app import running
from onymous.flows.loading import all_records
from onymous.lab import lives as rooms
from onymous.lab.audit import Violation
from onymous.lab.lives import Life, lives
from onymous.store import history_sql


async def test_rules_change_and_people_stay_who_they_are(
    place: Any, tmp_path: pathlib.Path
) -> None:
    turns: list[int] = []
    told = await lives(ground(place, tmp_path), 3, 4, turns.append, always)
    assert told.done == len(turns) == 3 and told.checked > 3 * rooms.ANSWERS


async def test_what_is_lost_or_mixed_is_seen(place: Any, tmp_path: pathlib.Path) -> None:
    """The checks see a person that is gone, and one that answers for two customers."""
    async with ground(place, tmp_path).fresh() as settings:
        keys = await rooms._tenants(settings)
        life = Life(settings, keys, random.Random(1))
        server = rooms.Process(settings)
        await server.start()
        caller = asyncio.create_task(life._call(server.port))
        while len(life.told.customers) < 5:
            await asyncio.sleep(0.01)
        await server.kill()
        await caller
        await life.check()
        life.told.mpids.add("12345")
        with pytest.raises(Violation, match="names nobody"):
            await life.check()
        life.told.mpids.discard("12345")
        life.told.customers.add(("shop", "nobody"))
        with pytest.raises(Violation, match="is lost"):
            await life.check()
        life.told.customers.discard(("shop", "nobody"))
        async with running(settings) as core:
            async with core.store.read() as session:
                known = [r for r in await all_records(session) if r.keys_of(rooms.CUSTOMER)]
            one, other = [r.pid for r in known if r.pool == known[0].pool][:2]
            async with core.store.write("spoil") as tx:
                row = (known[0].pool, one, other, 5, "ann", "a mistake")
                await tx.run(history_sql.MERGE_ADD, *row)
        with pytest.raises(Violation, match=r" is \{'c\d+', 'c\d+'\}"):
            await life.check()
