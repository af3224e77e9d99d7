"""The loop: claim a job, run its flow, retry, give up loudly."""

from __future__ import annotations

import asyncio
import logging
import time

from onymous.flows.jobs import Handler, work
from onymous.store.port import Store

log = logging.getLogger("onymous.worker")

#: seconds between looks where nothing was due
PAUSE_S = 0.5


async def _identity_changed(body: bytes) -> None:
    """Identity changes are told to nobody yet; the ledger keeps them."""


HANDLERS: dict[str, Handler] = {"identity_changed": _identity_changed}


async def run(store: Store, handlers: dict[str, Handler] = HANDLERS) -> None:
    """Work until cancelled; a failing database is tried again."""
    while True:
        try:
            taken = await work(store, handlers, time.time_ns() // 1_000_000)
        except Exception as error:
            log.error("taking jobs failed: %s", type(error).__name__)
            taken = 0
        if not taken:
            await asyncio.sleep(PAUSE_S)
