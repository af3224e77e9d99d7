"""Reading the log of a folder that nobody serves yet, before anything else is ready."""

from __future__ import annotations

import pathlib

import apsw

#: enough to make SQLite read its log
_LOOK = "SELECT 1 FROM sqlite_schema LIMIT 1"


def is_long(folder: pathlib.Path) -> bool:
    """Return whether a folder has a log that is not empty."""
    log = folder / "onymous.db-wal"
    return log.exists() and log.stat().st_size > 0


def read(folder: pathlib.Path) -> apsw.Connection | None:
    """Read the log again where that is due; None where the folder cannot be read.

    What was read stays known while the connection, or any other, is open.
    """
    try:
        db = apsw.Connection(str(folder / "onymous.db"), flags=apsw.SQLITE_OPEN_READWRITE)
        db.execute(_LOOK).fetchall()
    except apsw.Error:
        return None
    return db
