"""`onymous soak`: each part a little, on both engines; what it finds is told and ends with 1."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from typer.testing import CliRunner

from onymous.cli import app
from onymous.flows import identity as identity_flow

COUNTS = {"audit": ("--steps", 800), "races": ("--tries", 6), "crashes": ("--crashes", 1)}
#: killed, or restored, as often as servers are killed under load
KILLED = ("ingestion", "imports", "restores", "lives")


def soak(*words: str) -> Any:
    return CliRunner().invoke(app, ["soak", *words])


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_every_part_runs_and_says_what_it_did(request: Any, engine: str) -> None:
    place = engine
    if engine == "postgresql":
        place = request.getfixturevalue("postgres").url()
    words = [str(word) for pair in COUNTS.values() for word in pair]
    out = soak("--store", place, *words, "--json")
    assert out.exit_code == 0, out.output
    told = json.loads(out.stdout)
    assert told["violations"] == 0
    assert {row["part"]: row["done"] for row in told["parts"]} == {
        **{part: count for part, (_, count) in COUNTS.items()},
        **dict.fromkeys(KILLED, 1),
    }
    for row in told["parts"]:
        assert row["engine"] == engine
        assert row["checked"] > 0


def test_a_violation_is_told_with_its_story(monkeypatch: Any) -> None:
    monkeypatch.setattr(identity_flow, "answer_flags", lambda record, plan: (False, True))
    out = soak("--steps", "1000", "--tries", "0", "--crashes", "0", "--json")
    assert out.exit_code == 1
    told = json.loads(out.stdout)
    assert told["violations"] == 1
    story = told["parts"][0]["violation"]
    assert "is_logged_in False instead of True" in story
    assert "0. " in story


def test_a_place_it_may_not_make_stores_in(tmp_path: pathlib.Path) -> None:
    out = soak("--store", f"sqlite:{tmp_path}")
    assert out.exit_code == 2
    assert "makes stores of its own" in " ".join(out.output.split())


def test_one_part_alone() -> None:
    out = soak("--only", "races", "--tries", "3", "--json")
    assert [row["part"] for row in json.loads(out.stdout)["parts"]] == ["races"]
    out = soak("--only", "luck")
    assert out.exit_code == 2 and "there is no part luck" in out.output
