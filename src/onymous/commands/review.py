"""`onymous review`: what was held back, for a person to accept or refuse."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from onymous.app import Core
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    now_ms,
    when,
    whoever,
    with_core,
)
from onymous.flows.merging import Actor
from onymous.flows.review import ALL, Decided, Waiting

group = typer.Typer(no_args_is_help=True, help="What was held back: accept or refuse it.")
app.add_typer(group, name="review")
Entry = Annotated[str, typer.Argument(help="id from `review list`, such as v12 or c7")]
Reason = Annotated[str, typer.Option(help="why; stays in the audit")]
Operator = Annotated[str, typer.Option("--as", help="who decides")]


@group.command("list")
def list_(
    after: Annotated[str, typer.Option(help="only entries after this one")] = "",
    limit: Annotated[int, typer.Option(help="at most this many", min=1, max=1_000)] = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what waits: first rows of feeds that belong to two people, then values; oldest first."""

    async def work(core: Core) -> tuple[list[Waiting], str | None]:
        return await core.review.page(ALL, after or None, limit)

    found, last = with_core(store, work)
    if as_json:
        typer.echo(json.dumps({"review": msgspec.to_builtins(found), "next": last}))
        return
    table = Table("id", "last", "times", "what", "types", "people", "input", "environment")
    for w in found:
        types, people = ", ".join(w.types), "\n".join(w.mpids)
        row = (w.id, when(w.last_ms), str(w.count), w.reason, types, people, w.input, w.environment)
        table.add_row(*row)
    console.print(table)
    if last:
        typer.echo(f"more: onymous review list --after {last}")
    typer.echo("refused aliases: onymous diagnostics; batches set aside: onymous quarantine")


@group.command()
def show(entry: Entry, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show an entry with its values, and what the people have of these types now."""
    found = with_core(store, lambda core: core.review.show(ALL, entry))
    told: dict[str, Any] = msgspec.to_builtins(found)
    if as_json:
        typer.echo(json.dumps(told))
        return
    for name, value in told.items():
        console.print(f"{name}: {value}", highlight=False, markup=False)


@group.command()
def accept(
    entry: Entry,
    reason: Reason,
    into: Annotated[str, typer.Option(help="conflicts: MPID that stays; default: the first")] = "",
    operator: Operator = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do what was held back: change the profile, or merge the two (can be undone)."""
    actor = _actor(operator, reason)
    _told(with_core(store, lambda c: c.review.accept(ALL, entry, actor, into)), as_json)


@group.command()
def refuse(
    entry: Entry,
    reason: Reason,
    operator: Operator = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an entry off the list: the same does not come back."""
    actor = _actor(operator, reason)
    _told(with_core(store, lambda core: core.review.refuse(ALL, entry, actor)), as_json)


def _actor(operator: str, reason: str) -> Actor:
    if not reason.strip():
        raise typer.BadParameter("say why: --reason")
    return Actor(name=operator or whoever(), reason=reason.strip(), now_ms=now_ms())


def _told(decided: Decided, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(decided)))
        return
    changed = ", ".join(decided.changed) or "nobody"
    applied = f"; batches applied: {decided.applied}" if decided.applied else ""
    typer.echo(f"{decided.id} {decided.decision}; changed: {changed}{applied}")
