"""Rehearsals in simulated worlds: what they list is right by the truth, and then happens."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from typer.testing import CliRunner

import onymous.app
from onymous.cli import app
from onymous.lab.foretold import BEGIN, CHANGES, END, Judged, World, foretold, tables
from onymous.lab.simulate import PRESETS
from onymous.lab.which import filled

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "use" / "rehearsal.md"


def right(row: Judged) -> None:
    """What holds in every world, whatever the rules."""
    where, listed = (row.world, row.change), row.rehearsal
    # nobody is listed who would stay who they are
    assert row.merges_confirmed == listed.merges, where
    assert row.splits_confirmed == listed.splits, where
    assert row.merges_right + row.merges_mixing == listed.merges, where
    # and two people are never put together without a warning
    assert row.mixing_warned == row.merges_mixing, where
    assert listed.risky >= row.merges_mixing, where
    assert row.splits_tearing_known <= row.splits_tearing <= listed.splits, where


async def test_the_figures_are_fresh_and_right() -> None:
    rows = await foretold(list(PRESETS))
    for row in rows:
        right(row)
    by = {(row.world, row.change): row for row in rows}
    for world in PRESETS:
        assert by[world, "e-mail logs in too"].merges_mixing == 0, world
        assert by[world, "link to conversion"].merges_mixing == 0, world
        assert by[world, "conversion to link"].rehearsal.splits > 0, world
    # what the page warns of is there
    assert by["family_tv", "link to best match"].merges_mixing > 0
    assert by["b2b", "link to best match"].rehearsal.merged_known > 0
    # next to nothing that happens is left out of the lists
    missed = sum(row.merges_missed + row.splits_missed for row in rows)
    assert missed * 200 <= sum(row.rehearsal.merges + row.rehearsal.splits for row in rows)
    text = PAGE.read_text("utf-8")
    again = "run: uv run onymous rehearsals --write docs/use/rehearsal.md"
    assert filled(text, tables(rows), BEGIN, END) == text, again


async def test_both_engines_foretell_the_same(place: Any) -> None:
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    world = World("family_tv", 12, 300, 3)
    (here,) = await world.judged(["link to best match"], url)
    right(here)
    assert here.rehearsal.merges > 0 and here.merges_mixing > 0
    (there,) = await World("family_tv", 12, 300, 3).judged(["link to best match"])
    assert (here.rehearsal.merges, here.rehearsal.splits) == (
        there.rehearsal.merges,
        there.rehearsal.splits,
    )
    assert (here.merges_mixing, here.rehearsal.risks) == (
        there.merges_mixing,
        there.rehearsal.risks,
    )


async def test_a_slow_machine_foretells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # upkeep comes while it plays: by this machine's clock the stream is years old
    monkeypatch.setattr(onymous.app, "TICK_S", 0.01)
    monkeypatch.setattr(onymous.app, "UPKEEP_EVERY_S", 0.0)
    (row,) = await World("family_tv", 12, 300, 3).judged(["link to best match"])
    right(row)
    assert row.rehearsal.merges > 0 and row.merges_confirmed > 0


def test_every_change_is_one_of_rules_that_decide_who_is_who() -> None:
    assert all(today != tomorrow for today, tomorrow in CHANGES.values())


def test_the_command(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before {BEGIN} {END} after")
    words = ["rehearsals", "family-tv", "--people", "10", "--steps", "200", "--write", str(page)]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {row["change"] for row in rows} == set(CHANGES)
    assert all(row["mixing_warned"] == row["merges_mixing"] for row in rows)
    assert "### Family television" in page.read_text()
    assert CliRunner().invoke(app, ["rehearsals", "moon"]).exit_code == 2
