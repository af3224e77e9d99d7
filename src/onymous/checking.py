"""`onymous verify`: a served folder, a backup or a PostgreSQL database, to its last row."""

from __future__ import annotations

import pathlib

import apsw
import msgspec

from onymous.app import backup_folder, master_key, open_store
from onymous.backups import MANIFEST, Progress, read, verify_backup
from onymous.crypto import KeyProblem
from onymous.flows.epochs import identify_database
from onymous.flows.jobs import MOST_TRIES
from onymous.flows.tombstones import OutsideProblem, Tombstones, read_lines
from onymous.flows.verifying import RESTORE, Finding, Verifier
from onymous.settings import Settings
from onymous.store import backup_sql, online_backup, schema, sql
from onymous.store.port import Session, StoreError
from onymous.store.sqlite import SqliteStore
from onymous.store.sqlite_session import SqliteSession


class Verified(msgspec.Struct):
    """What was looked at, and what is wrong."""

    counts: dict[str, int]
    findings: list[Finding]


async def verify(what: str | None, settings: Settings, retry: bool, progress: Progress) -> Verified:
    """Check; changes nothing but, with `retry`, jobs that were given up. Raises `StoreError`."""
    if what is not None and (pathlib.Path(what) / MANIFEST).exists():
        backup = read(pathlib.Path(what))
        found = await verify_backup(backup, progress)
        return Verified({"profiles": backup.manifest.profiles}, found)
    store = open_store(settings.store)
    if retry:
        await store.start()
        async with store.write("jobs.retry") as tx:
            await tx.run(backup_sql.JOBS_RETRY, MOST_TRIES)
        await store.close()
    if isinstance(store, SqliteStore):
        return await _folder(store.path, settings, progress)
    await store.start()
    try:
        async with store.read() as session:
            return await _whole(session, store.engine, settings, progress)
    finally:
        await store.close()


async def _folder(path: pathlib.Path, settings: Settings, progress: Progress) -> Verified:
    """Check a folder, served or not, without migrating it."""
    db = online_backup.reading(path)
    try:
        progress("checking pages", 0, 1)
        broken = online_backup.broken(db)
        progress("checking pages", 1, 1)
        if broken:
            return Verified({}, [Finding(line, RESTORE) for line in broken])
        return await _whole(SqliteSession(db), "sqlite", settings, progress)
    except apsw.Error as error:
        what = f"the database cannot be read ({type(error).__name__})"
        return Verified({}, [Finding(what, RESTORE)])
    finally:
        db.close()


async def _whole(session: Session, engine: str, settings: Settings, progress: Progress) -> Verified:
    rows = await session.rows(sql.META_GET, "schema_version")
    version = int(bytes(rows[0][0])) if rows else 0
    if version != schema.SCHEMA_VERSION:
        raise StoreError(
            f"the database has schema version {version}, this is {schema.SCHEMA_VERSION}: verify"
            " it with the version that serves it"
        )
    verifier = Verifier(session, engine)
    await verifier.run(lambda n: progress("records", n, 0))
    database = await identify_database(session)
    outside = Tombstones(backup_folder(settings), database)
    if outside.path.exists():
        try:
            await verifier.remembered(read_lines(outside.path, database))
        except OutsideProblem as error:
            verifier.found.append(Finding(str(error), "without it a restore brings people back"))
    try:
        key = master_key(settings, make=False)
    except KeyProblem as error:
        if await session.rows(backup_sql.SEALED_ANY):
            verifier.found.append(Finding(str(error), "docs/operate/keys.md"))
    else:
        await verifier.secrets(key)
    return Verified(verifier.counts, verifier.found)
