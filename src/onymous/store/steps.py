"""Coroutines that go on in the very moment what they wait for is there.

A task goes on a turn of the loop later. Under load a turn takes milliseconds, and a request that
writes would wait for half a dozen of them on its way to the disk and back.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, cast

from onymous.store.port import T


class Outcome(asyncio.Future[T]):
    """What will come of something that is not abandoned half-way."""

    _now: Callable[[], None] | None = None
    _over: asyncio.Future[None] | None = None
    _told = False

    def end(self, result: T) -> None:
        """Tell that it went well."""
        if not self.done():
            self.set_result(result)
        self._tell()

    def fail(self, error: BaseException) -> None:
        """Tell that it failed."""
        if not self.done():
            if isinstance(error, StopIteration):  # no future takes it
                error = RuntimeError("StopIteration")
            self.set_exception(error)
        self._tell()

    def _tell(self) -> None:
        self._told = True
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if self._now is not None:
            self._now()

    def then(self, step: Callable[[], None]) -> None:
        """Go on with `step` when the end is told."""
        self._now = step

    async def whole(self, drop: Callable[[], bool]) -> T:
        """Wait for the end, also when cancelled meanwhile; `drop` keeps it from beginning."""
        try:
            return await self
        except asyncio.CancelledError:
            # told between the cancelling and this turn: nothing more will come
            if not self.cancelled() or self._told or drop():
                raise
            self._over = over = self.get_loop().create_future()
            while not over.done():
                try:
                    await asyncio.wait([over])
                except asyncio.CancelledError:
                    continue
            raise


def drive(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, at once, until it waits; it goes on when that is there.

    It is no task: nothing cancels it, and `asyncio.timeout` and the like do not work in it.
    """
    _Driven(work)._step()


class _Driven:
    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._send = work.send
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()

    def _step(self, _: object = None) -> None:
        try:
            waits = self._context.run(self._send, None)
        except StopIteration:
            return
        except Exception as error:
            self._loop.call_exception_handler({"message": "work ended", "exception": error})
            return
        if waits is None:  # sleep(0)
            self._loop.call_soon(self._step)
            return
        future = cast("asyncio.Future[Any]", waits)
        future._asyncio_future_blocking = False
        if isinstance(future, Outcome):
            future.then(self._step)
        else:
            future.add_done_callback(self._step)
