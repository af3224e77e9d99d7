"""How well were people found? Pairwise precision and recall between a truth and the answers.

Every answered request is one observation: who really did it, which MPID the answer named, and
whether the answer said that a known user is signed in. Two observations are a pair. *Precision* is
the share of the pairs with one MPID that are of one person; *recall* is the share of the pairs of
one person that have one MPID. Both are computed from counts, in linear time.

What no identity system can avoid, and what therefore is in the figures: visits of people who are
not signed in, on a device that several people use, carry nothing but the device, so they land on
one profile (precision, `mixed`); where the profile of a device becomes a known one at login, the
earlier visits of housemates come along. Visits before a login, after a logout or with lost cookies
stay apart (recall, `split`). The figures over signed-in answers alone (`known_...`) are free of all
that: `known_mixed` above zero means that the data of two known people were put together, the worst
fault there is, unless they really gave the same credentials.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich.table import Table

Observation = tuple[str, str, bool]
"""(person: the truth, mpid: the answer, was_logged_in: what the answer said)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One profile that mixes people, or one person who is split, with the parts by size."""

    who: str
    """The MPID (of a mixed profile) or the person (who is split)."""
    parts: tuple[tuple[str, int], ...]
    """The people in it, or the MPIDs of the person, with their observations; largest first."""
    known: bool
    """Whether already the signed-in observations alone show it."""


@dataclass(frozen=True, slots=True)
class Score:
    """The result of a comparison. Shares are 0..1, and 1 where there is no pair to judge."""

    requests: int
    """Observations."""
    people_true: int
    """People who did at least one request."""
    people_found: int
    """Different MPIDs answered."""
    known_people_true: int
    """People with at least one signed-in answer."""
    known_people_found: int
    """MPIDs with at least one signed-in answer."""
    precision: float
    """Pairwise, over all observations."""
    recall: float
    """Pairwise, over all observations."""
    known_precision: float
    """Pairwise, over the signed-in observations alone."""
    known_recall: float
    """Pairwise, over the signed-in observations alone."""
    mixed: int
    """MPIDs with observations of more than one person (shared devices: unavoidable)."""
    known_mixed: int
    """MPIDs with signed-in observations of more than one person: the worst fault."""
    split: int
    """People with more than one MPID among all their observations."""
    known_split: int
    """People with more than one MPID among their signed-in observations."""
    people_mixed: int
    """People who share an MPID with somebody else."""
    known_people_mixed: int
    """The same among the signed-in observations: two known people's data put together."""
    strangers_inside: int
    """Signed-in people's profiles that hold visits somebody else made without signing in."""
    mixed_examples: tuple[Example, ...]
    """The worst mixed profiles: known ones first, then by size."""
    split_examples: tuple[Example, ...]
    """The worst split people: by known parts first, then by size."""

    def as_dict(self) -> dict[str, object]:
        """All fields as plain values for JSON."""
        return asdict(self)


_Counts = Counter[tuple[str, str]]


def score(observations: Iterable[Observation], *, examples: int = 5) -> Score:
    """Compare answers with the truth. Memory: one counter per (person, MPID), not per request."""
    every: _Counts = Counter()
    known: _Counts = Counter()
    for person, mpid, was_logged_in in observations:
        every[person, mpid] += 1
        if was_logged_in:
            known[person, mpid] += 1
    by_mpid, by_person = _groups(every, 1), _groups(every, 0)
    known_by_mpid, known_by_person = _groups(known, 1), _groups(known, 0)
    known_mixed, known_split = _several(known_by_mpid), _several(known_by_person)
    mixed, split = _several(by_mpid), _several(by_person)
    return Score(
        requests=every.total(),
        people_true=len(by_person),
        people_found=len(by_mpid),
        known_people_true=len(known_by_person),
        known_people_found=len(known_by_mpid),
        precision=_share(every, by_mpid),
        recall=_share(every, by_person),
        known_precision=_share(known, known_by_mpid),
        known_recall=_share(known, known_by_person),
        mixed=len(mixed),
        known_mixed=len(known_mixed),
        split=len(split),
        known_split=len(known_split),
        people_mixed=_within(mixed, by_mpid),
        known_people_mixed=_within(known_mixed, known_by_mpid),
        strangers_inside=_strangers(by_mpid, known_by_mpid),
        mixed_examples=_examples(mixed, by_mpid, known_mixed, examples),
        split_examples=_examples(split, by_person, known_split, examples),
    )


def render(result: Score) -> Table:
    """The score as a table for the terminal: all answers beside the signed-in ones."""
    table = Table(title="People found, against the truth", title_justify="left")
    table.add_column("")
    table.add_column("all requests", justify="right")
    table.add_column("signed in", justify="right")
    table.add_column("meaning", style="dim")
    r = result
    table.add_row("requests", f"{r.requests:,}", "", "answers compared with the truth")
    known = f"{r.known_people_true:,}"
    table.add_row("people, in truth", f"{r.people_true:,}", known, "who really came")
    found = f"{r.known_people_found:,}"
    table.add_row("profiles found", f"{r.people_found:,}", found, "different MPIDs answered")
    precise = f"{r.known_precision:.2%}"
    text = "pairs with one MPID that are one person"
    table.add_row("precision", f"{r.precision:.2%}", precise, text)
    text = "pairs of one person that have one MPID"
    table.add_row("recall", f"{r.recall:.2%}", f"{r.known_recall:.2%}", text)
    fault = f"[{'red' if r.known_mixed else 'green'}]{r.known_mixed:,}[/]"
    text = "signed in: must be 0; all: shared devices, nobody signed in"
    table.add_row("profiles mixed", f"{r.mixed:,}", fault, text)
    fault = f"[{'red' if r.known_people_mixed else 'green'}]{r.known_people_mixed:,}[/]"
    table.add_row("people mixed", f"{r.people_mixed:,}", fault, "people in those profiles")
    text = "signed-in profiles with somebody else's anonymous visits"
    table.add_row("strangers inside", "", f"{r.strangers_inside:,}", text)
    text = "visits before login, after logout, with lost cookies"
    table.add_row("people split", f"{r.split:,}", f"{r.known_split:,}", text)
    return table


_Groups = dict[str, list[tuple[str, int]]]


def _groups(counts: _Counts, key: int) -> _Groups:
    """The counts by person (key 0) or by MPID (key 1), with the other side and its number."""
    groups: _Groups = {}
    for pair, number in counts.items():
        groups.setdefault(pair[key], []).append((pair[1 - key], number))
    return groups


def _pairs(number: int) -> int:
    return number * (number - 1) // 2


def _share(counts: _Counts, groups: _Groups) -> float:
    """Agreeing pairs out of all pairs within the groups."""
    total = sum(_pairs(sum(n for _, n in parts)) for parts in groups.values())
    return sum(map(_pairs, counts.values())) / total if total else 1.0


def _several(groups: _Groups) -> set[str]:
    return {who for who, parts in groups.items() if len(parts) > 1}


def _within(mixed: set[str], by_mpid: _Groups) -> int:
    """How many people are in these profiles."""
    return len({person for mpid in mixed for person, _ in by_mpid[mpid]})


def _strangers(by_mpid: _Groups, known_by_mpid: _Groups) -> int:
    """How many signed-in profiles hold observations of people who never signed in there."""
    return sum(len(by_mpid[mpid]) > len(parts) for mpid, parts in known_by_mpid.items())


def _examples(
    chosen: set[str], groups: _Groups, known: set[str], number: int
) -> tuple[Example, ...]:
    def badness(who: str) -> tuple[bool, int, int, str]:
        parts = groups[who]
        return who not in known, -len(parts), -sum(n for _, n in parts), who

    worst = sorted(chosen, key=badness)[:number]
    return tuple(
        Example(who, tuple(sorted(groups[who], key=lambda part: (-part[1], part[0]))), who in known)
        for who in worst
    )
