"""`onymous bench`: the goals of speed, measured as ratios to limits of the same run."""

from __future__ import annotations

import json
import pathlib
import tempfile
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from onymous.commands.common import JsonOption, app, console, errors
from onymous.lab.bench.report import PARTS, Ground, ground, run
from onymous.lab.bench.rows import Bench, Line


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help=f"one of {', '.join(PARTS)}")] = None,
    rounds: Annotated[int, typer.Option(help="alternating rounds; the median counts")] = 5,
    seconds: Annotated[float, typer.Option(help="length of a round")] = 3.0,
    scale: Annotated[int, typer.Option(help="identities of the large store")] = 3_000_000,
    postgres: Annotated[str, typer.Option(help="an empty database, postgresql://...")] = "",
    folder: Annotated[str, typer.Option(help="where the stores are made")] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure; servers and load share this machine, so leave it alone meanwhile."""
    unknown = [name for name in only or [] if name not in PARTS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]}: write one of {', '.join(PARTS)}")
    where = ground()
    with (
        tempfile.TemporaryDirectory(prefix="onymous-bench-", dir=folder or None) as place,
        errors.status("starting") as status,
    ):
        made = Bench(
            pathlib.Path(place),
            rounds=rounds,
            seconds=seconds,
            postgres=postgres,
            scale=scale,
            progress=lambda text: status.update(text),
        )
        lines = run(made, only or [])
    if as_json:
        rows = [msgspec.to_builtins(line) for line in lines]
        typer.echo(json.dumps({"on": msgspec.to_builtins(where), "rows": rows}))
        return
    _show(where, lines)


def _show(where: Ground, lines: list[Line]) -> None:
    console.print(
        f"{where.cpu}, {where.cores} cores, {where.memory_gb} GB, {where.system},"
        f" Python {where.python}, SQLite {where.sqlite}, load before {where.load_before:.2f}",
        highlight=False,
    )
    table = Table("what", "goal", "measured", "met", "in figures")
    for line in lines:
        met = {True: "yes", False: "[red]no[/]", None: "-"}[line.met]
        table.add_row(line.what, line.goal, line.measured, met, line.detail)
    console.print(table)
