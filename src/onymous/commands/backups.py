"""`onymous backup`, `restore`, `verify` and `backups`."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from onymous import backups, checking, restoring
from onymous.app import backup_folder
from onymous.commands.common import (
    JsonOption,
    StoreOption,
    app,
    console,
    errors,
    fail,
    now_ms,
    run_now,
    settings_of,
    stop,
    when,
)
from onymous.flows.verifying import Finding
from onymous.restoring import Restored
from onymous.settings import SettingError, Settings
from onymous.store.port import StoreError

group = typer.Typer(no_args_is_help=False, help="List backups; give old ones up.")
app.add_typer(group, name="backups", invoke_without_command=True)
FolderOption = Annotated[pathlib.Path | None, typer.Option("--in", help="folder of backups")]
Tombstones = Annotated[list[pathlib.Path] | None, typer.Option(help="copy of the tombstones file")]


@app.command()
def backup(
    into: Annotated[
        pathlib.Path | None, typer.Argument(help="folder of backups; default: backup_folder")
    ] = None,
    prune: Annotated[
        bool, typer.Option(help="then give up what retention no longer keeps")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back a folder up while it is served; the copy is checked before it counts."""
    settings = settings_of(store=store)
    into = into or backup_folder(settings)
    with _progress(as_json) as progress, _told():
        made = backups.make(settings, into, progress)
        gone = _prune(settings, into) if prune else []
    if as_json:
        out = {"backup": str(made.path), "manifest": msgspec.to_builtins(made.manifest)}
        typer.echo(json.dumps(out | {"pruned": [b.path.name for b in gone]}))
        return
    m = made.manifest
    console.print(f"{made.path}: {m.profiles} profiles, {m.bytes} bytes, checked", soft_wrap=True)
    if m.master_key:
        console.print(f"its secrets need the master key {m.master_key}, which is not in it")
    for old in gone:
        console.print(f"given up: {old.path.name}", highlight=False)


@group.callback()
def list_(
    context: typer.Context,
    folder: FolderOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List backups, oldest first."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_of(store=store)
    with _told():
        found = backups.listed(folder or backup_folder(settings))
    if as_json:
        rows = [msgspec.to_builtins(b.manifest) | {"path": str(b.path)} for b in found]
        typer.echo(json.dumps({"backups": rows}))
        return
    table = Table("backup", "made", "profiles", "bytes", "database", "master key")
    for b in found:
        m = b.manifest
        cells = (m.name, when(m.made_ms), str(m.profiles), str(m.bytes), m.database)
        table.add_row(*cells, m.master_key or "?")
    console.print(table)


@group.command("prune")
def prune_(
    folder: FolderOption = None,
    keep_days: Annotated[int | None, typer.Option(min=1, help="keep younger ones")] = None,
    keep_last: Annotated[int | None, typer.Option(min=1, help="keep so many whatever age")] = None,
    dry_run: Annotated[bool, typer.Option(help="say what would go")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give up backups older than backup_keep_days, but for the backup_keep_last newest."""
    settings = settings_of(store=store, backup_keep_days=keep_days, backup_keep_last=keep_last)
    with _told():
        gone = _prune(settings, folder or backup_folder(settings), dry_run)
    if as_json:
        typer.echo(json.dumps({"pruned": [b.path.name for b in gone], "dry_run": dry_run}))
        return
    for old in gone:
        console.print(f"{'would go' if dry_run else 'given up'}: {old.path.name}", highlight=False)
    if not gone:
        console.print("nothing is old enough")


def _prune(settings: Settings, folder: pathlib.Path, dry_run: bool = False) -> list[backups.Backup]:
    days, last = settings.backup_keep_days, settings.backup_keep_last
    gone = backups.superfluous(backups.listed(folder), days, last, now_ms())
    if not dry_run:
        backups.prune(folder, gone)
    return gone


@app.command()
def restore(
    source: Annotated[
        pathlib.Path | None, typer.Argument(help="a backup, or a folder of them: the latest")
    ] = None,
    into: Annotated[pathlib.Path | None, typer.Option(help="folder to serve from")] = None,
    new_epoch: Annotated[
        bool, typer.Option("--new-epoch", help="of a database that came back by other means")
    ] = False,
    tombstones: Tombstones = None,
    without_tombstones: Annotated[
        bool, typer.Option("--without-tombstones", help="erased people may come back")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="keep what is there aside")] = False,
    accept_findings: Annotated[
        bool, typer.Option("--accept-findings", help="restore although something is wrong")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup: verified, in a new epoch, with everybody erased since erased again."""
    if new_epoch == (into is not None):
        fail("say --into FOLDER, or --new-epoch with --store")
    with _progress(as_json) as progress, _told():
        given = _Given(tombstones or [], without_tombstones, replace, accept_findings)
        out = run_now(_restore(source, into, settings_of(store=store), given, progress))
    _show_restored(out, as_json)
    if out.findings and not accept_findings:
        raise typer.Exit(1)


class _Given(msgspec.Struct):
    """Options of a restore."""

    tombstones: list[pathlib.Path]
    without: bool
    replace: bool
    accept: bool


def _restore(
    source: pathlib.Path | None,
    into: pathlib.Path | None,
    settings: Settings,
    given: _Given,
    progress: backups.Progress,
) -> Coroutine[None, None, Restored]:
    files, without = given.tombstones, given.without
    if into is None:
        return restoring.new_epoch(settings, tombstones=files, without=without, progress=progress)
    return restoring.restore(
        _chosen(source, settings),
        into,
        settings_of(store=f"sqlite:{into}"),
        tombstones=files,
        without=without,
        replace=given.replace,
        accept=given.accept,
        progress=progress,
    )


def _chosen(source: pathlib.Path | None, settings: Settings) -> backups.Backup:
    folder = source or backup_folder(settings)
    if (folder / backups.MANIFEST).exists():
        return backups.read(folder)
    found = backups.listed(folder)
    if not found:
        raise StoreError(f"{folder} holds no backup")
    if len({b.manifest.database for b in found}) > 1:
        raise StoreError(f"{folder} holds backups of several databases: name one of them")
    return found[-1]


def _show_restored(out: Restored, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(out).decode())
        return
    done = out.renewed
    console.print(f"a new epoch begins: new people get numbers from {done.first}", highlight=False)
    console.print(f"erased again: {done.erased}; revoked again: {done.revoked}")
    _show_findings(out.findings)
    if out.before:
        console.print(f"what was there before: {out.before}", highlight=False)
    if out.key_fits is None:
        console.print("put the master key in its place before serving: no backup holds it")
    elif not out.key_fits:
        console.print("[yellow]the master key at hand does not open the secrets[/]")


@app.command()
def verify(
    what: Annotated[
        str | None, typer.Argument(help="a folder, a backup or postgresql://...; default: store")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="try given-up jobs again")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a database or backup to its last row; says what is wrong and what to do."""
    with _progress(as_json) as progress, _told():
        out = run_now(checking.verify(what, _settings(what), retry, progress))
    if as_json:
        found = [msgspec.to_builtins(f) for f in out.findings]
        typer.echo(json.dumps({"whole": not found, "checked": out.counts, "findings": found}))
    else:
        looked = ", ".join(f"{count} {name}" for name, count in out.counts.items())
        console.print(f"looked at {looked}" if looked else "looked at nothing", highlight=False)
        _show_findings(out.findings)
    if out.findings:
        raise typer.Exit(1)


def _settings(what: str | None) -> Settings:
    if what is None or what.startswith(("postgresql://", "postgres://", "sqlite:")):
        return settings_of(store=what)
    return settings_of(store=f"sqlite:{what}")


def _show_findings(findings: list[Finding]) -> None:
    for finding in findings:
        console.print(f"wrong: {finding.what}", highlight=False, markup=False)
        console.print(f"       {finding.todo}", highlight=False, markup=False)
    if not findings:
        console.print("everything is whole")


@contextmanager
def _told() -> Iterator[None]:
    """Turn what cannot be done into one clear line and exit code 2."""
    try:
        yield
    except (StoreError, SettingError) as error:
        stop(error)


@contextmanager
def _progress(quiet: bool) -> Iterator[backups.Progress]:
    """Show how far each step is."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, disable=quiet, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total or None)
            if step in ("records", "verifying"):
                bar.advance(tasks[step], done)
            else:
                bar.update(tasks[step], completed=done, total=total or None)

        yield report
