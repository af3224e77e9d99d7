"""The auditor goes through backups and restores of both engines."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from onymous.lab.audit_restore import AFTER, BEFORE, TIMES, restored_histories
from onymous.lab.ground import Ground


@pytest.mark.parametrize("seed", [9_100, 9_102, 1_000_001])
async def test_histories_agree_across_restores(
    place: Any, tmp_path: pathlib.Path, seed: int
) -> None:
    server = f"{place.url.rpartition('/')[0]}/postgres" if place.engine == "postgresql" else ""
    made = await restored_histories(Ground(server, tmp_path), seed)
    assert made == BEFORE + AFTER * (1 + TIMES)
