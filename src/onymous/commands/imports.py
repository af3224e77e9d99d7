"""`onymous import`: files of people and call logs, row by row like a feed."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
import typer

from onymous.app import Core, calm_collector, running
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    bar,
    console,
    fail,
    now_ms,
    run_now,
    settings_of,
)
from onymous.commands.rejects import SUFFIX, RejectsFile, must_exist, rejected_rows
from onymous.commands.watching import watch_folder
from onymous.flows.files import Job, Ready, Report
from onymous.flows.importing import Importer
from onymous.flows.tenants import Caller
from onymous.readers import FileProblem, lines, read, rows_of
from onymous.rules.call_logs import calls, persons
from onymous.rules.mapping import Column, batch_of, event_type_of, map_columns, time_of

FORMATS = ("rows", "calls", "persons")


class _Options(msgspec.Struct, kw_only=True):
    feed: str
    mapping: dict[str, str]
    format: str
    development: bool
    replace_values: bool
    dry_run: bool
    retry: bool
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
    retry: Annotated[bool, typer.Option(help="only the rows in the rejects file")] = False,
    rejects: Annotated[pathlib.Path | None, typer.Option(help="file for refused rows")] = None,
    watch: Annotated[bool, typer.Option(help="FILES is a folder to watch")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import people from files; may be interrupted and run again."""
    if environment not in ("production", "development") or format_ not in FORMATS:
        fail(f"--environment or --format is not known; formats: {', '.join(FORMATS)}")
    if (retry and (watch or format_ != "rows")) or ((watch or rejects) and len(files) > 1):
        fail("--retry is for rows; --watch and --rejects take one file or folder")
    options = _Options(
        feed=feed,
        mapping=dict(c.rpartition("=")[::2] for c in columns or []),
        format=format_,
        development=environment == "development",
        replace_values=replace_values,
        dry_run=dry_run,
        retry=retry,
        rejects=rejects,
        quiet=as_json,
    )
    reports = run_now(_run(files, options, store, watch))
    if as_json:
        typer.echo(msgspec.json.encode(reports).decode())
    else:
        for name, report in reports.items():
            _show(name, report, options)


async def _run(
    files: list[pathlib.Path], options: _Options, store: str | None, watch: bool
) -> dict[str, Report]:
    async with running(settings_of(store=store)) as core:
        caller = _caller(core, options.feed)
        calm_collector()
        if watch:

            async def one(path: pathlib.Path) -> None:
                _show(path.name, await _one(core, caller, path, options), options)

            await watch_folder(files[0], one)
            return {}
        return {str(path): await _one(core, caller, path, options) for path in files}


def _caller(core: Core, name: str) -> Caller:
    """Find a feed or server input by its name; raises `FileProblem` that lists what there is."""
    callers = core.directory.callers()
    found = [c for c in callers if name == f"{c.workspace_name}/{c.name}"]
    found = found or [c for c in callers if name == c.name]
    if len(found) > 1:
        raise FileProblem(f"several workspaces have an input {name}: write WORKSPACE/{name}")
    if found and found[0].server_side:
        return found[0]
    if found:
        raise FileProblem(f"{name} is not a feed or server input")
    known = ", ".join(f"{c.workspace_name}/{c.name}" for c in callers if c.server_side)
    raise FileProblem(f"there is no feed {name}; there are: {known or 'none, see onymous apply'}")


async def _one(core: Core, caller: Caller, path: pathlib.Path, options: _Options) -> Report:
    """Import one file; with `retry` only the rows an earlier run rejected."""
    target = options.rejects or path.with_name(path.name + SUFFIX)
    rows, columns = _opened(path, options)
    event = event_type_of(path.name, columns)
    ready = _ready(rows, columns, options.format, event)
    name, total = _name(path, options, caller, event)
    written = target
    if options.retry:
        must_exist(target)
        ready, total = _only(ready, rejected_rows(target)), None
        # until it is replaced this file is the same one, also for a run that was interrupted
        name += b"%d" % target.stat().st_mtime_ns
        name = hashlib.blake2b(name + target.read_bytes(), digest_size=12).digest()
        written = target.with_name(target.name + ".new")
    if options.dry_run:
        written = path.with_name(f"{path.name}.dry-run{SUFFIX}")
    job = Job(
        caller=caller,
        name=name,
        now_ms=now_ms(),
        development=options.development,
        replace_values=options.replace_values,
        dry_run=options.dry_run,
        max_values=core.settings.max_identities_per_profile,
    )
    report = await _imported(core, job, RejectsFile(written), ready, total, options.quiet)
    if options.retry and not options.dry_run:
        target.unlink()
        if written.exists():
            written.replace(target)
    return report


async def _imported(
    core: Core,
    job: Job,
    rejects: RejectsFile,
    ready: Iterator[Ready],
    total: int | None,
    quiet: bool,
) -> Report:
    with bar(quiet) as shown:
        task = shown.add_task("rows", total=total)

        def progress(done: int) -> None:
            shown.update(task, completed=done)

        try:
            report = await Importer(core.store, core.events, job, rejects, progress).run(ready)
        finally:
            rejects.close()
        shown.update(task, total=report.rows)
    return report


def _opened(path: pathlib.Path, options: _Options) -> tuple[Iterator[dict[str, Any]], list[Column]]:
    if options.format != "rows":
        return lines(path), []
    headers, rows = read(path)
    return rows, map_columns(headers, options.mapping)


def _ready(
    rows: Iterable[dict[str, Any]], columns: list[Column], format_: str, event: str
) -> Iterator[Ready]:
    for line, row in enumerate(rows, 1):
        if format_ != "rows":
            for item, at in (calls if format_ == "calls" else persons)(row):
                yield line, item, at
        elif "!" in row:
            yield line, str(row["!"]), None
        else:
            batch = batch_of(columns, row, event)
            stated = batch.pop("timestamp", None)
            at = time_of(stated) if stated is not None else None
            bad_time = stated is not None and at is None
            yield line, "time_not_understood" if bad_time else batch, at


def _only(ready: Iterator[Ready], wanted: Iterator[int]) -> Iterator[Ready]:
    """Leave out all rows but the wanted ones; both are in order."""
    row = next(wanted, None)
    for item in ready:
        if row is None:
            return
        if item[0] == row:
            yield item
            row = next(wanted, None)


def _name(
    path: pathlib.Path, options: _Options, caller: Caller, event: str
) -> tuple[bytes, int | None]:
    """Return the digest of a file and of what its columns mean, and how many rows it may have."""
    digest = hashlib.blake2b(digest_size=12)
    ends = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            ends += piece.count(b"\n")
    facts = (
        caller.input,
        sorted(options.mapping.items()),
        options.format,
        options.development,
        options.replace_values,
    )
    digest.update(json.dumps(facts).encode() + event.encode())
    return digest.digest(), rows_of(path, ends)


def _show(name: str, report: Report, options: _Options) -> None:
    pool = "development" if options.development else "production"
    would = "would be " if report.dry_run else ""
    console.print(
        f"{name} ({pool}): {report.rows} rows, {report.applied} {would}applied"
        f" ({report.created} new people), {report.before} applied before,"
        f" {report.conflicts} conflicts, {report.rejected} rejected",
        highlight=False,
    )
    for why, count in sorted(report.reasons.items()):
        console.print(f"  {count} x {why}", highlight=False)
