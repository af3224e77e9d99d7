"""`onymous settings` and `onymous reference`: what there is, from the source itself."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated

import typer
from rich.table import Table

from onymous.commands.common import JsonOption, app, console
from onymous.lab.reference import pages
from onymous.lab.reference import write as write_pages
from onymous.settings import TABLE


@app.command("settings")
def settings_(as_json: JsonOption = False) -> None:
    """All settings with their defaults and meaning."""
    if as_json:
        rows = [{"name": s.name, "default": s.default, "help": s.help} for s in TABLE]
        typer.echo(json.dumps(rows))
        return
    table = Table()
    for column in ("setting", "type", "default", "meaning"):
        table.add_column(column)
    for s in TABLE:
        table.add_row(s.name, s.kind.__name__, str(s.default), s.help)
    console.print(table)


@app.command()
def reference(
    write: Annotated[bool, typer.Option(help="write the pages, else list the stale ones")] = False,
    folder: Annotated[str, typer.Option(help="where they are")] = "docs/reference",
    as_json: JsonOption = False,
) -> None:
    """Keep the generated reference pages fresh (for contributors)."""
    path = pathlib.Path(folder)
    if write:
        changed = write_pages(path)
    else:
        changed = [n for n, t in pages().items() if _read(path / n) != t]
    if as_json:
        typer.echo(json.dumps({"written" if write else "stale": changed}))
    for name in () if as_json else changed:
        console.print(name)
    if changed and not write:
        raise typer.Exit(1)


def _read(path: pathlib.Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""
