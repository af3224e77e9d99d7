"""Short write transactions of one process share a commit, so that the disk is waited for once.

Whatever came while one commit was under way runs in the next transaction, in the order it came,
each behind a savepoint of its own: who fails takes nobody along.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic

import apsw

from onymous.store.port import StoreError, T, Writes
from onymous.store.sqlite_session import SqliteTransaction, roll_back
from onymous.store.steps import Outcome, drive

#: works in one transaction
MOST_TOGETHER = 16
#: what is written behind waits so long for somebody who is waited for, where one came just before:
#: a commit of its own would keep the next one waiting
COMPANY_S, JUST_S = 0.020, 0.100


class Shared(Generic[T]):
    """A work that waits for the next transaction, and what came of it."""

    __slots__ = ("behind", "error", "out", "result", "work")

    def __init__(self, work: Writes[T], behind: bool) -> None:
        self.work, self.behind, self.out = work, behind, Outcome[T]()
        self.error: BaseException | None = None
        self.result: Any = None


class Sharing:
    """The works of one connection that share commits."""

    def __init__(
        self,
        db: apsw.Connection,
        lock: asyncio.Lock,
        threads: concurrent.futures.Executor,
        begin: Callable[[], Awaitable[None]],
        commit: Callable[[], None],
    ) -> None:
        """`lock` keeps other writers away; `commit` runs in a thread."""
        self._db, self._lock, self._threads = db, lock, threads
        self._begin, self._commit = begin, commit
        self._queue: deque[Shared[Any]] = deque()
        self._running = False
        #: when the latest work came that somebody waits for, and who waits for the next
        self._latest = 0.0
        self._company: asyncio.Future[None] | None = None

    async def share(self, work: Writes[T], behind: bool) -> T:
        """Run a work in the next transaction; return when it is durable.

        What is written `behind` may come a little later, together with what is not.
        """
        one = Shared(work, behind)
        self._queue.append(one)
        if not behind:
            self._latest = time.monotonic()
            self._meet()
        if not self._running:
            self._running = True
            drive(self._run())

        def drop() -> bool:
            waits = one in self._queue
            if waits:
                self._queue.remove(one)
            return waits

        return await one.out.whole(drop)

    async def _run(self) -> None:
        try:
            while self._queue:
                if all(one.behind for one in self._queue) and len(self._queue) < MOST_TOGETHER:
                    await self._wait_for_company()
                async with self._lock:
                    some = min(len(self._queue), MOST_TOGETHER)
                    if not some:  # all of them were cancelled meanwhile
                        break
                    await self._together([self._queue.popleft() for _ in range(some)])
        finally:
            self._running = False
            left = list(self._queue)
            self._queue.clear()
            tell(left, StoreError("the store was given up"))  # nobody, unless the loop ends

    async def _wait_for_company(self) -> None:
        if time.monotonic() - self._latest > JUST_S:
            return
        loop = asyncio.get_running_loop()
        self._company = loop.create_future()
        timer = loop.call_later(COMPANY_S, self._meet)
        try:
            await self._company
        finally:
            timer.cancel()
            self._company = None

    def _meet(self) -> None:
        if self._company is not None and not self._company.done():
            self._company.set_result(None)

    async def _together(self, group: Sequence[Shared[Any]]) -> None:
        try:
            await self._begin()
            for one in group:
                if not one.out.cancelled():
                    await self._one(one, alone=one is group[0])
            if not self._db.in_transaction:  # an error of the disk ends all of it at once
                raise StoreError("the transaction that was shared failed as a whole")
            done: Outcome[None] = Outcome()
            self._threads.submit(self._commit_then, group, done, asyncio.get_running_loop())
        except BaseException as error:
            roll_back(self._db)
            whole = isinstance(error, Exception)  # else the loop ends
            tell(group, error if whole else StoreError("the store was given up"))
            if not whole:
                raise
            return
        await done

    async def _one(self, one: Shared[Any], *, alone: bool) -> None:
        """Run one work; of one that fails nothing stays."""
        db = self._db
        if not alone:
            if not db.in_transaction:
                return
            db.execute("SAVEPOINT shared")
        try:
            one.result = await one.work(SqliteTransaction(db))
        except (Exception, asyncio.CancelledError) as error:
            one.error = error
            if alone and db.in_transaction:
                db.execute("ROLLBACK")
                await self._begin()
            elif db.in_transaction:
                db.execute("ROLLBACK TO shared")
        if not alone and db.in_transaction:
            db.execute("RELEASE shared")

    def _commit_then(
        self, group: Sequence[Shared[Any]], done: Outcome[None], loop: asyncio.AbstractEventLoop
    ) -> None:
        error: BaseException | None = None
        try:
            self._commit()
        except BaseException as failure:
            error = failure
            roll_back(self._db)

        def over() -> None:
            try:
                tell(group, error)
            finally:
                done.end(None)  # last: who goes on at once comes into the next transaction

        loop.call_soon_threadsafe(over)


def tell(group: Sequence[Shared[Any]], error: BaseException | None) -> None:
    """Tell everybody what came of the transaction; whose work failed, of that.

    They go on here and now: one that breaks keeps the others from nothing.
    """
    with contextlib.ExitStack() as all_of_them:  # it calls the last one first
        for one in reversed(group):
            failed = one.error or error
            if failed is None:
                all_of_them.callback(one.out.end, one.result)
            else:
                all_of_them.callback(one.out.fail, failed)
