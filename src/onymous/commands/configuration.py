"""`onymous export`, `config` and `rollback`: the configuration as it is, was, and is again."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import msgspec
import typer

from onymous.app import Core, running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    errors,
    run_now,
    settings_of,
)
from onymous.commands.exports import when
from onymous.commands.tenants import AuthorOption, ReasonOption, refuse, show_applied, whoever
from onymous.flows import versions
from onymous.flows.configure import Applied, BadDocument, ChangeRefused, export, rollback
from onymous.rules.errors import Refusal

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
    text = _run(store, lambda core: export(core.store))
    if file == "-":
        typer.echo(json.dumps({"document": text}) if as_json else text, nl=as_json)
        return
    path = pathlib.Path(file)
    if path.exists():
        errors.print(f"[red]{path} exists; choose another name or remove it[/]")
        raise typer.Exit(2)
    path.write_text(text, "utf-8")
    typer.echo(json.dumps({"wrote": str(path)}) if as_json else f"wrote {path}")


@group.command("log")
def log(
    limit: Annotated[int, typer.Option(help="versions shown")] = 20,
    before: Annotated[int, typer.Option(help="only versions before this one")] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions, newest first: number, time, author, reason, what changed."""
    found = _run(store, lambda core: versions.versions(core.store, before or None, limit))
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
    found = _run(store, lambda core: versions.version(core.store, number))
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

    lines = _run(store, work)
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
    dry_run: Annotated[bool, typer.Option(help="show what would happen, change nothing")] = False,
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
            now_ms=time.time_ns() // 1_000_000,
        )

    show_applied(_run(store, work, as_json), as_json)


def _run(
    store: str | None, work: Callable[[Core], Coroutine[Any, Any, Any]], as_json: bool = False
) -> Any:
    async def inside() -> Any:
        async with running(settings_of(store=store)) as core:
            return await work(core)

    try:
        return run_now(inside())
    except (BadDocument, ChangeRefused) as error:
        refuse(error, as_json)
    except Refusal as refusal:
        errors.print(f"[red]{refusal.message}[/] {refusal.hint}", highlight=False)
        raise typer.Exit(1) from None
