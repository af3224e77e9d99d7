"""Versions of the configuration: written with every change, brought back with the same checks."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest
from applying import DOCUMENT, KEY, directory, everything, put_person, table
from hypothesis import given, settings
from hypothesis import strategies as st

from onymous.flows.configure import Applied, ChangeRefused, apply, export, rollback
from onymous.flows.versions import difference, newest, version, versions
from onymous.rules.errors import BadRequest, ConfigChanged, NoSuchVersion
from onymous.store import configuration_sql as versions_sql
from onymous.store.port import Store, StoreError
from onymous.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from conftest import Place

_times = itertools.count(1000)


async def put(
    store: Store, text: str, *, why: str = "", expected: int | None = None, by: str = "ann"
) -> Applied:
    now = next(_times)
    return await apply(store, KEY, text, actor=by, reason=why, now_ms=now, expected=expected)


async def back(store: Store, number: int, *, dry_run: bool = False) -> Applied:
    now = next(_times)
    return await rollback(
        store, KEY, number, dry_run=dry_run, actor="bob", reason="it was better", now_ms=now
    )


NEW = DOCUMENT.replace("max_age_s: 60", "max_age_s: 90")


async def test_every_change_is_a_version_with_author_and_reason(store: Store) -> None:
    first = await put(store, DOCUMENT, why="a start")
    second = await put(store, NEW, why="longer answers", by="carl")
    again = await put(store, NEW, why="nothing")
    assert (first.version, second.version, again.version) == (1, 2, 2)
    two, one = await versions(store)
    assert (one.version, one.author, one.reason) == (1, "ann", "a start")
    assert (two.version, two.author, two.reason) == (2, "carl", "longer answers")
    assert two.steps == ["~ input Web/back: max_age_s: 60 -> 90"] and two.rolled_back_to is None
    assert [v.version for v in await versions(store, before=2)] == [1]
    assert [v.version for v in await versions(store, limit=1)] == [2]


async def test_a_version_holds_the_whole_configuration_and_no_secret(store: Store) -> None:
    made = await put(store, DOCUMENT)
    kept = (await version(store, 1)).document
    assert kept == await export(store)
    assert all(c.secret not in str(kept) and c.api_key in str(kept) for c in made.credentials)
    await put(store, NEW)
    assert (await version(store, 1)).document == kept
    changed = difference(str(kept), await export(store))
    assert [line for line in changed if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-        max_age_s: 60",
        "+        max_age_s: 90",
    ]


async def test_a_rollback_is_a_new_version_that_applies_the_old_one(store: Store) -> None:
    await put(store, DOCUMENT)
    old = await export(store)
    await put(store, NEW)
    seen = await back(store, 1, dry_run=True)
    assert seen.lines() == ["~ input Web/back: max_age_s: 90 -> 60"] and seen.version == 2
    done = await back(store, 1)
    assert done.version == 3 and done.steps == seen.steps
    assert await export(store) == old
    newest_one = (await versions(store))[0]
    assert (newest_one.rolled_back_to, newest_one.author) == (1, "bob")
    assert (await back(store, 2)).version == 4
    assert (await directory(store)).callers()[1].max_age_s == 90
    assert (await back(store, 2)).changed is False


async def test_what_was_made_since_is_left_alone(store: Store) -> None:
    await put(store, DOCUMENT)
    more = DOCUMENT + "  Vans:\n    account: Fleet\n    inputs: {x: {kind: web}}\n"
    await put(store, more)
    done = await back(store, 1)
    assert not done.changed and {s.name for s in done.steps} == {"Vans"}
    assert len(await directory(store)) == 5


@pytest.mark.parametrize("environment", ["production", "development"])
async def test_a_rollback_that_would_mix_people_is_refused(store: Store, environment: str) -> None:
    await put(store, DOCUMENT)
    await put(store, DOCUMENT.replace("unique: [customerid]", "unique: [customerid, email]"))
    await put_person(store, (await directory(store)).callers()[0].scope, environment)
    before = await everything(store)
    with pytest.raises(ChangeRefused, match="1 not safe to change"):
        await back(store, 1)
    assert await everything(store) == before and len(await versions(store)) == 2
    assert [s.action for s in (await back(store, 1, dry_run=True)).steps] == ["refuse"]


async def test_a_version_there_is_not(store: Store) -> None:
    await put(store, DOCUMENT)
    for number in (0, -1, 2, 1 << 70):
        with pytest.raises(NoSuchVersion):
            await back(store, number)


async def test_two_operators_do_not_overwrite_each_other(store: Store) -> None:
    await put(store, DOCUMENT, expected=0)
    texts = [DOCUMENT.replace("max_age_s: 60", f"max_age_s: {n}") for n in (61, 62, 63)]
    tries = [put(store, text, expected=1) for text in texts]
    out = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(o).__name__ for o in out) == ["Applied", "ConfigChanged", "ConfigChanged"]
    won = next(i for i, o in enumerate(out) if isinstance(o, Applied))
    assert f"max_age_s: {61 + won}" in await export(store)
    assert len(await versions(store)) == 2
    with pytest.raises(ConfigChanged) as caught:
        await put(store, DOCUMENT, expected=1)
    assert caught.value.status == 412 and "version 2" in str(caught.value)


async def test_what_was_there_before_versions_is_the_first_one(store: Store) -> None:
    await put(store, DOCUMENT)
    old = await export(store)
    async with store.write("older database") as tx:
        await tx.run("DELETE FROM configuration")
    assert (await put(store, DOCUMENT)).version == 0
    assert (await put(store, NEW)).version == 2
    assert [v.author for v in await versions(store)] == ["ann", "onymous"]
    await back(store, 1)
    assert await export(store) == old


@pytest.mark.parametrize(
    ("by", "why"), [("", ""), ("a\nb", ""), ("x" * 101, ""), ("x", "y" * 501), ("x", "\x1b[2J")]
)
async def test_who_and_why_are_short_plain_text(store: Store, by: str, why: str) -> None:
    with pytest.raises(BadRequest):
        await put(store, DOCUMENT, by=by, why=why)
    assert await table(store, "configuration") == []


async def test_no_change_without_its_version(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the version cannot be written, the change is not made either."""
    await put(store, DOCUMENT)
    before = await everything(store)
    monkeypatch.setattr(
        versions_sql, "VERSION_ADD", versions_sql.VERSION_ADD.replace("reason", "x")
    )
    with pytest.raises(StoreError, match="the database"):
        await put(store, NEW)
    assert await everything(store) == before and len(await versions(store)) == 1


CHOICES = st.lists(
    st.tuples(st.integers(1, 5), st.booleans(), st.sampled_from(["true", "false"])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25)
@given(changes=CHOICES, target=st.integers(0, 100))
def test_any_version_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, bool, str]],
    target: int,
) -> None:
    """Whatever was changed in between: after a rollback, export is what it was."""

    async def work() -> None:
        store = SqliteStore(tmp_path_factory.mktemp("versions"))
        await store.start()
        kept = {}
        for age, link, active in changes:
            text = DOCUMENT.replace("max_age_s: 60", f"max_age_s: {age}, active: {active}")
            text = text if link else text.replace("profile_link", "profile_conversion")
            done = await put(store, text)
            kept[done.version] = await export(store)
        number = 1 + target % len(kept)
        await back(store, number)
        assert await export(store) == kept[number] == (await version(store, number)).document
        async with store.read() as session:
            assert await newest(session) in (len(kept), len(kept) + 1)
        await store.close()

    asyncio.run(work())


async def test_another_process_sees_versions(place: Place) -> None:
    one, two = place.store(), place.store()
    await one.start()
    await two.start()
    try:
        await put(one, DOCUMENT)
        assert (await put(two, NEW, expected=1)).version == 2
        assert [v.version for v in await versions(one)] == [2, 1]
    except StoreError as error:  # a clear failure, not a hang
        pytest.fail(str(error))
    finally:
        await one.close()
        await two.close()
