"""`onymous jobs`: how promised work stands, and what was given up."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from onymous.app import open_store
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    now_ms,
    run_now,
    settings_of,
)
from onymous.flows.jobs import GivenUp, Waiting, again, given_up, waiting


@dataclasses.dataclass
class _Stand:
    kinds: list[Waiting]
    lost: list[GivenUp]
    retried: int = 0


@app.command()
def jobs(
    store: StoreOption = None,
    retry: Annotated[bool, typer.Option(help="let what was given up be tried again")] = False,
    as_json: JsonOption = False,
) -> None:
    """Promised work by kind, and jobs given up; ends with 1 while there are any."""
    stand = run_now(_look(settings_of(store=store), retry))
    if as_json:
        typer.echo(json.dumps({k: msgspec.to_builtins(v) for k, v in vars(stand).items()}))
    else:
        _show(stand)
    if stand.lost and not retry:
        raise typer.Exit(1)


async def _look(settings: Any, retry: bool) -> _Stand:
    place = open_store(settings.store)
    await place.start()
    try:
        now = now_ms()
        lost = await given_up(place, now, 1_000)
        if retry:
            await again(place, [job.id for job in lost], now)
        return _Stand(await waiting(place, now), lost, len(lost) if retry else 0)
    finally:
        await place.close()


def _show(stand: _Stand) -> None:
    table = Table()
    for column in ("kind", "open", "held", "given up", "oldest is due since"):
        table.add_column(column)
    now = now_ms()
    for kind in stand.kinds:
        since = "" if kind.oldest_ms is None else f"{max(0, now - kind.oldest_ms) / 1000:.0f} s"
        table.add_row(kind.kind, str(kind.open), str(kind.held), str(kind.given_up), since)
    console.print(table if stand.kinds else "nothing waits")
    for job in stand.lost:
        why = job.error or "its workers died over it"
        console.print(f"job {job.id} ({job.kind}) was given up after {job.tries} tries: {why}")
    if stand.retried:
        console.print(f"{stand.retried} are tried again")
    elif stand.lost:
        console.print("`onymous jobs --retry` lets them be tried again")
