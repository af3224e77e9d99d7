"""`onymous rehearsals`: what rehearsals list in simulated worlds, judged by the truth."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from onymous.commands.common import JsonOption, app, console, run_now, stop
from onymous.lab.foretold import BEGIN, END, PEOPLE, SEED, STEPS, Judged, foretold, tables
from onymous.lab.simulate import PRESETS
from onymous.lab.which import filled, world_named

TEXT = "utf-8"


@app.command("rehearsals")
def rehearsals_(
    worlds: Annotated[
        list[str] | None, typer.Argument(help="retail, media, family_tv, b2b; none: all of them")
    ] = None,
    people: Annotated[int, typer.Option(min=1, help="simulated people")] = PEOPLE,
    steps: Annotated[int, typer.Option(min=1, help="requests in each world")] = STEPS,
    seed: Annotated[int, typer.Option(min=0, help="the same seed tells the same story")] = SEED,
    write_page: Annotated[
        pathlib.Path | None, typer.Option("--write", help="put the figures into this page")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rehearse changes of rules in simulated worlds and judge what is listed by the truth."""
    try:
        chosen = list(dict.fromkeys(world_named(name) for name in worlds or PRESETS))
    except ValueError as error:
        stop(error)
    rows = run_now(foretold(chosen, people, steps, seed))
    if write_page is not None:
        try:
            page = filled(write_page.read_text(TEXT), tables(rows), BEGIN, END)
        except (OSError, ValueError) as error:
            stop(error)
        write_page.write_text(page, TEXT)
    if as_json:
        typer.echo(msgspec.json.encode([_plain(row) for row in rows]).decode())
        return
    for world in chosen:
        console.print(_table(world, [row for row in rows if row.world == world]))


def _plain(row: Judged) -> dict[str, object]:
    """Return the figures without the lists of the rehearsal."""
    out: dict[str, object] = json.loads(msgspec.json.encode(row))
    rehearsal = row.rehearsal
    return out | {
        "rehearsal": {
            "merges": rehearsal.merges,
            "splits": rehearsal.splits,
            "risky": rehearsal.risky,
            "risks": rehearsal.risks,
        }
    }


def _table(world: str, rows: list[Judged]) -> Table:
    table = Table(title=world, title_justify="left")
    for column in ("change", "merges", "mixing", "warned", "splits", "tearing", "not listed"):
        table.add_column(column, justify="left" if column == "change" else "right")
    for row in rows:
        missed = row.merges_missed + row.splits_missed
        cells = (row.rehearsal.merges, row.merges_mixing, row.mixing_warned)
        more = (row.rehearsal.splits, row.splits_tearing, missed)
        table.add_row(row.change, *map(str, (*cells, *more)))
    return table
