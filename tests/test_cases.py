"""Every worked example, through the real flows, on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from onymous.app import Core
from onymous.lab.check import read, run
from onymous.lab.check_fields import BadScenario
from onymous.settings import Settings, load

FOLDERS = [pathlib.Path(__file__).parent / name for name in ("cases", "scenarios")]
FILES = sorted(
    path
    for folder in FOLDERS
    for path in folder.iterdir()
    if '"kind": "resolution"' in (text := path.read_text("utf-8")) or "\n    steps:\n" in text
)


def settings_of(place: Any, folder: pathlib.Path) -> Settings:
    """Return settings for a core on a place."""
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    flags = {"store": url, "master_key_file": str(folder / "master.key")}
    return load(flags, environ={})


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
async def test_cases(path: pathlib.Path, place: Any, tmp_path: pathlib.Path) -> None:
    cases = read(path.read_text("utf-8"), path.name)
    assert cases
    core = Core(settings_of(place, tmp_path))
    await core.start()
    try:
        results = await run(core, cases, 1)
    finally:
        await core.close()
    assert len(results) == len(cases)
    assert not [(r.id, r.problems, r.trace) for r in results if not r.passed]


def test_the_tables_have_every_strategy() -> None:
    """Every situation is told for each of the five strategies, in one row or in several."""
    table = read((FOLDERS[1] / "every_case.yaml").read_text("utf-8"), "every_case.yaml")
    told: dict[str, set[str]] = {}
    for case in table:
        situation = case["id"].split(",")[0].split(" / ")[0]
        told.setdefault(situation, set()).add(case["config"]["strategy"])
    assert {"no match", "only device ids", "after erasure"} <= set(told)
    assert len({case["id"] for case in table}) == len(table)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cases: [", "is not YAML"),
        ("a: 1", "a list of `cases`"),
        ("cases: [1]", "case 1 is no row"),
        ("cases: [{id: x, under: [shop], steps: []}]", "there is no configuration shop"),
        ("configs: {c: {}}\ncases: [{id: x, steps: [{expect: {}}]}]", "exactly one request"),
        ("configs: {c: {}}\ncases: [{id: x, steps: [{login: {}, logout: {}}]}]", "exactly one"),
    ],
)
def test_mistakes_in_tables_are_told(text: str, says: str) -> None:
    with pytest.raises(BadScenario, match=says):
        read(text, "mine.yaml")


GOOD: dict[str, Any] = {
    "id": "x",
    "config": {
        "strategy": "profile_link",
        "priority": ["customerid"],
        "login": ["customerid"],
        "unique": ["customerid"],
    },
    "initial": [{"mpid": "K", "ids": {"customerid": ["A"]}}],
    "request": {"op": "identify", "known_identities": {"customerid": "A"}},
    "expect": {"status": 200, "mpid": "K"},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config": {"strategy": "best_match", "login": ["customerid"]}}, "x: config.login"),
        ({"config": {"stratgy": "best_match"}}, "stratgy"),
        ({"expects": {}}, "x: unknown field expects"),
        ({"expect": {"mpidd": "K"}}, r"expect[0]: unknown field mpidd"),
        ({"expect": {"records": [{"mpid": "K", "id": {}}]}}, "records: unknown field id"),
        ({"expect": [{}, {}]}, "expect[0] is no object"),
        ({"request": [{}], "expect": []}, "1 requests, but 0 expectations"),
        ({"request": {"op": "merge"}}, "unknown op merge"),
        ({"request": {"op": "erase"}}, "mpid is missing"),
        ({"request": {"op": "identify", "reach": "any"}}, "request[0]: unknown field reach"),
        ({"initial": [{"mpid": "K", "ids": {}, "seen": 1}]}, "initial[0]: unknown field seen"),
        ({"initial": [{"mpid": "K", "source": "N"}]}, "source N is no record"),
        ({"initial": [{"mpid": "K", "ids": {"mail": ["A"]}}]}, "mail is no identity type"),
        (
            {"initial": [{"mpid": m, "ids": {"customerid": ["A"]}} for m in "KL"]},
            "initial: a unique value",
        ),
        ({"prior_aliases": [{"source": "K", "destination": "L"}]}, "no record L"),
        ({"expect": {"records": [{"mpid": "K", "erased": True}]}}, "expected erased True"),
        ({"expect": {"records": [{"mpid": "K", "created": 5}]}}, "expected created 5"),
    ],
)
async def test_a_scenario_that_cannot_be_run_fails_by_name_and_stops_no_other(
    change: dict[str, Any], says: str, tmp_path: pathlib.Path
) -> None:
    class Place:
        engine, url = "sqlite", str(tmp_path / "store")

    core = Core(settings_of(Place, tmp_path))
    await core.start()
    try:
        bad, good = await run(core, [{**GOOD, **change}, GOOD], 1)
    finally:
        await core.close()
    assert not bad.passed and bad.id == "x"
    assert says in bad.problems[0]
    assert good.passed
