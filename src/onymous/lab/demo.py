"""The demo: simulated people drive a real server over HTTP, and the truth scores what it found."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from onymous.lab.replay import Credentials, Replay, replay
from onymous.lab.score import Score, render, score
from onymous.lab.simulate import Step


class Outcome(msgspec.Struct, kw_only=True):
    """What one stream of requests came to."""

    name: str
    run: Replay
    score: Score


async def drive(
    name: str, steps: Iterable[Step], total: int, url: str, who: Credentials, console: Console
) -> Outcome:
    """Send a stream of steps with a progress bar and score the answers against the truth."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=total)

        def moved(done: int) -> None:
            progress.update(task, completed=done)

        run = await replay(steps, url, who, environment="production", on_progress=moved)
        progress.update(task, total=run.steps, completed=run.steps)
    return Outcome(name=name, run=run, score=score(run.observations))


class Watched:
    """Passes steps on and remembers how eventful each person's life was, for the story."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = steps
        self.events: dict[str, Counter[str]] = defaultdict(Counter)
        self.login: dict[str, dict[str, str | None]] = {}

    def __iter__(self) -> Iterator[Step]:
        for step in self._steps:
            self.events[step.person][step.op] += 1
            if step.op == "login" and step.identities.get("customerid"):
                self.login.setdefault(step.person, step.identities)
            yield step

    def most_eventful(self) -> tuple[str, dict[str, str | None]] | None:
        """Return a registered person with many kinds of requests, and a login of theirs."""
        best = sorted(
            self.login,
            key=lambda p: (-len(self.events[p]), -min(sum(self.events[p].values()), 25), p),
        )
        return (best[0], self.login[best[0]]) if best else None


def show(outcome: Outcome, console: Console) -> None:
    """Print the table of an outcome."""
    run = outcome.run
    table = Table(title=f"{outcome.name}: requests", title_justify="left", box=None)
    table.add_column("what")
    table.add_column("figure", justify="right")
    for label, value in (
        ("requests answered", f"{run.steps:,}"),
        ("requests per second", f"{run.requests_per_s:,.0f}"),
        ("half answered within", f"{run.p50_ms:.1f} ms"),
        ("99 of 100 within", f"{run.p99_ms:.1f} ms"),
        ("repeats of an earlier request", f"{run.repeats:,}"),
        ("repeats answered differently", f"{run.mismatches:,}"),
        ("refused (junk only, nothing left)", f"{_refused(run):,}"),
    ):
        table.add_row(label, value)
    console.print(table)
    console.print(render(outcome.score))


def _refused(run: Replay) -> int:
    return sum(count for status, count in run.statuses.items() if status >= 400)


def story(
    url: str, key: str, secret: str, identities: dict[str, str | None], console: Console
) -> None:
    """Print one person's story: the names as a tree, the ledger, and why the last answer is so."""
    token = base64.b64encode(f"{key}:{secret}".encode()).decode()
    headers = {"Authorization": f"Basic {token}"}
    given = {k: v for k, v in identities.items() if k in ("customerid", "email") and v}
    body = {"environment": "production", "known_identities": given}
    with httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        asked = client.post(
            "/v1/identify", params={"explain": "true", "read_only": "true"}, json=body
        )
        answer = asked.json()
        mpid = answer.get("mpid")
        if not mpid:
            return
        history = client.get(f"/v1/{mpid}/history", params={"limit": 100}).json()
    console.print(_tree(history))
    console.print(_ledger(history))
    console.print(Panel("\n".join(answer["trace_text"]), title="why this answer?", expand=False))


def _tree(history: dict[str, Any]) -> Tree:
    tree = Tree(f"[bold]{history['mpid']}[/] one person, {len(history['identities'])} names")
    for name in history["identities"]:
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(name["since_ms"] / 1000))
        tree.add(f"{name['identity_type']} = {name['value']}  [dim]since {since} {name['input']}")
    return tree


def _ledger(history: dict[str, Any]) -> Table:
    table = Table(title="how the profile came about", title_justify="left")
    for column in ("when", "request", "what changed", "decided by"):
        table.add_column(column)
    for entry in reversed(history["entries"][:12]):
        what = ", ".join(
            f"{c['change']} {c.get('identity_type', '')}".strip() for c in entry["changes"]
        )
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry["at_ms"] / 1000))
        table.add_row(when, entry["operation"], what, entry.get("decided_by", ""))
    return table


def as_json(outcomes: Iterable[Outcome], say: Callable[[str], None]) -> None:
    """Print outcomes for machines."""
    rows = [
        {
            "name": o.name,
            "requests": o.run.steps,
            "requests_per_s": round(o.run.requests_per_s),
            "p50_ms": o.run.p50_ms,
            "p99_ms": o.run.p99_ms,
            "mismatches": o.run.mismatches,
            "score": o.score.as_dict(),
        }
        for o in outcomes
    ]
    say(json.dumps(rows))
