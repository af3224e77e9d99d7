"""Folders for people's data that must not outlive the command, also where it is killed."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

PREFIX = "onymous-rehearsal-"
#: files that let a killed planning go on; a day later nobody can read them (`resuming`)
PLANS, PLANS_S = "onymous-plan-", 86_400
LOCK = "in-use"


@contextlib.contextmanager
def throwaway() -> Iterator[str]:
    """Return a new folder that goes with the block; those of killed commands go first."""
    sweep()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX))
        new = pathlib.Path(folder, f"{LOCK}.new")
        mine = stack.enter_context(new.open("w"))
        fcntl.flock(mine, fcntl.LOCK_EX)
        new.rename(new.with_name(LOCK))  # who sweeps sees it with its lock held
        yield folder


def sweep() -> None:
    """Remove folders whose command is gone: nobody holds their lock; and plans nobody needs."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (folder / LOCK).open("r+") as theirs:
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    for plan in pathlib.Path(tempfile.gettempdir()).glob(f"{PLANS}*"):
        with contextlib.suppress(OSError):
            if time.time() - plan.stat().st_mtime > PLANS_S:
                plan.unlink()
