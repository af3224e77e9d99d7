"""`python -m onymous` is the command line."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from onymous.later import hollow, module

if TYPE_CHECKING:
    from onymous import early
else:
    early = module("onymous.early")

#: commands that must start fast: they are begun without the command line where they are plain
FAST = ("serve", "work")
#: file of `onymous.commands` -> the commands in it, for which only that file is imported: all files
#: take longer than most commands do. What is not here is left to the whole command line
FILES = {
    "backups": ("backup", "backups", "restore", "verify"),
    "bench": ("bench",),
    "check": ("check",),
    "configuration": ("config", "export", "rollback"),
    "conflicts": ("conflicts",),
    "credentials": ("credentials",),
    "demo": ("demo",),
    "diagnostics": ("diagnostics",),
    "doctor": ("doctor",),
    "exports": ("export-events",),
    "identity": ("explain", "history", "resolve"),
    "imports": ("import",),
    "jobs": ("jobs",),
    "keys": ("keys",),
    "people": ("people",),
    "quarantine": ("quarantine",),
    "rehearsals": ("rehearsals",),
    "rehearse": ("rehearse",),
    "review": ("review",),
    "scopes": ("scopes",),
    "serve": ("serve", "work"),
    "soak": ("soak",),
    "tenants": ("apply", "init"),
    "undoing": ("undo",),
    "worlds": ("play", "score", "simulate", "strategies"),
}
#: of libraries a server uses: what the package brings beside the parts that are used
HARDLY_USED: dict[str, dict[str, str]] = {
    "uvicorn": {"Config": "uvicorn.config"},
    "prometheus_client": {},
    "logging.config": {},
}


def _end(number: int, frame: object) -> None:
    os._exit(128 + number)


def run() -> None:
    """Run the command that was asked for."""
    if os.getpid() == 1:
        # a container's first process: without a handler of its own the kernel lets it live on;
        # so this comes before all imports that take time
        signal.signal(signal.SIGTERM, _end)
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in FAST:
        gc.disable()  # until it runs: importing makes a great deal, and no garbage
        early.begin(sys.argv[2:], os.environ)
        for library, known in HARDLY_USED.items():
            hollow(library, **known)
        starting = importlib.import_module("onymous.starting")
        line = starting.read(name, sys.argv[2:])
        if line is not None:
            sys.exit(starting.run(line))
        gc.enable()
    found = [f"commands.{file}" for file, words in FILES.items() if name in words]
    importlib.import_module(f"onymous.{found[0] if found else 'cli'}")
    importlib.import_module("onymous.commands.common").app()


if __name__ == "__main__":
    run()
