"""`onymous simulate`, `play`, `score` and `strategies`: people with a known truth, and who finds
them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress
from rich.table import Table

from onymous import readers
from onymous.commands.common import JsonOption, StoreOption, app, bar, console, fail, run_now, stop
from onymous.flows.tenants import BadDocument, parse
from onymous.lab.play import BadRequest, play, stage
from onymous.lab.score import Score, render, score
from onymous.lab.simulate import PRESETS, simulate
from onymous.lab.streams import BadLine, Request, Resolved, Truth, read, write
from onymous.lab.which import (
    PEOPLE,
    SEED,
    STEPS,
    Row,
    compare,
    compared,
    config_of,
    filled,
    percent,
    tables,
    world_named,
)
from onymous.rules.strategies import STRATEGIES, ScopeConfig

PeopleOption = Annotated[int, typer.Option(min=1, help="simulated people")]
StepsOption = Annotated[int, typer.Option(min=1, help="requests in each world")]
SeedOption = Annotated[int, typer.Option(min=0, help="the same seed tells the same story")]
Worlds = typer.Argument(help="retail, media, family_tv, b2b; none: all of them")
TEXT = "utf-8"


@contextmanager
def _bar(words: str, total: int | None, quiet: bool) -> Iterator[Progress]:
    with bar(quiet) as shown:
        shown.add_task(words, total=total)
        yield shown


def _worlds(names: list[str] | None) -> list[str]:
    try:
        return list(dict.fromkeys(world_named(name) for name in names or PRESETS))
    except ValueError as error:
        stop(error)


def _folder(path: pathlib.Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{path} cannot be made: {error.strerror}")


@app.command("simulate")
def simulate_(
    worlds: Annotated[list[str] | None, Worlds] = None,
    out: Annotated[pathlib.Path, typer.Option(help="folder to write to")] = pathlib.Path("worlds"),
    people: PeopleOption = 1_000,
    steps: StepsOption = 50_000,
    seed: SeedOption = SEED,
    as_json: JsonOption = False,
) -> None:
    """Write requests of simulated people, and the truth about them, as JSON Lines."""
    _folder(out)
    made = []
    for world in _worlds(worlds):
        stream, truth = out / f"{world}.stream.jsonl", out / f"{world}.truth.jsonl"
        seen: set[str] = set()
        with _bar(world, steps, as_json) as shown:
            story = simulate(PRESETS[world], seed, people, steps)
            for step in write(story, stream, truth):
                seen.add(step.person)
                shown.advance(shown.task_ids[0])
        made.append({"world": world, "stream": str(stream), "truth": str(truth)})
        made[-1] |= {"requests": steps, "people": len(seen)}  # type: ignore[dict-item]
    if as_json:
        typer.echo(json.dumps(made))
        return
    for one in made:
        text = f"{one['stream']}: {one['requests']} requests of {one['people']} people"
        console.print(f"{text}; the truth: {one['truth']}", highlight=False, soft_wrap=True)


@app.command("play")
def play_(
    stream: Annotated[pathlib.Path, typer.Argument(help="a stream of `onymous simulate`")],
    out: Annotated[pathlib.Path, typer.Option(help="write the result here")],
    strategy: Annotated[str, typer.Option(help="one of the five, as the starter has it")] = "",
    config: Annotated[pathlib.Path | None, typer.Option(help="or your configuration")] = None,
    scope: Annotated[str, typer.Option(help="its scope, if it has several")] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the rules who made each request of a stream; on a throw-away store."""
    rules = _rules(strategy, config, scope)
    _folder(out.parent)
    found = run_now(_played(stream, out, rules, store or "", as_json))
    if as_json:
        typer.echo(json.dumps(found))
        return
    console.print(
        f"{out}: {found['answered']} requests are of {found['people']} people;"
        f" {found['unanswered']} without an answer, {found['repeats']} repeats left out",
        highlight=False,
        soft_wrap=True,
    )


def _rules(strategy: str, config: pathlib.Path | None, scope: str) -> ScopeConfig:
    if bool(strategy) == (config is not None):
        fail("say --strategy NAME or --config FILE")
    if config is None:
        if strategy not in STRATEGIES:
            fail(f"strategy must be one of {', '.join(STRATEGIES)}")
        return config_of(strategy)
    try:
        scopes = parse(config.read_text(TEXT))[0].scopes
    except (OSError, UnicodeDecodeError):
        fail(f"{config} cannot be read")
    except BadDocument as error:
        fail("; ".join(map(str, error.problems)))
    name = scope or (next(iter(scopes)) if len(scopes) == 1 else "")
    if name not in scopes:
        fail(f"say --scope: one of {', '.join(scopes)}")
    return scopes[name]


async def _played(
    stream: pathlib.Path, out: pathlib.Path, rules: ScopeConfig, store: str, quiet: bool
) -> dict[str, int]:
    encode = msgspec.json.Encoder().encode
    people: set[str] = set()
    found = {"answered": 0, "unanswered": 0}
    try:
        with _bar(stream.name, None, quiet) as shown, out.open("wb") as file:

            def done(result: Resolved) -> None:
                file.write(encode(result) + b"\n")
                found["unanswered" if result.mpid is None else "answered"] += 1
                if result.mpid is not None:
                    people.add(result.mpid)
                shown.advance(shown.task_ids[0])

            async with stage(store) as core:
                repeats = await play(core, rules, 1, read(stream, Request), done)
    except (BadLine, BadRequest) as error:
        stop(error)
    return {**found, "people": len(people), "repeats": repeats}


@app.command("score")
def score_(
    truth: Annotated[pathlib.Path, typer.Argument(help="a truth of `onymous simulate`")],
    result: Annotated[
        pathlib.Path,
        typer.Argument(help="request_id and mpid (any name of a person), .jsonl, .csv or .parquet"),
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare a resolved result, of `onymous play` or of anything else, with the truth."""
    try:
        with _bar("reading", None, as_json):
            true = {t.request_id: t for t in read(truth, Truth)}
            seen, unanswered, strange = compared(_results(result), true)
    except (BadLine, readers.FileProblem) as error:
        stop(error)
    if strange >= len(seen):
        fail("most requests of the result are not in this truth: they are of two streams")
    found = score(seen)
    if as_json:
        more = {"unanswered": unanswered, "unknown": strange}
        typer.echo(json.dumps(found.as_dict() | more))
        return
    console.print(render(found))
    _examples(found)
    if unanswered or strange:
        text = f"{unanswered} requests without an answer; {strange} answers to unknown requests"
        console.print(text, highlight=False)


def _results(path: pathlib.Path) -> Iterator[Resolved]:
    """Read the result of any resolver."""
    names, rows = readers.read(path)
    if not {"request_id", "mpid"} <= set(names):
        raise BadLine(f"{path.name} needs the columns request_id and mpid")
    for number, row in enumerate(rows, 1):
        if row.get("request_id") is None:
            raise BadLine(f"{path.name}: row {number} has no request_id")
        mpid = row.get("mpid")
        named = None if mpid in (None, "") else str(mpid)
        yield Resolved(request_id=str(row["request_id"]), mpid=named)


def _examples(found: Score) -> None:
    for example in found.mixed_examples[:3]:
        parts = ", ".join(f"{who} ({n})" for who, n in example.parts[:5])
        signed = "signed in" if example.known else "not all signed in"
        console.print(f"mixed, {signed}: {example.who}: {parts}", highlight=False, markup=False)
    for example in found.split_examples[:3]:
        parts = ", ".join(f"{who} ({n})" for who, n in example.parts[:5])
        console.print(f"split: {example.who}: {parts}", highlight=False, markup=False)


@app.command("strategies")
def strategies_(
    worlds: Annotated[list[str] | None, Worlds] = None,
    people: PeopleOption = PEOPLE,
    steps: StepsOption = STEPS,
    seed: SeedOption = SEED,
    write_page: Annotated[
        pathlib.Path | None, typer.Option("--write", help="put the figures into this page")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score every strategy in simulated worlds: which strategy for whom."""
    chosen, names = _worlds(worlds), list(STRATEGIES)
    with _bar("requests answered", len(chosen) * len(names) * steps, as_json) as shown:
        task = shown.task_ids[0]
        rows = run_now(compare(chosen, names, people, steps, seed, lambda: shown.advance(task)))
        shown.update(task, completed=len(chosen) * len(names) * steps)
    if write_page is not None:
        try:
            page = filled(write_page.read_text(TEXT), tables(rows, people, steps, seed))
        except (OSError, ValueError) as error:
            stop(error)
        write_page.write_text(page, TEXT)
    if as_json:
        typer.echo(json.dumps([row.as_dict() for row in rows]))
        return
    for world in chosen:
        console.print(_table(world, [row for row in rows if row.world == world]))
    console.print("signed-in requests; `--json` has all figures", highlight=False)


def _table(world: str, rows: list[Row]) -> Table:
    table = Table(title=world, title_justify="left")
    for column in ("strategy", "precision", "recall", "mixed", "split", "strangers"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for row in rows:
        s = row.score
        share = (percent(s.known_precision), percent(s.known_recall))
        count = (s.known_people_mixed, s.known_split, s.strangers_inside)
        table.add_row(row.strategy, *share, *map(str, count))
    return table
