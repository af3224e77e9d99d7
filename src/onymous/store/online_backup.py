"""Copies of the embedded engine's database while it is served (SQLite's online backup)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import apsw

from onymous.store import backup_sql, sql
from onymous.store.port import SchemaMismatch, StoreError

#: pages copied between two reports
PAGES = 2_048
#: a database with this row in `meta` is a backup: it cannot be served
MARK = "backup"
#: a file of this name says the same of its folder, without opening anything
MANIFEST = "manifest.json"
NOT_SERVED = "this is a backup, not a database to serve: use `onymous restore`"
#: a file of this name in a folder says that a restore is under way, or broke off
UNFINISHED = "restore-unfinished"
Progress = Callable[[int, int], None]


def copy(source: pathlib.Path, target: pathlib.Path, name: str, progress: Progress) -> None:
    """Copy a database as it is at this moment; requests go on meanwhile.

    One snapshot is read to its end: writers append to the WAL and never make it start over. The
    copy is marked as a backup, so that it is never served by mistake. Raises `StoreError`.
    """
    if not source.exists():
        raise StoreError(f"there is no database at {source}")
    try:
        db = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
        out = apsw.Connection(str(target))
        try:
            db.set_busy_timeout(10_000)
            db.execute("BEGIN")
            if not db.execute(sql.META_GET, ("schema_version",)).fetchall():
                raise SchemaMismatch(f"{source} is no database of Onymous")
            _pages(db, out, progress)
            out.execute("PRAGMA journal_mode = DELETE")
            out.execute("PRAGMA synchronous = FULL")
            out.execute(sql.META_PUT, (MARK, name.encode()))
        finally:
            out.close()
            db.close()
    except apsw.Error as error:
        raise StoreError(f"the copy failed ({type(error).__name__}: {error})") from None


def _pages(db: apsw.Connection, out: apsw.Connection, progress: Progress) -> None:
    with out.backup("main", db, "main") as work:
        while not work.done:
            work.step(PAGES)
            progress(work.page_count - work.remaining, work.page_count)


def refuse_unserved(folder: pathlib.Path) -> None:
    """Raise `StoreError` for a folder that must not be served."""
    if (folder / UNFINISHED).exists():
        raise StoreError("a restore into this folder did not finish: run it again")
    if (folder / MANIFEST).exists():
        raise StoreError(NOT_SERVED)


def unmark(path: pathlib.Path) -> None:
    """Make a copy of a backup a database again."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.execute(backup_sql.META_DROP, (MARK,))
    finally:
        db.close()


def is_backup(db: apsw.Connection) -> bool:
    """Return whether an open database is a backup."""
    return bool(db.execute(sql.META_GET, (MARK,)).fetchall())


def look(path: pathlib.Path) -> apsw.Connection:
    """Open a file that nobody writes, without changing anything beside it."""
    if not path.exists():
        raise StoreError(f"there is no database at {path}")
    uri = f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}?immutable=1"
    return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def reading(path: pathlib.Path) -> apsw.Connection:
    """Open a database that may be served meanwhile, at one snapshot of it."""
    if not path.exists():
        raise StoreError(f"there is no database at {path}")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        db.set_busy_timeout(10_000)
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM sqlite_schema")
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__})") from None
    return db


def broken(db: apsw.Connection, most: int = 20) -> list[str]:
    """Return what SQLite itself finds wrong with a database; nothing if it is whole."""
    try:
        rows = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({most})")]
    except apsw.Error as error:
        return [f"{type(error).__name__}: {error}"]
    return [] if rows == ["ok"] else rows


def alone(path: pathlib.Path) -> bool:
    """Return whether no process has a database open; its WAL is then in its file."""
    if not path.exists():
        return True
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error:
        return False
    try:
        db.execute("PRAGMA journal_mode = DELETE")
        return not path.with_name(path.name + "-wal").exists()
    except apsw.BusyError:
        return False
    except apsw.Error:
        return True  # not a database any more: nobody can be serving it
    finally:
        db.close()
