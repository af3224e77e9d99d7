"""`onymous diagnostics`: where the wire stays silent, what was not done and why."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from onymous.app import running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    run_now,
    settings_of,
    when,
)
from onymous.flows.diagnostics import Diagnosed, read_diagnostics


@app.command()
def diagnostics(
    kind: Annotated[str, typer.Option(help="only this kind, such as batch_dropped")] = "",
    after: Annotated[int, typer.Option(help="only entries after this number")] = 0,
    limit: Annotated[int, typer.Option(help="at most this many; the latest")] = 100,
    follow: Annotated[bool, typer.Option(help="go on as entries come")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was skipped, dropped or held back, and why; names types, never values."""

    async def work() -> int:
        async with running(settings_of(store=store)) as core:
            names = core.directory.names
            found = await read_diagnostics(core.store, after=after, kind=kind, limit=limit)
            rows = [_row(names.workspace(d.workspace), names.input(d.input), d) for d in found]
            _show(rows, as_json)
            return found[-1].id if found else after

    last = run_now(work())
    while follow:
        time.sleep(1)
        after = last
        last = run_now(work())


def _row(workspace: str, source: str, d: Diagnosed) -> dict[str, Any]:
    return {
        "id": d.id,
        "at_ms": d.at_ms,
        "kind": d.kind,
        "workspace": workspace,
        "input": source,
        "request_id": d.request_id,
        "detail": d.detail,
    }


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"diagnostics": rows}))
        return
    if not rows:
        return
    table = Table("id", "at", "kind", "input", "request", "detail")
    for row in rows:
        source = f"{row['workspace']}/{row['input']}"
        detail = json.dumps(row["detail"])
        table.add_row(
            str(row["id"]), when(row["at_ms"]), row["kind"], source, row["request_id"] or "", detail
        )
    console.print(table)
