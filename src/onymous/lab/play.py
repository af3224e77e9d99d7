"""Play a stream of requests through the real flows, in order, on a throw-away store."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from onymous.app import Core, running
from onymous.flows.answers import Answer, Question
from onymous.flows.identity import Resolve
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.tenants import Caller
from onymous.lab.streams import Request, Resolved
from onymous.rules.errors import Refusal
from onymous.rules.identifiers import clean
from onymous.rules.strategies import Plan, ScopeConfig, compile_plan
from onymous.settings import load

#: requests under way at once, in order
TOGETHER = 256
#: so many of the last requests are remembered, to leave repeats out
REPEATS = 65_536
OPS = ("identify", "login", "logout", "modify", "feed")

Answered = Callable[[Resolved], None]


class BadRequest(ValueError):
    """A line of a stream that cannot be played; says which and why."""


@asynccontextmanager
async def stage(store: str = "", *, journal: bool = False) -> AsyncIterator[Core]:
    """Open a store to play on: a new one in a throw-away folder, or the one given.

    With its journal on, what was played can be rehearsed under other rules. Nothing is forgotten
    meanwhile: what is too old by the clock of this machine may be new by the clock of the stream.
    """
    with tempfile.TemporaryDirectory(prefix="onymous-play-") as folder:
        flags: dict[str, object] = {"store": store or f"sqlite:{folder}/store", "journal": journal}
        flags |= {"master_key_file": f"{folder}/master.key", "work": False}
        async with running(load(flags, environ={})) as core:
            yield core


async def play(
    core: Core, config: ScopeConfig, scope: int, requests: Iterable[Request], done: Answered
) -> int:
    """Play a stream in a scope of its own; `done` gets every result once, in order.

    Returns how many repeats were left out. The clock is that of the stream.
    """
    player = _Player(core, compile_plan(config), scope, done)
    for request in requests:
        await player.take(request)
    await player.settled()
    return player.repeats


class _Player:
    """One stream while it is played."""

    def __init__(self, core: Core, plan: Plan, scope: int, done: Answered) -> None:
        self.core, self.plan, self.done = core, plan, done
        self.repeats = 0
        self._recent: dict[str, None] = {}
        #: client -> the last MPID it was answered
        self._mpids: dict[str, str] = {}
        self._waiting: list[tuple[Request, asyncio.Future[Answer]]] = []
        self._busy: set[str] = set()
        self._caller = Caller(
            input=0,
            name="play",
            kind="server",
            workspace=0,
            workspace_name="play",
            scope=scope,
            scope_name="play",
            plan=plan,
            api_key="",
            secrets=(),
            server_side=True,
        )

    async def take(self, request: Request) -> None:
        """Ask one request after all before it."""
        if request.op not in OPS:
            raise BadRequest(f"request {request.request_id}: op must be one of {', '.join(OPS)}")
        if request.request_id in self._recent:
            self.repeats += 1
            return
        self._recent[request.request_id] = None
        if len(self._recent) > REPEATS:
            del self._recent[next(iter(self._recent))]
        if request.client in self._busy or len(self._waiting) >= TOGETHER:
            await self.settled()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._busy.add(request.client)
        try:
            self._ask(request, future)
        except Refusal as refusal:
            future.set_result(Answer(refusal=refusal))

    def _ask(self, request: Request, future: asyncio.Future[Answer]) -> None:
        core, plan = self.core, self.plan
        previous = self._mpids.get(request.client)
        question = Question(
            op=request.op,
            caller=self._caller,
            environment="production",
            known=request.known_identities,
            now_ms=request.at_ms,
            previous=previous if request.op != "feed" else None,
            request_id=request.request_id if core.journal.on else None,
        )
        if request.op == "modify":
            wanted = [
                Wanted(c.get("identity_type") or "", c.get("old_value"), c.get("new_value"))
                for c in request.identity_changes
            ]
            change_identities(core.resolver, question, previous, wanted, future.set_result)
            return
        cleaned = clean(question.known, strict=True, folding=plan.folding, blocked=plan.blocked)
        work = Resolve(core.resolver, question, cleaned, future.set_result)
        # in order: one that changes nothing must still see what those before it changed
        core.desk.submit_write(work)

    async def settled(self) -> None:
        """Wait for every answer, and hand the results on in the order of the requests."""
        waiting, self._waiting = self._waiting, []
        self._busy.clear()
        for request, future in waiting:
            answer = await future
            if answer.refusal is not None and not isinstance(answer.refusal, Refusal):
                raise answer.refusal
            if answer.mpid is not None and request.op != "feed":
                self._mpids[request.client] = answer.mpid
            self.done(
                Resolved(
                    request_id=request.request_id,
                    mpid=answer.mpid,
                    is_logged_in=answer.logged_in,
                )
            )
