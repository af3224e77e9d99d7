"""Run scenario files through the real flows on a real store.

A scenario is one JSON object a line: a configuration, the records to begin with, one request or
several in order, and what is expected. The format is described in docs/use/scenarios.md.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from onymous.app import Core
from onymous.flows.aliases import AliasRequest, add_alias, request_alias
from onymous.flows.answers import Answer, Question
from onymous.flows.batches import resolve_batch
from onymous.flows.erasure import erase
from onymous.flows.loading import Given, load, read_record
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.search import search_any
from onymous.flows.tenants import Caller
from onymous.lab.tables import BadTable, read_table
from onymous.rules.aliases import Alias
from onymous.rules.checks import problems
from onymous.rules.errors import Refusal
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.rules.trace import lines, name_of

#: the clock of a scenario; every request is a second later
START_MS = 1_000_000
#: requests whose answer, if not refused, is 202
_ACCEPTED = {"events", "feed", "alias"}


class Asking(Protocol):
    """What makes requests of a core; it says what an MPID in a request stands for."""

    core: Core

    def real(self, mpid: object) -> str | None:
        """Return the MPID that is meant, or None."""


Ask = Callable[[Asking, dict[str, Any], Question], Awaitable[Answer]]


class BadScenario(ValueError):
    """A scenario that cannot be run; says which and why."""


@dataclass(slots=True)
class Result:
    """What came of one scenario."""

    id: str
    title: str
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Return whether everything was as expected."""
        return not self.problems


def read(text: str, name: str) -> list[dict[str, Any]]:
    """Return the scenarios of a file; raises `BadScenario` naming the line that is wrong."""
    if name.endswith((".yaml", ".yml")):
        try:
            return read_table(text, name)
        except BadTable as error:
            raise BadScenario(str(error)) from None
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            case = json.loads(line)
        except (ValueError, RecursionError):
            raise BadScenario(f"{name}:{number} is not JSON") from None
        if not isinstance(case, dict):
            raise BadScenario(f"{name}:{number} is not a JSON object")
        if case.get("kind", "resolution") == "resolution":
            case.setdefault("id", f"{name}:{number}")
            out.append(case)
    return out


async def run(core: Core, cases: Iterable[dict[str, Any]], first_scope: int) -> list[Result]:
    """Run scenarios, each in a scope of its own from `first_scope` on."""
    return [await _Case(core, case, first_scope + n).run() for n, case in enumerate(cases)]


class _Case:
    """One scenario while it runs. MPIDs in scenarios are labels."""

    def __init__(self, core: Core, case: dict[str, Any], scope: int) -> None:
        self.core, self.case = core, case
        self.result = Result(str(case["id"]), str(case.get("title", "")))
        try:
            config = msgspec.convert(case["config"], ScopeConfig)
        except (KeyError, msgspec.ValidationError) as error:
            raise BadScenario(f"{case['id']}: config: {error}") from None
        wrong = problems(config, "config")
        if wrong:
            raise BadScenario(f"{case['id']}: {wrong[0]}")
        plan = compile_plan(config)
        self.caller = Caller(
            input=0,
            name="check",
            kind="server",
            workspace=0,
            workspace_name="check",
            scope=scope,
            scope_name="check",
            plan=plan,
            api_key="",
            secrets=(),
            server_side=True,
        )
        self.mpids: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.created = 0

    async def run(self) -> Result:
        """Load the records, make the requests, compare."""
        await self._load()
        requests, expected = self.case["request"], self.case["expect"]
        if isinstance(requests, dict):
            requests, expected = [requests], [expected]
        for n, (request, expect) in enumerate(zip(requests, expected, strict=True)):
            answer = await self._ask(request, START_MS + 1000 * (n + 1))
            await self._compare(request, expect, answer)
            if self.result.problems:
                self.result.trace = lines(answer.trace) if answer.trace else []
                break
        return self.result

    async def _load(self) -> None:
        initial = self.case.get("initial", [])
        labels = [str(r["mpid"]) for r in initial]
        given = []
        for n, record in enumerate(initial):
            source = record.get("source")
            known = labels.index(source) if source in labels[:n] else None
            given.append(
                Given(
                    ids=record["ids"],
                    created_ms=record.get("created", 0),
                    seen_ms=record.get("last_seen", 0),
                    source=known,
                    was_known=record.get("was_known", False),
                )
            )
        pool = self.caller.pool("production")
        pids = await load(self.core.store, pool, self.caller.plan, given)
        for label, pid in zip(labels, pids, strict=True):
            self._name(label, self.core.mpids.text(pid))
        for old in self.case.get("prior_aliases", []):
            alias = Alias(
                source=self._pid(old["source"]),
                destination=self._pid(old["destination"]),
                start_ms=old["start"],
                end_ms=old["end"],
            )
            await add_alias(self.core.store, pool, alias)

    def _name(self, label: str, mpid: str) -> None:
        self.mpids[label], self.labels[mpid] = mpid, label

    def _pid(self, label: str) -> int:
        pid = self.core.mpids.parse(self.real(label))
        if pid is None:
            raise BadScenario(f"{self.case['id']}: no record {label}")
        return pid

    def real(self, mpid: object) -> str | None:
        if mpid is None:
            return None
        return self.mpids.get(str(mpid), self.core.mpids.text((1 << 61) + 1))

    async def _ask(self, request: dict[str, Any], now_ms: int) -> Answer:
        op = request["op"]
        if op not in ASK:
            raise BadScenario(f"{self.case['id']}: unknown op {op}")
        question = Question(
            op=op,
            caller=self.caller,
            environment="production",
            known=request.get("known_identities", request.get("identities", {})),
            now_ms=request.get("now_ms", now_ms),
            previous=self.real(request.get("previous_mpid")),
            explain=True,
            fold_keys=op in ("events", "feed"),
            key_only=request.get("key_only", False),
            replace_values=request.get("replace_values", False),
        )
        try:
            answer = await ASK[op](self, request, question)
        except Refusal as refusal:
            return Answer(refusal=refusal)
        if answer.mpid is not None and answer.mpid not in self.labels:
            self.created += 1
            self._name(f"new:{self.created}", answer.mpid)
        return answer

    async def _compare(
        self, request: dict[str, Any], expect: dict[str, Any], answer: Answer
    ) -> None:
        refused = answer.refusal
        accepted = 202 if request["op"] in _ACCEPTED else 200
        got: dict[str, object] = {
            "status": accepted if refused is None else refused.status,
            "mpid": self.labels.get(answer.mpid) if answer.mpid else None,
            "code": refused.code if refused is not None else None,
            "is_logged_in": answer.logged_in,
            "is_ephemeral": answer.ephemeral,
            "outcome": answer.outcome,
            "matched_identities": answer.matched,
            "change_results": [
                {"identity_type": name, "modified_mpid": self.labels.get(mpid, "?")}
                for name, mpid in answer.changes
            ],
            "matches": [self.labels.get(m.mpid, "?") for m in answer.matches or []],
            "attached": answer.trace.attached if answer.trace else [],
            "skipped": {s.type: s.reason for s in answer.trace.skipped} if answer.trace else {},
            "conflict": sorted(self.labels.get(m, "?") for m in answer.conflict),
        }
        for name, value in got.items():
            if name in expect and expect[name] != value:
                self.result.problems.append(f"{name}: expected {expect[name]}, got {value}")
        for record in expect.get("records", []):
            await self._compare_record(record)

    async def _compare_record(self, expect: dict[str, Any]) -> None:
        label = str(expect["mpid"])
        if label not in self.mpids:
            self.result.problems.append(f"{label}: was not created")
            return
        record = await read_record(self.core.store, self._pid(label))
        held: dict[str, list[str]] = defaultdict(list)
        for value in record.values if record else []:
            held[name_of(value.code)].append(value.text)
        want = {name: sorted(values) for name, values in expect["ids"].items()}
        got = {name: sorted(values) for name, values in held.items()}
        if want != got:
            self.result.problems.append(f"{label}: expected {want}, got {got}")
        if "source" in expect:
            number = record.source if record else None
            source = self.labels.get(self.core.mpids.text(number)) if number else None
            if source != expect["source"]:
                self.result.problems.append(f"{label}: expected source {expect['source']}")


async def _when_done(start: Callable[[Callable[[Answer], None]], None]) -> Answer:
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    start(future.set_result)
    return await future


async def _search(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    if request.get("reach") == "any":
        return await search_any(case.core.resolver, case.core.store, question)
    return await _resolve(case, request, question)


async def _resolve(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    return await _when_done(lambda done: case.core.resolver.ask(question, done))


async def _modify(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    wanted = [
        Wanted(c["identity_type"], c.get("old_value"), c.get("new_value"))
        for c in request["identity_changes"]
    ]
    mpid = case.real(request["mpid"])
    return await _when_done(
        lambda done: change_identities(case.core.resolver, question, mpid, wanted, done)
    )


async def _events(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    mpid = case.real(request.get("mpid"))
    return await _when_done(lambda done: resolve_batch(case.core.resolver, question, mpid, done))


async def _erase(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    mpid = case.real(request["mpid"])
    return await _when_done(lambda done: erase(case.core.resolver, question, mpid, done))


async def _alias(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    data = request["data"]
    wanted = AliasRequest(
        source_mpid=case.real(data["source_mpid"]),
        destination_mpid=case.real(data["destination_mpid"]),
        start_unixtime_ms=data.get("start_unixtime_ms"),
        end_unixtime_ms=data.get("end_unixtime_ms"),
        scope=data.get("scope"),
    )
    return await request_alias(case.core.resolver, case.core.store, question, wanted)


ASK: dict[str, Ask] = {
    "identify": _resolve,
    "login": _resolve,
    "logout": _resolve,
    "search": _search,
    "feed": _resolve,
    "modify": _modify,
    "events": _events,
    "erase": _erase,
    "alias": _alias,
}
