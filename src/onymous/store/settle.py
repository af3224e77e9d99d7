"""Waiting for something that must not be abandoned half-way, such as a commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def settled(work: Awaitable[T]) -> T:
    """Wait for `work` to end even when this task is cancelled, and only then be cancelled.

    Raises what `work` raises, or `CancelledError` (after the end) when the task was cancelled.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # its outcome is known here; nobody else will ask
        raise cancelled
    return task.result()
