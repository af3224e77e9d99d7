"""Joining and splitting scopes: what happens to one profile. Never two people in one silently.

A join changes who shares a pool, not the rules. What cannot be on two profiles of one pool (unique
values), and what would make two people one by the next lookup (login values), is a conflict, and
an operator decides it: which profile survives, or both stay and neither keeps the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from onymous.rules.identifiers import BY_CODE
from onymous.rules.ledger import ATTACHED, DETACHED, TAKEN, Line
from onymous.rules.records import MERGED, Record, Value
from onymous.rules.strategies import USER_MASK, Plan, ScopeConfig
from onymous.rules.tenants import unsafe

#: what an operator may choose for a value two people hold
CHOICES = {
    "target": "one person: the profile of the target scope survives",
    "source": "one person: the profile that comes over survives",
    "drop": "two people: both stay, and neither keeps the value",
}


class Joined(msgspec.Struct, kw_only=True):
    """What becomes of a profile that comes over."""

    #: (absorbed, surviving): a merge, where they are one person
    merge: tuple[int, int] | None = None
    #: (pid, type code, key): values taken off, on either side
    lose: list[tuple[int, int, str]] = []
    #: codes of the types that are in conflict
    types: list[int] = []
    #: type codes no choice was made for: the profile is left where it is
    undecided: list[int] = []
    #: type codes that speak against one person, where one was chosen
    differ: list[int] = []


def different_rules(one: ScopeConfig, two: ScopeConfig) -> list[tuple[str, str]]:
    """Return (field, why) of rules that differ, so that the scopes cannot be joined as they are."""
    return unsafe(one, two)


def conflict_types(plan: Plan) -> int:
    """Return the mask of the types whose values tell people apart."""
    return plan.single or (plan.ranked & USER_MASK)


def differing(one: Record, two: Record, plan: Plan) -> list[int]:
    """Return the types by which two profiles are two people: both hold values, none in common."""
    out = []
    for code in sorted(plan.rank, key=plan.rank.__getitem__):
        if conflict_types(plan) >> code & 1:
            ours, theirs = set(one.keys_of(code)), set(two.keys_of(code))
            if ours and theirs and not ours & theirs:
                out.append(code)
    return out


def join_record(
    record: Record,
    holders: Mapping[tuple[int, str], list[Record]],
    plan: Plan,
    choose: Callable[[int], tuple[str | None, bool]],
    taken: Callable[[int], bool],
) -> Joined:
    """Decide what becomes of `record` in the pool of `holders`, who hold its values there.

    `choose` returns the choice for a type and whether it was made for this very profile; `taken`
    says whether a profile is one person with another one that came over already.
    """
    out = Joined()
    shared = _shared(record, holders, plan)
    chosen = {code: choose(code) for code, _, _ in shared}
    out.undecided = [code for code, (choice, _) in chosen.items() if choice is None]
    if out.undecided:
        return out
    two = {o.pid for code, _, others in shared if chosen[code][0] == "drop" for o in others}
    for code, key, others in shared:
        choice, mine = chosen[code]
        out.types.append(code)
        other = others[0]
        if out.merge is not None and len(others) == 1 and other.pid in out.merge:
            _keep_once(out, record, other, plan, code, key)
            continue
        free = out.merge is None and len(others) == 1 and _free(record, other, taken)
        free = free and other.pid not in two
        apart = differing(record, other, plan)
        if choice == "drop" or not free or (apart and not mine) or not plan.strategy.merge:
            out.differ += [c for c in apart if choice != "drop" and c not in out.differ]
            out.lose += [(p.pid, code, key) for p in (record, *others)]
            continue
        sides = (record.pid, other.pid)
        out.merge = sides if choice == "target" else (sides[1], sides[0])
        _keep_once(out, record, other, plan, code, key)
    return out


def _shared(
    record: Record, holders: Mapping[tuple[int, str], list[Record]], plan: Plan
) -> list[tuple[int, str, list[Record]]]:
    """Return the values in conflict and who else holds them, the most reliable type first."""
    mask = conflict_types(plan)
    return [
        (v.code, v.key, holders[v.code, v.key])
        for v in sorted(record.values, key=lambda v: plan.rank.get(v.code, 99))
        if mask >> v.code & 1 and holders.get((v.code, v.key))
    ]


def _free(record: Record, other: Record, taken: Callable[[int], bool]) -> bool:
    """Whether two profiles may become one: neither is part of another person already."""
    return not (record.flags | other.flags) & MERGED and not taken(other.pid)


def _keep_once(out: Joined, record: Record, other: Record, plan: Plan, code: int, key: str) -> None:
    """A unique value two profiles of one person hold stays with the one that survives."""
    if plan.unique >> code & 1 and out.merge is not None:
        out.lose.append((out.merge[0], code, key))


def names(codes: list[int]) -> list[str]:
    """Return type names of codes, each once."""
    return [BY_CODE[code].name for code in dict.fromkeys(codes)]


def place(here: set[int], leaving: frozenset[int], home: bool) -> str:
    """Return where a profile belongs when `leaving` workspaces leave its scope.

    `here` are the workspaces that have data of it; `home`: it came from where they go. "stay",
    "go", or "both": it has a profile in each scope then.
    """
    inside, outside = home or bool(here & leaving), bool(here - leaving)
    if inside and outside:
        return "both"
    return "go" if inside else "stay"


def lost_values(lines: list[Line], mark: str) -> list[tuple[int, str, str | None]]:
    """Return the values a change took off a profile and nothing touched since, as spelled."""
    lines = sorted(lines, key=lambda line: line.seq)
    spelled: dict[tuple[int, str], str | None] = {}
    lost: dict[tuple[int, str], str | None] = {}
    for line in lines:
        for c in line.entry.changes:
            value = (c.code, c.key)
            if c.kind in (ATTACHED, TAKEN):
                spelled[value] = c.shown
                lost.pop(value, None)
            elif c.kind == DETACHED and line.entry.request == mark:
                lost[value] = spelled.get(value)
            else:
                lost.pop(value, None)
    return [(code, key, shown) for (code, key), shown in lost.items()]


def then(record: Record, lost: list[tuple[int, str]]) -> Record:
    """Return a record as it was before a change took values off it.

    Who was told apart by a value stays another person, also once it is dropped.
    """
    if not lost:
        return record
    out = record.copy()
    out.values += [Value(code, key, None, 0, 0, 0, 0) for code, key in lost]
    return out
