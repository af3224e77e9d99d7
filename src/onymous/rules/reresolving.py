"""New rules applied to history: which values move between records, and which become one person.

The target is what a replay of the journal under the new rules ended with. What the journal does not
know stays where it is. A record is joined with another only where every request that found it
belongs to that person; otherwise values move, and its history stays behind.

People and records that share no value and no request are planned apart, with the same outcome.
What a value on many records says is in `Target.crowds`: it joins nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec

from onymous.rules.records import Record, Value
from onymous.rules.strategies import Plan

Key = tuple[int, str]
#: numbers of people who have no record yet are below zero
Refold = Callable[[Value], str]


class Crowd(msgspec.Struct, array_like=True):
    """A value on many records, as all of them together know it."""

    #: as the first of them received it, and where it came from
    first: Value
    #: whether it finds somebody of the target
    covered: bool


class Target(msgspec.Struct):
    """People as a replay under the new rules knows them, by its own numbers."""

    #: person -> the values that find them
    people: dict[int, set[Key]] = {}
    #: (record of today, person) -> requests that found both
    votes: dict[tuple[int, int], int] = {}
    #: record of today -> values of requests it answered
    evidence: dict[int, set[Key]] = {}
    #: value -> where it first came from, for those no record holds
    origins: dict[Key, Value] = {}
    #: values on so many records that sharing one says nothing of who is whose
    crowds: dict[Key, Crowd] = {}


class Move(msgspec.Struct):
    """What one record loses and gains; a number below zero is a record to be made."""

    pid: int
    remove: list[Key] = []
    add: list[Value] = []
    #: the record it becomes one person with
    into: int | None = None
    #: the values it had when this was planned
    #: None: whatever it has
    had: frozenset[Key] | None = frozenset()


class Part(msgspec.Struct):
    """Moves that belong together: all or none of them."""

    moves: list[Move] = []


def plan_moves(records: Iterable[Record], target: Target, plan: Plan, refold: Refold) -> list[Part]:
    """Return what makes records what the target says, in independent parts."""
    return _Planning({r.pid: r for r in records}, target, plan, refold).parts()


class _Planning:
    def __init__(
        self, records: dict[int, Record], target: Target, plan: Plan, refold: Refold
    ) -> None:
        self.records, self.target, self.plan = records, target, plan
        #: record -> value after the new folding -> value it is now
        self.held: dict[int, dict[Key, Value]] = {}
        for record in records.values():
            held = self.held[record.pid] = {(v.code, refold(v)): v for v in record.values}
            # where folding joins two spellings, the one that stays as it is
            held.update({k: v for v in record.values if (k := (v.code, v.key)) in held})
        self.holders: dict[Key, list[int]] = defaultdict(list)
        for pid, values in self.held.items():
            for key in values:
                self.holders[key].append(pid)
        self.covered: set[Key] = set().union(*target.people.values())
        self.covered |= {key for key, crowd in target.crowds.items() if crowd.covered}
        self.home: dict[int, int] = {}
        self.person: dict[int, int] = {}
        self.want: dict[int, set[Key]] = {}
        self.into: dict[int, int] = {}
        #: record -> the person at home in it, and those its requests belong to
        self.at_home: dict[int, int] = {}
        self.met: dict[int, list[int]] = defaultdict(list)

    def parts(self) -> list[Part]:
        """Return the moves, joined where they exchange values or people."""
        self._settle_homes()
        for pid, values in self.held.items():
            self.want[pid] = self._wanted(pid, values)
        for person, pid in self.home.items():
            self.want[pid] = self.want.get(pid, set()) | self.target.people[person]
        for pid in sorted(self.held):
            self._dissolve(pid)
        self._once()
        return self._moves()

    # -- whose record is whose --------------------------------------------------------------

    def _settle_homes(self) -> None:
        """Give each person of the target one record: the one they share most with."""
        login = self.plan.login
        pairs: dict[tuple[int, int], list[int]] = {}
        people, crowds = self.target.people, self.target.crowds
        for person, values in people.items():
            for key in values - crowds.keys():
                for pid in self.holders.get(key, ()):
                    score = pairs.setdefault((pid, person), [0, 0, 0])
                    score[0] += login >> key[0] & 1
                    score[1] += 1
        for pair, count in self.target.votes.items():
            if pair[0] in self.held and pair[1] in people:
                pairs.setdefault(pair, [0, 0, 0])[2] += count
        # a value of many speaks only where something else does
        for (pid, person), score in pairs.items() if crowds else ():
            common = [key for key in people[person] if key in crowds and key in self.held[pid]]
            score[0] += sum(login >> key[0] & 1 for key in common)
            score[1] += len(common)
        # a value shared with somebody the journal never met makes nobody theirs
        met = {pid for pid, _ in self.target.votes}
        ranked = sorted(
            (pair for pair in pairs if pair[0] in met),
            key=lambda p: (*(-n for n in pairs[p]), p),
        )
        for pid, person in ranked:
            if pid not in self.person and person not in self.home:
                self.home[person], self.person[pid] = pid, person
        for number, person in enumerate(p for p in self.target.people if p not in self.home):
            self.home[person] = -1 - number
        self.at_home = {home: person for person, home in self.home.items()}
        for pid, person in self.target.votes:
            if person in self.target.people:
                self.met[pid].append(person)

    def _wanted(self, pid: int, values: dict[Key, Value]) -> set[Key]:
        """Return which of its values a record keeps."""
        known = self.target.evidence.get(pid, set())
        person = self.person.get(pid)
        theirs = self.target.people[person] if person is not None else set()
        return {k for k in values if k in theirs or k not in known or k not in self.covered}

    def _dissolve(self, pid: int) -> None:
        """Join a record nobody is at home in with the one person all its requests belong to."""
        if pid in self.person:
            return
        whose = self.met.get(pid, ())
        if len(whose) != 1:
            return
        home = self.home[whose[0]]
        self.into[pid] = home
        has = {code for code, _ in self.want[home]}
        for key in sorted(self.want[pid]):
            single = self.plan.single >> key[0] & 1
            if not single or (key[0] not in has and key not in self.want[home]):
                self.want[home].add(key)
                self.want[pid].discard(key)

    def _once(self) -> None:
        """Leave each unique value with one record: the target's, or the one last seen."""
        owners: dict[Key, list[int]] = defaultdict(list)
        for pid, values in self.want.items():
            for key in values:
                if self.plan.unique >> key[0] & 1:
                    owners[key].append(pid)
        for key, pids in owners.items():
            if len(pids) > 1:
                keep = min(pids, key=lambda p: self._claim(p, key))
                for pid in pids:
                    if pid != keep:
                        self.want[pid].discard(key)

    def _claim(self, pid: int, key: Key) -> tuple[bool, bool, int, int]:
        person = self.at_home.get(pid)
        theirs = person is not None and key in self.target.people[person]
        record = self.records.get(pid)
        known = record is not None and any(self.plan.login >> v.code & 1 for v in record.values)
        return (not theirs, not known, -record.seen_ms if record else 0, pid)

    # -- moves ------------------------------------------------------------------------------

    def _moves(self) -> list[Part]:
        moves: dict[int, Move] = {}
        for pid, want in self.want.items():
            move = self._move(pid, want)
            if move is not None:
                moves[pid] = move
        return self._joined(moves)

    def _move(self, pid: int, want: set[Key]) -> Move | None:
        held = self.held.get(pid, {})
        now = {(v.code, v.key) for v in self.records[pid].values} if pid > 0 else set()
        remove = sorted(now - {(v.code, v.key) for v in self._kept(held, want)})
        add = [self._value(key) for key in sorted(want - now)]
        into = self.into.get(pid)
        if not remove and not add and into is None:
            return None
        return Move(pid, remove, add, into, frozenset(now))

    def _kept(self, held: dict[Key, Value], want: set[Key]) -> list[Value]:
        return [v for key, v in held.items() if key in want and key == (v.code, v.key)]

    def _value(self, key: Key) -> Value:
        """Return a value as the first of its holders knows it, where it came from."""
        found = [self.held[pid][key] for pid in self.holders.get(key, ())]
        if key in self.target.crowds:
            found = [self.target.crowds[key].first]
        if not found:
            return self.target.origins.get(key) or Value(*key, None, 0, 0, 0, 0)
        v = min(found, key=lambda v: v.first_ms)
        shown = v.text if v.text != key[1] else None
        return Value(*key, shown, v.first_ms, v.last_ms, v.workspace, v.input)

    def _joined(self, moves: dict[int, Move]) -> list[Part]:
        """Put moves together that exchange a value or become one."""
        group: dict[int, int] = {pid: pid for pid in moves}

        def root(pid: int) -> int:
            while group[pid] != pid:
                group[pid] = group[group[pid]]
                pid = group[pid]
            return pid

        touching: dict[Key, int] = {}
        for pid, move in moves.items():
            touched = {*move.remove, *((v.code, v.key) for v in move.add)}
            for key in touched - self.target.crowds.keys():
                group[root(pid)] = root(touching.setdefault(key, pid))
            if move.into is not None and move.into in moves:
                group[root(pid)] = root(move.into)
        parts: dict[int, Part] = {}
        for pid, move in moves.items():
            parts.setdefault(root(pid), Part()).moves.append(move)
        return list(parts.values())


def summary(parts: Iterable[Part]) -> Mapping[str, int]:
    """Count what a plan does: records changed, of them joined with another, and made."""
    out = {"merged": 0, "created": 0, "records": 0}
    for part in parts:
        for move in part.moves:
            out["merged"] += move.into is not None
            out["created"] += move.pid < 0
            out["records"] += 1
    return out
