"""What two replays of one past say: who would become one person, who several, and what decides.

A merge or split is told with the identity values that decide it and with what speaks for its
putting two people together. Values are masked unless somebody asks to see them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import msgspec

from onymous.rules.identifiers import BY_CODE
from onymous.rules.masking import mask
from onymous.rules.trace import Trace, name_of

#: examples told in full
EXAMPLES = 20
#: merges and splits listed; of more only the number is given
MOST_LISTED = 10_000
#: values listed as deciding, those that decide most first
MOST_VALUES = 50
#: a device identity on more known people than this is a shared one
SHARED = 3

#: what speaks for a merge putting two people together
RISKS: dict[str, str] = {
    "known_people": "several of them have logged in",
    "several_values": "they would hold several values of a login or unique type",
    "shared_value": "a value that more than three known people hold joins them",
    "device_only": "nothing but a device joins them, and somebody else may hold it",
    "was_mixed": "one of them already answers for several people, by what they gave",
}

#: type code and comparison key
Pair = tuple[int, str]


class Grouping(msgspec.Struct):
    """Who is who after a replay: request -> person (a number of the replay), and how."""

    #: in the order of the requests; one that came again once more, below zero
    people: dict[int, int] = {}
    #: request -> what found the person; absent: nothing did
    by: dict[int, Pair] = {}
    traces: dict[int, list[str]] = {}
    #: people with a login id (where nothing logs in: with an identity of a person)
    known: set[int] = set()
    #: values held by more than `SHARED` known people -> by how many
    shared: dict[Pair, int] = {}
    #: people holding several values of a type people have one of
    several: set[int] = set()

    def shared_types(self) -> dict[str, int]:
        """Count the shared values of each type."""
        return dict(Counter(name_of(code) for code, _ in self.shared))


def decided_by(trace: Trace) -> str | None:
    """Return the type that decided whom a request found; None if it found nobody."""
    by, left = None, 0
    for step in trace.steps:
        if step.left and (by is None or len(step.left) < left):
            by, left = step.type, len(step.left)
    return by


class Valued(msgspec.Struct, kw_only=True):
    """An identity value that decides, and on how many people it is."""

    type: str
    #: masked unless revealed
    value: str


class Deciding(Valued, kw_only=True):
    """How often one value decides."""

    merges: int = 0
    splits: int = 0
    #: known people who hold it, where they are more than three
    shared_by: int = 0


class Listed(msgspec.Struct, kw_only=True):
    """People who would be merged or split."""

    kind: str
    #: people before (split: the one), as MPIDs of today
    people: list[str]
    #: into how many
    into: int
    #: a merge: the values that join them; a split: those that hold the parts together today
    values: list[Valued]
    #: why a merge may put two people together (`RISKS`)
    risks: list[str]
    #: how many of them (split: of the parts) have logged in
    known: int


class Example(Listed, kw_only=True):
    """One of them told in full."""

    decided_by: str
    trace: list[str]


class Rehearsal(msgspec.Struct, kw_only=True):
    """What new rules would make of the past."""

    scope: str
    environment: str
    requests: int
    people_before: int
    people_after: int
    known_before: int
    known_after: int
    #: groups of people who would become one, and people who would become several
    merges: int
    splits: int
    #: merges of several people who have logged in, and splits into several who have
    merged_known: int
    split_known: int
    #: merges that may put two people together, and for which reasons (`RISKS`)
    risky: int
    risks: dict[str, int]
    #: which identity type decides the merges and splits
    by: dict[str, int]
    #: and which values, those that decide most first
    values: list[Deciding]
    #: identity values on many known people, per type, before and after
    shared_before: dict[str, int]
    shared_after: dict[str, int]
    #: people holding several values of a login or unique type, before and after
    several_before: int
    several_after: int
    examples: list[Example]
    #: everybody concerned
    listed: list[Listed]


class Comparison:
    """Who became whom between two replays."""

    def __init__(
        self,
        before: Grouping,
        after: Grouping,
        told: dict[int, int],
        mpid: Callable[[int], str],
        reveal: bool = False,
    ) -> None:
        self.before, self.after = before, after
        self._told, self._mpid, self._reveal = told, mpid, reveal
        olds: dict[int, dict[int, None]] = defaultdict(dict)
        news: dict[int, dict[int, None]] = defaultdict(dict)
        #: (person before, person after) -> the requests that show it, in order
        self.shown: dict[tuple[int, int], list[int]] = defaultdict(list)
        for request, old in before.people.items():
            new = after.people.get(request)
            if new is not None:
                olds[new][old] = None
                news[old][new] = None
                self.shown[old, new].append(request)
        #: in the order in which they came
        self.merges = {new: list(some) for new, some in olds.items() if len(some) > 1}
        self.splits = {old: list(some) for old, some in news.items() if len(some) > 1}

    def joins(self, new: int) -> dict[Pair, None]:
        """Return the values that make people one: through which each further one was found."""
        pairs = [(old, new) for old in self.merges[new][1:]]
        return self._firsts(pairs, self.after)

    def holds(self, old: int) -> dict[Pair, None]:
        """Return the values that hold the parts of a person together today."""
        pairs = [(old, new) for new in self.splits[old][1:]]
        return self._firsts(pairs, self.before)

    def _firsts(self, pairs: list[tuple[int, int]], where: Grouping) -> dict[Pair, None]:
        firsts = (self.shown[pair][0] for pair in pairs)
        return {where.by[request]: None for request in firsts if request in where.by}

    def risks(self, new: int) -> list[str]:
        """Return what speaks for a merge putting two people together."""
        joins, olds = self.joins(new), self.merges[new]
        found = {
            "known_people": self._known_before(olds) > 1,
            "several_values": new in self.after.several,
            "shared_value": any(p in self.after.shared or p in self.before.shared for p in joins),
            "device_only": all(BY_CODE[code].klass == "device" for code, _ in joins),
            "was_mixed": any(old in self.before.several for old in olds),
        }
        return [name for name, is_so in found.items() if is_so]

    def _known_before(self, olds: Iterable[int]) -> int:
        return sum(old in self.before.known for old in olds)

    def known_parts(self, old: int) -> int:
        """Return how many parts of a split person have logged in."""
        return sum(new in self.after.known for new in self.splits[old])

    def merge(self, new: int) -> Listed:
        """Tell a merge."""
        return Listed(
            kind="merge",
            people=self._people((old, new) for old in self.merges[new]),
            into=1,
            values=self._values(self.joins(new)),
            risks=self.risks(new),
            known=self._known_before(self.merges[new]),
        )

    def split(self, old: int) -> Listed:
        """Tell a split."""
        return Listed(
            kind="split",
            people=self._people((old, new) for new in self.splits[old]),
            into=len(self.splits[old]),
            values=self._values(self.holds(old)),
            risks=[],
            known=self.known_parts(old),
        )

    def _people(self, pairs: Iterable[tuple[int, int]]) -> list[str]:
        """Return the MPIDs of today that answered last what shows people of the replay."""
        lasts = (self.shown[pair][-1] for pair in pairs)
        return sorted({self._mpid(self._told[r]) for r in lasts if r in self._told})

    def _values(self, pairs: Iterable[Pair]) -> list[Valued]:
        return [Valued(type=name_of(code), value=self._say(key)) for code, key in pairs]

    def _say(self, key: str) -> str:
        return key if self._reveal else mask(key)

    def listed(self) -> list[Listed]:
        """Tell the merges, those that risk something first, and the splits."""
        merges = sorted(map(self.merge, self.merges), key=lambda m: -len(m.risks))
        splits = sorted(map(self.split, self.splits), key=lambda s: -s.known)
        return [*merges[:MOST_LISTED], *splits[:MOST_LISTED]]

    def examples(self) -> list[Example]:
        """Tell some of the merges and splits in full."""
        merges = sorted(self.merges, key=lambda new: -len(self.risks(new)))[:EXAMPLES]
        splits = sorted(self.splits, key=lambda old: -self.known_parts(old))[:EXAMPLES]
        out = [self._example(self.merge(new), (self.merges[new][1], new)) for new in merges]
        return out + [self._example(self.split(o), (o, self.splits[o][1])) for o in splits]

    def _example(self, told: Listed, pair: tuple[int, int]) -> Example:
        request = self.shown[pair][0]
        return Example(
            **{name: getattr(told, name) for name in Listed.__struct_fields__},
            decided_by=told.values[0].type if told.values else "none",
            trace=self.after.traces.get(request, []),
        )

    def deciding(self) -> list[Deciding]:
        """Return the values that decide most merges and splits."""
        merges = Counter(pair for new in self.merges for pair in self.joins(new))
        splits = Counter(pair for old in self.splits for pair in self.holds(old))
        return [
            Deciding(
                type=name_of(pair[0]),
                value=self._say(pair[1]),
                merges=merges[pair],
                splits=splits[pair],
                shared_by=max(self.before.shared.get(pair, 0), self.after.shared.get(pair, 0)),
            )
            for pair, _ in (merges + splits).most_common(MOST_VALUES)
        ]

    def by(self) -> dict[str, int]:
        """Count which type decides the merges and splits."""
        firsts = [next(iter(self.joins(new)), None) for new in self.merges]
        firsts += [next(iter(self.holds(old)), None) for old in self.splits]
        return dict(Counter("none" if pair is None else name_of(pair[0]) for pair in firsts))


def told(found: Comparison, scope: str, environment: str) -> Rehearsal:
    """Return what a comparison says."""
    before, after = found.before, found.after
    risks = Counter(risk for new in found.merges for risk in found.risks(new))
    return Rehearsal(
        scope=scope,
        environment=environment,
        requests=sum(request > 0 for request in before.people),
        people_before=len(set(before.people.values())),
        people_after=len(set(after.people.values())),
        known_before=len(before.known),
        known_after=len(after.known),
        merges=len(found.merges),
        splits=len(found.splits),
        merged_known=risks["known_people"],
        split_known=sum(found.known_parts(old) > 1 for old in found.splits),
        risky=sum(bool(found.risks(new)) for new in found.merges),
        risks={name: risks[name] for name in RISKS if risks[name]},
        by=found.by(),
        values=found.deciding(),
        shared_before=before.shared_types(),
        shared_after=after.shared_types(),
        several_before=len(before.several),
        several_after=len(after.several),
        examples=found.examples(),
        listed=found.listed(),
    )
