"""`onymous init` and `onymous apply`: tenants and rules from one file."""

from __future__ import annotations

import json
from typing import Annotated

import msgspec
import typer

from onymous.app import running
from onymous.commands.common import (
    AuthorOption,
    DryRunOption,
    JsonOption,
    ReasonOption,
    StoreOption,
    app,
    console,
    now_ms,
    read_text,
    run_now,
    settings_of,
    whoever,
    write_new,
)
from onymous.commands.reresolving import carry_over, preview, show
from onymous.flows.fencing import GRACE_S
from onymous.flows.merging import Actor
from onymous.flows.reresolve import Carried
from onymous.flows.tenants import Applied, apply, starter
from onymous.settings import Settings


@app.command()
def init(
    file: Annotated[str, typer.Argument(help="file to write")] = "onymous.yaml",
    organization: Annotated[str, typer.Option(help="name of your company")] = "My company",
    as_json: JsonOption = False,
) -> None:
    """Write a starter configuration."""
    path = write_new(file, starter(organization))
    if as_json:
        typer.echo(json.dumps({"wrote": str(path)}))
    else:
        console.print(f"wrote {path}; next: onymous apply {path}")


@app.command("apply")
def apply_(
    file: Annotated[str, typer.Argument(help="configuration to apply")] = "onymous.yaml",
    store: StoreOption = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    reresolve: Annotated[
        bool, typer.Option(help="carry people over to rules that change who is who")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the tenants and rules of a file real; refuses what would mix or lose people."""
    text = read_text(file)
    carried: list[Carried] = []
    settings, who = settings_of(store=store), author or whoever()
    if reresolve:
        out, carried = run_now(_carry(settings, text, dry_run, who, reason, as_json))
    else:
        out = run_now(_apply(settings, text, dry_run, who, reason))
    if as_json and carried:
        typer.echo(msgspec.json.encode({"applied": out, "rules": carried}).decode())
        return
    show_applied(out, as_json)
    show(carried)


async def _carry(
    settings: Settings, text: str, dry_run: bool, author: str, reason: str, quiet: bool
) -> tuple[Applied, list[Carried]]:
    async with running(settings) as core:
        actor = Actor(name=author, reason=reason or "no reason given", now_ms=now_ms())
        if dry_run:
            return await preview(core, text, actor, quiet=quiet)
        return await carry_over(core, text, actor, GRACE_S, quiet=quiet)


def show_applied(out: Applied, as_json: bool) -> None:
    """Print what was applied, or would be; ends with 1 where it would be refused."""
    if as_json:
        typer.echo(msgspec.json.encode(out).decode())
    else:
        _show_applied(out)
    if out.refused:
        raise typer.Exit(1)


async def _apply(settings: Settings, text: str, dry_run: bool, author: str, reason: str) -> Applied:
    async with running(settings) as core:
        return await apply(
            core.store,
            core.key,
            text,
            dry_run=dry_run,
            actor=author,
            reason=reason,
            now_ms=now_ms(),
        )


def _show_applied(out: Applied) -> None:
    for warning in out.warnings:
        console.print(f"advice: {warning}", highlight=False, markup=False)
    for step in out.steps:
        colour = {"create": "green", "update": "yellow", "refuse": "red"}.get(step.action)
        console.print(str(step), style=colour, highlight=False, markup=False)
    if out.refused:
        console.print("refused: nothing would be changed, not the rest of it either")
    elif not out.changed:
        console.print("nothing to change")
    elif not out.dry_run:
        console.print(f"this is version {out.version} of the configuration", highlight=False)
    if out.dry_run:
        console.print("dry run: nothing was changed")
    if out.credentials:
        console.print("new credentials; secrets are shown this once:")
        for c in out.credentials:
            typer.echo(f"  {c.workspace}/{c.input}\n    key    {c.api_key}\n    secret {c.secret}")
