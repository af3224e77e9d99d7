"""`onymous soak`: the audit, races and crashes, for as long as one likes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from onymous.commands.common import JsonOption, app, console, errors, run_now
from onymous.lab.audit import Violation
from onymous.lab.soak import audit, kills, place, races

Part = Callable[[str, str, int, int, Callable[[int], None]], Coroutine[Any, Any, int]]


@app.command()
def soak(
    steps: Annotated[int, typer.Option(help="audited requests")] = 1_000_000,
    tries: Annotated[int, typer.Option(help="first-sight races of 64 callers")] = 3_000,
    crashes: Annotated[int, typer.Option(help="kill -9 under load")] = 50,
    seed: Annotated[int, typer.Option(help="the same seed does the same")] = 1,
    store: Annotated[str, typer.Option(help="an empty store; default: a throw-away folder")] = "",
    as_json: JsonOption = False,
) -> None:
    """Look for violations; ends with 1 and a minimal story at the first one."""
    found: dict[str, Any] = {"seed": seed}
    try:
        for name, part, count in (
            ("audit", audit, steps),
            ("races", races, tries),
            ("crashes", kills, crashes),
        ):
            if count:
                started = time.monotonic()
                done = run_now(_one(name, part, store, count, seed, as_json))
                took = round(time.monotonic() - started, 1)
                found[name] = {"asked": count, "done": done, "seconds": took}
                if not as_json:
                    console.print(f"{name}: {count} without a violation, {took} s ({done})")
    except Violation as violation:
        errors.print(str(violation), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(found))


async def _one(name: str, part: Part, store: str, count: int, seed: int, quiet: bool) -> int:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        disable=quiet,
    ) as bar:
        task = bar.add_task(name, total=count)
        async with place(store) as (url, key):
            return await part(url, key, count, seed, lambda n: bar.advance(task, n))
