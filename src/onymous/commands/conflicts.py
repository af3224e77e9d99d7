"""`onymous conflicts`: rows that belong to two people, for a person to decide."""

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
    now_ms,
    run_now,
    settings_of,
    when,
)
from onymous.flows.conflicts import Conflict, conflict, conflicts, drop
from onymous.flows.merging import Actor, Preview
from onymous.flows.review import ALL
from onymous.rules.errors import MergeInvalid
from onymous.rules.strategies import Plan

group = typer.Typer(no_args_is_help=True, help="Rows that belong to two people.")
app.add_typer(group, name="conflicts")
Reason = Annotated[str, typer.Option(help="why; stays in the history of both")]


@group.command("list")
def list_(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List conflicts, oldest first."""

    async def work() -> list[dict[str, Any]]:
        async with running(settings_of(store=store)) as core:
            found = await conflicts(core.store, core.mpids)
            return [_row(core, c) for c in found]

    rows = run_now(work())
    if as_json:
        typer.echo(json.dumps({"conflicts": rows}))
        return
    table = Table("id", "at", "input", "environment", "identities", "people")
    for row in rows:
        people = "\n".join(row["mpids"])
        where = (row["input"], row["environment"])
        table.add_row(str(row["id"]), when(row["at_ms"]), *where, row["types"], people)
    console.print(table)


def _row(core: Core, c: Conflict) -> dict[str, Any]:
    return {
        "id": c.id,
        "at_ms": c.at_ms,
        "input": core.directory.names.input(c.input),
        "environment": "development" if c.pool % 2 else "production",
        "types": ", ".join(c.types),
        "mpids": c.mpids,
    }


@group.command()
def merge(
    number: Annotated[int, typer.Argument(help="id from `conflicts list`")],
    reason: Reason,
    into: Annotated[str, typer.Option(help="MPID that stays; default: the first")] = "",
    dry_run: Annotated[bool, typer.Option(help="show what the merge would make")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """The two are one person: merge them (can be undone)."""
    actor = Actor(name="operator", reason=reason, now_ms=now_ms())

    async def work() -> list[Any]:
        async with running(settings_of(store=store)) as core:
            found = await conflict(core.store, core.mpids, number)
            plan = _plan(core, found)
            keep = into or found.mpids[0]
            if keep not in found.mpids:
                raise MergeInvalid(what="--into names none of the people of this conflict")
            out: list[Any] = []
            for other in found.mpids:
                if other == keep:
                    continue
                if dry_run:
                    out.append(await core.merging.preview(plan, found.pool, other, keep))
                else:
                    out.append(await core.merging.merge(plan, found.pool, other, keep, actor))
            if not dry_run:
                await drop(core.store, number, actor)
            return out

    done = run_now(work())
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
        return
    for item in done:
        console.print(f"{item.source} -> {item.destination}", highlight=False)
        if isinstance(item, Preview):
            for line in (*item.warnings, *(f"would also be found by {t}" for t, _ in item.names)):
                console.print(f"  {line}", highlight=False, markup=False)


@group.command("dismiss")
def dismiss_(
    number: Annotated[int, typer.Argument(help="id from `conflicts list`")],
    reason: Reason,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """The two are two people: refuse the row, now and whenever it comes again."""
    actor = Actor(name="operator", reason=reason, now_ms=now_ms())

    async def work() -> None:
        async with running(settings_of(store=store)) as core:
            await core.review.refuse(ALL, f"c{number}", actor)

    run_now(work())
    typer.echo(json.dumps({"dismissed": number}) if as_json else f"conflict {number} dismissed")


def _plan(core: Core, found: Conflict) -> Plan:
    for caller in core.directory.callers():
        if caller.scope == found.pool // 2:
            return caller.plan
    raise typer.BadParameter("the scope of this conflict has no input any more")
