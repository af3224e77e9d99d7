"""Random lives of two scopes, joined, lived on, taken back, split: audited after every step.

The audit reads the tables and knows nothing of how profiles go over: lookups say what records
say, a unique value is on one record, nobody acknowledged is lost, and nobody becomes one with
somebody else but by an operator's choice.
"""

from __future__ import annotations

import asyncio
import pathlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.flows.going import CONVERSION, TWO, Going

from onymous.app import Core, running
from onymous.flows.answers import Question
from onymous.flows.loading import all_records
from onymous.flows.scope_planning import wanted_undo
from onymous.flows.tenants import apply
from onymous.rules.errors import Refusal
from onymous.rules.records import ERASED
from onymous.settings import load

LINK = CONVERSION.replace("unique: [customerid, email]", "unique: [customerid]")


class Life(Going):
    """People of shop and club, and who was told which MPID."""

    def __init__(self, core: Core, chance: random.Random) -> None:
        self.core, self._chance, self._now = core, chance, 1_000
        #: (input, environment) -> MPIDs told
        self.told: dict[tuple[str, str], set[str]] = {}

    async def ask(
        self, input_: str, environment: str, op: str, known: dict[str, str]
    ) -> str | None:
        caller = self.core.directory.find(f"{input_}-api-key")
        assert caller is not None
        self._now += 1_000
        question = Question(
            op=op, caller=caller, environment=environment, known=known, now_ms=self._now
        )
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self.core.resolver.ask(question, future.set_result)
        except Refusal:
            return None
        mpid = (await future).mpid
        if mpid is not None:
            self.told.setdefault((input_, environment), set()).add(mpid)
        return str(mpid) if mpid is not None else None

    async def live(self, steps: int, inputs: tuple[str, ...] = ("shop", "club")) -> None:
        """Let people come, of these workspaces and both environments."""
        chance = self._chance
        for _ in range(steps):
            known = {}
            if chance.random() < 0.6:
                known["customerid"] = f"c{chance.randrange(8)}"
            if chance.random() < 0.5:
                known["email"] = f"e{chance.randrange(8)}@x.io"
            if chance.random() < 0.6 or not known:
                known["ios_idfv"] = f"device-{chance.randrange(6)}-abcdef"
            environment = "development" if chance.random() < 0.2 else "production"
            op = chance.choice(["identify", "login", "identify", "logout"])
            await self.ask(chance.choice(inputs), environment, op, known)

    async def one(self, mpid: str) -> int:
        """Return the profile that stands for an MPID."""
        await self.core.merging.refresh()
        pid = self.core.mpids.parse(mpid)
        assert pid is not None
        while pid in self.core.resolver.merged:
            pid = self.core.resolver.merged[pid]
        return pid

    async def people(self) -> dict[str, int]:
        """Return who each MPID ever told is."""
        every = set().union(*self.told.values()) if self.told else set()
        return {mpid: await self.one(mpid) for mpid in every}

    async def audit(self, unique: tuple[int, ...]) -> None:
        """Check what must always hold."""
        await self.sound()
        async with self.core.store.read() as session:
            records = [r for r in await all_records(session) if not r.flags & ERASED]
        owners: dict[tuple[int, int, str], int] = {}
        for r in records:
            for v in r.values:
                if v.code in unique:
                    assert owners.setdefault((r.pool, v.code, v.key), r.pid) == r.pid
        pools = {r.pid: r.pool for r in records}
        for source, destination in self.core.resolver.merged.items():
            assert pools[source] == pools[destination], "nobody is one across scopes"
        for (input_, environment), mpids in self.told.items():
            caller = self.core.directory.find(f"{input_}-api-key")
            assert caller is not None
            for mpid in mpids:
                pid = await self.one(mpid)
                assert pools.get(pid) is not None, "an MPID that was told names nobody"
                assert pools[pid] % 2 == (environment == "development"), "environments stay apart"


@asynccontextmanager
async def life(
    place: Any, folder: pathlib.Path, seed: int, strategy: str, sets: str
) -> AsyncIterator[Life]:
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    given = {"store": url, "master_key_file": str(folder / "master.key")}
    async with running(load(given, environ={})) as core:
        text = TWO.format(strategy=strategy, sets=sets)
        await apply(core.store, core.key, text, actor="test", now_ms=2)
        await core.directory.load()
        yield Life(core, random.Random(seed))


CONFIGS = [
    ("profile_conversion", CONVERSION, (1, 2)),
    ("profile_link", LINK, (1,)),
    ("default", "", (1,)),
    ("best_match", "", ()),
]


async def joined(it: Life, types: dict[str, str]) -> int:
    """Join as chosen; check that only who shares a value of a chosen type became one."""
    before = await it.people()
    report = await it.look(types=types)
    assert not report.refused
    number = await it.change(types=types)
    after = await it.people()
    met: dict[int, set[int]] = {}
    for mpid, one in after.items():
        met.setdefault(one, set()).add(before[mpid])
    for people in met.values():
        assert len(people) <= 2, "more than two became one"
    merged = sum(len(people) == 2 for people in met.values())
    if "target" not in types.values() and "source" not in types.values():
        assert merged == 0
    done = report.by_outcome.get("merge", 0)
    assert merged <= done, "the report said who becomes one"
    return number


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("strategy", "sets", "unique"), CONFIGS)
async def test_random_lives(
    place: Any,
    tmp_path: pathlib.Path,
    seed: int,
    strategy: str,
    sets: str,
    unique: tuple[int, ...],
) -> None:
    async with life(place, tmp_path, seed, strategy, sets) as it:
        chance = random.Random(seed + 100)
        await it.live(60)
        await it.audit(unique)
        names = ("customerid", "email", "ios_idfv", "mobile_number")
        choices = ["drop"] if seed % 3 == 0 else ["target", "source", "drop"]
        types = {name: chance.choice(choices) for name in names[:2]}
        picture, rows, people = await it.picture(), await it.lookups(), await it.people()
        number = await joined(it, types)
        await it.audit(unique)
        assert set(await it.picture()) == set(picture), "everybody is there, nobody is new"
        if seed % 2:  # lived on: who came since is somewhere, and nobody is lost
            await it.live(40)
            await it.audit(unique)
        back = await it.undo(number)
        await it.audit(unique)
        assert back > number
        if not seed % 2:
            assert await it.picture() == picture and await it.lookups() == rows
            assert await it.people() == people
        number = await it.change(source="blue", target="red", types=types)
        await it.live(30)
        await it.change("split", source="red", target="own", workspaces=["club"])
        await it.audit(unique)
        await it.live(20)
        await it.audit(unique)
        assert number


@pytest.mark.parametrize("seed", range(4))
async def test_others_are_served_meanwhile(place: Any, tmp_path: pathlib.Path, seed: int) -> None:
    """The target's people come and go while others join them, and while that is taken back."""
    async with life(place, tmp_path, seed, "profile_conversion", CONVERSION) as it:
        await it.live(80)
        types = {"customerid": "target", "email": "drop"}
        number = await it.begin(types=types)
        await asyncio.gather(it.finish(number), it.live(60, ("club",)), it.live(60, ("club",)))
        await it.audit((1, 2))
        assert not {pool for pool, _, _ in (await it.picture()).values() if pool // 2 == 1}
        back = await it.begin_wanted(await wanted_undo(it.core.store, number, {}))
        await asyncio.gather(it.finish(back), asyncio.sleep(0))
        await it.audit((1, 2))
        await it.live(30)
        await it.audit((1, 2))
