"""Rehearsals judged: what they list in simulated worlds against the truth, and against a real
replay of every request under the new rules.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from onymous.app import Core
from onymous.flows.journal import request_digest
from onymous.lab.play import play, stage
from onymous.lab.rehearse import compared
from onymous.lab.rehearsed import Comparison, Rehearsal, told
from onymous.lab.simulate import PRESETS, simulate
from onymous.lab.streams import Request, Resolved, Truth, Writer
from onymous.lab.which import NAMES, config_of
from onymous.rules.strategies import ScopeConfig, compile_plan
from onymous.store import history_sql

#: what the page is made of
PEOPLE, STEPS, SEED = 70, 1_800, 7
SCOPE = 1
BEGIN, END = "<!-- foretold: begin -->", "<!-- foretold: end -->"
_CONVERSION = config_of("profile_conversion")
_ID_ALONE = msgspec.structs.replace(_CONVERSION, login=("customerid",), unique=("customerid",))
#: changes of rules: name -> today's and tomorrow's
CHANGES: dict[str, tuple[ScopeConfig, ScopeConfig]] = {
    "e-mail logs in too": (_ID_ALONE, _CONVERSION),
    "e-mail logs in no more": (_CONVERSION, _ID_ALONE),
    "link to conversion": (config_of("profile_link"), _CONVERSION),
    "conversion to link": (_CONVERSION, config_of("profile_link")),
    "link to best match": (config_of("profile_link"), config_of("best_match")),
    "best match to link": (config_of("best_match"), config_of("profile_link")),
}


class Judged(msgspec.Struct, kw_only=True):
    """One rehearsal in one world, judged."""

    world: str
    change: str
    rehearsal: Rehearsal
    #: merges whose records are all of one person, and those that put people together
    merges_right: int = 0
    merges_mixing: int = 0
    #: how many of these the report warns of
    mixing_warned: int = 0
    #: splits that keep people apart, and those that leave one person in several parts
    splits_right: int = 0
    splits_tearing: int = 0
    #: tearing ones of people who were signed in in several parts
    splits_tearing_known: int = 0
    #: listed ones that also happen when every request is played under the new rules
    merges_confirmed: int = 0
    splits_confirmed: int = 0
    #: those that happen then and are not listed
    merges_missed: int = 0
    splits_missed: int = 0


class World:
    """A world played under today's rules with the journal on, and once more under others."""

    def __init__(self, name: str, people: int, steps: int, seed: int) -> None:
        writer = Writer()
        self.name = name
        self.requests: list[Request] = []
        #: request id -> who it was
        self.truth: dict[str, Truth] = {}
        for step in simulate(PRESETS[name], seed, people, steps):
            self.requests.append(writer.request(step))
            self.truth.setdefault(step.request_id, writer.truth(step))

    async def answers(self, core: Core, rules: ScopeConfig) -> dict[str, str]:
        """Play every request; return request id -> MPID."""
        out: dict[str, str] = {}

        def done(result: Resolved) -> None:
            if result.mpid is not None:
                out[result.request_id] = result.mpid

        await play(core, rules, SCOPE, self.requests, done)
        return out

    async def judged(self, changes: Sequence[str], store: str = "") -> list[Judged]:
        """Rehearse changes on this world, which is played once under each rules."""
        out = []
        async with contextlib.AsyncExitStack() as stack:
            played: dict[ScopeConfig, tuple[Core, dict[str, str]]] = {}
            for rules in dict.fromkeys(r for change in changes for r in CHANGES[change]):
                place = store if rules == CHANGES[changes[0]][0] else ""
                core = await stack.enter_async_context(stage(place, journal=True))
                played[rules] = core, await self.answers(core, rules)
                await core.journal.flush(core.store)
            for change in changes:
                today, tomorrow = CHANGES[change]
                core, now = played[today]
                plans = (compile_plan(today), compile_plan(tomorrow))
                found = await compared(core, SCOPE * 2, plans, 0, lambda _: None)
                real = _Real(now, played[tomorrow][1])
                out.append(self._judge(change, found, real, await self._entries(core)))
        return out

    def _judge(
        self, change: str, found: Comparison, real: _Real, entries: dict[int, list[str]]
    ) -> Judged:
        rehearsal = told(found, self.name, "production")
        out = Judged(world=self.name, change=change, rehearsal=rehearsal)
        _Judge(found, entries, self.truth).judge(out)
        real.confirm(found, entries, out)
        return out

    async def _entries(self, core: Core) -> dict[int, list[str]]:
        """Return entry of the journal -> the requests it stands for."""
        out: dict[int, list[str]] = defaultdict(list)
        async with core.store.read() as session:
            for name in self.truth:
                for row in await session.rows(history_sql.ASKED, request_digest(name), 1):
                    out[row[0]].append(name)
        return out


class _Judge:
    """Judges lists by the truth."""

    def __init__(
        self, found: Comparison, entries: dict[int, list[str]], truth: dict[str, Truth]
    ) -> None:
        self._found, self._entries, self._truth = found, entries, truth

    def people(self, pair: tuple[int, int], *, signed_in: bool = False) -> set[str]:
        """Return who truly made the requests of a record that went to a record."""
        names = (n for entry in self._found.shown[pair] for n in self._entries.get(abs(entry), ()))
        true = (self._truth[name] for name in names)
        return {t.person for t in true if t.signed_in or not signed_in}

    def judge(self, out: Judged) -> None:
        """Count what is right and what is not."""
        for new, olds in self._found.merges.items():
            one = set.intersection(*(self.people((old, new)) for old in olds))
            if one:
                out.merges_right += 1
                continue
            out.merges_mixing += 1
            out.mixing_warned += bool(self._found.risks(new))
        for old, news in self._found.splits.items():
            out.splits_tearing += _overlap(self.people((old, new)) for new in news)
            known = (self.people((old, new), signed_in=True) for new in news)
            out.splits_tearing_known += _overlap(known)
        out.splits_right = len(self._found.splits) - out.splits_tearing


def _overlap(sets: Iterable[set[str]]) -> bool:
    return any(one & two for one, two in itertools.combinations(list(sets), 2))


class _Real:
    """What happens when every request is played, not only distinct ones."""

    def __init__(self, now: dict[str, str], then: dict[str, str]) -> None:
        self._pairs = {name: (now[name], then[name]) for name in now if name in then}
        self.merges = self._several(1)
        self.splits = self._several(0)

    def _several(self, side: int, names: Iterable[str] | None = None) -> set[str]:
        """Return whom of one side several of the other answer for."""
        others: dict[str, set[str]] = defaultdict(set)
        for name in self._pairs if names is None else names:
            if name in self._pairs:
                pair = self._pairs[name]
                others[pair[side]].add(pair[1 - side])
        return {who for who, some in others.items() if len(some) > 1}

    def confirm(self, found: Comparison, entries: dict[int, list[str]], out: Judged) -> None:
        """Count which of the listed ones happen, and which that happen are not listed."""
        seen: tuple[set[str], set[str]] = (set(), set())

        def happens(side: int, pairs: Iterable[tuple[int, int]]) -> bool:
            shown = [abs(entry) for pair in pairs for entry in found.shown[pair]]
            names = [name for entry in shown for name in entries.get(entry, ())]
            some = self._several(side, names)
            seen[side].update(some)
            return bool(some)

        for new, olds in found.merges.items():
            out.merges_confirmed += happens(1, [(old, new) for old in olds])
        for old, news in found.splits.items():
            out.splits_confirmed += happens(0, [(old, new) for new in news])
        out.merges_missed = len(self.merges - seen[1])
        out.splits_missed = len(self.splits - seen[0])


async def foretold(
    worlds: Sequence[str], people: int = PEOPLE, steps: int = STEPS, seed: int = SEED
) -> list[Judged]:
    """Judge the rehearsal of each change in each world."""
    out = []
    for name in worlds:
        out += await World(name, people, steps, seed).judged(list(CHANGES))
    return out


def tables(rows: Sequence[Judged]) -> str:
    """Return the figures as Markdown, one table a world."""
    out: list[str] = []
    for world in dict.fromkeys(row.world for row in rows):
        out += _table(NAMES[world], [row for row in rows if row.world == world])
    return "\n".join(out)


def _table(title: str, rows: list[Judged]) -> Iterator[str]:
    yield f"### {title}\n"
    yield (
        "| change | merges listed | of one person | mixing | warned of | happen | not listed |"
        " splits listed | keep apart | tear | of them signed in | happen | not listed |"
    )
    yield "|---|" + "--:|" * 12
    for row in rows:
        r = row.rehearsal
        mixing = f"**{row.merges_mixing}**" if row.merges_mixing else "0"
        cells: list[object] = [r.merges, row.merges_right, mixing, row.mixing_warned]
        cells += [row.merges_confirmed, row.merges_missed, r.splits, row.splits_right]
        cells += [row.splits_tearing, row.splits_tearing_known]
        cells += [row.splits_confirmed, row.splits_missed]
        yield f"| {row.change} | " + " | ".join(map(str, cells)) + " |"
    yield ""
