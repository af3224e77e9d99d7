"""Restoring: a new epoch, erasures done again, everything verified, and only then in place."""

from __future__ import annotations

import pathlib
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from onymous.app import backup_folder, master_key, open_store
from onymous.backups import DATABASE, Backup, Progress, digest, listed
from onymous.crypto import KeyProblem, MasterKey
from onymous.flows.epochs import Renewed, identify_database, renew
from onymous.flows.tombstones import DATABASE as DATABASE_LINE
from onymous.flows.tombstones import (
    Line,
    OutsideProblem,
    Tombstones,
    read_lines,
    sync_folder,
)
from onymous.flows.verifying import Finding, Verifier
from onymous.settings import Settings
from onymous.store import online_backup, schema
from onymous.store.port import Store, StoreError
from onymous.store.sqlite import SqliteStore

STAGING = ".restore"
ACTOR = "operator"


class Restored(msgspec.Struct, kw_only=True):
    """What a restore did."""

    renewed: Renewed
    #: what verification found; empty if all is well
    findings: list[Finding]
    #: whether the master key at hand opens the secrets; None: there is none at hand
    key_fits: bool | None
    #: where the database that was there before lies now
    before: str | None = None


async def restore(
    backup: Backup,
    into: pathlib.Path,
    settings: Settings,
    *,
    tombstones: Iterable[pathlib.Path],
    without: bool = False,
    replace: bool = False,
    accept: bool = False,
    progress: Progress,
) -> Restored:
    """Restore a backup into a folder and begin a new epoch there.

    The folder serves nothing until all is done: broken off anywhere, it is restored by running
    again. Raises `StoreError`.
    """
    now_ms = time.time_ns() // 1_000_000
    _check(backup, now_ms)
    lines = remembered(backup, tombstones, settings, without)
    place = into / DATABASE
    if place.exists() and not replace:
        raise StoreError(f"{place} exists: restore into an empty folder, or add --replace")
    if not online_backup.alone(place):
        raise StoreError(f"{place} is open in another process: stop every server first")
    outside = Tombstones(backup_folder(settings), backup.manifest.database)
    with _unfinished(into) as staging:
        _copied(backup, staging / DATABASE, progress)
        _carry_over(outside, lines)
        given = _given(backup, outside)
        store = SqliteStore(staging)
        out = await _renewed(store, lines, given, now_ms, settings, outside, progress)
        if out.findings and not accept:
            return out
        out.before = _put_in_place(staging / DATABASE, place)
    return out


@contextmanager
def _unfinished(into: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place to work in. The folder serves nothing meanwhile, nor if this process is killed."""
    into.mkdir(parents=True, exist_ok=True)
    mark, staging = into / online_backup.UNFINISHED, into / STAGING
    mark.touch()
    sync_folder(into)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        # an empty folder goes on refusing: a new, empty database would be made in it
        if (into / DATABASE).exists():
            mark.unlink(missing_ok=True)
            sync_folder(into)


def _check(backup: Backup, now_ms: int) -> None:
    manifest = backup.manifest
    if manifest.schema_version > schema.SCHEMA_VERSION:
        raise StoreError(
            f"the backup has schema version {manifest.schema_version}, this is"
            f" {schema.SCHEMA_VERSION}: upgrade Onymous"
        )
    if manifest.made_ms > now_ms:
        raise StoreError("the backup is from the future: set the clock of this machine")


def _copied(backup: Backup, to: pathlib.Path, progress: Progress) -> None:
    source = backup.path / DATABASE
    try:
        with source.open("rb") as file, to.open("wb") as out:
            done = 0
            while piece := file.read(1 << 22):
                out.write(piece)
                done += len(piece)
                progress("copying", done, backup.manifest.bytes)
    except OSError as error:
        raise StoreError(f"the backup cannot be copied: {error.strerror}") from None
    if digest(to, lambda n, m: progress("checksum", n, m)) != backup.manifest.sha256:
        raise StoreError(f"{source} is damaged: its checksum differs; restore another backup")
    online_backup.unmark(to)


def remembered(
    backup: Backup | None,
    files: Iterable[pathlib.Path],
    settings: Settings,
    without: bool,
    database: str = "",
) -> list[Line]:
    """Return what is remembered outside, in order.

    Looks at the files given, where the backup says, beside it, and in the backup folder. Raises
    `OutsideProblem` where the file is missing: erased people would come back.
    """
    if backup is not None:
        database = backup.manifest.database
    name = f"tombstones-{database}.log"
    expected = backup_folder(settings) / name
    beside = [] if backup is None else [backup.path.parent / name]
    if backup is not None:
        expected = backup.path.parent / backup.manifest.tombstones
    given = [*files]
    if not (without or given or expected.exists()):
        raise OutsideProblem(
            f"{expected} is missing: it says who was erased since the backup; name a copy with"
            " --tombstones FILE, or say --without-tombstones (erased people may come back)"
        )
    looked = [expected, *beside, backup_folder(settings) / name]
    places = [*given, *(path for path in looked if path.exists())]
    lines: dict[Line, None] = {}
    for path in {path.resolve(): path for path in places}.values():
        lines.update(dict.fromkeys(read_lines(path, database)))
    return sorted(lines, key=lambda line: line.at_ms)


def _carry_over(outside: Tombstones, lines: list[Line]) -> None:
    """Let the file of the new place know all that is remembered, before anything is served."""
    known = set(read_lines(outside.path)) if outside.path.exists() else set()
    missing = [line for line in lines if line not in known]
    try:
        outside.append([line for line in missing if line.kind != DATABASE_LINE])
    except OSError as error:
        raise OutsideProblem(f"{outside.path} cannot be written: {error.strerror}") from None


def _given(backup: Backup, outside: Tombstones) -> int:
    """Return the highest profile number known to have been given."""
    mine = backup.manifest.database
    others = [b.manifest.pid for b in listed(backup.path.parent) if b.manifest.database == mine]
    mark = outside.mark()
    return max([backup.manifest.pid, *others, mark.pid if mark is not None else 0])


async def _renewed(
    store: Store,
    lines: list[Line],
    given: int,
    now_ms: int,
    settings: Settings,
    outside: Tombstones,
    progress: Progress,
) -> Restored:
    await store.start()
    try:
        done = await renew(store, lines, given=given, now_ms=now_ms, actor=ACTOR, tell=outside)
        async with store.read() as session:
            verifier = Verifier(session, store.engine)
            await verifier.run(lambda n: progress("verifying", n, 0))
            await verifier.remembered(lines)
            findings = list(verifier.found)
            key = _at_hand(settings)
            if key is not None:
                await verifier.secrets(key)
        fits = None if key is None else len(verifier.found) == len(findings)
    finally:
        await store.close()
    return Restored(renewed=done, findings=findings, key_fits=fits)


def _at_hand(settings: Settings) -> MasterKey | None:
    try:
        return master_key(settings, make=False)
    except KeyProblem:
        return None


def _put_in_place(copied: pathlib.Path, place: pathlib.Path) -> str | None:
    """Move the restored database in; what was there before stays beside it."""
    before = None
    if place.exists():
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        kept = place.with_name(f"{place.name}.before-{stamp}")
        kept.hardlink_to(place)
        before = str(kept)
        for suffix in ("-wal", "-shm"):
            left = place.with_name(place.name + suffix)
            if left.exists():
                left.rename(kept.with_name(kept.name + suffix))
    copied.replace(place)
    sync_folder(place.parent)
    return before


async def new_epoch(
    settings: Settings,
    *,
    tombstones: Iterable[pathlib.Path],
    without: bool = False,
    progress: Progress,
) -> Restored:
    """Begin a new epoch in a database that came back by other means, such as pg_basebackup.

    May be repeated. Every server must be stopped. Raises `StoreError`.
    """
    now_ms = time.time_ns() // 1_000_000
    store = open_store(settings.store)
    if isinstance(store, SqliteStore) and not online_backup.alone(store.path):
        raise StoreError(f"{store.path} is open in another process: stop every server first")
    await store.start()
    try:
        async with store.read() as session:
            database = await identify_database(session)
    finally:
        await store.close()
    lines = remembered(None, tombstones, settings, without, database)
    outside = Tombstones(backup_folder(settings), database)
    _carry_over(outside, lines)
    mark = outside.mark()
    given = mark.pid if mark is not None else 0
    return await _renewed(
        open_store(settings.store), lines, given, now_ms, settings, outside, progress
    )
