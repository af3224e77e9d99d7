"""kill -9 during ingestion and import: nothing acknowledged is lost, nothing is counted twice."""

from __future__ import annotations

import pathlib
from typing import Any

from onymous.lab import soak_history
from onymous.lab.ground import Ground
from onymous.lab.soak_history import imports, ingestion


def ground(place: Any, folder: pathlib.Path) -> Ground:
    return Ground(place.url if place.engine == "postgresql" else "", folder)


def always() -> bool:
    return True


async def test_no_batch_is_lost_or_counted_twice(place: Any, tmp_path: pathlib.Path) -> None:
    turns: list[int] = []
    sent = await ingestion(ground(place, tmp_path), 3, 5, turns.append, always)
    assert sent.checked > 90 and sent.done == len(turns) == 3


async def test_an_import_is_exact_after_being_killed(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(soak_history, "ROWS", 12_000)
    turns: list[int] = []
    checked = await imports(ground(place, tmp_path), 3, 3, turns.append, always)
    assert checked.checked == 12_000 and checked.done == len(turns) == 3
