"""The auditor goes through backups and restores: what was, is; what was erased, stays erased; and
no MPID is given twice, however often one backup is restored."""

from __future__ import annotations

import asyncio
import copy
import pathlib
import random
from typing import Any

import asyncpg
import pytest

from onymous import backups, restoring
from onymous.app import running
from onymous.lab.audit import Audited
from onymous.lab.auditor import Model
from onymous.lab.histories import configuration, operation
from onymous.lab.verify import problems
from onymous.settings import Settings, load

SCOPE, BEFORE, AFTER, TIMES = 500, 70, 50, 2


def quiet(step: str, done: int, total: int) -> None:
    """Report to nobody."""


def settings_at(place: Any, tmp_path: pathlib.Path, url: str) -> Settings:
    return load(
        {
            "store": f"sqlite:{url}" if place.engine == "sqlite" else url,
            "master_key_file": str(tmp_path / "master.key"),
            "backup_folder": str(tmp_path / "vault"),
        },
        environ={},
    )


async def _steps(audited: Audited, rng: random.Random, count: int) -> list[str]:
    """Go on with a history; return the MPIDs that were erased on the way."""
    gone = []
    for _ in range(count):
        op = operation(rng, audited.mpids[-12:])
        known = {r.mpid for r in audited.model.records if not r.erased}
        await audited.step(op)
        left = {r.mpid for r in audited.model.records if not r.erased}
        gone += sorted(known - left)
    assert await audited.differences() == []
    return gone


async def _copy(settings: Settings, place: Any, name: str) -> Any:
    """Back the store up, each engine its own way; return what `_restored` needs."""
    if place.engine == "sqlite":
        return await asyncio.to_thread(
            backups.make, settings, pathlib.Path(settings.backup_folder), quiet
        )
    await _on_server(place.url, f"CREATE DATABASE {name} TEMPLATE {place.url.rpartition('/')[2]}")
    return name


async def _on_server(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url.rpartition("/")[0] + "/postgres")
    await connection.execute(statement)
    await connection.close()


async def _restored(
    kept: Any, settings: Settings, place: Any, tmp_path: pathlib.Path, turn: int
) -> Settings:
    if place.engine == "sqlite":
        new = settings_at(place, tmp_path, str(tmp_path / f"again-{turn}"))
        into = tmp_path / f"again-{turn}"
        out = await restoring.restore(kept, into, new, tombstones=[], progress=quiet)
    else:
        name = f"{kept}_again_{turn}"
        await _on_server(place.url, f"CREATE DATABASE {name} TEMPLATE {kept}")
        new = settings_at(place, tmp_path, f"{place.url.rpartition('/')[0]}/{name}")
        out = await restoring.new_epoch(new, tombstones=[], progress=quiet)
    assert [f.what for f in out.findings] == []
    return new


def _forked(audited: Audited) -> tuple[Model, list[str], int]:
    return copy.deepcopy(audited.model), list(audited.mpids), audited.now


@pytest.mark.parametrize("seed", range(3))
async def test_histories_agree_across_restores(
    place: Any, tmp_path: pathlib.Path, seed: int
) -> None:
    rng = random.Random(9_100 + seed)
    config = configuration(rng)
    settings = settings_at(place, tmp_path, place.url)
    ever: set[str] = set()
    async with running(settings) as core:
        audited = Audited(core, config, SCOPE)
        await _steps(audited, rng, BEFORE)
        model, mpids, now = _forked(audited)
        if place.engine == "sqlite":
            kept = await _copy(settings, place, "")
    if place.engine != "sqlite":
        kept = await _copy(settings, place, f"{place.url.rpartition('/')[2]}_kept")
    erased: list[str] = []
    async with running(settings) as core:
        audited.core = core
        erased += await _steps(audited, rng, AFTER)
        ever |= set(audited.mpids)
    for turn in range(TIMES):
        new = await _restored(kept, settings, place, tmp_path, turn)
        async with running(new) as core:
            again = Audited(core, config, SCOPE)
            again.model, again.mpids, again.now = copy.deepcopy(model), list(mpids), now + 1
            for mpid in dict.fromkeys(erased):
                if mpid in mpids:
                    op = {"op": "erase", "mpid": mpid}
                    again.model.commit(again.model.expect(op, again.now))
            assert await again.differences() == []
            erased += await _steps(again, rng, AFTER)
            fresh = set(again.mpids) - set(mpids)
            assert not fresh & ever
            ever |= fresh
            assert await problems(core, {SCOPE: again.caller.plan}) == []
    assert len(ever) > len(mpids)
