"""`onymous export`, `config` and `rollback`: the configuration as it is, was, and is again."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import typer

from onymous.app import Core
from onymous.commands.common import (
    AuthorOption,
    DryRunOption,
    JsonOption,
    ReasonOption,
    StoreOption,
    app,
    console,
    now_ms,
    when,
    whoever,
    with_core,
    write_new,
)
from onymous.commands.tenants import show_applied
from onymous.flows import versions
from onymous.flows.configure import Applied, export, rollback

group = typer.Typer(no_args_is_help=True, help="Versions of the configuration.")
app.add_typer(group, name="config")
Number = Annotated[int, typer.Argument(help="number of a version, from `config log`")]


@app.command("export")
def export_(
    file: Annotated[str, typer.Argument(help="file to write; - prints it")] = "-",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the configuration in force as a document that `apply` accepts; holds no secrets."""
    text = with_core(store, lambda core: export(core.store))
    if file == "-":
        typer.echo(json.dumps({"document": text}) if as_json else text, nl=as_json)
        return
    path = write_new(file, text)
    typer.echo(json.dumps({"wrote": str(path)}) if as_json else f"wrote {path}")


@group.command("log")
def log(
    limit: Annotated[int, typer.Option(help="versions shown")] = 20,
    before: Annotated[int, typer.Option(help="only versions before this one")] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions, newest first: number, time, author, reason, what changed."""
    found = with_core(store, lambda core: versions.versions(core.store, before or None, limit))
    if as_json:
        typer.echo(msgspec.json.encode({"versions": found}).decode())
        return
    for v in found:
        back = f", back to version {v.rolled_back_to}" if v.rolled_back_to else ""
        why = f": {v.reason}" if v.reason else ""
        typer.echo(f"version {v.version}  {when(v.at_ms)}  {v.author}{back}{why}")
        for step in v.steps:
            typer.echo(f"    {step}")


@group.command("show")
def show(number: Number, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Print the whole configuration of a version."""
    found = with_core(store, lambda core: versions.version(core.store, number))
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        typer.echo(found.document, nl=False)


@group.command("diff")
def diff(
    number: Number,
    other: Annotated[int, typer.Argument(help="a later version; none: the one in force")] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the lines in which two versions differ."""

    async def work(core: Core) -> list[str]:
        old = (await versions.version(core.store, number)).document or ""
        if other:
            new = (await versions.version(core.store, other)).document or ""
        else:
            new = await export(core.store)
        names = f"version {number}", f"version {other}" if other else "in force"
        return versions.difference(old, new, names)

    lines = with_core(store, work)
    if as_json:
        typer.echo(json.dumps({"diff": lines}))
        return
    for line in lines:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        console.print(line, style=colour, highlight=False, markup=False)
    if not lines:
        console.print("no difference")


@app.command("rollback")
def rollback_(
    number: Number,
    store: StoreOption = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the configuration what it was in a version, with the same checks as apply."""

    async def work(core: Core) -> Applied:
        return await rollback(
            core.store,
            core.key,
            number,
            dry_run=dry_run,
            actor=author or whoever(),
            reason=reason,
            now_ms=now_ms(),
        )

    show_applied(with_core(store, work), as_json)
