"""A planning that was killed goes on where it was, with the same outcome; or nothing of it is used.

What it left cannot be read once somebody is erased or the configuration changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.lab.test_planning import plain
from tests.lab.test_reresolve import actor, agrees, document, live, people, start
from tests.web.serving import Running, running

from onymous.commands.reresolving import carry_over
from onymous.flows.configure import parse
from onymous.flows.versions import newest
from onymous.lab import reresolve, resuming
from onymous.lab.reresolve import planned
from onymous.lab.resuming import KEPT_MS, Keeping
from onymous.lab.throwaway import PLANS, throwaway
from onymous.rules.strategies import Plan, compile_plan

SCRIPT = """
import asyncio, sys, time
from onymous.app import running
from onymous.commands.reresolving import carry_over
from onymous.flows.merging import Actor
from onymous.lab import reresolve, resuming
from onymous.settings import load

resuming.EVERY_S = resuming.TIMES = 0
reresolve.ASKED = 7
keep, count = resuming.Keeping.keep, 0

async def keep_and_tell(*args):
    global count
    assert await keep(*args)
    count += 1
    if count == 4:
        print("kept", flush=True)
        time.sleep(600)

resuming.Keeping.keep = keep_and_tell

async def main():
    settings = load({"store": sys.argv[1], "master_key_file": sys.argv[2]}, environ={})
    async with running(settings) as core:
        actor = Actor(name="Helen", reason="try", now_ms=5)
        await carry_over(core, sys.stdin.read(), actor, 0.0, quiet=True)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _here(place: Any, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    """Keep temporary files of these tests apart; servers of databases have theirs already."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(reresolve, "ASKED", 7)


async def killed(it: Running, place: Any, folder: pathlib.Path) -> None:
    """Plan in a process of its own, and kill it in the middle."""
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, url, str(folder / "master.key")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(document("wider").encode())
    child.stdin.write_eof()
    assert await child.stdout.readline() == b"kept\n"
    child.kill()
    await child.wait()


async def keys(it: Running) -> list[str]:
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT name FROM meta WHERE name LIKE 'plan_key%'")
    return [row[0] for row in rows]


async def keeping_of(it: Running, pool: int, plan: Plan) -> Keeping:
    async with it.server.core.store.read() as session:
        return Keeping(it.server.core, pool, plan, await newest(session))


@contextlib.asynccontextmanager
async def left(place: Any, folder: pathlib.Path) -> AsyncIterator[tuple[Running, int, Plan]]:
    """A scope with people, and what a killed planning of it left behind."""
    async with running(place, folder) as it:
        _, pool = await start(it, "bare")
        await live(it, 5, 80)
        core = it.server.core
        await core.journal.flush(core.store)
        await killed(it, place, folder)
        yield it, pool, compile_plan(parse(document("wider"))[0].scopes["others"])


async def parts_of(it: Running, pool: int, plan: Plan, keeping: Keeping | None) -> tuple[Any, int]:
    """Plan; return what is planned, and how many requests were not asked again."""
    steps: list[int] = []
    async with planned(it.server.core, pool, plan, steps.append, keeping) as parts:
        return plain(list(parts)), max(steps)


async def test_it_goes_on_where_it_was(place: Any, tmp_path: pathlib.Path) -> None:
    async with left(place, tmp_path) as (it, pool, plan):
        core = it.server.core
        keeping = await keeping_of(it, pool, plan)
        body = keeping.path.read_bytes()
        assert os.stat(keeping.path).st_mode & 0o777 == 0o600
        for text in (b"device", b"@x.io", b"SQLite"):
            assert text not in body
        fresh, none = await parts_of(it, pool, plan, None)
        resumed, most = await parts_of(it, pool, plan, keeping)
        assert (none, most) == (1, 28) and fresh and resumed == fresh
        # what came since is there too
        await it.ask("identify", {"customerid": "new", "email": "n@x.io"}, who="stranger")
        await it.ask("identify", {"email": "n@x.io", "ios_idfv": "new"}, who="stranger")
        await core.journal.flush(core.store)
        resumed, most = await parts_of(it, pool, plan, await keeping_of(it, pool, plan))
        fresh, _ = await parts_of(it, pool, plan, None)
        assert most == 28 and resumed == fresh
        _, (carried,) = await carry_over(core, document("wider"), actor(), 0.0, quiet=True)
        assert carried.records and not carried.left
        await agrees(it, pool, "wider")
        assert await keys(it) == [] and list((tmp_path / "tmp").glob(f"{PLANS}*")) == []


async def test_an_erasure_makes_it_unreadable(place: Any, tmp_path: pathlib.Path) -> None:
    async with left(place, tmp_path) as (it, pool, plan):
        assert await keys(it)
        pid = next(p for p, (values, *_) in (await people(it, pool)).items() if values)
        await it.erase(it.server.core.mpids.text(pid), who="stranger")
        assert await keys(it) == [], "in the transaction of the erasure"
        keeping = await keeping_of(it, pool, plan)
        assert keeping.path.exists()
        assert not keeping._opens(b"")
        _, most = await parts_of(it, pool, plan, keeping)
        assert most == 1 and not keeping.path.exists(), "planned anew"


async def test_another_configuration_makes_it_unreadable(
    place: Any, tmp_path: pathlib.Path
) -> None:
    async with left(place, tmp_path) as (it, pool, plan):
        other = compile_plan(parse(document("folding"))[0].scopes["others"])
        async with it.server.core.store.read() as session:
            version = await newest(session)
        for unlike in (
            Keeping(it.server.core, pool, other, version),
            Keeping(it.server.core, pool, plan, version + 1),
        ):
            with contextlib.closing(reresolve.Scratch()) as scratch:
                assert not unlike._opens(b"") and not [*scratch.rows("SELECT * FROM vote")]
        text = document("bare").replace("kind: web,", "kind: web, max_age_s: 7,")
        await carry_over(it.server.core, text, actor(), 0.0, quiet=True)
        assert await keys(it) == []
        assert (await parts_of(it, pool, plan, await keeping_of(it, pool, plan)))[1] == 1


@pytest.mark.parametrize("harm", ["torn", "changed", "swapped", "link", "old"])
async def test_what_is_not_whole_or_not_ours_is_not_used(
    place: Any, tmp_path: pathlib.Path, harm: str
) -> None:
    async with left(place, tmp_path) as (it, pool, plan):
        keeping = await keeping_of(it, pool, plan)
        body = keeping.path.read_bytes()
        sizes, at = [], 0
        while at < len(body):
            sizes.append(at)
            at += 4 + int.from_bytes(body[at : at + 4], "big")
        second, third = sizes[1], sizes[2]
        if harm == "torn":
            keeping.path.write_bytes(body[: sizes[-1]])
        elif harm == "changed":
            keeping.path.write_bytes(body[:100] + bytes([body[100] ^ 1]) + body[101:])
        elif harm == "swapped":
            fourth = sizes[3]
            swapped = body[:second] + body[third:fourth] + body[second:third] + body[fourth:]
            keeping.path.write_bytes(swapped)
        elif harm == "link":
            elsewhere = tmp_path / "elsewhere"
            keeping.path.rename(elsewhere)
            keeping.path.symlink_to(elsewhere)
        else:
            old = time.time_ns() // 1_000_000 - KEPT_MS - 1
            async with it.server.core.store.write("older") as tx:
                await tx.run(
                    "UPDATE meta SET name = ? WHERE name LIKE 'plan_key%'",
                    f"plan_key {old:015d} {pool}",
                )
        resumed, most = await parts_of(it, pool, plan, keeping)
        assert most == 1
        assert resumed == (await parts_of(it, pool, plan, None))[0]


async def test_whose_key_is_gone_keeps_nothing_more(
    place: Any, tmp_path: pathlib.Path, monkeypatch: Any
) -> None:
    """Somebody is erased while it plans: they are in what it knows, so it is not kept again."""
    monkeypatch.setattr(resuming, "EVERY_S", 0)
    monkeypatch.setattr(resuming, "TIMES", 0)
    async with running(place, tmp_path) as it:
        _, pool = await start(it, "bare")
        await live(it, 5, 60)
        core = it.server.core
        await core.journal.flush(core.store)
        plan = compile_plan(parse(document("wider"))[0].scopes["others"])
        keeping = await keeping_of(it, pool, plan)
        keep, kept = keeping.keep, list[bool]()

        async def keep_and_erase(*args: Any) -> bool:
            kept.append(await keep(*args))
            if len(kept) == 2:
                assert keeping.path.exists()
                pid = next(p for p, (values, *_) in (await people(it, pool)).items() if values)
                await it.erase(core.mpids.text(pid), who="stranger")
            return kept[-1]

        monkeypatch.setattr(keeping, "keep", keep_and_erase)
        await parts_of(it, pool, plan, keeping)
        assert kept == [True, True, False]
        assert not keeping.path.exists() and await keys(it) == []


async def test_old_keys_go(place: Any, tmp_path: pathlib.Path) -> None:
    now = time.time_ns() // 1_000_000
    async with running(place, tmp_path) as it:
        core = it.server.core
        async with core.store.write("keys") as tx:
            for made in (now - 1_000, now - KEPT_MS - 1_000):
                name = f"plan_key {made:015d} 4"
                await tx.run("INSERT INTO meta (name, value) VALUES (?, ?)", name, b"x")
        await core.upkeep.run(now)
        assert await keys(it) == [f"plan_key {now - 1_000:015d} 4"]


def test_files_nobody_can_read_any_more_go(tmp_path: pathlib.Path) -> None:
    old, young = (tmp_path / "tmp" / f"{PLANS}{name}" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"sealed")
    long_ago = time.time() - KEPT_MS / 1000 - 1
    os.utime(old, (long_ago, long_ago))
    with throwaway():
        assert (old.exists(), young.exists()) == (False, True)
