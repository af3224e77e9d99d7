"""Works that are handed in together are all written, or none of them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.store.making import opened

from onymous.flows.desk import Desk
from onymous.flows.seen import SeenBuffer
from onymous.store import sql
from onymous.store.port import Kept, Probe


class Puts:
    """A work that notes its name, or cannot be decided."""

    name = "test"
    replay = None
    more: tuple[Probe, ...] = ()

    def __init__(self, name: str, bad: bool = False) -> None:
        self.probe, self.bad = Probe(2, {}), bad
        self.key = f"test {name}"
        self.out: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def look(self, found: Any, desk: Desk) -> bool:
        return False

    def act(self, working: Any, again: Kept | None) -> bytes | None:
        if self.bad:
            raise ValueError("on purpose")
        working.extra.append((sql.META_PUT, (self.key, b"1")))
        return None

    def finish(self) -> None:
        self.out.set_result("written")

    def fail(self, error: Exception) -> None:
        self.out.set_result("failed")


async def test_who_is_tied_to_one_that_cannot_be_decided_falls_with_it(place: Any) -> None:
    async with opened(place.store()) as store:
        desk = Desk(store, SeenBuffer())
        desk.start()
        alone, other = Puts("alone"), Puts("other")
        whole = [Puts("w1"), Puts("w2")]
        broken = [Puts("b1"), Puts("b2", bad=True), Puts("b3")]
        desk.submit_write(alone)
        desk.submit_together(broken)
        desk.submit_together(whole)
        desk.submit_write(other)
        works = [alone, *broken, *whole, other]
        out = await asyncio.wait_for(asyncio.gather(*(w.out for w in works)), 30)
        assert out == ["written", *["failed"] * 3, *["written"] * 3]
        async with store.read() as session:
            rows = await session.rows("SELECT name FROM meta WHERE name LIKE 'test %'")
        assert {row[0] for row in rows} == {w.key for w in (alone, *whole, other)}
        await desk.close()


async def test_who_is_tied_to_nobody_falls_alone(place: Any) -> None:
    async with opened(place.store()) as store:
        desk = Desk(store, SeenBuffer())
        desk.start()
        works = [Puts("a"), Puts("b", bad=True), Puts("c")]
        for work in works:
            desk.submit_write(work)
        out = await asyncio.wait_for(asyncio.gather(*(w.out for w in works)), 30)
        assert out == ["written", "failed", "written"]
        await desk.close()
