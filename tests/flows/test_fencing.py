"""Rules change while others write: nobody writes by rules that are not in force any more."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.flows.test_importing import load, person
from tests.web.serving import TENANTS, running

from onymous.commands.reresolving import carry_over
from onymous.flows import importing
from onymous.flows.aliases import AliasRequest, request_alias
from onymous.flows.answers import Question
from onymous.flows.fencing import FENCE, Fence, RulesChanged, announced
from onymous.flows.files import Ready
from onymous.flows.merging import Actor
from onymous.rules.errors import Busy
from onymous.store import sql

OLD, NEW = object(), object()


class Known:
    """What a process knows, read again while it waits for the change."""

    fenced_until, read_version, plan = 1 << 60, 1, OLD

    def plan_of(self, scope: int) -> object:
        return self.plan

    async def refresh_if_changed(self) -> bool:
        return False


class Waiting:
    """A transaction whose first statement waits until the change of rules is committed."""

    def __init__(self, known: Known) -> None:
        self._known = known

    async def rows(self, statement: str, *args: object) -> list[tuple[bytes]]:
        self._known.read_version, self._known.plan = 2, NEW
        return [(b"2",)]


async def test_what_was_decided_by_old_rules_is_seen_after_waiting_for_new_ones() -> None:
    known = Known()
    work = SimpleNamespace(plan=OLD, probe=SimpleNamespace(pool=2))
    tx: Any = Waiting(known)
    with pytest.raises(RulesChanged):
        await Fence(known)(tx, [work])
    work.plan = NEW
    await Fence(known)(tx, [work])


async def test_an_import_stops_where_its_rules_change(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    """What came before stays, nothing is written by old rules; asked again, the rest follows."""
    monkeypatch.setattr(importing, "TOGETHER", 20)
    actor = Actor(name="Helen", reason="others are unique", now_ms=5)
    text = TENANTS.replace("unique: [customerid, email]", "unique: [customerid, email, other]")
    async with running(place, tmp_path) as it:
        core = it.server.core
        rows = [person(n, customerid=str(n), other=f"o{n}") for n in range(1, 201)]
        told = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slowly() -> Iterator[Ready]:
            for n, row in enumerate(rows):
                if n == 100:
                    told.set()
                yield row

        async def change() -> None:
            await told.wait()
            await carry_over(core, text, actor, 0.0, quiet=True)
            await core.directory.load()

        async def read() -> Any:
            # every piece gives the change its turn
            piece = importing.Importer._piece

            async def turn(self: Any, some: Any) -> int:
                done = await piece(self, some)
                if told.is_set():
                    await changing
                return done

            monkeypatch.setattr(importing.Importer, "_piece", turn)
            return await load(it, slowly())

        changing = loop.create_task(change())
        with pytest.raises(RulesChanged):
            await read()
        report, _ = await load(it, rows)
        assert report.before > 0 and report.applied + report.before == 200
        async with core.store.read() as session:
            found = await session.rows("SELECT holder, pid FROM identity WHERE value LIKE 'o%'")
        assert len(found) == 200 and {holder for holder, _ in found} == {0}


async def test_an_announcement_ends_with_its_change(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core, seen = it.server.core, []

        async def look() -> None:
            await core.directory.refresh_if_changed()
            seen.append(core.directory.fenced_until)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await announced(core.store, look, 0.0)
        await core.directory.refresh_if_changed()
        assert seen[0] > 0 and core.directory.fenced_until == 0
        async with core.store.read() as session:
            assert await session.rows(sql.META_GET, FENCE) == []


async def test_one_announcement_does_not_end_another(place: Any, tmp_path: pathlib.Path) -> None:
    async with running(place, tmp_path) as it:
        core, seen = it.server.core, []

        async def until() -> int:
            await core.directory.refresh_if_changed()
            return int(core.directory.fenced_until)

        async def inner() -> None:
            assert await until()

        async def outer() -> None:
            await announced(core.store, inner, 0.0)
            seen.append(await until())

        await announced(core.store, outer, 0.0)
        assert seen[0] > 0 and await until() == 0
        async with core.store.read() as session:
            assert not await session.rows("SELECT name FROM meta WHERE name LIKE 'rules_fence%'")


async def test_merges_and_aliases_ask_whether_their_rules_are_in_force(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """A scope that keeps profiles apart by now gets no merge by the rules it had."""
    text = TENANTS.replace(
        "others: {strategy: profile_conversion, login: [customerid], unique: [customerid]}",
        "others: {strategy: profile_isolation, login: [customerid], unique: [customerid]}",
    )
    async with running(place, tmp_path) as it:
        core = it.server.core
        mpids = []
        for n in (1, 2):
            reply = await it.ask("identify", {"customerid": str(n)}, who="stranger")
            mpids.append(reply.json()["mpid"])
        caller = core.directory.find("stranger-api-key")
        assert caller is not None
        actor = Actor(name="Helen", reason="one", now_ms=5)
        await carry_over(core, text, actor, 0.0, quiet=True)
        await core.directory.refresh_if_changed()
        pool = caller.pool("production")
        with pytest.raises(Busy):
            await core.merging.merge(caller.plan, pool, *mpids, actor)
        question = Question(op="alias", caller=caller, environment="production", known={}, now_ms=9)
        wanted = AliasRequest(
            source_mpid=mpids[0],
            destination_mpid=mpids[1],
            start_unixtime_ms=1,
            end_unixtime_ms=8,
            scope="mpid",
        )
        with pytest.raises(Busy):
            await request_alias(core.resolver, core.store, question, wanted)
        async with core.store.read() as session:
            assert not await session.rows("SELECT id FROM merge")
            assert not await session.rows("SELECT id FROM alias")
