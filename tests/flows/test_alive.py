"""What a process announced ends soon after it died, and never while it lives."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.web.serving import Running, running

from onymous.flows.alive import is_gone, myself
from onymous.flows.fencing import FENCE, HOLDS_MS, end_left_over
from onymous.store import sql

SAY = "import sys, time; from onymous.flows.alive import myself; print(myself(), flush=True);"
ANNOUNCE = """
import asyncio, sys
from onymous.app import open_store
from onymous.flows.fencing import announced

async def main():
    store = open_store(sys.argv[1])
    await store.start()

    async def work():
        print("announced", flush=True)
        await asyncio.sleep(600)

    await announced(store, work, 0.0)

asyncio.run(main())
"""


@asynccontextmanager
async def child(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start Python, wait for its first line, and end it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", *words, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_who_lives_is_never_gone() -> None:
    me = myself()
    assert me and not is_gone(me)
    place, number, started = me.split(".")
    assert number == str(os.getpid())
    # the number was another process's once
    assert is_gone(f"{place}.{number}.{int(started) - 1}")
    # elsewhere nothing is known, nor of what cannot be read
    for other in (f"x{place}.{number}.{int(started) - 1}", "", "..", f"{place}.x.1", f"{place}.1."):
        assert not is_gone(other)


async def test_who_was_killed_is_gone() -> None:
    async with child(SAY + "time.sleep(600)") as (process, who):
        assert not is_gone(who)
        os.kill(process.pid, signal.SIGSTOP)
        assert not is_gone(who), "it only pauses"
        process.kill()
        # also before anybody has buried it
        while not is_gone(who):
            await asyncio.sleep(0)
        await process.wait()
        assert is_gone(who)


async def test_a_process_whose_first_thread_ended_lives() -> None:
    code = (
        SAY + "import threading, ctypes;"
        "threading.Thread(target=time.sleep, args=(600,)).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    async with child(code) as (process, who):
        stat = pathlib.Path(f"/proc/{process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            await asyncio.sleep(0.01)
        assert not is_gone(who)


async def names(it: Running) -> list[str]:
    async with it.server.core.store.read() as session:
        rows = await session.rows("SELECT name FROM meta WHERE name LIKE 'rules_fence%'")
    return sorted(row[0] for row in rows)


async def test_what_a_killed_process_announced_ends(place: Any, tmp_path: pathlib.Path) -> None:
    url = place.url if place.engine == "postgresql" else f"sqlite:{place.url}"
    async with running(place, tmp_path) as it, child(ANNOUNCE, url) as (process, said):
        core = it.server.core
        assert said == "announced" and len(await names(it)) == 2
        os.kill(process.pid, signal.SIGSTOP)
        await core.directory.refresh_if_changed()
        assert core.directory.fenced_until and await end_left_over(core.store) == 0
        process.kill()
        while await names(it) or core.directory.fenced_until:  # by the server itself
            await asyncio.sleep(0.05)


async def test_what_others_announced_stays(place: Any, tmp_path: pathlib.Path) -> None:
    """Of other machines and of versions before nothing is known: until its time is over."""
    now = time.time_ns() // 1_000_000
    dead, number, started = myself().split(".")
    gone = f"{FENCE} 3 {dead}.{number}.{int(started) - 1}"
    theirs = {f"{FENCE} 1": now + HOLDS_MS, f"{FENCE} 2 elsewhere.1.1": now + HOLDS_MS}
    async with running(place, tmp_path) as it:
        core = it.server.core
        async with core.store.write("announce") as tx:
            for name, until in {FENCE: now + HOLDS_MS, **theirs, gone: now + HOLDS_MS}.items():
                await tx.run(sql.META_PUT, name, b"%d" % until)
        assert await end_left_over(core.store) == 1
        assert await names(it) == sorted([FENCE, *theirs])
        async with core.store.write("later") as tx:
            for name in theirs:
                await tx.run(sql.META_PUT, name, b"%d" % (now - 1))
        assert await end_left_over(core.store) == 2
        assert await names(it) == []
        assert await end_left_over(core.store) == 0
