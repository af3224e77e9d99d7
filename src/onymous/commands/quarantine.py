"""`onymous quarantine`: batches that were set aside: look, try again, throw away."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from onymous.app import Core, running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    run_now,
    settings_of,
    when,
)
from onymous.flows.quarantine import Replayed, Spooled

quarantine = typer.Typer(no_args_is_help=True, help="Batches that were set aside.")
app.add_typer(quarantine, name="quarantine")


@quarantine.command("list")
def list_(
    store: StoreOption = None,
    limit: Annotated[int, typer.Option(help="at most this many")] = 100,
    bodies: Annotated[bool, typer.Option(help="show what was sent (personal data)")] = False,
    as_json: JsonOption = False,
) -> None:
    """List batches that were set aside, oldest first."""

    async def work() -> list[dict[str, Any]]:
        async with running(settings_of(store=store)) as core:
            return [_row(core, row, bodies) for row in await core.spool.quarantined(0, limit)]

    rows = run_now(work())
    if as_json:
        typer.echo(json.dumps({"quarantined": rows}))
        return
    table = Table("id", "received", "input", "environment", "bytes", "why")
    for row in rows:
        what = (row["input"], row["environment"], str(row["bytes"]), row["reason"] or "")
        table.add_row(str(row["id"]), when(row["at_ms"]), *what)
    console.print(table)
    for row in rows if bodies else ():
        console.print(f"{row['id']}: {row['body']}", highlight=False, markup=False)


def _row(core: Core, row: Spooled, bodies: bool) -> dict[str, Any]:
    out = {
        "id": row.id,
        "at_ms": row.at_ms,
        "input": core.directory.names.input(row.input),
        "environment": "development" if row.development else "production",
        "bytes": len(row.body),
        "reason": row.reason,
    }
    return out | ({"body": row.body.decode("utf-8", "replace")} if bodies else {})


@quarantine.command()
def replay(
    numbers: Annotated[
        list[int] | None, typer.Argument(help="ids from `quarantine list`; all without any")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try batches that were set aside once more."""

    async def work() -> Replayed:
        async with running(settings_of(store=store)) as core:
            return await core.spool.replay(numbers or None)

    done = run_now(work())
    if as_json:
        typer.echo(json.dumps(msgspec.structs.asdict(done)))
    else:
        console.print(f"{done.applied} applied, {done.dropped} dropped, {done.left} left")


@quarantine.command()
def drop(
    numbers: Annotated[list[int], typer.Argument(help="ids from `quarantine list`")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Throw batches away for good."""

    async def work() -> None:
        async with running(settings_of(store=store)) as core:
            await core.spool.drop(numbers)

    run_now(work())
    typer.echo(json.dumps({"dropped": numbers}) if as_json else f"{len(numbers)} dropped")
