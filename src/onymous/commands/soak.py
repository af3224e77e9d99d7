"""`onymous soak`: the audit, races and crashes, for as long as one likes."""

from __future__ import annotations

import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer
from rich.table import Table

from onymous.commands.common import (
    JsonOption,
    app,
    bar,
    console,
    errors,
    fail,
    run_now,
    stop,
)
from onymous.lab.audit import Violation
from onymous.lab.ground import Ground
from onymous.lab.lives import lives
from onymous.lab.soak import Count, Going, audit, kills, races, restores
from onymous.lab.soak_history import imports, ingestion
from onymous.settings import SettingError

Part = Callable[[Ground, int, int, Callable[[int], None], Going], Coroutine[Any, Any, Count]]
PARTS: tuple[tuple[str, Part], ...] = (
    ("audit", audit),
    ("races", races),
    ("crashes", kills),
    ("ingestion", ingestion),
    ("imports", imports),
    ("restores", restores),
    ("lives", lives),
)
SQLITE = "sqlite"
NAMES = ", ".join(name for name, _ in PARTS)


@app.command()
def soak(
    store: Annotated[
        list[str] | None,
        typer.Option(
            help="sqlite, or a PostgreSQL server on which databases may be made and dropped"
            " (postgresql://USER@HOST/postgres); may be given twice"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="audited requests, each engine")] = 1_000_000,
    tries: Annotated[int, typer.Option(help="first-sight races of 64 callers")] = 3_000,
    crashes: Annotated[
        int, typer.Option(help="kill -9 each: under load, events, imports, new rules; restores")
    ] = 50,
    seed: Annotated[int, typer.Option(help="the same seed asks the same")] = 1,
    minutes: Annotated[
        float, typer.Option(help="longest time of each part on each engine; 0 is no limit")
    ] = 0,
    only: Annotated[list[str] | None, typer.Option(help=f"parts to run: {NAMES}")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for violations on throw-away stores; ends with 1 and a story at the first one."""
    rows: list[dict[str, Any]] = []
    parts = _chosen(only)
    counts = dict.fromkeys((name for name, _ in PARTS), crashes)
    counts |= {"audit": steps, "races": tries}
    with tempfile.TemporaryDirectory(prefix="onymous-soak-") as folder:
        for url in store or [SQLITE]:
            ground = _ground(url, folder)
            for name, part in parts:
                if counts[name]:
                    rows.append(_part(name, part, ground, counts[name], seed, minutes, as_json))
                    if "violation" in rows[-1]:
                        break
    broken = [row for row in rows if "violation" in row]
    if as_json:
        typer.echo(json.dumps({"seed": seed, "parts": rows, "violations": len(broken)}))
    else:
        _show(rows)
    if broken:
        raise typer.Exit(1)


def _chosen(only: list[str] | None) -> list[tuple[str, Part]]:
    if unknown := sorted(set(only or ()).difference(name for name, _ in PARTS)):
        fail(f"there is no part {unknown[0]}", f"The parts are {NAMES}.")
    return [(name, part) for name, part in PARTS if not only or name in only]


def _ground(url: str, folder: str) -> Ground:
    try:
        return Ground("" if url == SQLITE else url, pathlib.Path(folder))
    except SettingError as error:
        stop(error)


def _part(
    name: str,
    part: Part,
    ground: Ground,
    count: int,
    seed: int,
    minutes: float,
    quiet: bool,
) -> dict[str, Any]:
    started = time.monotonic()

    def going() -> bool:
        return not minutes or time.monotonic() - started < minutes * 60

    row: dict[str, Any] = {"engine": ground.engine, "part": name, "asked": count}
    try:
        done = run_now(_watched(f"{ground.engine} {name}", part, ground, count, seed, going, quiet))
        row |= {"done": done.done, "checked": done.checked, "what": done.what}
    except Violation as violation:
        row["violation"] = str(violation)
        if not quiet:
            errors.print(str(violation), highlight=False, markup=False, soft_wrap=True)
    row["seconds"] = round(time.monotonic() - started, 1)
    return row


async def _watched(
    name: str, part: Part, ground: Ground, count: int, seed: int, going: Going, quiet: bool
) -> Count:
    with bar(quiet) as shown:
        task = shown.add_task(name, total=count)
        return await part(ground, count, seed, lambda n: shown.advance(task, n), going)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="soak")
    for column in ("engine", "part", "asked", "done", "checked", "time", "found"):
        table.add_column(
            column, justify="left" if column in ("engine", "part", "found") else "right"
        )
    for row in rows:
        table.add_row(
            row["engine"],
            row["part"],
            f"{row['asked']:,}",
            f"{row.get('done', 0):,}",
            f"{row.get('checked', 0):,}",
            f"{row['seconds']:,.0f} s",
            "a violation" if "violation" in row else "nothing",
        )
    console.print(table)
    for name, what in {row["part"]: row["what"] for row in rows if "what" in row}.items():
        console.print(f"checked by {name}: {what}", highlight=False)
