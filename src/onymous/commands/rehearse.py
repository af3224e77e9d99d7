"""`onymous rehearse`: new rules on the scope's own past, before they apply."""

from __future__ import annotations

import functools
import pathlib
import re
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from onymous.app import Core, running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    bar,
    console,
    fail,
    now_ms,
    read_text,
    run_now,
    settings_of,
    written,
)
from onymous.flows.tenants import parse
from onymous.lab.rehearsal_report import page, through, verdict
from onymous.lab.rehearse import journal_size, rehearse
from onymous.lab.rehearsed import RISKS, Rehearsal
from onymous.rules.strategies import Plan, compile_plan

_UNITS = {"h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@app.command("rehearse")
def rehearse_(
    file: Annotated[pathlib.Path, typer.Argument(help="the configuration to try")],
    since: Annotated[str, typer.Option(help="how far back: 12h, 30d, 8w")] = "",
    scope: Annotated[str, typer.Option(help="only this scope")] = "",
    development: Annotated[bool, typer.Option(help="the development pool")] = False,
    html: Annotated[pathlib.Path | None, typer.Option(help="write the report here")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="show values, not masked")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded requests under today's and under new rules; nothing real is changed."""
    text = read_text(file)
    html = html and written(html)
    found = run_now(_rehearse(text, _since(since), (scope, development), store, as_json, reveal))
    if html is not None:
        html.write_text(page(found, file.name), "utf-8")
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    for one in found:
        _show(one)
    if html is not None:
        console.print(f"report: {html}", highlight=False)
    if not found:
        console.print("no scope of this file holds anything yet")


def _since(text: str) -> int:
    if not text:
        return 0
    match = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if not match:
        raise typer.BadParameter("write a number and h, d or w, like 30d")
    return now_ms() - int(match[1]) * _UNITS[match[2]]


async def _rehearse(
    text: str,
    since_ms: int,
    which: tuple[str, bool],
    store: str | None,
    quiet: bool,
    reveal: bool,
) -> list[Rehearsal]:
    only, development = which
    async with running(settings_of(store=store)) as core:
        await core.journal.flush(core.store)
        document, _ = parse(text)
        if only and only not in document.scopes:
            fail(f"the file has no scope {only}; it has {', '.join(document.scopes)}")
        out = []
        with bar(quiet) as shown:
            for name, config in document.scopes.items():
                today = _today(core, name)
                if today is None or only not in ("", name):
                    continue
                plan, number = today
                pool = number * 2 + development
                size = await journal_size(core, pool, since_ms)  # under both rules
                task = shown.add_task(name, total=2 * size)
                progress = functools.partial(shown.advance, task)
                later = compile_plan(config)
                out.append(
                    await rehearse(core, name, pool, plan, later, since_ms, progress, reveal)
                )
        return out


def _today(core: Core, name: str) -> tuple[Plan, int] | None:
    """Return the plan and number of a scope as it is now, or None."""
    for caller in core.directory.callers():
        if caller.scope_name == name:
            return caller.plan, caller.scope
    return None


def _show(r: Rehearsal) -> None:
    console.print(f"[bold]{r.scope}[/] ({r.environment}), {r.requests} distinct requests")
    table = Table("", "today", "then")
    for label, before, after in (
        ("people", r.people_before, r.people_after),
        ("known people", r.known_before, r.known_after),
        ("several values of a login type", r.several_before, r.several_after),
    ):
        table.add_row(label, str(before), str(after))
    console.print(table)
    colour = "red" if r.merged_known else "yellow" if r.risky else "green"
    console.print(f"[{colour}]{verdict(r)}[/]", highlight=False)
    for name, count in sorted(r.by.items(), key=lambda item: -item[1]):
        console.print(f"  {count} through {name}", highlight=False)
    for name, count in r.risks.items():
        console.print(f"  risk: {count} merges: {RISKS[name]}", highlight=False, soft_wrap=True)
    _show_values(r)
    for example in r.examples[:5]:
        text = f"  {example.kind}: {', '.join(example.people)}, through {through(example)}"
        console.print(text, highlight=False, soft_wrap=True, markup=False)


def _show_values(r: Rehearsal) -> None:
    if not r.values:
        return
    table = Table("decided by", "value", "merges", "splits", "known people who share it")
    for v in r.values[:10]:
        table.add_row(v.type, escape(v.value), str(v.merges), str(v.splits), str(v.shared_by or ""))
    console.print(table)
