"""Changes of rules applied to history, beside joins and splits of scopes.

Each is taken back exactly as long as it stands alone, and refused with the reason where the other
stands on it.
"""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from tests.flows.going import CONVERSION, TWO, Going, going

from onymous.commands.reresolving import carry_over, undo_rules
from onymous.flows.carrying import preview_back, take_back
from onymous.flows.merging import Actor
from onymous.rules.errors import CannotUndo, ConfigChanged, ScopeChangeRefused
from onymous.rules.records import KNOWN, MERGED
from onymous.store.packing import unpack_record
from onymous.store.sql import PROFILES_AFTER

NARROW = ", login: [customerid], unique: [customerid]"


def rules(red: str, blue: str) -> str:
    """The document with rules of their own for each scope."""
    text = TWO.format(strategy="profile_conversion", sets="SETS")
    head, one, two = text.split("SETS")
    return head + red + one + blue + two


async def change(it: Going, document: str) -> int:
    """Apply rules to history; return the number of the change."""
    actor = Actor(name="ann", reason="try", now_ms=5)
    _, carried = await carry_over(it.core, document, actor, 0.0, quiet=True)
    await it.core.directory.load()
    return max(c.change for c in carried)


async def back(it: Going, number: int) -> None:
    actor = Actor(name="ann", reason="back", now_ms=6)
    await undo_rules(it.core, number, actor, 0.0, keep_later=False)
    await it.core.directory.load()


async def whole(it: Going) -> Any:
    """Everything that says who is who: records with flags, lookups."""
    async with it.core.store.read() as session:
        records = [unpack_record(r) for r in await session.rows(PROFILES_AFTER, 0, 10_000)]
    told = {
        r.pid: (r.pool, r.flags & (KNOWN | MERGED), sorted((v.code, v.key) for v in r.values))
        for r in records
        if r.values or r.flags & MERGED
    }
    return told, await it.lookups()


async def people(it: Going) -> None:
    for input_ in ("shop", "club"):
        for n in range(4):
            await it.who(input_, customerid=f"{input_}{n}", email=f"{input_}{n}@x.io")
            await it.who(input_, email=f"{input_}{n}@x.io", ios_idfv=f"{input_}-phone-{n}")


async def refused(it: Going, number: int, why: str) -> None:
    """Undoing is refused with the reason, seen before or done, and nothing changes."""
    before = await whole(it)
    actor = Actor(name="ann", reason="back", now_ms=6)
    with pytest.raises(CannotUndo, match=why):
        await preview_back(it.core.store, number)
    with pytest.raises(CannotUndo, match=why):
        await take_back(it.core.store, it.core.key, number, actor)
    assert await whole(it) == before


async def test_rules_are_not_taken_back_under_people_who_went_along(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path, sets=NARROW) as it:
        await people(it)
        before = await whole(it)
        await change(it, rules(NARROW, CONVERSION))
        number = await change(it, rules(CONVERSION, CONVERSION))
        wide = await whole(it)
        assert wide != before
        types = {"customerid": "drop", "email": "drop"}
        join = await it.change(types=types)
        await refused(it, number, f"scope change {join} took people along")
        await refused(it, number - 1, f"scope change {join} took people along")
        await it.undo(join)
        assert await whole(it) == wide
        await back(it, number)
        await back(it, number - 1)
        assert await whole(it) == before


async def test_a_split_too(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path, sets=NARROW) as it:
        await people(it)
        await it.change(types={"customerid": "drop", "email": "drop"})
        before = await whole(it)
        number = await change(it, rules(NARROW, CONVERSION).replace("scope: red", "scope: blue"))
        split = await it.change("split", source="blue", target="own", workspaces=["club"])
        await refused(it, number, f"scope change {split} took people along")
        await it.undo(split)
        await it.sound()
        await back(it, number)
        after = await whole(it)
        assert after[1] == before[1]
        assert {p: v for p, v in after[0].items() if p in before[0]} == before[0]


async def test_what_came_before_stays_in_the_way(place: Any, tmp_path: pathlib.Path) -> None:
    """A join under other rules is taken back after the rules are."""
    async with going(place, tmp_path, sets=NARROW) as it:
        await people(it)
        first = await whole(it)
        join = await it.change(types={"customerid": "drop", "email": "drop"})
        joined = await whole(it)
        number = await change(it, rules(NARROW, CONVERSION).replace("scope: red", "scope: blue"))
        with pytest.raises(ScopeChangeRefused, match="differ"):
            await it.undo(join)
        await back(it, number)
        assert await whole(it) == joined
        await it.undo(join)
        assert await whole(it) == first


async def test_one_at_a_time(place: Any, tmp_path: pathlib.Path) -> None:
    """While a join goes on rules do not change, and are not taken back."""
    async with going(place, tmp_path, sets=NARROW) as it:
        await people(it)
        number = await change(it, rules(CONVERSION, CONVERSION))
        wide = await whole(it)
        join = await it.begin(types={"customerid": "drop", "email": "drop"})
        with pytest.raises(ScopeChangeRefused, match="goes on"):
            await change(it, rules(NARROW, CONVERSION))
        with pytest.raises(CannotUndo):
            await back(it, number)
        assert (await whole(it))[0] == wide[0]
        await it.finish(join)
        await it.sound()


async def test_two_operators_take_back_once(place: Any, tmp_path: pathlib.Path) -> None:
    """Who was slower is told, and what others changed meanwhile is not overwritten."""
    async with going(place, tmp_path, sets=NARROW) as it:
        await people(it)
        before = await whole(it)
        number = await change(it, rules(NARROW, CONVERSION))
        actor = Actor(name="ann", reason="back", now_ms=6)
        tries = [take_back(it.core.store, it.core.key, number, actor) for _ in range(4)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        fine = [d for d in done if not isinstance(d, BaseException)]
        assert len(fine) == 1 and fine[0].records
        assert all(isinstance(d, CannotUndo | ConfigChanged) for d in done if d not in fine)
        assert await whole(it) == before
