"""What a join or split of scopes would do, told before; and its beginning.

The report counts with the function that decides later, so it says what will happen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from onymous.flows import tenancy
from onymous.flows.credentials import transact
from onymous.flows.identity import Mpids
from onymous.flows.scope_changes import SETTLE_MS, scope_change
from onymous.flows.scope_moving import Choices, ScopeChange
from onymous.flows.versions import Author
from onymous.rules import scopes as rules
from onymous.rules.errors import ScopeChangeRefused
from onymous.rules.identifiers import BY_NAME
from onymous.rules.records import ERASED, Record
from onymous.rules.scopes import CHOICES, Joined
from onymous.rules.strategies import Plan, compile_plan
from onymous.rules.tenants import State
from onymous.store import scopes_sql as moves
from onymous.store import sql
from onymous.store.packing import slot, unpack_record
from onymous.store.port import Session, Store, Transaction

#: conflicts shown one by one; all are counted
MOST_SHOWN = 100
_PAGE = 500


class Conflict(msgspec.Struct, kw_only=True):
    """Profiles of both scopes that hold the same value, and what would become of them."""

    environment: str
    #: the profile that comes over
    mpid: str
    others: list[str]
    types: list[str]
    #: merge, drop, or undecided
    outcome: str
    survivor: str | None = None
    #: types by which they are two people although one person was chosen
    differ: list[str] = []


class Report(msgspec.Struct, kw_only=True):
    """What a join or split would do."""

    kind: str
    source: str
    target: str
    workspaces: list[str]
    #: profiles by environment
    profiles: dict[str, int]
    #: conflicts by type, and by outcome
    by_type: dict[str, int] = {}
    by_outcome: dict[str, int] = {}
    conflicts: list[Conflict] = []
    #: why it cannot be done as asked
    refused: list[str] = []


class Wanted(msgspec.Struct, kw_only=True):
    """A join or split as an operator asks for it."""

    kind: str
    source: str
    target: str
    #: splits: the workspaces that go
    workspaces: Sequence[str] = ()
    #: type name -> choice
    types: Mapping[str, str] = {}
    #: MPID of a profile that comes over -> choice
    people: Mapping[str, str] = {}
    undoes: int | None = None


async def look(store: Store, mpids: Mpids, wanted: Wanted) -> Report:
    """Say what a join or split would do; changes nothing."""
    async with store.read() as session:
        return await _look(session, mpids, wanted)


async def begin(
    store: Store, mpids: Mpids, wanted: Wanted, author: Author, now_ms: int
) -> ScopeChange:
    """Begin a join or split: its workspaces are held from now on, its work is promised.

    Raises `ScopeChangeRefused` for what the report refuses.
    """
    report = await look(store, mpids, wanted)

    async def work(tx: Transaction) -> ScopeChange:
        state, ids = await tenancy.read_state(tx)
        refused = report.refused or await _refused(tx, state, ids, wanted)
        if refused:
            raise ScopeChangeRefused(what=refused[0])
        if wanted.target not in ids.scopes:
            config = tenancy.encode(state.scopes[wanted.source])
            rows = await tx.rows(moves.SCOPE_ADD, wanted.target, config, now_ms)
            ids.scopes[wanted.target] = rows[0][0]
        workspaces = [ids.workspaces[w] for w in _going(state, wanted)]
        body = msgspec.json.encode(_choices(mpids, wanted))
        ends = (ids.scopes[wanted.source], ids.scopes[wanted.target])
        who = (author.name.strip(), author.reason.strip(), now_ms)
        number = await _add(tx, wanted, (*ends, json.dumps(workspaces).encode(), body, *who))
        await tx.many(moves.HOLD_ADD, [(w, number) for w in workspaces])
        await tenancy.changed(tx)
        return scope_change((await tx.rows(moves.CHANGE_GET, number))[0])

    return await transact(store, "scope.begin", work)


async def _add(tx: Transaction, wanted: Wanted, row: tuple[Any, ...]) -> int:
    """Write a change, promise its work, note it for the audit; return its number."""
    author, reason, now_ms = row[-3:]
    due = now_ms + SETTLE_MS
    rows = await tx.rows(moves.CHANGE_ADD, wanted.kind, *row, "waiting", due, wanted.undoes)
    number = int(rows[0][0])
    await tx.run(sql.JOB_ADD, "scope_change", due, msgspec.msgpack.encode(number))
    detail = msgspec.json.encode({"reason": reason, "source": wanted.source})
    action = f"scope.{wanted.kind}.begin"
    await tx.run(sql.AUDIT_ADD, now_ms, author, action, f"scope change {number}", detail)
    return number


async def wanted_undo(store: Store, number: int, types: Mapping[str, str]) -> Wanted:
    """Return what takes a join or split back; raises `ScopeChangeRefused`."""
    async with store.read() as session:
        rows = await session.rows(moves.CHANGE_GET, number)
        _, ids = await tenancy.read_state(session)
        undone = await session.rows(moves.CHANGES_UNDOING, number)
    change = scope_change(rows[0]) if rows else None
    if change is None:
        raise ScopeChangeRefused(what=f"there is no scope change {number}")
    if change.kind not in ("join", "split"):
        raise ScopeChangeRefused(what="an undoing is taken back by joining or splitting again")
    if undone or change.state != "done":
        why = "it is undone already" if undone else "it is not done yet"
        raise ScopeChangeRefused(what=why)
    scopes = {n: name for name, n in ids.scopes.items()}
    names = {n: name for name, n in ids.workspaces.items()}
    return Wanted(
        kind=f"un{change.kind}",
        source=scopes[change.target],
        target=scopes[change.source],
        workspaces=[names[w] for w in change.workspaces],
        types=types,
        undoes=number,
    )


# -- what must not be ---------------------------------------------------------------------------


async def _refused(session: Session, state: State, ids: tenancy.Ids, wanted: Wanted) -> list[str]:
    """Return why a change cannot be made, whatever the people are."""
    out = []
    one, two = state.scopes.get(wanted.source), state.scopes.get(wanted.target)
    joins = wanted.kind in ("join", "unsplit")
    if one is None:
        return [f"there is no scope {wanted.source}"]
    if wanted.kind not in ("join", "split", "unjoin", "unsplit"):
        return ["kind is join or split"]
    if wanted.source == wanted.target:
        return ["source and target are the same scope"]
    if await session.rows(moves.CHANGES_OPEN):
        out.append("another join or split is under way")
    if joins and two is None:
        return [f"there is no scope {wanted.target}"]
    if two is not None:
        for field, _ in rules.different_rules(one, two):
            out.append(f"the scopes differ in {field}; people were resolved by other rules")
    out += _fits(state, wanted, joins)
    for name, choice in [*wanted.types.items(), *wanted.people.items()]:
        if choice not in CHOICES:
            out.append(f"a choice is {', '.join(CHOICES)}")
        elif choice != "drop" and not compile_plan(one).strategy.merge:
            out.append(f"the strategy keeps profiles apart: the choice for {name} can be drop only")
    out += [f"{name} is not an identity type" for name in wanted.types if name not in BY_NAME]
    return out


def _fits(state: State, wanted: Wanted, joins: bool) -> list[str]:
    inside = [w for w, workspace in state.workspaces.items() if workspace.scope == wanted.source]
    there = [w for w, workspace in state.workspaces.items() if workspace.scope == wanted.target]
    going = list(wanted.workspaces) or (inside if joins else [])
    out = [f"workspace {w} is not in scope {wanted.source}" for w in going if w not in inside]
    if joins and set(inside) - set(going):
        out.append(f"scope {wanted.source} has further workspaces; split them off first")
    if not joins:
        if not going:
            out.append("name the workspaces that leave")
        if not set(inside) - set(going):
            out.append("every workspace would leave; nothing to split")
        if there or wanted.target in state.holding:
            out.append(f"scope {wanted.target} is not empty; split into a new one, then join")
    return out


def _going(state: State, wanted: Wanted) -> list[str]:
    """Return the names of the workspaces that go over."""
    if wanted.workspaces:
        return list(wanted.workspaces)
    return [w for w, workspace in state.workspaces.items() if workspace.scope == wanted.source]


def _choices(mpids: Mpids, wanted: Wanted) -> Choices:
    people = {mpids.parse(mpid): choice for mpid, choice in wanted.people.items()}
    known = {pid: choice for pid, choice in people.items() if pid is not None}
    return Choices(types=dict(wanted.types), people=known)


# -- the report ---------------------------------------------------------------------------------


async def _look(session: Session, mpids: Mpids, wanted: Wanted) -> Report:
    state, ids = await tenancy.read_state(session)
    refused = await _refused(session, state, ids, wanted)
    going = _going(state, wanted) if wanted.source in state.scopes else []
    report = Report(
        kind=wanted.kind,
        source=wanted.source,
        target=wanted.target,
        workspaces=going,
        profiles={},
        refused=refused,
    )
    if wanted.source not in ids.scopes:
        return report
    plan = compile_plan(state.scopes[wanted.source])
    source = ids.scopes[wanted.source]
    for number, environment in enumerate(("production", "development")):
        pool = source * 2 + number
        rows = await session.rows(moves.PIDS_COUNT, pool)
        report.profiles[environment] = int(rows[0][0])
        if wanted.kind in ("join", "unsplit") and not refused:
            over = ids.scopes[wanted.target] * 2 + number
            counter = _Counter(session, mpids, plan, wanted, report)
            await counter.run(pool, over, environment)
    undecided = sorted(t for t in report.by_type if t not in wanted.types)
    if report.by_outcome.get("undecided"):
        listed = ", ".join(undecided) or "some"
        report.refused.append(f"choose what to do with values two people hold: {listed}")
    return report


class _Counter:
    """Counts the conflicts of two pools as they would be decided."""

    def __init__(
        self, session: Session, mpids: Mpids, plan: Plan, wanted: Wanted, report: Report
    ) -> None:
        self._session, self._mpids, self._plan = session, mpids, plan
        self._report, self._wanted = report, wanted
        self._choices = _choices(mpids, wanted)
        self._taken: set[int] = set()

    async def run(self, pool: int, over: int, environment: str) -> None:
        """Count the conflicts of an environment, in the order they would be decided."""
        pids: set[int] = set()
        for code in self._plan.rank:
            if rules.conflict_types(self._plan) >> code & 1:
                pids |= await self._sharing(slot(pool, code), slot(over, code))
        for pid in sorted(pids):
            record = await self._record(pid)
            if record is not None:
                await self._count(record, over, environment)

    async def _sharing(self, here: int, there: int) -> set[int]:
        """Return who of one slot shares a value with somebody of the other."""
        out: set[int] = set()
        value = ""
        while True:
            rows = await self._session.rows(moves.SHARED_AFTER, there, here, value, _PAGE)
            out |= {row[1] for row in rows}
            if len(rows) < _PAGE:
                return out
            value = rows[-1][0]

    async def _record(self, pid: int) -> Record | None:
        rows = await self._session.rows(sql.PROFILE_BY_PID, pid)
        record = unpack_record(rows[0]) if rows else None
        return None if record is None or record.flags & ERASED else record

    async def _count(self, record: Record, over: int, environment: str) -> None:
        holders: dict[tuple[int, str], list[Record]] = {}
        for v in record.values:
            args = (slot(over, v.code), v.key, -1, 8)
            rows = await self._session.rows(sql.HOLDERS, *args)
            holders[v.code, v.key] = [unpack_record(row[1:]) for row in rows if row[0] >= 0]
        twin = await self._twin(record, over)
        if twin is not None:
            return

        def choose(code: int) -> tuple[str | None, bool]:
            mine = self._choices.people.get(record.pid)
            return mine or self._choices.types.get(rules.names([code])[0]), mine is not None

        done = rules.join_record(record, holders, self._plan, choose, self._taken.__contains__)
        self._tell(record, holders, done, environment)

    async def _twin(self, record: Record, over: int) -> Record | None:
        """Return the profile a split parted this one from: taking it back makes them one."""
        if self._wanted.undoes is None:
            return None
        rows = await self._session.rows(moves.MOVE_TWIN, record.pid, self._wanted.undoes)
        found = await self._record(rows[0][0]) if rows else None
        return found if found is not None and found.pool == over else None

    def _tell(
        self,
        record: Record,
        holders: dict[tuple[int, str], list[Record]],
        done: Joined,
        environment: str,
    ) -> None:
        codes = done.types or done.undecided
        if not codes:
            return
        outcome = "undecided" if done.undecided else "merge" if done.merge else "drop"
        report, text = self._report, self._mpids.text
        report.by_outcome[outcome] = report.by_outcome.get(outcome, 0) + 1
        for name in rules.names(codes):
            report.by_type[name] = report.by_type.get(name, 0) + 1
        if done.merge is not None:
            self._taken |= set(done.merge) - {record.pid}
        if len(report.conflicts) < MOST_SHOWN:
            others = {o.pid for (c, _), some in holders.items() if c in codes for o in some}
            conflict = Conflict(
                environment=environment,
                mpid=text(record.pid),
                others=[text(pid) for pid in sorted(others)],
                types=rules.names(codes),
                outcome=outcome,
                survivor=text(done.merge[1]) if done.merge else None,
                differ=rules.names(done.differ),
            )
            report.conflicts.append(conflict)
