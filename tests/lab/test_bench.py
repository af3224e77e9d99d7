"""The benchmark runs: every part says something; how fast it was is not for a test."""

from __future__ import annotations

import pathlib

import pytest
from tests.conftest import Postgres

from onymous.lab.bench import bulk, pointers, sizes
from onymous.lab.bench.report import PARTS, ground, run
from onymous.lab.bench.rows import Bench

#: parts that fill large stores or start many servers: their pieces are in the others
LONG = {"growth", "hot", "start", "processes", "slow-disk", "disk", "python", "trace"}


@pytest.mark.parametrize("part", sorted(set(PARTS) - LONG))
def test_a_part_runs(
    part: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, own_postgres: Postgres
) -> None:
    monkeypatch.setattr(bulk, "ROWS", 300)
    monkeypatch.setattr(pointers, "MANY", 1_000)
    bench = Bench(
        tmp_path,
        rounds=1,
        seconds=0.3,
        postgres=own_postgres.database() if part in ("postgres", "import") else "",
        scale=3_000,
        progress=lambda text: None,
    )
    lines = run(bench, [part])
    assert lines
    for line in lines:
        assert line.what and line.goal and line.measured
        assert "not measured" not in line.measured
        assert "were not 2xx" not in line.detail


def test_the_ground_is_told() -> None:
    seen = ground()
    assert seen.cores >= 1 and seen.python and seen.sqlite
    assert sizes.EACH == 3
