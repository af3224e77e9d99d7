"""The rows of the benchmark "Identity core": each measured against a limit of the same run."""

from __future__ import annotations

import asyncio
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from onymous.flows.identity import CODE_OF
from onymous.lab.bench import fill
from onymous.lab.bench.stage import (
    Round,
    Serving,
    measure,
    running,
    start_limit,
    start_server,
)
from onymous.lab.bench.traffic import PEOPLE
from onymous.library import open as open_library
from onymous.settings import Settings, load
from onymous.store.finding import find_in
from onymous.store.port import Probe
from onymous.store.sqlite import connect

#: a round counts only if the server's core was this busy
BUSY = 0.90
Progress = Callable[[str], None]


class Line(msgspec.Struct, kw_only=True):
    """One row of the result."""

    what: str
    goal: str
    #: what is compared with the goal
    measured: str
    met: bool | None
    detail: str = ""


class Bench:
    """A benchmark run in one folder."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        rounds: int,
        seconds: float,
        postgres: str,
        scale: int,
        progress: Progress,
    ) -> None:
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.postgres, self.scale, self.progress = postgres, scale, progress
        self.key = folder / "master.key"
        self._new = 1_000_000_000
        self._seed = 1
        self.secrets: dict[str, dict[str, str]] = {}

    # -- stages -----------------------------------------------------------------------------

    def settings(self, store: str) -> Settings:
        """Return settings of a store."""
        return load({"store": store, "master_key_file": str(self.key)}, environ={})

    def store(self, name: str, people: int = PEOPLE) -> str:
        """Make an SQLite folder with people in it, once."""
        url = f"sqlite:{self.folder}/{name}"
        if url not in self.secrets:
            self.fill(url, people)
        return url

    def fill(self, url: str, people: int) -> None:
        """Make tenants and people in a store."""
        self.progress(f"filling {people} people")
        settings = self.settings(url)
        self.secrets[url] = asyncio.run(fill.tenants(settings))
        if people <= 20_000:
            known = map(fill.person, range(people))
            asyncio.run(fill.through_flows(settings, known, lambda n: None))
        else:
            asyncio.run(fill.through_port(settings, 0, people, lambda n: None))

    def load(
        self, servers: list[Serving], kind: str, *, people: int = PEOPLE, **more: Any
    ) -> Round:
        """Put one round of load on servers."""
        self._new += 10_000_000
        self._seed += 1
        return measure(
            servers,
            kind,
            seconds=self.seconds,
            people=people,
            seed=self._seed,
            first_new=self._new % 9_000_000_000,
            **more,
        )

    def against_limit(
        self, servers: list[Serving], kind: str, **more: Any
    ) -> tuple[list[Round], list[Round], int]:
        """Alternate rounds of the limit and ours; return both and how many rounds counted."""
        ours, limits = [], []
        limit = start_limit()
        with running(limit):
            self.load(servers, kind, **more)
            for n in range(self.rounds):
                self.progress(f"{kind}, round {n + 1} of {self.rounds}")
                limits.append(self.load([limit], "known"))
                ours.append(self.load(servers, kind, **more))
        good = [o for o in ours if o.busy >= BUSY]
        return limits, good or ours, len(good)


def middle(rounds: list[Round], name: str = "per_second") -> float:
    """Return the median of a figure over rounds."""
    return float(statistics.median(getattr(r, name) for r in rounds))


def compared(
    what: str, goal: float, limits: list[Round], ours: list[Round], counted: int, p99: float = 0
) -> Line:
    """Return a row that compares requests per second with the limit's."""
    ratio = middle(ours) / middle(limits)
    slow = middle(ours, "p99_ms")
    text = f">= {goal:.2f} L" + (f", p99 < {p99:g} ms" if p99 else "")
    bad = sum(r.bad for r in ours)
    return Line(
        what=what,
        goal=text,
        measured=f"{ratio:.2f} L, p99 {slow:.1f} ms",
        met=ratio >= goal and (not p99 or slow < p99) and not bad,
        detail=(
            f"{middle(ours):,.0f}/s at {middle(ours, 'cpu_us'):.1f} us CPU;"
            f" L {middle(limits):,.0f}/s at {middle(limits, 'cpu_us'):.1f} us;"
            f" {counted} of {len(limits)} rounds with the core >= 90% busy"
            + (f"; {bad} answers were not 2xx" if bad else "")
        ),
    )


def identify(bench: Bench) -> Iterator[Line]:
    """Known people, and one in ten new: embedded, one process."""
    server = start_server(bench.store("one"), bench.key)
    with running(server):
        yield compared(
            "identify, known, embedded", 0.35, *bench.against_limit([server], "known"), p99=10
        )
        yield compared(
            "90% known, 10% new, embedded", 0.20, *bench.against_limit([server], "mixed"), p99=25
        )


def slow_disk(bench: Bench) -> Iterator[Line]:
    """The same load with 4 ms more per commit, against without."""
    url = bench.store("one")
    fast: list[Round] = []
    slow: list[Round] = []
    for n in range(bench.rounds):
        bench.progress(f"slow disk, round {n + 1} of {bench.rounds}")
        for rounds, delay in ((fast, "0"), (slow, "4")):
            server = start_server(url, bench.key, commit_delay_ms=delay)
            with running(server):
                rounds.append(bench.load([server], "mixed"))
    ratio = middle(slow) / middle(fast)
    yield Line(
        what="90% / 10% with +4 ms per fsync",
        goal=">= 0.85 of without",
        measured=f"{ratio:.2f}",
        met=ratio >= 0.85,
        detail=f"{middle(slow):,.0f}/s against {middle(fast):,.0f}/s;"
        f" p99 {middle(slow, 'p99_ms'):.1f} ms",
    )


def two_processes(bench: Bench) -> Iterator[Line]:
    """Two processes on one folder and port, against one."""
    url = bench.store("one")
    for kind, goal in (("known", 1.3), ("mixed", 1.0)):
        one, two = [], []
        for n in range(bench.rounds):
            bench.progress(f"two processes, {kind}, round {n + 1} of {bench.rounds}")
            first = start_server(url, bench.key)
            with running(first):
                one.append(bench.load([first], kind))
                second = start_server(url, bench.key, port=first.port)
                with running(second):
                    two.append(bench.load([first, second], kind))
        ratio = middle(two) / middle(one)
        yield Line(
            what=f"two processes on one folder, {kind}",
            goal=f">= {goal:.1f}x of one",
            measured=f"{ratio:.2f}x",
            met=ratio >= goal,
            detail=f"{middle(two):,.0f}/s at {middle(two, 'cpu_us'):.1f} us CPU against"
            f" {middle(one):,.0f}/s at {middle(one, 'cpu_us'):.1f} us; the load generator shares"
            " the cores",
        )


def on_postgres(bench: Bench) -> Iterator[Line]:
    """The same on PostgreSQL."""
    if not bench.postgres:
        yield Line(
            what="identify on PostgreSQL",
            goal=">= 0.28 L / >= 0.20 L",
            measured="not measured: no --postgres",
            met=None,
        )
        return
    bench.fill(bench.postgres, PEOPLE)
    server = start_server(bench.postgres, bench.key)
    with running(server):
        for kind, goal in (("known", 0.28), ("mixed", 0.20)):
            yield compared(
                f"identify on PostgreSQL, {kind}", goal, *bench.against_limit([server], kind)
            )


def library(bench: Bench) -> Iterator[Line]:
    """The library face against the engine's own lookups."""
    folder = f"{bench.folder}/library"
    ids = open_library(folder)
    db = connect(pathlib.Path(folder) / "onymous.db")
    try:
        known = [fill.person(n) for n in range(2_000)]
        for one in known:
            ids.identify(one)
        took, raw = [], []
        for n in range(bench.rounds):
            bench.progress(f"library, round {n + 1} of {bench.rounds}")
            start = time.perf_counter()
            for one in known:
                ids.identify(one)
            took.append((time.perf_counter() - start) / len(known))
            probes = [Probe(0, {CODE_OF[n]: v for n, v in p.items()}) for p in known]
            finder = db.cursor()
            start = time.perf_counter()
            for probe in probes:
                find_in(finder, probe)
            raw.append((time.perf_counter() - start) / len(known))
    finally:
        db.close()
        ids.close()
    us, engine = statistics.median(took) * 1e6, statistics.median(raw) * 1e6
    yield Line(
        what="in-process, known person",
        goal="<= 25 us, >= 0.40 of the engine's lookups",
        measured=f"{us:.1f} us, {engine / us:.2f}",
        met=us <= 25 and engine / us >= 0.40,
        detail=f"the engine's lookup of three identities takes {engine:.1f} us",
    )
