"""`onymous init` and `onymous apply`: tenants and rules from one file."""

from __future__ import annotations

import getpass
import json
import pathlib
import time
from typing import Annotated, NoReturn

import msgspec
import typer

from onymous.app import running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    errors,
    run_now,
    settings_of,
)
from onymous.commands.reresolving import carry_over, preview, show
from onymous.flows.fencing import GRACE_S
from onymous.flows.merging import Actor
from onymous.flows.reresolve import Carried
from onymous.flows.tenants import Applied, BadDocument, ChangeRefused, apply, starter
from onymous.rules.errors import Refusal
from onymous.settings import Settings


def whoever() -> str:
    """Return the name of who runs this, as their machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


AuthorOption = Annotated[
    str, typer.Option(envvar="ONYMOUS_AUTHOR", help="who changes it; your login name if not given")
]
ReasonOption = Annotated[str, typer.Option(help="why, for `config log`")]


@app.command()
def init(
    file: Annotated[str, typer.Argument(help="file to write")] = "onymous.yaml",
    organization: Annotated[str, typer.Option(help="name of your company")] = "My company",
    as_json: JsonOption = False,
) -> None:
    """Write a starter configuration."""
    path = pathlib.Path(file)
    if path.exists():
        errors.print(f"[red]{path} exists; choose another name or remove it[/]")
        raise typer.Exit(2)
    path.write_text(starter(organization), "utf-8")
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
    dry_run: Annotated[bool, typer.Option(help="show what would happen, change nothing")] = False,
    reresolve: Annotated[
        bool, typer.Option(help="carry people over to rules that change who is who")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the tenants and rules of a file real; refuses what would mix or lose people."""
    try:
        text = pathlib.Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        errors.print(f"[red]{file} cannot be read: {type(error).__name__}[/]")
        raise typer.Exit(2) from None
    carried: list[Carried] = []
    settings, who = settings_of(store=store), author or whoever()
    try:
        if reresolve:
            out, carried = run_now(_carry(settings, text, dry_run, who, reason, as_json))
        else:
            out = run_now(_apply(settings, text, dry_run, who, reason))
    except (BadDocument, ChangeRefused) as error:
        refuse(error, as_json)
    except Refusal as refusal:
        errors.print(f"[red]{refusal.message}[/]", highlight=False)
        raise typer.Exit(1) from None
    if as_json and carried:
        typer.echo(msgspec.json.encode({"applied": out, "rules": carried}).decode())
        return
    show_applied(out, as_json)
    show(carried)


async def _carry(
    settings: Settings, text: str, dry_run: bool, author: str, reason: str, quiet: bool
) -> tuple[Applied, list[Carried]]:
    async with running(settings) as core:
        now = time.time_ns() // 1_000_000
        actor = Actor(name=author, reason=reason or "no reason given", now_ms=now)
        if dry_run:
            return await preview(core, text, actor), []
        return await carry_over(core, text, actor, GRACE_S, quiet=quiet)


def refuse(error: BadDocument | ChangeRefused, as_json: bool) -> NoReturn:
    """Say why nothing was applied, and end."""
    if isinstance(error, BadDocument):
        if as_json:
            typer.echo(msgspec.json.encode({"problems": error.problems}).decode())
        for problem in error.problems:
            errors.print(f"problem: {problem}", highlight=False, markup=False)
    else:
        if as_json:
            typer.echo(msgspec.json.encode({"refused": error.refused}).decode())
        for step in error.refused:
            errors.print(str(step), highlight=False, markup=False)
        errors.print("[red]refused: nothing was changed[/]")
    raise typer.Exit(1) from None


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
        now = time.time_ns() // 1_000_000
        return await apply(
            core.store, core.key, text, dry_run=dry_run, actor=author, reason=reason, now_ms=now
        )


def _show_applied(out: Applied) -> None:
    for warning in out.warnings:
        console.print(f"advice: {warning}", highlight=False, markup=False)
    for step in out.steps:
        colour = {"create": "green", "update": "yellow", "refuse": "red"}.get(step.action)
        console.print(str(step), style=colour, highlight=False, markup=False)
    if not out.changed:
        console.print("nothing to change")
    elif not out.dry_run:
        console.print(f"this is version {out.version} of the configuration", highlight=False)
    if out.dry_run:
        console.print("dry run: nothing was changed")
    if out.credentials:
        console.print("new credentials; secrets are shown this once:")
        for c in out.credentials:
            typer.echo(f"  {c.workspace}/{c.input}\n    key    {c.api_key}\n    secret {c.secret}")
