"""The audit: random histories through the real product and through the auditor, side by side."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec

from onymous.app import Core
from onymous.flows.answers import Answer, Question
from onymous.flows.loading import read_record
from onymous.flows.tenants import Caller
from onymous.lab.audit_trace import contradictions
from onymous.lab.auditor import Model, compare, story
from onymous.lab.auditor_types import NEW, Config
from onymous.lab.check import ASK
from onymous.lab.glancing import at_a_glance
from onymous.lab.histories import Op, configuration, operation
from onymous.rules.errors import LookupRefusal, Refusal
from onymous.rules.records import ERASED
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.rules.trace import lines, name_of

#: steps between two comparisons of every record
WHOLE = 10
_ACCEPTED = {"events", "feed", "alias"}


class Violation(AssertionError):
    """The product and the auditor disagree; the message is the story."""


class Audited:
    """One scope of the product beside its model."""

    def __init__(self, core: Core, config: dict[str, Any], scope: int) -> None:
        self.core = core
        plan = compile_plan(msgspec.convert(config, ScopeConfig))
        self.caller = Caller(
            input=0,
            name="audit",
            kind="server",
            workspace=0,
            workspace_name="audit",
            scope=scope,
            scope_name="audit",
            plan=plan,
            api_key="",
            secrets=(),
            server_side=True,
        )
        self.config = config
        self.model = Model(Config.from_dict(config))
        self.mpids: list[str] = []
        #: MPID -> place of the request that made it
        self.born: dict[str, int] = {}
        self.told: list[Op] = []
        self.now = 1_000_000

    def real(self, mpid: object) -> str | None:
        """Return an MPID as it is: here they are no labels."""
        return None if mpid is None else str(mpid)

    async def step(self, op: Op) -> None:
        """Make one request of both, and compare."""
        self.now += 1_000
        self.told.append(op)
        expected = self.model.expect(op, self.now)
        answer = await self.ask(op)
        problems = compare(expected, self.seen(op, answer), set(self.mpids))
        if expected.mpid == NEW and answer.mpid is not None:
            self.mpids.append(answer.mpid)
            self.born[answer.mpid] = len(self.told) - 1
        if not problems:
            self.model.commit(expected, answer.mpid)
            problems = contradictions(op, answer, self.config)
        if not problems and len(self.told) % WHOLE == 0:
            problems = await self.differences()
        if problems:
            raise Violation(self.story(problems, answer))

    async def ask(self, op: Op) -> Answer:
        """Make a request of the product."""
        question = Question(
            op=op["op"],
            caller=self.caller,
            environment="production",
            known=op.get("known_identities") or op.get("identities") or {},
            now_ms=op.get("now_ms", self.now),
            previous=op.get("previous_mpid"),
            # what is not to be explained may be answered at a glance
            explain=op.get("explain", True),
            fold_keys=op["op"] in ("events", "feed"),
            replace_values=op.get("replace_values", False),
            key_only=op.get("key_only", False),
        )
        try:
            if not question.explain:
                return await at_a_glance(self.core, question)
            return await ASK[op["op"]](self, op, question)
        except Refusal as refusal:
            return Answer(refusal=refusal)

    def seen(self, op: Op, answer: Answer) -> dict[str, Any]:
        """Return an answer as the wire has it."""
        refused = answer.refusal
        accepted = 202 if op["op"] in _ACCEPTED else 200
        out: dict[str, Any] = {"status": accepted if refused is None else refused.status}
        if op["op"] == "feed" and isinstance(refused, LookupRefusal):
            # rows nobody can be found for are accepted and set aside
            return {"status": 202, "mpid": None}
        if refused is not None:
            return out | {"code": refused.code}
        out["outcome"] = "conflict" if answer.conflict else answer.outcome
        if op["op"] in ("identify", "login", "logout", "search"):
            out |= {
                "is_logged_in": answer.logged_in,
                "is_ephemeral": answer.ephemeral,
                "matched_identities": answer.matched,
            }
        if op["op"] not in ("alias", "erase"):
            out["mpid"] = answer.mpid
        if op["op"] == "modify":
            out["change_results"] = [
                {"identity_type": kind, "modified_mpid": mpid} for kind, mpid in answer.changes
            ]
        return out

    async def differences(self) -> list[str]:
        """Compare every record of the model with the store."""
        problems = []
        for wanted in self.model.records:
            pid = self.core.mpids.parse(wanted.mpid)
            record = await read_record(self.core.store, pid) if pid is not None else None
            if record is None:
                problems.append(f"{wanted.mpid} is not there")
                continue
            held: dict[str, list[str]] = defaultdict(list)
            for value in record.values:
                held[name_of(value.code)].append(value.text)
            got = {kind: sorted(values) for kind, values in held.items()}
            want = {kind: sorted(values) for kind, values in wanted.ids.items() if values}
            if got != want:
                problems.append(f"{wanted.mpid} holds {got} instead of {want}")
            if bool(record.flags & ERASED) != wanted.erased:
                problems.append(f"{wanted.mpid} erased: {not wanted.erased}")
            source = self.core.mpids.text(record.source) if record.source else None
            if source != wanted.source and not wanted.erased:
                problems.append(f"{wanted.mpid} was made beside {source}, not {wanted.source}")
        return problems

    def story(self, problems: list[str], answer: Answer | None = None) -> str:
        """Tell what went wrong, after what."""
        trace = lines(answer.trace) if answer is not None and answer.trace is not None else []
        told = story(self.told)
        return "\n".join([str(self.config), told, *problems, *trace])


async def history(core: Core, seed: int, steps: int, scope: int) -> int:
    """Audit one random history; raises `Violation`. Returns the number of steps."""
    rng = random.Random(seed)
    audited = Audited(core, configuration(rng), scope)
    for _ in range(steps):
        await audited.step(operation(rng, audited.mpids[-12:]))
    problems = await audited.differences()
    if problems:
        raise Violation(audited.story(problems))
    return steps


async def shrunk(core: Core, seed: int, steps: int, scope: int) -> str:
    """Return the shortest story found of a history that violates, or an empty text.

    Requests are left out one by one while the rest still violates; MPIDs are renamed as they are
    made anew.
    """
    rng = random.Random(seed)
    config = configuration(rng)
    audited = Audited(core, config, scope)
    try:
        for _ in range(steps):
            await audited.step(operation(rng, audited.mpids[-12:]))
        return ""
    except Violation as violation:
        best = str(violation)
    ops = list(enumerate(_labelled(audited)))
    place = len(ops) - 2
    while place >= 0:
        scope += 1
        fewer = ops[:place] + ops[place + 1 :]
        text = await _again(core, config, fewer, scope)
        if text:
            ops, best = fewer, text
        place -= 1
    return best


def _labelled(audited: Audited) -> list[Op]:
    """Return the requests with MPIDs replaced by their place among those made."""
    places = {mpid: f"#{n}" for mpid, n in audited.born.items()}

    def label(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: label(v) for k, v in value.items()}
        return places.get(value, value) if isinstance(value, str) else value

    return [{k: label(v) for k, v in op.items()} for op in audited.told]


async def _again(core: Core, config: dict[str, Any], ops: list[tuple[int, Op]], scope: int) -> str:
    audited = Audited(core, config, scope)
    made: dict[str, str] = {}

    def real(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: real(v) for k, v in value.items()}
        if isinstance(value, str) and value.startswith("#"):
            return made.get(value, "1")
        return value

    try:
        for number, op in ops:
            count = len(audited.mpids)
            await audited.step({k: real(v) for k, v in op.items()})
            if len(audited.mpids) > count:
                made[f"#{number}"] = audited.mpids[-1]
        problems = await audited.differences()
    except Violation as violation:
        return str(violation)
    return audited.story(problems) if problems else ""
