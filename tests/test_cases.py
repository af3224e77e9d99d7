"""Every worked example, through the real flows, on both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from onymous.app import Core
from onymous.lab.check import read, run
from onymous.settings import Settings, load

FOLDERS = [pathlib.Path(__file__).parent / name for name in ("cases", "scenarios")]
FILES = sorted(
    path
    for folder in FOLDERS
    for path in folder.glob("*.jsonl")
    if '"kind": "resolution"' in path.read_text("utf-8")
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
