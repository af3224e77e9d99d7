"""Scopes split: each person is where they have data; taken back as one person; on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tests.flows.going import Going, going

from onymous.rules.errors import ScopeChangeRefused


async def one_scope(two: Going) -> None:
    """Let the club's people be the shop's too, as if it had always been one scope."""
    await two.change(source="blue", target="red")


SPLIT = {"source": "red", "target": "own", "workspaces": ["club"]}


async def test_each_is_where_they_have_data(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        await one_scope(two)
        ann = await two.who("shop", customerid="1")
        bob = await two.who("club", customerid="2")
        dev = await two.who("club", "development", customerid="2")
        number = await two.begin("split", **SPLIT)
        assert (await two.it.ask("identify", {"customerid": "2"}, who="club")).status_code == 503
        assert await two.who("shop", customerid="1") == ann, "those who stay are served"
        await two.finish(number)
        assert await two.who("shop", customerid="1") == ann
        assert await two.who("club", customerid="2") == bob
        assert await two.who("club", "development", customerid="2") == dev
        assert not await two.known("shop", bob) and not await two.known("club", ann)
        assert await two.search("shop", customerid="2") is None
        assert await two.search("club", customerid="1") is None
        await two.sound()


async def both(two: Going) -> str:
    """Somebody whom both workspaces know."""
    ann = await two.who("shop", customerid="1", email="ann@x.io")
    assert await two.who("club", customerid="1") == ann
    await two.buy("shop", ann, size="m")
    await two.buy("club", ann, team="a")
    return ann


async def test_who_is_known_on_both_sides_gets_a_second_profile(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path) as two:
        await one_scope(two)
        ann = await both(two)
        await two.change("split", **SPLIT)
        assert await two.who("shop", customerid="1") == ann
        second = await two.who("club", customerid="1")
        assert second != ann
        assert await two.attributes("shop", ann) == {"size": "m"}
        assert await two.attributes("club", second) == {"team": "a"}
        assert not await two.known("club", ann) and not await two.known("shop", second)
        assert await two.who("club", email="ann@x.io") == second
        await two.buy("club", ann, team="b")  # an MPID of before names nobody here now
        assert await two.attributes("shop", ann) == {"size": "m"}
        await two.sound()


async def test_taken_back_they_are_one_person_again(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        await one_scope(two)
        ann = await both(two)
        carl = await two.who("club", customerid="9")
        number = await two.change("split", **SPLIT)
        second = await two.who("club", customerid="1")
        await two.buy("club", second, team="b")
        await two.who("club", customerid="1", other="new")
        await two.undo(number)
        assert await two.who("club", customerid="1") == ann
        assert await two.who("shop", customerid="1") == ann
        assert await two.attributes("club", ann) == {"team": "b"}
        assert await two.attributes("shop", ann) == {"size": "m"}
        assert await two.attributes("club", second) == {"team": "b"}, "its MPID still resolves"
        assert await two.who("club", customerid="9") == carl
        await two.sound()


async def test_who_met_only_since_needs_a_choice_when_taken_back(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path) as two:
        await one_scope(two)
        number = await two.change("split", **SPLIT)
        shop = await two.who("shop", customerid="1")
        club = await two.who("club", customerid="1")
        with pytest.raises(ScopeChangeRefused, match="customerid"):
            await two.undo(number)
        await two.undo(number, customerid="drop")
        picture = await two.picture()
        assert not picture[shop][1] and not picture[club][1]
        assert await two.search("shop", customerid="1") is None
        await two.sound()


async def test_merged_people_go_together(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path) as two:
        one = await two.who("shop", email="ann@x.io")
        other = await two.who("club", email="ann@x.io", customerid="7")
        await two.buy("shop", one, size="m")
        await two.buy("club", other, team="a")
        await two.change(source="blue", target="red", types={"email": "target"})
        assert await two.who("club", customerid="7") == one
        await two.change("split", **SPLIT)
        assert await two.who("shop", email="ann@x.io") == one
        club = await two.who("club", customerid="7")
        assert await two.who("club", email="ann@x.io") == club
        assert await two.attributes("club", club) == {"team": "a"}
        assert await two.attributes("shop", one) == {"size": "m"}
        await two.sound()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "split", "source": "red", "target": "own"}, "name the workspaces"),
    ({"kind": "split", "source": "red", "target": "own", "workspaces": ["shop"]}, "nothing to"),
    ({"kind": "split", "source": "red", "target": "own", "workspaces": ["club"]}, "not in scope"),
    ({"kind": "split", "source": "red", "target": "blue", "workspaces": ["shop"]}, "not empty"),
    ({"kind": "join", "source": "red", "target": "red"}, "same scope"),
    ({"kind": "join", "source": "green", "target": "red"}, "no scope green"),
    ({"kind": "join", "source": "red", "target": "green"}, "no scope green"),
    ({"kind": "join", "types": {"email": "both"}}, "a choice is"),
    ({"kind": "join", "types": {"mail": "drop"}}, "not an identity type"),
]


@pytest.mark.parametrize(("wanted", "why"), REFUSED)
@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_what_cannot_be(
    place: Any, tmp_path: pathlib.Path, wanted: dict[str, Any], why: str
) -> None:
    async with going(place, tmp_path) as two:
        assert why in " ".join((await two.look(**wanted)).refused)
        with pytest.raises(ScopeChangeRefused):
            await two.begin(**wanted)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_isolation_makes_nobody_one(place: Any, tmp_path: pathlib.Path) -> None:
    async with going(place, tmp_path, "profile_isolation") as two:
        await two.who("shop", customerid="1")
        await two.who("club", customerid="1")
        assert "drop only" in (await two.look(types={"customerid": "target"})).refused[0]
        await two.change(types={"customerid": "drop"})
        assert await two.search("shop", customerid="1") is None
        await two.sound()


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_best_match_conflicts_by_what_names_people(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with going(place, tmp_path, "best_match", "") as two:
        ann = await two.who("shop", email="ann@x.io")
        other = await two.who("club", email="ann@x.io")
        assert (await two.look()).by_type == {"email": 1}
        number = await two.change(types={"email": "drop"})
        assert await two.search("shop", email="ann@x.io") is None
        await two.sound()
        await two.undo(number)
        assert await two.who("shop", email="ann@x.io") == ann
        assert await two.who("club", email="ann@x.io") == other
