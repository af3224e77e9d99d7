"""What the texts say about the wire, row by row, on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tests.web.reading import reading
from tests.web.telling import FILES, Telling, rows, world


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
async def test_it_is_as_told(path: pathlib.Path, place: Any, tmp_path: pathlib.Path) -> None:
    table = rows(path)
    async with reading(place, tmp_path, address_requests_per_second=0) as here:
        await world(here)
        telling = Telling(here)
        wrong = [await telling.run(n, row) for n, row in enumerate(table)]
    told = [text for text in wrong if text]
    assert not told, "\n".join(told)


def test_every_row_says_something_of_its_own() -> None:
    said = [row["says"] for path in FILES for row in rows(path)]
    assert len(said) == len(set(said)), sorted({s for s in said if said.count(s) > 1})
    assert len(said) > 200
