"""`onymous import`: files of people and call logs, row by row like a feed."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from onymous.app import Core, calm_collector, running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    errors,
    run_now,
    settings_of,
)
from onymous.flows.importing import Importer, Job, Ready, Rejected, Report
from onymous.flows.tenants import Caller
from onymous.readers import FileProblem, lines, read
from onymous.rules.call_logs import calls, persons
from onymous.rules.errors import MappingInvalid
from onymous.rules.mapping import Column, batch_of, map_columns, time_of

FORMATS = ("rows", "calls", "persons")


class _Options(msgspec.Struct, kw_only=True):
    feed: str
    mapping: dict[str, str]
    format: str
    development: bool
    replace_values: bool
    dry_run: bool
    rejects: pathlib.Path | None
    quiet: bool


@app.command("import")
def import_(
    files: Annotated[list[pathlib.Path], typer.Argument(help=".csv, .jsonl, .parquet (.gz)")],
    feed: Annotated[str, typer.Option(help="WORKSPACE/FEED whose rows these are")],
    columns: Annotated[
        list[str] | None, typer.Option("--map", help="HEADER=TYPE, HEADER=@attribute or HEADER=-")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="rows, calls or persons")] = "rows",
    environment: Annotated[str, typer.Option(help="production or development")] = "production",
    replace_values: Annotated[bool, typer.Option(help="a row may replace old values")] = False,
    dry_run: Annotated[bool, typer.Option(help="show what would happen")] = False,
    rejects: Annotated[pathlib.Path | None, typer.Option(help="file for refused rows")] = None,
    watch: Annotated[bool, typer.Option(help="FILES is a folder to watch")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import people from files; may be interrupted and run again."""
    if environment not in ("production", "development") or format_ not in FORMATS:
        errors.print(f"[red]--environment or --format is not known; formats: {FORMATS}[/]")
        raise typer.Exit(2)
    options = _Options(
        feed=feed,
        mapping=dict(c.rpartition("=")[::2] for c in columns or []),
        format=format_,
        development=environment == "development",
        replace_values=replace_values,
        dry_run=dry_run,
        rejects=rejects,
        quiet=as_json,
    )
    reports = run_now(_run(files, options, store, watch))
    if as_json:
        typer.echo(msgspec.json.encode(reports).decode())
    else:
        for name, report in reports.items():
            _show(name, report)


async def _run(
    files: list[pathlib.Path], options: _Options, store: str | None, watch: bool
) -> dict[str, Report]:
    async with running(settings_of(store=store)) as core:
        caller = _caller(core, options.feed)
        calm_collector()
        if watch:
            await _watch(core, caller, files[0], options)
            return {}
        return {str(path): await _one(core, caller, path, options) for path in files}


def _caller(core: Core, name: str) -> Caller:
    """Find a feed or server input by its name; raises `FileProblem` that lists what there is."""
    callers = core.directory.callers()
    for caller in callers:
        if name in (f"{caller.workspace_name}/{caller.name}", caller.name):
            if caller.server_side:
                return caller
            raise FileProblem(f"{name} is not a feed or server input")
    known = ", ".join(f"{c.workspace_name}/{c.name}" for c in callers if c.server_side)
    raise FileProblem(f"there is no feed {name}; there are: {known or 'none, see onymous apply'}")


async def _one(core: Core, caller: Caller, path: pathlib.Path, options: _Options) -> Report:
    columns: list[Column] = []
    rows: Iterator[dict[str, Any]]
    if options.format == "rows":
        headers, rows = read(path)
        columns = map_columns(headers, options.mapping)
    else:
        rows = lines(path)
    job = Job(
        caller=caller,
        name=_name(path, options, caller),
        now_ms=time.time_ns() // 1_000_000,
        development=options.development,
        replace_values=options.replace_values,
        dry_run=options.dry_run,
        max_values=core.settings.max_identities_per_profile,
    )
    target = options.rejects or path.with_name(path.name + ".rejects.csv")
    rejected: list[Rejected] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        disable=options.quiet,
    ) as bar:
        task = bar.add_task(path.name, total=None)
        importer = Importer(
            core.store, core.events, job, rejected.append, lambda n: bar.update(task, completed=n)
        )
        report = await importer.run(_ready(rows, columns, options.format))
    if rejected:
        _write(target, rejected)
    return report


def _ready(rows: Iterable[dict[str, Any]], columns: list[Column], format_: str) -> Iterator[Ready]:
    for line, row in enumerate(rows, 1):
        if format_ != "rows":
            for item, at in (calls if format_ == "calls" else persons)(row):
                yield line, item, at
        elif "!" in row:
            yield line, str(row["!"]), None
        else:
            batch = batch_of(columns, row)
            stated = batch.pop("timestamp", None)
            at = time_of(stated) if stated is not None else None
            bad_time = stated is not None and at is None
            yield line, "time_not_understood" if bad_time else batch, at


def _name(path: pathlib.Path, options: _Options, caller: Caller) -> bytes:
    """Return the digest of a file and of what its columns mean."""
    digest = hashlib.blake2b(digest_size=12)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    facts = (caller.input, sorted(options.mapping.items()), options.format, options.development)
    digest.update(json.dumps(facts).encode())
    return digest.digest()


def _write(target: pathlib.Path, rejected: list[Rejected]) -> None:
    """Write the rejects file; rows of earlier runs stay."""
    known: dict[int, list[str]] = {}
    if target.exists():
        with target.open(newline="", encoding="utf-8") as file:
            known = {int(r[0]): r for r in csv.reader(file) if r and r[0].isdigit()}
    for item in rejected:
        known[item.row] = [str(item.row), item.why, " ".join(item.mpids)]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "why", "mpids"])
        writer.writerows(known[n] for n in sorted(known))


async def _watch(core: Core, caller: Caller, folder: pathlib.Path, options: _Options) -> None:
    """Import every file that appears in a folder, then move it to `done` or `failed`."""
    if not folder.is_dir():
        raise FileProblem(f"{folder} is not a folder")
    sizes: dict[pathlib.Path, int] = {}
    while True:
        for path in sorted(p for p in folder.iterdir() if p.is_file()):
            size = path.stat().st_size
            if path.name.endswith(".rejects.csv") or sizes.get(path) != size:
                sizes[path] = size  # still being written
                continue
            try:
                report = await _one(core, caller, path, options)
                place = "done"
                _show(path.name, report)
            except (FileProblem, MappingInvalid) as error:
                errors.print(f"[red]{error}[/]", highlight=False)
                place = "failed"
            (folder / place).mkdir(exist_ok=True)
            path.rename(folder / place / path.name)
            sizes.pop(path, None)
        await asyncio.sleep(1)


def _show(name: str, report: Report) -> None:
    would = "would be " if report.dry_run else ""
    console.print(
        f"{name}: {report.rows} rows, {report.applied} {would}applied"
        f" ({report.created} new people), {report.before} applied before,"
        f" {report.conflicts} conflicts, {report.rejected} rejected",
        highlight=False,
    )
    for why, count in sorted(report.reasons.items()):
        console.print(f"  {count} x {why}", highlight=False)
