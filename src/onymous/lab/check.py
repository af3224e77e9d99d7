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
from onymous.lab.check_fields import BadScenario, check_fields, steps
from onymous.lab.tables import BadTable, read_table
from onymous.rules.aliases import Alias
from onymous.rules.checks import problems
from onymous.rules.errors import LookupRefusal, Refusal
from onymous.rules.identifiers import BY_NAME, clean_value
from onymous.rules.records import ERASED, KNOWN, Record
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.rules.trace import lines, name_of
from onymous.store.port import LostRace

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
    return [await _run_one(core, case, first_scope + n) for n, case in enumerate(cases)]


async def _run_one(core: Core, case: dict[str, Any], scope: int) -> Result:
    try:
        return await _Case(core, case, scope).run()
    except BadScenario as error:
        return Result(str(case.get("id")), str(case.get("title", "")), [str(error)])


class _Case:
    """One scenario while it runs. MPIDs in scenarios are labels."""

    def __init__(self, core: Core, case: dict[str, Any], scope: int) -> None:
        check_fields(case)
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
        for n, (request, expect) in enumerate(steps(self.case)):
            answer = await self._ask(request, START_MS + 1000 * (n + 1))
            await self._compare(request, expect, answer)
            if self.result.problems:
                self.result.trace = lines(answer.trace) if answer.trace else []
                break
        return self.result

    async def _load(self) -> None:
        # the last tie-break is the record's number: the smallest label gets the greatest
        initial = sorted(self.case.get("initial") or [], key=_by_label, reverse=True)
        labels = [str(r["mpid"]) for r in initial]
        pool = self.caller.pool("production")
        given = [self._given(record, labels) for record in initial]
        try:
            pids = await load(self.core.store, pool, self.caller.plan, given)
        except LostRace as error:
            raise BadScenario(f"{self.case['id']}: initial: {error}") from None
        for label, pid in zip(labels, pids, strict=True):
            self._name(label, self.core.mpids.text(pid))
        for record in initial:
            if record.get("erased"):
                await self._ask({"op": "erase", "mpid": record["mpid"]}, START_MS)
        for old in self.case.get("prior_aliases") or []:
            alias = Alias(
                source=self._pid(old["source"]),
                destination=self._pid(old["destination"]),
                start_ms=old.get("start", 0),
                end_ms=old.get("end", START_MS),
                scope=old.get("scope", "mpid"),
                device_stamp=old.get("device_application_stamp"),
            )
            await add_alias(self.core.store, pool, alias)

    def _given(self, record: dict[str, Any], labels: list[str]) -> Given:
        source = record.get("source")
        if source is not None and str(source) not in labels:
            raise BadScenario(f"{self.case['id']}: source {source} is no record of `initial`")
        return Given(
            # what was erased has nothing left, and somebody else may have it now
            ids={} if record.get("erased") else self._cleaned(record.get("ids") or {}),
            created_ms=record.get("created", 0),
            seen_ms=record.get("last_seen", 0),
            source=None if source is None else labels.index(str(source)),
            was_known=record.get("was_known", False),
        )

    def _cleaned(self, ids: dict[str, list[str]]) -> dict[str, list[str]]:
        """Return values of records as the scope compares them."""
        out = {}
        for name, values in ids.items():
            if name not in BY_NAME:
                raise BadScenario(f"{self.case['id']}: {name} is no identity type")
            kind, folding = BY_NAME[name], self.caller.plan.folding
            out[name] = [clean_value(kind, v, folding) or v for v in values]
        return out

    def _name(self, label: str, mpid: str) -> None:
        self.mpids[label], self.labels[mpid] = mpid, label

    def _pid(self, label: str) -> int:
        pid = self.core.mpids.parse(self.real(label))
        if pid is None or str(label) not in self.mpids:
            raise BadScenario(f"{self.case['id']}: no record {label}")
        return pid

    def real(self, mpid: object) -> str | None:
        if mpid is None:
            return None
        return self.mpids.get(str(mpid), self.core.mpids.text((1 << 61) + 1))

    async def _ask(self, request: dict[str, Any], now_ms: int) -> Answer:
        op, asked = request["op"], request.get("request_id")
        question = Question(
            op=op,
            caller=self.caller,
            environment=request.get("environment", "production"),
            known=request.get("known_identities", request.get("identities")) or {},
            now_ms=request.get("now_ms", now_ms),
            previous=self.real(request.get("previous_mpid")),
            # all scenarios come through one input: each has its own requests
            request_id=f"{self.caller.scope}/{asked}" if asked else None,
            body=json.dumps(request, sort_keys=True).encode(),
            read_only=request.get("read_only", False),
            explain="request_id" not in request,
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
            "reason": answer.reason,
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
            want = str(expect[name]) if isinstance(expect.get(name), int | str) else None
            if name in expect and expect[name] != value and (name != "mpid" or want != value):
                self.result.problems.append(f"{name}: expected {expect[name]}, got {value}")
        for record in expect.get("records") or []:
            await self._compare_record(record)

    async def _compare_record(self, expect: dict[str, Any]) -> None:
        label = str(expect["mpid"])
        if label not in self.mpids:
            self.result.problems.append(f"{label}: was not created")
            return
        record = await read_record(self.core.store, self._pid(label))
        held: dict[str, list[str]] = defaultdict(list)
        for value in record.values if record else []:
            held[name_of(value.code)].append(value.key)
        want = {n: sorted(v) for n, v in self._cleaned(expect.get("ids") or {}).items() if v}
        got = {name: sorted(values) for name, values in held.items()}
        if "ids" in expect and want != got:
            self.result.problems.append(f"{label}: expected {want}, got {got}")
        facts = self._facts(record)
        for name in facts.keys() & expect.keys():
            if expect[name] != facts[name] and str(expect[name]) != facts[name]:
                self.result.problems.append(
                    f"{label}: expected {name} {expect[name]}, got {facts[name]}"
                )

    def _facts(self, record: Record | None) -> dict[str, object]:
        """Return what is known of a record beside its values."""
        if record is None:
            return {"source": None, "was_known": False, "erased": True}
        source = self.labels.get(self.core.mpids.text(record.source)) if record.source else None
        erased = bool(record.flags & ERASED)
        out: dict[str, object] = {"source": source, "erased": erased}
        out["was_known"] = bool(record.flags & KNOWN) and not self.caller.plan.best_match
        return out | {"created": record.created_ms}


def _by_label(record: dict[str, Any]) -> tuple[int, str]:
    """Order labels as MPIDs: numbers by size, and before words."""
    label = str(record["mpid"])
    return (int(label), "") if label.lstrip("-").isdecimal() else (1 << 63, label)


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
        source_mpid=case.real(data.get("source_mpid")),
        destination_mpid=case.real(data.get("destination_mpid")),
        start_unixtime_ms=data.get("start_unixtime_ms"),
        end_unixtime_ms=data.get("end_unixtime_ms"),
        scope=data.get("scope"),
        device_application_stamp=data.get("device_application_stamp"),
        signed=not question.key_only,
        copy=data.get("copy", []),
    )
    return await request_alias(case.core.resolver, case.core.store, question, wanted)


async def _feed(case: Asking, request: dict[str, Any], question: Question) -> Answer:
    if request.get("mpid") is not None:
        return await _events(case, request, question)
    answer = await _resolve(case, request, question)
    # a row nobody can be found for is set aside, not refused
    aside = isinstance(answer.refusal, LookupRefusal)
    return Answer(trace=answer.trace, reason="no_usable_identity") if aside else answer


ASK: dict[str, Ask] = {
    "identify": _resolve,
    "login": _resolve,
    "logout": _resolve,
    "search": _search,
    "feed": _feed,
    "modify": _modify,
    "events": _events,
    "erase": _erase,
    "alias": _alias,
}
