"""Scopes joined: nobody lost, nobody mixed silently, taken back exactly; on both engines."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from tests.flows.going import Going, going

from onymous.flows import scope_changes, scope_planning
from onymous.flows.answers import Question
from onymous.flows.scope_log import changes
from onymous.flows.tenants import apply, export
from onymous.flows.versions import versions
from onymous.rules.errors import ScopeChangeRefused

STAMP = "4b8d2d52-6e1c-4c42-9d33-a5a1d2c3e4f5"


async def test_people_go_over_with_their_mpids(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1", device_application_stamp=STAMP)
        bob = await two.who("club", customerid="2")
        dev = await two.who("shop", "development", customerid="1")
        visitor = await two.who("shop", other="x")
        await two.buy("shop", ann, colour="red")
        before = await two.picture()
        report = await two.look()
        assert report.refused == [] and report.conflicts == []
        assert report.profiles == {"production": 2, "development": 1}
        assert await two.picture() == before, "looking changes nothing"
        await two.change()
        assert await two.who("shop", customerid="1") == ann
        assert await two.who("club", customerid="1") == ann, "they share their people now"
        assert await two.who("shop", customerid="2") == bob
        assert await two.who("shop", "development", customerid="1") == dev
        assert await two.who("shop", other="x") == visitor
        assert await two.attributes("shop", ann) == {"colour": "red"}
        assert await two.attributes("club", ann) == {}
        await two.sound()
        newest = (await versions(two.core.store))[0]
        assert newest.steps == ["~ workspace shop: scope: red -> blue (join)"]
        assert (newest.author, newest.reason) == ("ann", "one company")
        text = await export(two.core.store)
        again = await apply(two.core.store, two.core.key, text, actor="x", now_ms=3)
        assert not again.changed


async def shared(two: Going) -> tuple[str, str]:
    """The same e-mail on two people."""
    return await two.who("shop", email="ann@x.io"), await two.who("club", email="ann@x.io")


async def test_a_conflict_without_a_choice_is_refused(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        ann, anna = await shared(two)
        report = await two.look()
        assert report.by_type == {"email": 1} and report.by_outcome == {"undecided": 1}
        assert (report.conflicts[0].mpid, report.conflicts[0].others) == (ann, [anna])
        assert "email" in report.refused[0]
        assert "ann@x.io" not in str(report)
        before = await two.picture()
        with pytest.raises(ScopeChangeRefused):
            await two.begin()
        assert await two.picture() == before
        assert await two.who("shop", email="ann@x.io") == ann, "nobody is held"


@pytest.mark.parametrize("survivor", ["target", "source"])
async def test_one_person_by_choice_and_taken_back(
    place: Any, tmp_path: pathlib.Path, survivor: str
) -> None:
    async with going(place, tmp_path) as two:
        ann, anna = await shared(two)
        await two.who("shop", email="ann@x.io", other2="only shop")
        await two.buy("shop", ann, size="m")
        await two.buy("club", anna, team="a")
        before, rows = await two.picture(), await two.lookups()
        number = await two.change(types={"email": survivor})
        one = anna if survivor == "target" else ann
        assert await two.who("shop", email="ann@x.io") == one
        assert await two.who("club", email="ann@x.io") == one
        assert await two.attributes("shop", one) == {"size": "m"}
        assert await two.attributes("club", one) == {"team": "a"}
        assert await two.known("shop", ann) and await two.known("club", anna), "old MPIDs resolve"
        await two.sound()
        await two.undo(number)
        assert await two.picture() == before and await two.lookups() == rows
        assert await two.who("shop", email="ann@x.io") == ann
        assert await two.who("club", email="ann@x.io") == anna
        assert await two.attributes("shop", ann) == {"size": "m"}
        assert not await two.known("club", ann)


async def test_what_came_since_a_join_stays_where_it_belongs(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """Taken back, both sides keep what they know; no value is on two people of one pool."""
    async with going(place, tmp_path) as two:
        ann, anna = await shared(two)
        await two.buy("shop", ann, size="m")
        number = await two.change(types={"email": "target"})
        assert await two.who("shop", email="ann@x.io", customerid="1") == anna
        await two.buy("shop", anna, size="xl", colour="red")
        await two.buy("club", anna, team="a")
        fresh = await two.who("shop", customerid="5")
        await two.buy("shop", fresh, new="yes")
        await two.undo(number)
        assert await two.who("shop", email="ann@x.io") == ann
        assert await two.who("shop", customerid="1") == ann
        assert await two.attributes("shop", ann) == {"size": "xl", "colour": "red"}
        assert await two.who("club", email="ann@x.io") == anna
        assert await two.attributes("club", anna) == {"team": "a"}
        assert not await two.known("shop", anna) and not await two.known("club", ann)
        assert await two.who("shop", customerid="5") == fresh
        assert await two.search("club", customerid="5") is None
        assert await two.attributes("shop", fresh) == {"new": "yes"}
        await two.sound()


async def test_two_people_by_choice_and_taken_back(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1", email="ann@x.io")
        anna = await two.who("club", customerid="2", email="ann@x.io")
        before, rows = await two.picture(), await two.lookups()
        report = await two.look(types={"email": "drop"})
        assert report.refused == [] and report.by_outcome == {"drop": 1}
        number = await two.change(types={"email": "drop"})
        assert await two.who("shop", customerid="1") == ann
        assert await two.who("shop", customerid="2") == anna
        assert await two.search("club", email="ann@x.io") is None, "it finds neither"
        await two.sound()
        await two.undo(number)
        assert await two.picture() == before and await two.lookups() == rows


async def test_who_differs_by_a_login_is_never_made_one_by_a_rule(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1", email="family@x.io")
        bob = await two.who("club", customerid="2", email="family@x.io")
        report = await two.look(types={"email": "target"})
        assert report.conflicts[0].outcome == "drop"
        assert report.conflicts[0].differ == ["customerid"]
        await two.change(types={"email": "target"})
        assert await two.who("shop", customerid="1") == ann
        assert await two.who("club", customerid="2") == bob
        assert await two.search("club", email="family@x.io") is None
        await two.sound()


async def test_an_operator_may_say_it_of_one_person(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1", email="family@x.io")
        bob = await two.who("club", customerid="2", email="family@x.io")
        choice = {"types": {"email": "drop"}, "people": {ann: "target"}}
        assert (await two.look(**choice)).conflicts[0].survivor == bob
        await two.change(**choice)
        assert await two.who("shop", customerid="1") == bob
        await two.sound()


async def test_one_profile_joins_at_most_one_person(place: Any, tmp_path: pathlib.Path) -> None:
    """Ann of the shop shares her number with one, her address with another one of the club."""
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1", email="ann@x.io")
        one = await two.who("club", customerid="1")
        other = await two.who("club", email="ann@x.io")
        number = await two.change(types={"customerid": "target", "email": "target"})
        assert await two.who("shop", customerid="1") == one
        assert await two.search("shop", email="ann@x.io") is None
        view = await two.picture()
        assert view[ann][1] and not view[other][1], "the second is nobody's part"
        await two.sound()
        await two.undo(number)
        assert await two.who("shop", email="ann@x.io") == ann
        assert await two.who("club", email="ann@x.io") == other


async def test_two_of_one_scope_are_not_made_one_through_a_third(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1")
        bob = await two.who("shop", email="bob@x.io")
        third = await two.who("club", customerid="1", email="bob@x.io")
        await two.change(types={"customerid": "target", "email": "target"})
        assert await two.who("shop", customerid="1") == third
        assert await two.search("shop", email="bob@x.io") is None
        picture = await two.picture()
        assert picture[ann][1] and not picture[bob][1]
        await two.sound()


async def test_what_was_declared_two_people_stays_so(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1", email="ann@x.io")
        other = await two.who("club", customerid="1", email="ann@x.io")
        await two.change(types={"customerid": "drop", "email": "target"})
        picture = await two.picture()
        assert not picture[ann][1] and not picture[other][1]
        await two.sound()


async def test_who_was_told_apart_by_a_dropped_value_stays_another(
    place: Any, tmp_path: pathlib.Path
) -> None:
    """Number 1 is dropped first; the one who had it is still not number 5 of the same address."""
    async with going(place, tmp_path) as two:
        await two.who("shop", customerid="1")
        five = await two.who("shop", customerid="5", email="x@x.io")
        other = await two.who("club", customerid="1", email="x@x.io")
        await two.change(types={"customerid": "drop", "email": "target"})
        picture = await two.picture()
        assert not picture[five][1] and not picture[other][1]
        assert await two.search("shop", email="x@x.io") is None
        await two.sound()


async def test_held_while_they_go_over(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1")
        number = await two.begin()
        reply = await two.it.ask("identify", {"customerid": "1"}, who="shop")
        assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
        batch = {"environment": "production", "mpid": ann, "events": []}
        headers = two.it.basic("shop")
        sent = await two.it.client.post("/v2/events", json=batch, headers=headers)
        assert sent.status_code == 503, "not acknowledged, so the client keeps it"
        assert (await two.it.ask("identify", {"customerid": "1"}, who="club")).status_code == 200
        with pytest.raises(ScopeChangeRefused, match="under way"):
            await two.begin("join", source="blue", target="red")
        text = (await export(two.core.store)).replace("strategy:", "hot_after: 50\n    strategy:")
        with pytest.raises(ScopeChangeRefused, match="apply again"):
            await apply(two.core.store, two.core.key, text, actor="x", now_ms=3)
        await two.finish(number)
        assert (await two.it.ask("identify", {"customerid": "1"}, who="shop")).status_code == 200


async def test_the_server_does_it_by_itself(
    place: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope_planning, "SETTLE_MS", 0)
    monkeypatch.setattr(scope_changes, "SWEEPS_MS", (0, 0))
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1")
        await two.begin()
        while (await changes(two.core.store))[0].state != "done":
            await asyncio.sleep(0.05)
        await two.core.directory.load()
        assert await two.who("club", customerid="1") == ann == await two.who("shop", customerid="1")
        assert (await changes(two.core.store))[0].profiles == {"moved": 1, "merged": 0}
        await two.sound()


async def test_what_a_slow_process_wrote_behind_comes_after(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path) as two:
        ann = await two.who("shop", customerid="1")
        number = await two.begin()
        stale = two.core.directory
        while True:  # until the workspaces went over
            await two.core.scopes.step(number, 9, hurry=True)
            async with two.core.store.read() as session:
                rows = await session.rows("SELECT state FROM scope_change WHERE id = ?", number)
            if rows[0][0] == "sweeping":
                break
        caller = stale.find("shop-api-key")
        assert caller is not None and caller.scope_name == "red"
        await _behind(two, caller, customerid="77")
        await _behind(two, caller, customerid="1")
        await two.finish(number)
        assert await two.search("club", customerid="77") is not None
        assert await two.who("shop", customerid="1") == ann
        await two.sound()


async def _behind(two: Going, caller: Any, **known: str) -> None:
    """Identify as a process would that has not heard of the join."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    question = Question(
        op="identify", caller=caller, environment="production", known=known, now_ms=5
    )
    two.core.resolver.ask(question, future.set_result)
    assert (await future).mpid
