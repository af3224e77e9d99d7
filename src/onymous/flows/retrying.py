"""Transactions of their own that lost a race run again, as those of the desk do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from onymous.rules.errors import Busy
from onymous.store.port import LostRace

T = TypeVar("T")
#: tries before a conflict with others is reported
MOST_TRIES = 50


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction, again as long as it loses races; raises `Busy` in the end."""
    for turn in range(MOST_TRIES):
        try:
            return await work()
        except LostRace:
            await asyncio.sleep(random.random() * min(0.002 * 2**turn, 0.2))
    raise Busy()
