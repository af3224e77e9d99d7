"""`onymous scopes`: join and split scopes, seen before, taken back after."""

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
)
from onymous.flows.scope_changes import finish
from onymous.flows.scope_log import changes
from onymous.flows.scope_planning import Report, Wanted, begin, look, wanted_undo
from onymous.flows.versions import Author
from onymous.rules.scopes import CHOICES

group = typer.Typer(no_args_is_help=True, help="Join and split scopes (pools of people).")
app.add_typer(group, name="scopes")
_WORDS = "|".join(CHOICES)
Resolve = Annotated[
    list[str] | None, typer.Option(help=f"TYPE={_WORDS}: values of a type two people hold")
]
Choose = Annotated[
    list[str] | None, typer.Option(help=f"MPID={_WORDS}: one profile that comes over")
]
Alone = Annotated[bool, typer.Option(help="no server is running: wait for nobody")]


@group.command()
def join(
    source: Annotated[str, typer.Argument(help="scope whose people and workspaces go over")],
    target: Annotated[str, typer.Argument(help="scope they go to")],
    resolve: Resolve = None,
    choose: Choose = None,
    store: StoreOption = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    alone: Alone = False,
    as_json: JsonOption = False,
) -> None:
    """Let the workspaces of two scopes share their people."""
    types, people = _pairs(resolve), _pairs(choose)
    wanted = Wanted(kind="join", source=source, target=target, types=types, people=people)
    _do(store, wanted, Author(name=author or whoever(), reason=reason), dry_run, alone, as_json)


@group.command()
def split(
    source: Annotated[str, typer.Argument(help="scope to split")],
    target: Annotated[str, typer.Argument(help="name of the new scope")],
    workspace: Annotated[list[str], typer.Option(help="workspace that goes; more than once")],
    store: StoreOption = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    alone: Alone = False,
    as_json: JsonOption = False,
) -> None:
    """Give workspaces a scope of their own; each person is where they have data."""
    wanted = Wanted(kind="split", source=source, target=target, workspaces=workspace)
    _do(store, wanted, Author(name=author or whoever(), reason=reason), dry_run, alone, as_json)


@group.command()
def undo(
    number: Annotated[int, typer.Argument(help="number of a join or split, from `scopes log`")],
    resolve: Resolve = None,
    store: StoreOption = None,
    author: AuthorOption = "",
    reason: ReasonOption = "",
    dry_run: DryRunOption = False,
    alone: Alone = False,
    as_json: JsonOption = False,
) -> None:
    """Take a join or split back."""

    async def work(core: Core) -> Wanted:
        return await wanted_undo(core.store, number, _pairs(resolve))

    wanted = with_core(store, work)
    _do(store, wanted, Author(name=author or whoever(), reason=reason), dry_run, alone, as_json)


@group.command()
def resume(
    number: Annotated[int, typer.Argument(help="number of a join or split, from `scopes log`")],
    store: StoreOption = None,
    alone: Alone = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a join or split here and now, where no server does it."""
    with_core(store, lambda core: finish(core.scopes, number, hurry=alone, sweep=alone))
    typer.echo(json.dumps({"change": number}) if as_json else f"change {number}: all went over")


@group.command("log")
def log(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List joins and splits, newest first, with what became of the profiles."""
    found = with_core(store, lambda core: changes(core.store))
    if as_json:
        typer.echo(msgspec.json.encode({"changes": found}).decode())
        return
    for c in found:
        undone = f", takes back {c.undoes}" if c.undoes else ""
        why = f": {c.reason}" if c.reason else ""
        typer.echo(f"{c.id}  {when(c.at_ms)}  {c.kind} {c.source} -> {c.target}{undone}")
        typer.echo(f"    {c.state}; {c.author}{why}")
        told = ", ".join(f"{n} {what}" for what, n in c.profiles.items() if n)
        typer.echo(f"    {told or 'no profile yet'}")


def _pairs(given: list[str] | None) -> dict[str, str]:
    out = {}
    for text in given or []:
        name, sign, choice = text.partition("=")
        if not sign or choice not in CHOICES:
            raise typer.BadParameter(f"write NAME={_WORDS}, not {text}")
        out[name] = choice
    return out


def _do(
    store: str | None, wanted: Wanted, author: Author, dry_run: bool, alone: bool, as_json: bool
) -> None:
    async def work(core: Core) -> tuple[Report, int]:
        report = await look(core.store, core.mpids, wanted)
        if dry_run or report.refused:
            return report, 0
        change = await begin(core.store, core.mpids, wanted, author, now_ms())
        if not as_json:
            _show(report)
            console.print(f"change {change.id} goes on; other processes may finish it too")
        await finish(core.scopes, change.id, hurry=alone, sweep=alone)
        return report, change.id

    report, number = with_core(store, work)
    if as_json:
        told = {"report": msgspec.to_builtins(report), "change": number or None}
        typer.echo(json.dumps(told))
    elif not number:
        _show(report)
        if not report.refused:
            console.print("dry run: nothing was changed")
    else:
        more = "" if alone else "; servers still look for what slow ones wrote (`scopes log`)"
        console.print(f"they went over{more}", highlight=False)
        console.print(f"`onymous scopes undo {number}` takes it back", highlight=False)
    if report.refused:
        raise typer.Exit(1)


def _show(report: Report) -> None:
    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, markup=False)

    say(f"{report.kind} {report.source} -> {report.target}: {', '.join(report.workspaces)}")
    for environment, count in report.profiles.items():
        say(f"  {count} profiles in {environment}")
    for name, count in report.by_type.items():
        say(f"  {count} profiles share a {name} with somebody there", "yellow")
    for outcome, count in report.by_outcome.items():
        say(f"  {count} of them: {outcome}")
    for c in report.conflicts:
        who = f"  {c.mpid} and {', '.join(c.others)} ({c.environment}): {', '.join(c.types)}"
        what = f"{c.outcome} into {c.survivor}" if c.survivor else c.outcome
        apart = f"; two people by {', '.join(c.differ)}" if c.differ else ""
        say(f"{who}: {what}{apart}")
    for why in report.refused:
        say(f"! {why}", "red")
