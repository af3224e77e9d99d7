"""A folder that is watched: every file that appears in it is done once, then moved away."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Awaitable, Callable

from onymous.commands.common import errors
from onymous.commands.rejects import SUFFIX
from onymous.readers import ENDINGS, FileProblem
from onymous.rules.errors import MappingInvalid

#: seconds a file must have stayed the same: whoever copies it in is done
QUIET_S = 2.0
#: seconds between two looks
PAUSE_S = 0.5

One = Callable[[pathlib.Path], Awaitable[None]]


async def watch_folder(folder: pathlib.Path, one: One) -> None:
    """Do every file that appears in a folder, then move it to `done` or `failed` in there."""
    if not folder.is_dir():
        raise FileProblem(f"{folder} is not a folder")
    known: dict[pathlib.Path, tuple[int, int, float]] = {}
    while True:
        for path in waiting(folder, known):
            try:
                await one(path)
                place = "done"
            except (FileProblem, MappingInvalid) as error:
                errors.print(f"[red]{error}[/]", highlight=False)
                place = "failed"
            _move(path, folder / place)
        await asyncio.sleep(PAUSE_S)


def waiting(
    folder: pathlib.Path, known: dict[pathlib.Path, tuple[int, int, float]]
) -> list[pathlib.Path]:
    """Return files that are complete, by name: nothing changed in them for `QUIET_S`.

    Other names are left alone: what is still being copied often has one of its own.
    """
    out, now = [], time.monotonic()
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if name.startswith((".", "~")) or name.endswith(SUFFIX) or not name.endswith(ENDINGS):
            continue
        try:
            if path.is_symlink() or not path.is_file():
                continue
            stat = path.stat()
        except OSError:
            continue
        size, changed, since = known.get(path, (-1, 0, now))
        if (size, changed) != (stat.st_size, stat.st_mtime_ns):
            known[path] = (stat.st_size, stat.st_mtime_ns, now)
        elif now - since >= QUIET_S:
            known.pop(path)
            out.append(path)
    return out


def _move(path: pathlib.Path, place: pathlib.Path) -> None:
    """Move a file and its rejects; a name that is taken already gets a number."""
    place.mkdir(exist_ok=True)
    number, name = 0, path.name
    while (place / name).exists() or (place / (name + SUFFIX)).exists():
        number += 1
        name = f"{number}.{path.name}"
    rejects = path.with_name(path.name + SUFFIX)
    if rejects.exists():
        rejects.rename(place / (name + SUFFIX))
    path.rename(place / name)
