"""Which strategy for whom: every strategy in every simulated world, scored against the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from onymous.app import Core
from onymous.lab.play import play, stage
from onymous.lab.score import Observation, Score, score
from onymous.lab.simulate import PRESETS, Step, simulate
from onymous.lab.streams import Request, Resolved, Truth, Writer
from onymous.rules.strategies import STRATEGIES, Blocked, ScopeConfig

#: what the page is made of; a stale page fails a test, which therefore makes it again
PEOPLE, STEPS, SEED = 150, 4_000, 7
FIRST_SCOPE = 1
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
NAMES = {
    "retail": "Retail, with shared tablets",
    "media": "Media",
    "family_tv": "Family television",
    "b2b": "Business customers",
}
PRIORITY = (
    "customerid",
    "email",
    "mobile_number",
    "ios_idfv",
    "android_uuid",
    "ios_idfa",
    "android_aaid",
    "roku_aid",
    "roku_publisher_id",
    "device_application_stamp",
)


class Row(msgspec.Struct, kw_only=True):
    """One strategy in one world."""

    world: str
    strategy: str
    score: Score
    #: requests that were answered with nobody
    unanswered: int

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        head = {"world": self.world, "strategy": self.strategy, "unanswered": self.unanswered}
        return {**head, **self.score.as_dict()}


def config_of(strategy: str) -> ScopeConfig:
    """Return a scope as the starter has it, under a strategy: e-mail and customer id log in."""
    preset = STRATEGIES[strategy].preset
    free = STRATEGIES[strategy].fixed is None
    return ScopeConfig(
        strategy=strategy,
        login=preset if free else None,
        unique=preset if free else None,
        priority=PRIORITY,
        email_lower=True,
        phone_e164=True,
        blocked=(Blocked("customerid", "guest"),),
    )


def world_named(name: str) -> str:
    """Return the name of a world as the simulator has it; raises ValueError."""
    plain = name.strip().lower().replace("-", "_")
    if plain not in PRESETS:
        raise ValueError(f"no world {name!r}: choose from {', '.join(PRESETS)}")
    return plain


def compared(
    results: Iterable[Resolved], truth: dict[str, Truth]
) -> tuple[list[Observation], int, int]:
    """Join results to the truth; returns observations, and how many truths have no answer and how
    many results no truth. Signed in is who truly was: a resolver is not asked.
    """
    seen: set[str] = set()
    out: list[Observation] = []
    strange = 0
    for result in results:
        known = truth.get(result.request_id)
        if known is None or result.request_id in seen:
            strange += known is None
            continue
        if result.mpid is not None:
            seen.add(result.request_id)
            out.append((known.person, result.mpid, known.signed_in))
    return out, len(truth) - len(seen), strange


async def compare(
    worlds: Sequence[str],
    strategies: Sequence[str],
    people: int,
    steps: int,
    seed: int,
    progress: Callable[[], None],
    store: str = "",
) -> list[Row]:
    """Return the score of each strategy in each world; `progress` is called for every answer.

    All are played side by side, each in a scope of its own, so that they share commits.
    """
    async with stage(store) as core:
        work: list[Coroutine[Any, Any, Row]] = []
        for world in worlds:
            told = _written(simulate(PRESETS[world], seed, people, steps))
            for strategy in strategies:
                scope = FIRST_SCOPE + len(work)
                work.append(_one(core, world, strategy, scope, told, progress))
        return list(await asyncio.gather(*work))


def _written(steps: Iterable[Step]) -> list[tuple[Request, Truth]]:
    writer = Writer()
    return [(writer.request(step), writer.truth(step)) for step in steps]


async def _one(
    core: Core,
    world: str,
    strategy: str,
    scope: int,
    told: list[tuple[Request, Truth]],
    progress: Callable[[], None],
) -> Row:
    results: list[Resolved] = []

    def done(result: Resolved) -> None:
        results.append(result)
        progress()

    await play(core, config_of(strategy), scope, (request for request, _ in told), done)
    seen, unanswered, _ = compared(results, {t.request_id: t for _, t in told})
    return Row(world=world, strategy=strategy, score=score(seen), unanswered=unanswered)


# -- the page ---------------------------------------------------------------------------------


def tables(rows: Sequence[Row], people: int, steps: int, seed: int) -> str:
    """Return the figures as Markdown, one table a world."""
    words = f"onymous strategies --people {people} --steps {steps} --seed {seed}"
    out = [f"Made by `{words}`; `--write` puts them here.\n"]
    for world in dict.fromkeys(row.world for row in rows):
        mine = [row for row in rows if row.world == world]
        out += _table(NAMES[world], mine)
    return "\n".join(out)


def _table(title: str, rows: list[Row]) -> Iterator[str]:
    first = rows[0].score
    yield f"### {title}\n"
    yield (
        f"{first.people_true} people, {first.known_people_true} of them signed in at least once,"
        f" {first.requests:,} requests.\n"
    )
    yield (
        "| strategy | signed in: precision | recall | people mixed | people split |"
        " strangers inside | all: precision | recall | people mixed | people split |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        s = row.score
        known = (percent(s.known_precision), percent(s.known_recall))
        every = (percent(s.precision), percent(s.recall))
        mixed = f"**{s.known_people_mixed}**" if s.known_people_mixed else "0"
        cells = (f"`{row.strategy}`", *known, mixed, s.known_split, s.strangers_inside)
        rest = (*every, s.people_mixed, s.split)
        yield "| " + " | ".join(map(str, (*cells, *rest))) + " |"
    yield ""


def percent(share: float) -> str:
    """Return a share; what is not whole is not rounded up to it."""
    if share < 1 and round(share * 100, 1) == 100:
        return "99.9%"
    return f"{share * 100:.1f}%"


def filled(page: str, figures: str, begin: str = BEGIN, end: str = END) -> str:
    """Return the page with these figures in their place; raises ValueError where it has none."""
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {begin} and {end}")
    return f"{head}{begin}\n\n{figures}\n{end}{tail}"
