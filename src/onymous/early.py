"""What a server does while its own code is still being imported: SQLite reads its log again.

After a crash under load the log is long and reading it takes a good part of the second in which a
server is to answer. The thread that reads needs neither the interpreter nor anything of ours.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from onymous.settings import SettingError, load_here
from onymous.store import wal

#: who reads, and what keeps the log known until the server has opened the folder
_reading: list[threading.Thread] = []
_held: list[Any] = []


def begin(arguments: Sequence[str], environ: Mapping[str, str]) -> threading.Thread | None:
    """Read the log of the folder that will be served, beside the caller; None if there is none.

    `arguments` are those of the command. Whatever is wrong with them or the folder is left to the
    command to say.
    """
    try:
        folder = load_here({"store": _flag(arguments)}, environ).folder
    except SettingError:
        return None
    if folder is None or not wal.is_long(folder):
        return None
    thread = threading.Thread(
        target=lambda: _held.append(wal.read(folder)), name="onymous-early", daemon=True
    )
    _reading.append(thread)
    thread.start()
    return thread


def end() -> None:
    """Let go of the folder: the server has opened it."""
    while _reading:
        _reading.pop().join()
    while _held:
        db = _held.pop()
        if db is not None:
            db.close()


def _flag(arguments: Sequence[str]) -> str | None:
    for at, argument in enumerate(arguments):
        if argument.startswith("--store="):
            return argument.removeprefix("--store=")
        if argument == "--store":
            return arguments[at + 1] if at + 1 < len(arguments) else None
    return None
