"""The loop: claim a job, run its flow, retry, give up loudly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext

from onymous.flows.jobs import Around, Handler, Together, end_if_asked, waiting, work
from onymous.store.port import Store

log = logging.getLogger("onymous.worker")

#: seconds between looks where nothing was due
PAUSE_S = 0.5
#: seconds between looks for jobs nobody tries any more
LOOK_S = 60.0
On = Callable[[str, str, int, float], None]


async def run(
    store: Store,
    handlers: dict[str, Handler],
    together: dict[str, Together],
    *,
    ending: Callable[[], bool] = lambda: False,
    on: On = lambda kind, outcome, count, seconds: None,
    around: Around = lambda kind, jobs: nullcontext(),
    tell: bool = True,
) -> None:
    """Work until cancelled, or until the round in which `ending` came true is done.

    A failing database is tried again. `tell`: complain of jobs given up, of whatever kind.
    """
    told, known = 0.0, 0
    while not ending():
        try:
            taken = await work(store, handlers, _now(), together, on, around)
            if tell and time.monotonic() - told > LOOK_S:
                told = time.monotonic()
                known = await _complain(store, known)
        except Exception as error:
            log.error("taking jobs failed: %s", type(error).__name__)
            taken = 0
        end_if_asked()
        if not taken:
            await asyncio.sleep(PAUSE_S)


async def _complain(store: Store, known: int) -> int:
    """Tell of jobs given up, also of those whose workers died and could not tell."""
    found = sum(kind.given_up for kind in await waiting(store, _now()))
    if found > known:
        log.error("%s jobs are given up; see `onymous jobs`", found)
    return found


def _now() -> int:
    return time.time_ns() // 1_000_000
