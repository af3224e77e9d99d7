"""The loop: claim a job, run its flow, retry, give up loudly."""

from __future__ import annotations

import asyncio
import logging
import time

from onymous.flows.jobs import Handler, Together, work
from onymous.store.port import Store

log = logging.getLogger("onymous.worker")

#: seconds between looks where nothing was due
PAUSE_S = 0.5


async def run(store: Store, handlers: dict[str, Handler], together: dict[str, Together]) -> None:
    """Work until cancelled; a failing database is tried again."""
    while True:
        try:
            taken = await work(store, handlers, time.time_ns() // 1_000_000, together)
        except Exception as error:
            log.error("taking jobs failed: %s", type(error).__name__)
            taken = 0
        if not taken:
            await asyncio.sleep(PAUSE_S)
