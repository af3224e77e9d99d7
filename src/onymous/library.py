"""The library face: the same rules and the same store in-process, without a server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from onymous.app import Core
from onymous.flows.answers import Answer, Match, Question
from onymous.flows.glance import ask_now
from onymous.flows.history import History
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.search import search_any
from onymous.flows.tenants import Caller
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.rules.trace import Trace, lines
from onymous.settings import load

T = TypeVar("T")
#: the pool of the library: scope 0 belongs to no tenant of a server
_SCOPE = 0


class Person(msgspec.Struct, kw_only=True, frozen=True):
    """Who it is. `mpid` is decimal text, the same for ever."""

    mpid: str
    is_logged_in: bool
    is_ephemeral: bool
    matched_identities: dict[str, str]
    trace: Trace | None = None

    def why(self) -> list[str]:
        """Return the trace as sentences; empty unless asked for with `explain=True`."""
        return lines(self.trace) if self.trace is not None else []


class Onymous:
    """An open folder or database. Safe to use from several threads; close it at the end."""

    def __init__(self, store: str, config: ScopeConfig, environment: str) -> None:
        self._environment = environment
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        url = store if "://" in store or store.startswith("sqlite:") else f"sqlite:{store}"
        self._core = Core(load({"store": url}, environ={}))
        self._run(self._core.start())
        atexit.register(self._leave)
        self._caller = Caller(
            input=0,
            name="library",
            kind="server",
            workspace=0,
            workspace_name="library",
            scope=_SCOPE,
            scope_name="library",
            plan=compile_plan(config),
            api_key="",
            secrets=(),
            server_side=True,
        )

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            return self._loop.run_until_complete(work)

    # -- questions --------------------------------------------------------------------------

    def identify(self, identities: Mapping[str, str | None], **options: Any) -> Person:
        """Find or make the profile of these identities (session start)."""
        return self._resolve("identify", identities, options)

    def login(self, identities: Mapping[str, str | None], **options: Any) -> Person:
        """Someone logs in."""
        return self._resolve("login", identities, options)

    def logout(self, identities: Mapping[str, str | None], **options: Any) -> Person:
        """Someone logs out; the identities are those of the visitor to move to."""
        return self._resolve("logout", identities, options)

    def search(self, identities: Mapping[str, str | None], **options: Any) -> Person:
        """Look someone up as identify would; raises `NotFound`, never creates."""
        return self._resolve("search", identities, options)

    def find(self, identities: Mapping[str, str | None]) -> list[Match]:
        """Return every holder of any of these identities; raises `NotFound` if there is none."""
        question = self._question("search", identities, {})
        answer = self._run(search_any(self._core.resolver, self._core.store, question))
        return _raised(answer).matches or []

    def modify(
        self, mpid: str, changes: Mapping[str, tuple[str | None, str | None]]
    ) -> list[tuple[str, str]]:
        """Change names: type -> (old, new). Returns (type, MPID) of each record that changed."""
        question = self._question("modify", {}, {})
        wanted = [Wanted(name, old, new) for name, (old, new) in changes.items()]

        def start(done: Callable[[Answer], None]) -> None:
            change_identities(self._core.resolver, question, mpid, wanted, done)

        return _raised(self._ask(start)).changes

    def history(self, mpid: str, at_ms: int | None = None) -> History:
        """Return how a profile came about, newest entry first."""
        question = self._question("history", {}, {})
        return self._run(self._core.historian.history(question, mpid, at_ms=at_ms))

    def close(self) -> None:
        """Write what was written behind and close."""
        atexit.unregister(self._leave)
        with self._lock:
            if not self._loop.is_closed():
                self._loop.run_until_complete(self._core.close())
                self._loop.close()

    def __enter__(self) -> Onymous:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave(self) -> None:
        """End quietly where nobody closed it: what was answered is in the store already."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(RuntimeError):
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    # -- inside -----------------------------------------------------------------------------

    def _question(
        self, op: str, identities: Mapping[str, str | None], options: Mapping[str, Any]
    ) -> Question:
        return Question(
            op=op,
            caller=self._caller,
            environment=self._environment,
            known=identities,
            now_ms=time.time_ns() // 1_000_000,
            **options,
        )

    def _resolve(
        self, op: str, identities: Mapping[str, str | None], options: Mapping[str, Any]
    ) -> Person:
        question = self._question(op, identities, options)
        with self._lock:
            answer = ask_now(self._core.resolver, question)
        if answer is None:
            answer = self._ask(lambda done: self._core.resolver.ask(question, done))
        _raised(answer)
        return Person(
            mpid=answer.mpid or "",
            is_logged_in=answer.logged_in,
            is_ephemeral=answer.ephemeral,
            matched_identities=answer.matched,
            trace=answer.trace,
        )

    def _ask(self, start: Callable[[Callable[[Answer], None]], None]) -> Answer:
        async def work() -> Answer:
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            start(future.set_result)
            return await future

        return self._run(work())


def _raised(answer: Answer) -> Answer:
    """Return the answer; raise its refusal, if it is one."""
    if answer.refusal is not None:
        raise answer.refusal
    return answer


def open(
    store: str = "./data",
    *,
    strategy: str = "profile_conversion",
    environment: str = "production",
    **config: Any,
) -> Onymous:
    """Open a folder (or a `postgresql://` database) for use in this process.

    `config` are the fields of a scope configuration (priority, login, unique, ...). Raises
    `msgspec.ValidationError` for fields or values that do not exist.
    """
    preset = {"login": ("customerid", "email"), "unique": ("customerid", "email")}
    plain = strategy in ("default", "best_match")
    wanted = {"strategy": strategy, **({} if plain else preset), **config}
    if not plain:
        wanted.setdefault("email_lower", True)
    return Onymous(store, msgspec.convert(wanted, ScopeConfig), environment)
