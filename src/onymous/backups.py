"""Backups of a folder while it is served: made whole or not at all, checked, listed, pruned."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw
import msgspec

import onymous
from onymous.app import backup_folder, master_key
from onymous.crypto import KeyProblem, MasterKey
from onymous.flows.epochs import how_far, identify_database
from onymous.flows.tombstones import Tombstones, sync_folder
from onymous.flows.verifying import Finding, Verifier
from onymous.settings import SettingError, Settings
from onymous.store import backup_sql, online_backup, sql
from onymous.store.port import StoreError
from onymous.store.sqlite_session import SqliteSession

DATABASE, MANIFEST = "onymous.db", online_backup.MANIFEST
#: folders of backups that are not whole begin with this
PARTIAL = ".partial-"
FORMAT = 1
_CHUNK = 1 << 22
Progress = Callable[[str, int, int], None]


class Manifest(msgspec.Struct, kw_only=True):
    """What a backup says of itself."""

    format: int
    name: str
    made_ms: int
    #: of Onymous
    version: str
    schema_version: int
    #: what the database is recognised by, also after restores
    database: str
    #: first number of its epoch, highest profile and ledger numbers
    epoch: int
    pid: int
    ledger: int
    profiles: int
    bytes: int
    sha256: str
    #: the master key its secrets are sealed with, where it was at hand; never the key itself
    master_key: str | None
    #: where erasures after this backup are remembered; a mere name: beside the backup
    tombstones: str


class Backup(msgspec.Struct):
    """A whole backup in a folder."""

    path: pathlib.Path
    manifest: Manifest


_manifest = msgspec.json.Decoder(Manifest).decode


def folder_of(settings: Settings) -> pathlib.Path:
    """Return the folder of the embedded engine; raises `SettingError` for another one."""
    if settings.folder is None:
        raise SettingError(
            "PostgreSQL is backed up with its own tools (pg_basebackup, pgBackRest):"
            " see docs/operate/backup.md; afterwards `onymous restore --new-epoch`"
        )
    return settings.folder


def make(settings: Settings, into: pathlib.Path, progress: Progress) -> Backup:
    """Back a folder up while it is served; the backup is checked before it counts.

    Whatever happens on the way, `into` holds whole backups only. Raises `StoreError`.
    """
    source = folder_of(settings) / DATABASE
    now_ms = time.time_ns() // 1_000_000
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ms / 1000))
    name = f"onymous-{stamp}-{secrets.token_hex(3)}"
    try:
        into.mkdir(parents=True, exist_ok=True)
        sweep(into)
        with _partial(into, name) as work:
            target = work / DATABASE
            online_backup.copy(source, target, name, lambda n, m: progress("copying", n, m))
            manifest = asyncio.run(_described(settings, target, name, now_ms))
            outside = _outside(settings, manifest.database)
            beside = outside.parent.resolve() == into.resolve()
            manifest.tombstones = outside.name if beside else str(outside.resolve())
            _check_copy(target, progress)
            manifest.bytes = target.stat().st_size
            manifest.sha256 = digest(target, lambda n, m: progress("checksum", n, m))
            _write(work / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
            _sync(target)
            sync_folder(work)
            work.rename(into / name)
        sync_folder(into)
    except OSError as error:
        raise StoreError(f"no backup was made in {into}: {error.strerror}") from None
    return Backup(into / name, manifest)


@contextmanager
def _partial(into: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A folder for a backup under way, locked by its process; gone unless it was renamed."""
    work = into / f"{PARTIAL}{name}"
    work.mkdir(mode=0o700)
    lock = into / f"{PARTIAL}{name}.lock"
    with lock.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink(missing_ok=True)


def sweep(into: pathlib.Path) -> None:
    """Remove what processes that were killed left behind."""
    for lock in into.glob(f"{PARTIAL}*.lock"):
        with contextlib.suppress(OSError), lock.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    for work in into.glob(f"{PARTIAL}*"):
        orphan = work.is_dir() and not work.with_name(work.name + ".lock").exists()
        if orphan and time.time() - work.stat().st_mtime > 60:
            shutil.rmtree(work, ignore_errors=True)


async def _described(settings: Settings, target: pathlib.Path, name: str, now_ms: int) -> Manifest:
    db = online_backup.look(target)
    try:
        session = SqliteSession(db)
        database = await identify_database(session)
        far = await how_far(session, now_ms)
        count = (await session.rows(backup_sql.PROFILES_COUNT))[0][0]
        schema = int((await session.rows(sql.META_GET, "schema_version"))[0][0])
        key = await _opening_key(settings, session)
    finally:
        db.close()
    return Manifest(
        format=FORMAT,
        name=name,
        made_ms=now_ms,
        version=getattr(onymous, "__version__", ""),
        schema_version=schema,
        database=database,
        epoch=far.epoch,
        pid=far.pid,
        ledger=far.ledger,
        profiles=count,
        bytes=0,
        sha256="",
        master_key=key.id if key is not None else None,
        tombstones="",
    )


def _outside(settings: Settings, database: str) -> pathlib.Path:
    """Return where erasures are remembered; the file is there afterwards: a restore asks for it."""
    outside = Tombstones(backup_folder(settings), database)
    outside.append(())
    return outside.path


async def _opening_key(settings: Settings, session: SqliteSession) -> MasterKey | None:
    """Return the master key if it is at hand and opens the secrets."""
    with contextlib.suppress(KeyProblem, OSError):
        key = master_key(settings, make=False)
        verifier = Verifier(session, "sqlite")
        await verifier.secrets(key)
        return None if verifier.found else key
    return None


def _check_copy(target: pathlib.Path, progress: Progress) -> None:
    progress("checking", 0, 1)
    db = online_backup.look(target)
    try:
        broken = online_backup.broken(db)
    finally:
        db.close()
    progress("checking", 1, 1)
    if broken:
        raise StoreError(
            f"the database is damaged ({broken[0]}): this backup was thrown away; restore the"
            " one before it"
        )


def digest(path: pathlib.Path, progress: Callable[[int, int], None]) -> str:
    """Return the SHA-256 of a file."""
    size, done, sum_ = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            sum_.update(piece)
            done += len(piece)
            progress(done, size)
    return sum_.hexdigest()


def _write(path: pathlib.Path, text: bytes) -> None:
    path.write_bytes(text + b"\n")
    _sync(path)


def _sync(path: pathlib.Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


# -- what there is ------------------------------------------------------------------------------


def read(path: pathlib.Path) -> Backup:
    """Return the backup in a folder; raises `StoreError` if there is none, or a newer one."""
    try:
        manifest = _manifest((path / MANIFEST).read_bytes())
    except OSError:
        raise StoreError(f"{path} holds no backup: `onymous backups` lists them") from None
    except msgspec.DecodeError:
        raise StoreError(f"{path / MANIFEST} is damaged: take another backup") from None
    if manifest.format > FORMAT:
        raise StoreError(f"{path} was made by a newer version of Onymous: upgrade first")
    return Backup(path, manifest)


def listed(folder: pathlib.Path) -> list[Backup]:
    """Return the whole backups of a folder, oldest first."""
    out = []
    for path in folder.glob("onymous-*"):
        with contextlib.suppress(StoreError):
            out.append(read(path))
    return sorted(out, key=lambda b: (b.manifest.made_ms, b.manifest.name))


def superfluous(backups: list[Backup], keep_days: int, keep_last: int, now_ms: int) -> list[Backup]:
    """Return what retention gives up: older than `keep_days` and not among the newest ones.

    Each database's backups count apart.
    """
    out = []
    for database in {b.manifest.database for b in backups}:
        mine = [b for b in backups if b.manifest.database == database]
        old = mine[: max(0, len(mine) - keep_last)]
        out += [b for b in old if b.manifest.made_ms < now_ms - keep_days * 86_400_000]
    return sorted(out, key=lambda b: b.manifest.made_ms)


def prune(folder: pathlib.Path, gone: list[Backup]) -> None:
    """Remove backups; none is ever half there."""
    for backup in gone:
        away = folder / f"{PARTIAL}{backup.path.name}"
        backup.path.rename(away)
        shutil.rmtree(away)
    if folder.exists():
        sweep(folder)


async def verify_backup(backup: Backup, progress: Progress) -> list[Finding]:
    """Check a backup to its last row, without changing it."""
    todo = "take another backup; this one cannot be relied on"
    path, manifest = backup.path / DATABASE, backup.manifest
    if not path.exists():
        return [Finding(f"{path} is missing", todo)]
    found = digest(path, lambda n, m: progress("checksum", n, m))
    if found != manifest.sha256:
        return [Finding(f"{path} is not what was written: its checksum differs", todo)]
    db = online_backup.look(path)
    try:
        broken = online_backup.broken(db)
        if broken:
            return [Finding(line, todo) for line in broken]
        verifier = Verifier(SqliteSession(db), "sqlite")
        return await verifier.run(lambda n: progress("records", n, manifest.profiles))
    except apsw.Error as error:
        return [Finding(f"{path} cannot be read ({type(error).__name__})", todo)]
    finally:
        db.close()
