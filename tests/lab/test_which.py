"""Simulated worlds as files, played, scored; and the page that says which strategy for whom."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from typer.testing import CliRunner

from onymous.cli import app
from onymous.lab.play import play, stage
from onymous.lab.score import score
from onymous.lab.simulate import PRESETS, simulate
from onymous.lab.streams import Request, Resolved, Truth, read, write
from onymous.lab.which import (
    PEOPLE,
    SEED,
    STEPS,
    Row,
    compare,
    compared,
    config_of,
    filled,
    percent,
    tables,
)
from onymous.rules.strategies import STRATEGIES

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "use" / "which-strategy.md"


def run(*words: str) -> Any:
    """Run a command for machines."""
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def figures(worlds: list[str], people: int, steps: int, store: str = "") -> list[Row]:
    return await compare(worlds, list(STRATEGIES), people, steps, SEED, lambda: None, store)


async def test_the_page_is_fresh() -> None:
    page = PAGE.read_text("utf-8")
    rows = await figures(list(PRESETS), PEOPLE, STEPS)
    again = "run: uv run onymous strategies --write docs/use/which-strategy.md"
    assert filled(page, tables(rows, PEOPLE, STEPS, SEED)) == page, again
    by = {(row.world, row.strategy): row.score for row in rows}
    for world in PRESETS:
        for strategy in ("profile_conversion", "profile_link", "profile_isolation"):
            found = by[world, strategy]
            assert (found.known_mixed, found.known_split) == (0, 0), (world, strategy)
        for strategy in ("profile_link", "profile_isolation"):
            assert by[world, strategy].strangers_inside == 0, (world, strategy)
    # what the page warns of is there
    assert by["b2b", "best_match"].known_people_mixed > 0
    assert by["family_tv", "default"].known_people_mixed > 0


async def test_both_engines_find_the_same_people_every_time(place: Any) -> None:
    rows = await figures(["family_tv"], 40, 500, place.url)
    told = tables(rows, 40, 500, SEED)
    assert told == tables(await figures(["family_tv"], 40, 500), 40, 500, SEED)
    assert [row.strategy for row in rows] == list(STRATEGIES)


def test_from_a_world_to_its_score(tmp_path: pathlib.Path) -> None:
    out = str(tmp_path / "worlds")
    made = run("simulate", "family-tv", "b2b", "--people", "40", "--steps", "600", "--out", out)
    assert [m["world"] for m in made] == ["family_tv", "b2b"]
    stream, truth = made[0]["stream"], made[0]["truth"]
    text = pathlib.Path(stream).read_text("utf-8")
    assert len(text.splitlines()) == 600 == made[0]["requests"]
    people = {t.person for t in read(pathlib.Path(truth), Truth)}
    assert len(people) == made[0]["people"]
    # the stream gives nothing of the truth away
    assert "person" not in text and "signed_in" not in text
    assert all(r.client.startswith("client-") for r in read(pathlib.Path(stream), Request))
    result = str(tmp_path / "result.jsonl")
    played = run("play", stream, "--strategy", "best_match", "--out", result)
    assert played["answered"] + played["unanswered"] + played["repeats"] == 600
    found = run("score", truth, result)
    assert found["known_people_mixed"] > 0 and found["known_recall"] == 1.0
    assert found["requests"] == played["answered"] and found["unknown"] == 0
    # the same by a configuration of one's own
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "organization: Mine\nscopes:\n  a: {strategy: profile_link, login: [customerid],"
        " unique: [customerid], priority: [customerid, email, device_application_stamp]}\n"
        "workspaces:\n  one: {scope: a, inputs: {server: {kind: server}}}\n",
        "utf-8",
    )
    run("play", stream, "--config", str(rules), "--out", result)
    found = run("score", truth, result)
    assert found["known_people_mixed"] == 0 and found["known_split"] > 0
    shown = CliRunner().invoke(app, ["score", truth, result])
    assert "precision" in shown.stdout and "strangers inside" in shown.stdout


def test_all_strategies_at_once_and_onto_a_page(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n<!-- figures: begin -->old<!-- figures: end -->\nthe end\n", "utf-8")
    words = ["strategies", "retail", "--people", "20", "--steps", "150", "--write", str(page)]
    rows = run(*words)
    assert [row["strategy"] for row in rows] == list(STRATEGIES)
    assert {row["world"] for row in rows} == {"retail"} and rows[0]["requests"] > 100
    text = page.read_text("utf-8")
    assert "`profile_link`" in text and "old" not in text and text.endswith("the end\n")
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0 and "best_match" in shown.stdout
    assert page.read_text("utf-8") == text
    page.write_text("# No place for figures\n", "utf-8")
    assert CliRunner().invoke(app, words).exit_code == 2


def test_any_result_can_be_scored(tmp_path: pathlib.Path) -> None:
    truth, table = tmp_path / "truth.jsonl", tmp_path / "result.csv"
    lines = [("1", "ann", True), ("2", "ann", False), ("3", "ben", True), ("4", "cem", False)]
    truth.write_text(
        "".join(
            json.dumps({"request_id": r, "person": p, "signed_in": s}) + "\n" for r, p, s in lines
        ),
        "utf-8",
    )
    table.write_text("request_id,mpid\n1,X\n2,Y\n3,X\n9,X\n4,\n3,Z\n", "utf-8")
    found = run("score", str(truth), str(table))
    assert (found["requests"], found["unanswered"], found["unknown"]) == (3, 1, 1)
    assert (found["known_people_mixed"], found["people_mixed"], found["split"]) == (2, 2, 1)
    assert found["precision"] == 0.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["simulate", "mars"], "no world 'mars'"),
        (["simulate", "--out", "FILE"], "cannot be made"),
        (["play", "FILE", "--out", "x"], "say --strategy"),
        (["play", "FILE", "--strategy", "guess", "--out", "x"], "strategy must be one of"),
        (["play", "FILE", "--strategy", "default", "--out", "OUT"], "rows.jsonl:1"),
        (["play", "gone.jsonl", "--strategy", "default", "--out", "OUT"], "cannot be read"),
        (["play", "FILE", "--config", "gone.yaml", "--out", "OUT"], "cannot be read"),
        (["score", "FILE", "FILE"], "rows.jsonl:1"),
        (["score", "EMPTY", "FILE"], "columns request_id and mpid"),
        (["score", "EMPTY", "OTHER"], "of two streams"),
        (["strategies", "mars"], "no world"),
    ],
)
def test_mistakes_get_one_clear_line(words: list[str], says: str, tmp_path: pathlib.Path) -> None:
    files = {"FILE": "rows.jsonl", "EMPTY": "empty.jsonl", "OTHER": "other.csv", "OUT": "out"}
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n', "utf-8")
    (tmp_path / "empty.jsonl").write_text("", "utf-8")
    (tmp_path / "other.csv").write_text("request_id,mpid\n1,2\n", "utf-8")
    given = [str(tmp_path / files[w]) if w in files else w for w in words]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert says in result.stderr.replace("\n", " "), result.stderr
    assert "Traceback" not in result.output


async def test_a_stream_is_played_in_order_and_repeats_once(tmp_path: pathlib.Path) -> None:
    stream, truth = tmp_path / "s.jsonl", tmp_path / "t.jsonl"
    steps = list(write(simulate(PRESETS["retail"], 3, 30, 400), stream, truth))
    results: list[Resolved] = []
    async with stage() as core:
        rules = config_of("profile_conversion")
        repeats = await play(core, rules, 1, read(stream, Request), results.append)
    once = list(dict.fromkeys(s.request_id for s in steps))
    assert [r.request_id for r in results] == once and repeats == len(steps) - len(once) > 0
    known = {t.request_id: t for t in read(truth, Truth)}
    seen, unanswered, strange = compared(results, known)
    assert len(seen) + unanswered == len(once) and strange == 0
    assert score(seen).known_precision == score(seen).known_recall == 1.0


def test_shares_are_not_rounded_up_to_whole() -> None:
    assert [percent(s) for s in (1.0, 0.99999, 0.5, 0.0)] == ["100.0%", "99.9%", "50.0%", "0.0%"]
    with pytest.raises(ValueError, match="figures: begin"):
        filled("# A page", "figures")
