"""kill -9 in the middle of a join, and of its undoing: any process goes on, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

from tests.flows.going import CONVERSION, TWO, Going

from onymous.app import Core, running
from onymous.flows.loading import Given, load
from onymous.flows.scope_planning import Wanted, wanted_undo
from onymous.flows.tenants import apply
from onymous.rules.strategies import compile_plan
from onymous.settings import load as settings

MANY = 600
_CHILD = """
import asyncio, sys
from onymous.app import running
from onymous.flows.scope_changes import finish
from onymous.settings import load
async def work():
    given = {"store": sys.argv[1], "master_key_file": sys.argv[2]}
    async with running(load(given, environ={})) as core:
        await finish(core.scopes, int(sys.argv[3]), hurry=True)
asyncio.run(work())
"""


class Two(Going):
    """The scopes red and blue without a server."""

    def __init__(self, core: Core) -> None:
        self.core = core


async def people(core: Core) -> None:
    """Many in red; every third shares an address with somebody of blue, every sixth a device."""
    for name in ("shop", "club"):
        caller = core.directory.find(f"{name}-api-key")
        assert caller is not None
        plan, pool = compile_plan(caller.plan.config), caller.pool("production")
        given = [
            Given(
                ids={
                    "customerid": [f"{name}-{n}"] if n % 2 else [],
                    "email": [f"{n if n % 3 == 0 else name}-{n}@x.io"],
                    "ios_idfv": [f"device-{n if n % 6 == 0 else name}-{n}"],
                }
            )
            for n in range(MANY)
        ]
        await load(core.store, pool, plan, given)


async def killed(core: Core, url: str, key: pathlib.Path, number: int) -> None:
    """Let another process go on with a change; kill it as soon as some of it is done."""
    words = [sys.executable, "-c", _CHILD, url, str(key), str(number)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ONYMOUS_")}
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE) as child:
        start = await _place(core, number)
        while await _place(core, number) == start:
            assert child.poll() is None, child.stderr.read() if child.stderr else b""
            await asyncio.sleep(0.002)
        child.send_signal(signal.SIGKILL)


async def _place(core: Core, number: int) -> tuple[str, int]:
    async with core.store.read() as session:
        rows = await session.rows("SELECT state, cursor FROM scope_change WHERE id = ?", number)
    return ("" if rows[0][0] in ("waiting", "moving", "unmerging") else rows[0][0]), rows[0][1]


async def test_a_join_and_its_undoing_survive_being_killed(
    place: Any, tmp_path: pathlib.Path
) -> None:
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    key = tmp_path / "master.key"
    given = {"store": url, "master_key_file": str(key)}
    async with running(settings(given, environ={})) as core:
        text = TWO.format(strategy="profile_conversion", sets=CONVERSION)
        await apply(core.store, core.key, text, actor="test", now_ms=2)
        await core.directory.load()
        await people(core)
        two = Two(core)
        before, rows = await two.picture(), await two.lookups()
        types = {"email": "target", "customerid": "drop"}
        report = await two.look(types=types)
        number = await two.begin(types=types)
        for _ in range(3):
            await killed(core, url, key, number)
            await two.sound()
        await two.finish(number)
        after = await two.picture()
        await two.sound()
        assert set(after) == set(before), "nobody is lost, nobody is new"
        pools = {pool for pool, _, _ in after.values()}
        assert len(pools) == 1
        merged = sum(absorbed for _, absorbed, _ in after.values())
        assert merged == report.by_outcome["merge"] > 50
        wanted: Wanted = await wanted_undo(core.store, number, {})
        back = await two.begin_wanted(wanted)
        for _ in range(3):
            await killed(core, url, key, back)
        await two.finish(back)
        await two.sound()
        assert await two.picture() == before and await two.lookups() == rows
