"""`onymous check`: scenario files through the real rules."""

from __future__ import annotations

import json
import pathlib
import tempfile
import time
from typing import Annotated

import typer

from onymous.app import running
from onymous.commands.common import JsonOption, StoreOption, app, console, run_now, settings_of
from onymous.lab.check import Result
from onymous.lab.check import read as read_scenarios
from onymous.lab.check import run as run_scenarios
from onymous.lab.check_fields import BadScenario


@app.command()
def check(
    files: Annotated[list[str], typer.Argument(help="scenario files (JSON Lines)")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run scenario files through the real rules on a throw-away or given store."""
    results = run_now(_check(files, store))
    failed = [r for r in results if not r.passed]
    if as_json:
        rows = [{"id": r.id, "passed": r.passed, "problems": r.problems} for r in results]
        typer.echo(json.dumps({"results": rows, "failed": len(failed)}))
    else:
        for result in failed:
            console.print(f"[red]FAILED[/] {result.id} {result.title}", highlight=False)
            for line in (*result.problems, *result.trace):
                console.print(f"    {line}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    if failed or not results:
        raise typer.Exit(1)


async def _check(files: list[str], store: str | None) -> list[Result]:
    cases = []
    for name in files:
        path = pathlib.Path(name)
        if not path.is_file():
            raise BadScenario(f"{name} is not a file")
        try:
            cases += read_scenarios(path.read_text("utf-8"), path.name)
        except UnicodeDecodeError:
            raise BadScenario(f"{name} is no UTF-8 text") from None
    with tempfile.TemporaryDirectory(prefix="onymous-check-") as folder:
        async with running(settings_of(store=store or f"sqlite:{folder}/store")) as core:
            # far above any tenant's scope, and new for every run
            first = 1_000_000 + (time.time_ns() // 1_000_000) % 1_000_000_000 * 1000
            return await run_scenarios(core, cases, first)
