"""A change of rules is undone whole: however large a part, and whichever round made it."""

from __future__ import annotations

import pathlib
from typing import Any

from tests.lab.test_reresolve import actor, agrees, document, lookups, people, start
from tests.web.serving import Running, running

from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows import unresolve
from onymous.flows.carrying import preview_back
from onymous.flows.configure import parse
from onymous.flows.credentials import transact
from onymous.flows.loading import Given, load, read_record
from onymous.flows.reresolve import Reresolve
from onymous.rules.reresolving import Move, Part
from onymous.store.port import Transaction


async def test_a_part_larger_than_a_page_goes_back_whole(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    """One address on many records, and it is one person's now: all the others get it back."""
    monkeypatch.setattr(unresolve, "PAGE", 10)
    async with running(place, tmp_path) as it:
        core = it.server.core
        caller, pool = await start(it, "bare")
        given = [Given(ids={"customerid": [str(n)], "email": ["shop@x.io"]}) for n in range(35)]
        given += [Given(ids={"customerid": [f"pair{n}"]}) for n in range(3)]
        await load(core.store, pool, caller.plan, given)
        before, rows = await people(it, pool), await lookups(it)
        _, (carried,) = await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        assert carried.records == 34
        await agrees(it, pool, "wider")
        await core.directory.load()
        seen = await preview_back(core.store, carried.change)
        done = await undo_rules(core, carried.change, actor(), 0.0, keep_later=False)
        assert (seen.records, seen.merged) == (done.records, done.merged)
        assert await people(it, pool) == before
        assert await lookups(it) == rows


async def later_round(it: Running, change: int, parts: dict[int, list[Part]]) -> None:
    """Carry out what a later round of a change planned."""
    config = parse(document("wider"))[0].scopes["others"]
    carrier = Reresolve(parts, actor(), change)

    async def work(tx: Transaction) -> None:
        await carrier(tx, next(iter(parts)) // 2, config, config)

    await transact(it.server.core.store, "rules.again", work)
    assert carrier.done.records == 2 and not carrier.done.left


async def test_what_a_later_round_went_on_with_goes_back_first(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with running(place, tmp_path) as it:
        core = it.server.core
        _, pool = await start(it, "bare")
        for known in (
            {"customerid": "1", "email": "a@x.io"},
            {"email": "a@x.io", "ios_idfv": "phone"},
            {"customerid": "2"},
        ):
            await it.ask("identify", known, who="stranger")
        before = await people(it, pool)
        _, (carried,) = await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        assert carried.merged == 1
        now = await people(it, pool)
        anna, ben = sorted(p for p, (values, *_) in now.items() if values)
        async with core.store.read() as session:
            rows = await session.rows(
                "SELECT pid FROM rule_step WHERE change = ? AND part > 0", carried.change
            )
        assert (anna,) in rows, "the first round moved values to her"
        record = await read_record(core.store, anna)
        assert record is not None
        shared = next(v for v in record.values if v.key == "phone")
        moves = [
            Move(anna, [(shared.code, shared.key)], had=None),
            Move(ben, add=[shared], had=None),
        ]
        await later_round(it, carried.change, {pool: [Part(moves)]})
        await core.directory.load()
        seen = await preview_back(core.store, carried.change)
        done = await undo_rules(core, carried.change, actor(), 0.0, keep_later=False)
        assert (seen.records, seen.merged) == (done.records, done.merged)
        assert await people(it, pool) == before
